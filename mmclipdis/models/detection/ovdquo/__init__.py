"""OV-DQUO: a DETR whose classes come from a frozen CLIP alone."""

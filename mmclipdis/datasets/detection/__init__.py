"""Open-vocabulary detection data: OV-COCO, OV-LVIS."""

"""OV-DQUO: a DINO detector whose queries carry the text of a class; a frozen CLIP names boxes."""

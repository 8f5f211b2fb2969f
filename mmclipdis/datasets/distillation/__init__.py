"""Images, crops and panoptic regions for DeCLIP's distillation."""

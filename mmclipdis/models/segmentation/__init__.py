"""mmclipdis.models.segmentation."""

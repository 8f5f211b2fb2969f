"""mmclipdis.shapes."""

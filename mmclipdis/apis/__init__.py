"""mmclipdis.apis."""

"""mmclipdis.clip."""

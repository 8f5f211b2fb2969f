"""mmclipdis.engine."""

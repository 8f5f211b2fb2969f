"""mmclipdis.losses."""

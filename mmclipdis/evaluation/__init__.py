"""mmclipdis.evaluation."""

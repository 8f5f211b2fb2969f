"""mmclipdis.datasets."""

"""mmclipdis.models."""

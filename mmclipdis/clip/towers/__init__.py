"""Image towers: blocks, attention and readout of the last block, positions, dense features."""

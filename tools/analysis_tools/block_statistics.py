#!/usr/bin/env python
"""Norm, entropy, maximum and channel means of residual, attention and FFN, block by block.

ClearCLIP (ECCV 2024) draws these of CLIP's blocks in its figures 2 to 5. The package's tiny CLIP
on the test pictures of ShapeScenes::

    python tools/analysis_tools/block_statistics.py --config configs/shapes/clip.py

OpenAI's CLIP on a folder of photos::

    python tools/analysis_tools/block_statistics.py data/coco/val2017 --limit 500 \\
        --arch ViT-B-16-quickgelu --checkpoint openai --out work_dirs/blocks_vitb16

A block is ``X -> U = X + A -> U + F``. Of the patch tokens of the residual ``X``, the attention
output ``A``, the feed-forward output ``F`` and their sum, with ``x`` a token of ``D`` channels:

    norm        mean over tokens of |x|_2
    entropy     mean over tokens of -sum_c p_c log p_c / log D, with p_c = x_c^2 / |x|^2
    maximum     the largest |x_c| of an image
    channel     mean over tokens of x_c, for each channel c

each then the mean over images. The paper's text does not spell its definitions out; these are
ours. Writes ``blocks.json`` (all of it), ``blocks.csv`` (without the channels) and ``blocks.png``.
"""

from __future__ import annotations

from mmclipdis.apis.block_statistics import block_statistics
from mmclipdis.apis.cli import run

if __name__ == "__main__":
    run(block_statistics, None)

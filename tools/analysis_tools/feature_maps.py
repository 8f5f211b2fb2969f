#!/usr/bin/env python
"""What a patch attends to and what it is like, model by model, layer by layer, on any photo.

The package's tiny CLIP, read out in two ways, for two pixels of a picture::

    python tools/analysis_tools/feature_maps.py photo.png --anchor 120,80 --anchor 40,60 \\
        --readout vanilla declip --out maps.png

CLIP beside DeCLIP and its teacher::

    python tools/analysis_tools/feature_maps.py photo.jpg --anchor 320,200 \\
        --arch EVA02-B-16 --checkpoint merged2b_s8b_b131k DeCLIP_evab_dinov2B_csa_560_0.25_seg.pt \\
        --readout vanilla declip --vfm dinov2-B=dinov2_vitb14_reg4_pretrain.pth --size 560
"""

from __future__ import annotations

from mmclipdis.apis.cli import run
from mmclipdis.apis.feature_maps import feature_maps

if __name__ == "__main__":
    run(feature_maps, None)

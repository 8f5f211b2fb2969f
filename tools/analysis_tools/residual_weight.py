#!/usr/bin/env python
"""mIoU over the weight alpha of the last block's residual, as ClearCLIP draws it in its figure 6.

ClearCLIP on ShapeScenes, eleven alphas from 0 to 1::

    python tools/analysis_tools/residual_weight.py configs/shapes/clearclip.py

Others, for a config with weights and data::

    python tools/analysis_tools/residual_weight.py configs/clearclip/clearclip_vitb16_voc20.py \\
        --weights 0 0.25 0.5 1 --out work_dirs/alpha

With ``X`` the input of the last block and ``A`` its attention output, ``U = A + alpha X``; 0 is
``residual='none'``, 1 is ``residual='token'``. A feed-forward branch follows if the readout of the
config has one. One pass over the data for all alphas: the parts are computed once. Writes
``residual_weight.json`` (all metrics) and ``residual_weight.png``.
"""

from __future__ import annotations

from mmclipdis.apis.cli import run
from mmclipdis.apis.residual_weight import residual_weight

if __name__ == "__main__":
    run(residual_weight, None)

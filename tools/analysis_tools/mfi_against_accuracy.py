#!/usr/bin/env python
"""How alike class texts are against mAP and mIoU, a dot a model: DCLIP's figures 7 and 11.

The measured table of this repository, whose rows have all three numbers::

    python tools/analysis_tools/mfi_against_accuracy.py results/shapes_dclip.json

Trainings of your own, each tested into its work folder; the mean cosine is measured of the newest
checkpoint in it::

    python tools/train.py configs/shapes/dclip.py --work-dir work_dirs/mfi
    python tools/test.py configs/shapes/dclip.py work_dirs/mfi/epoch_10.pth \\
        --work-dir work_dirs/mfi/labels
    python tools/test.py configs/shapes/dclip_segment.py --work-dir work_dirs/mfi/segmentation \\
        --cfg-options model.decode_head.projector=work_dirs/mfi/epoch_10.pth
    python tools/analysis_tools/mfi_against_accuracy.py work_dirs/mfi work_dirs/asl \\
        --classes ShapeScenesDataset

The mean cosine is DCLIP's measure of mutual feature information, raw: ``(sum_ij S_ij - M) /
(M (M - 1))`` of the ``M`` positive class texts, projected if the model has projectors. Writes
``mfi_against_accuracy.json`` and ``mfi_against_accuracy.png``.
"""

from __future__ import annotations

from mmclipdis.apis.cli import run
from mmclipdis.apis.mfi_against_accuracy import mfi_against_accuracy

if __name__ == "__main__":
    run(mfi_against_accuracy, None)

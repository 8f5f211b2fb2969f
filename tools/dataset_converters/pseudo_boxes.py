#!/usr/bin/env python
"""Make a file of boxes of things without a name, which OV-DQUO learns from, from proposals.

From those of a trained F-ViT, whose boxes of base classes are the known ones::

    python tools/dataset_converters/pseudo_boxes.py \\
        configs/fvit/fvit_clipself_vitb16_ov-coco.py work_dirs/.../epoch_3.pth \\
        --out data/coco/pseudo_boxes.json

or from any class-agnostic proposals, a json list of ``image_id``, ``bbox`` and ``score``::

    python tools/dataset_converters/pseudo_boxes.py configs/... \\
        --proposals proposals.json --out data/coco/pseudo_boxes.json

A run that was broken off goes on where it was when the same command is given again. Boxes of novel
classes are never read. docs/datasets.md says what the filters and the two kinds of weights are.
"""

from __future__ import annotations

from mmclipdis.apis.cli import run
from mmclipdis.apis.pseudo_boxes import pseudo_boxes

if __name__ == "__main__":
    run(pseudo_boxes, None)

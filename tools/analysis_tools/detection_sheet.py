#!/usr/bin/env python
"""Draw what detectors find beside the true boxes, a photo of the test data a row.

Two detectors on four photos of ShapeScenes::

    python tools/analysis_tools/detection_sheet.py \\
        configs/shapes/fvit.py work_dirs/fvit/iter_700.pth \\
        configs/shapes/ovdquo.py work_dirs/ovdquo/iter_900.pth --out work_dirs/sheet.png

Of each detector the surest boxes are drawn, as many as are true in the photo, since scores of two
detectors cannot be compared; ``--score`` draws those above a score instead.
"""

from __future__ import annotations

from mmclipdis.apis.cli import run
from mmclipdis.apis.detection_sheet import detection_sheet

if __name__ == "__main__":
    run(detection_sheet, None)

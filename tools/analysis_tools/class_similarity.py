#!/usr/bin/env python
"""How alike the text features of classes are, before and after DCLIP's projection.

The package's tiny CLIP on a list of names::

    python tools/analysis_tools/class_similarity.py "red circle, blue circle, green square"

OpenAI's CLIP on VOC's classes, and what trained projectors make of them::

    python tools/analysis_tools/class_similarity.py voc20 --arch RN101-quickgelu \\
        --checkpoint openai --projectors work_dirs/dclip/epoch_50.pth --out work_dirs/voc20

Writes ``similarity.json`` (raw cosines: mean, spread, percentiles, the most similar pairs) and
``similarity.png`` (heat maps, histograms, the most similar pairs).
"""

from __future__ import annotations

from mmclipdis.apis.class_similarity import class_similarity
from mmclipdis.apis.cli import run

if __name__ == "__main__":
    run(class_similarity, None)

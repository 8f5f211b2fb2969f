"""Pictures: label maps in colour, sheets that compare methods; importing it registers one."""

from mmclipdis.compat.optional import HAS_MMDET, HAS_MMSEG, absent
from mmclipdis.visualization.sheet import (
    NO_COLOUR,
    blend,
    class_palette,
    colour_labels,
    compose_sheet,
    draw_sheet,
)

__all__ = [
    "NO_COLOUR",
    "DetectionVisualizer",
    "VocabularyVisualizer",
    "blend",
    "class_palette",
    "colour_labels",
    "compose_sheet",
    "draw_sheet",
]

if HAS_MMDET:
    from mmclipdis.visualization.det_visualizer import DetectionVisualizer
if HAS_MMSEG:
    from mmclipdis.visualization.seg_visualizer import VocabularyVisualizer
if not (HAS_MMSEG and HAS_MMDET):
    __getattr__ = absent(__name__, ("VocabularyVisualizer",), detection=("DetectionVisualizer",))

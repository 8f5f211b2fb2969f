"""Pictures: label maps in colour, sheets that compare methods."""

from mmclipdis.visualization.sheet import (
    blend,
    class_palette,
    colour_labels,
    compose_sheet,
    draw_sheet,
)

__all__ = ["blend", "class_palette", "colour_labels", "compose_sheet", "draw_sheet"]

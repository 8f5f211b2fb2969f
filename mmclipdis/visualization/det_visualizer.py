"""mmdet's visualizer for boxes of unknown class, and for configs that give it no name."""

from __future__ import annotations

import uuid
from typing import Any

from mmdet.registry import VISUALIZERS
from mmdet.visualization import DetLocalVisualizer
from mmdet.visualization.palette import get_palette

#: Name and colour of boxes of unknown class.
UNKNOWN, GREY = "unknown", (128, 128, 128)


@VISUALIZERS.register_module(name="DetLocalVisualizer", force=True)
class UnknownBoxVisualizer(DetLocalVisualizer):
    """mmdet's ``DetLocalVisualizer``, which takes the label -1 of pseudo boxes for the last class.

    ``browse_dataset.py`` of mmdet draws training data with it.
    """

    def _draw_instances(self, image: Any, instances: Any, classes: Any, palette: Any) -> Any:
        if classes is not None and "labels" in instances and bool((instances.labels < 0).any()):
            count = len(classes)
            instances = instances.clone()
            instances.labels = instances.labels.masked_fill(instances.labels < 0, count)
            classes = [*classes, UNKNOWN]
            palette = [*get_palette(palette, count)[:count], GREY]
        return super()._draw_instances(image, instances, classes, palette)


@VISUALIZERS.register_module()
class DetectionVisualizer(UnknownBoxVisualizer):
    """``DetLocalVisualizer`` that needs no name.

    mmengine keeps visualizers by name, and a second run in a process would take the first's;
    mmdet's ``browse_dataset.py`` builds what the config says, which thus must do without one.
    """

    @classmethod
    def get_instance(cls, name: str | None = None, **kwargs: Any) -> DetectionVisualizer:
        """As mmengine's; without a name it is a new one, which no other run has taken."""
        made: DetectionVisualizer = super().get_instance(
            name or f"visualizer_{uuid.uuid4().hex}", **kwargs
        )
        return made

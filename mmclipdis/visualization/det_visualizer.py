"""mmdet's visualizer for configs that give it no name."""

from __future__ import annotations

import uuid
from typing import Any

from mmdet.registry import VISUALIZERS
from mmdet.visualization import DetLocalVisualizer


@VISUALIZERS.register_module()
class DetectionVisualizer(DetLocalVisualizer):
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

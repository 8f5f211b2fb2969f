"""What is checked and set right of the data for validation and testing before a run begins."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from mmclipdis.engine.moved_pixels import check_loops
from mmclipdis.engine.photos_alone import take_photos_alone


@HOOKS.register_module()
class DataGuard(Hook):
    """For configs without ``VocabularyHook``, which does the same."""

    priority = "VERY_HIGH"

    def before_run(self, runner: Any) -> None:
        """Refuse pipelines that move pixels; take photos one at a time where a model has to."""
        check_loops(runner)
        take_photos_alone(runner)

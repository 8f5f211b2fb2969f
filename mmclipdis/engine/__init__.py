"""Hooks, train loops and checkpoint files."""

from __future__ import annotations

from mmclipdis.engine.checkpoint_hook import ExactCheckpointHook
from mmclipdis.engine.checkpoint_io import (
    UnsafeCheckpointError,
    read_checkpoint,
    write_checkpoint,
)
from mmclipdis.engine.configs import read_config_file
from mmclipdis.engine.cost_hook import CostHook
from mmclipdis.engine.data_check_hook import DataCheckHook
from mmclipdis.engine.foreign_checkpoint_guard import ForeignCheckpointGuard
from mmclipdis.engine.loops import ExactEpochBasedTrainLoop, ExactIterBasedTrainLoop
from mmclipdis.engine.mfi_monitor_hook import MFIMonitorHook
from mmclipdis.engine.nonfinite_guard import NonFiniteGuard, NonFiniteLossError
from mmclipdis.engine.output_hooks import LabelMapNamesHook, PaintedPhotosHook
from mmclipdis.engine.replaced_images_hook import ReplacedImagesHook
from mmclipdis.engine.unwrapped import Unwrapped
from mmclipdis.engine.vocabulary_hook import VocabularyHook
from mmclipdis.engine.weight_ensemble_hook import WeightEnsembleHook

__all__ = [
    "CostHook",
    "DataCheckHook",
    "ExactCheckpointHook",
    "ExactEpochBasedTrainLoop",
    "ExactIterBasedTrainLoop",
    "ForeignCheckpointGuard",
    "LabelMapNamesHook",
    "MFIMonitorHook",
    "NonFiniteGuard",
    "NonFiniteLossError",
    "PaintedPhotosHook",
    "ReplacedImagesHook",
    "UnsafeCheckpointError",
    "Unwrapped",
    "VocabularyHook",
    "WeightEnsembleHook",
    "read_checkpoint",
    "read_config_file",
    "write_checkpoint",
]

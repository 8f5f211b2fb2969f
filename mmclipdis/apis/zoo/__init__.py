"""Which models there are, by name, with their configs and weights; nothing here imports torch."""

from mmclipdis.apis.zoo.listing import DEFAULTS, ModelInfo, find, models
from mmclipdis.apis.zoo.resolving import Resolved, resolve
from mmclipdis.apis.zoo.sources import Weights
from mmclipdis.apis.zoo.table import as_table

__all__ = [
    "DEFAULTS",
    "ModelInfo",
    "Resolved",
    "Weights",
    "as_table",
    "find",
    "models",
    "resolve",
]

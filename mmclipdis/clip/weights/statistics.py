"""Mean and standard deviation of pixels that CLIP weights were trained with.

open_clip notes them beside each of its tags, and forgets them where weights come from a file. Here
a file has those of its arch, whose tags agree (but for ``ViT-L-14``), or those that the folder of a
Hugging Face download says.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from open_clip import pretrained

from mmclipdis.clip.weights.loading import Arch, model_config
from mmclipdis.utils.statistics import CLIP, HALF, IMAGENET, NONE, Statistics

#: What stands beside a download: weights -> file, and the entries that hold mean and std.
_BESIDE = {
    "open_clip_pytorch_model.bin": ("open_clip_config.json", "mean", "std"),
    "open_clip_model.safetensors": ("open_clip_config.json", "mean", "std"),
    "model.safetensors": ("preprocessor_config.json", "image_mean", "image_std"),
}

#: Parts of timm's names of towers, for archs of which open_clip has no tag.
_TRUNKS = (
    (("siglip", "vit_pe_"), HALF),
    (("vit_base_mci", "fastvit_mci0", "fastvit_mci1", "fastvit_mci2", "_tips"), NONE),
    (("_dino",), IMAGENET),
)


def statistics_of(arch: Arch, source: str | Path | None = None) -> Statistics:
    """Mean and std, RGB from 0 to 1, that weights of ``arch`` were trained with.

    Args:
        arch: open_clip config name or dict.
        source: Tag or file of the weights; None for those of the arch.

    Raises:
        ValueError: for an unknown arch.
    """
    return possible_statistics(arch, source)[0]


def possible_statistics(arch: Arch, source: str | Path | None = None) -> tuple[Statistics, ...]:
    """What weights of ``arch`` may have been trained with, the likeliest first.

    One, where ``source`` is a tag or a file that says so or all weights of the arch agree.

    Args:
        arch, source: As in :func:`statistics_of`.

    Raises:
        ValueError: for an unknown arch, or a config whose ``preprocess_cfg`` holds no statistics.
    """
    config = model_config(arch)
    name = arch if isinstance(arch, str) else None
    if source is not None:
        found = _of_tag(name, str(source)) or _beside(Path(source).expanduser())
        if found is not None:
            return (found,)
    if own := _noted(config.get("preprocess_cfg") or {}, "mean", "std"):
        return (own,)
    return _of_tags(name) or (_of_trunk(config["vision_cfg"].get("timm_model_name")),)


def _of_tag(arch: str | None, tag: str) -> Statistics | None:
    if arch is None or not pretrained.is_pretrained_cfg(arch, tag):
        return None
    return _noted(pretrained.get_pretrained_cfg(arch, tag), "mean", "std")


@lru_cache(maxsize=256)
def _of_tags(arch: str | None) -> tuple[Statistics, ...]:
    """Those of all tags of an arch, the most frequent first."""
    tags = pretrained.list_pretrained_tags_by_model(arch) if arch else []
    counted = Counter(filter(None, (_of_tag(arch, tag) for tag in tags)))
    return tuple(found for found, _ in counted.most_common())


def _of_trunk(timm_name: str | None) -> Statistics:
    """Those of an arch without tags: of its family, or CLIP's."""
    for parts, found in _TRUNKS:
        if timm_name and any(part in timm_name for part in parts):
            return found
    return CLIP


def _beside(weights: Path) -> Statistics | None:
    """Those in the config that lies beside a download under its usual name."""
    if weights.name not in _BESIDE or not weights.is_file():
        return None
    name, mean, std = _BESIDE[weights.name]
    try:
        config = json.loads(weights.with_name(name).read_text())
    except (OSError, ValueError):  # none, or none that can be read
        return None
    config = config if isinstance(config, Mapping) else {}
    return _noted(config.get("preprocess_cfg", config), mean, std)


def _noted(config: Any, mean: str, std: str) -> Statistics | None:
    """The two entries of a config, if it has both."""
    if not isinstance(config, Mapping) or not config.get(mean) or not config.get(std):
        return None
    return Statistics(config[mean], config[std])

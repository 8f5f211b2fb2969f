"""Loaders of a config that read a few generated photos, small ones, in the original layout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from mmengine.config import Config

from mmclipdis.apis.reproduction.miniature_data import write_data
from mmclipdis.apis.reproduction.miniature_model import parts, scale_of
from mmclipdis.apis.reproduction.miniature_towers import Scale
from mmclipdis.clip.weights.vfm import VFMS

#: Photos of a batch.
_BATCH = 2
#: Options of transforms that are sides in pixels, or pairs or lists of them.
_SIDES = ("scale", "scales", "size", "crop_size", "max_size")


def shrink_loaders(config: Config, names: Sequence[str], root: Path, seed: int) -> None:
    """Write the data of these loaders below ``root/data``; loaders, evaluators and masks go there.

    Args:
        config: With its model as it was, whose patches tell by how much photos shrink; in place.
        names: ``test_dataloader``, ...; what the config lacks of them is left out.
        root: Folder of the miniature.
        seed: Of pictures and labels.

    Raises:
        ValueError: there is no miniature of a data set or of the model.
    """
    scale, teachers = scale_of(config.model), _teachers(config.model)
    masks = _place_masks(config.model, root)
    for name in names:
        if config.get(name):
            _shrink_loader(config[name], scale, teachers)
            _write_loader(config, name, root, seed, masks)


def _teachers(model: Any) -> list[int]:
    """Patches of the vision models that a student is distilled from."""
    return [VFMS[vfm["model"]].patch_size for vfm in model.get("vfms", ())]


def _place_masks(model: Any, root: Path) -> Path | None:
    """The folder that a model reads masks from, in place of the one it named."""
    masks = model.get("masks")
    if not isinstance(masks, Mapping) or masks.get("type") != "MaskFolder":
        return None
    masks["root"] = str(root / "masks")  # type: ignore[index]
    return root / "masks"


def _shrink_loader(loader: Any, scale: Scale, teachers: list[int]) -> None:
    loader.update(num_workers=0, persistent_workers=False)
    loader.batch_size = min(loader.get("batch_size", 1), _BATCH)
    for step in parts(loader.dataset.get("pipeline", [])):
        if step.get("type") == "DistillViews":
            tokens = scale.side(step["size"], least=2) // scale.patch
            step["proxy_sizes"] = tuple(dict.fromkeys(tokens * side for side in teachers))
        for key in _SIDES:
            if key in step:
                step[key] = scale.sides(step[key], least=2)


def _write_loader(config: Config, name: str, root: Path, seed: int, masks: Path | None) -> None:
    """Write the data of a loader below ``root/data``, and point loader and evaluator there."""
    dataset = config[name].dataset
    old = str(dataset.get("data_root") or "")
    place = PurePath(old)
    below = PurePath(place.name) if place.is_absolute() else place
    new = root / "data" / PurePath(*(part for part in below.parts if part not in ("data", "..")))
    dataset.data_root = f"{new}/"
    write_data(dataset, new, config.get("default_scope") or "mmengine", seed, masks)
    evaluator = config.get(name.replace("dataloader", "evaluator"))
    for node in parts(evaluator):
        given = node.get("ann_file")
        if isinstance(given, str) and given.startswith(old):
            node["ann_file"] = str(new / given[len(old) :])

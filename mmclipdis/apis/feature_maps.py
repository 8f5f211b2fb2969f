"""The figure of attention and feature maps: models, photo and options of the command line."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.registry import MODELS
from PIL import Image, ImageOps
from torch import Tensor

from mmclipdis.engine.configs import read_config_file
from mmclipdis.models.backbones import CLIPViT
from mmclipdis.models.vfm import TimmVFM
from mmclipdis.utils.device import usable_device
from mmclipdis.utils.figures import check_picture_name
from mmclipdis.utils.pictures import TooManyPixelsError, open_picture, to_rgb
from mmclipdis.utils.statistics import IMAGENET, Statistics
from mmclipdis.utils.whole_files import refuse_existing
from mmclipdis.visualization.feature_figure import draw_feature_maps
from mmclipdis.visualization.feature_maps import (
    GROUPS,
    FeatureMap,
    anchor_patch,
    check_groups,
    clip_maps,
    spread_layers,
    vfm_maps,
)

#: Where models keep their CLIP image encoder, or a part that does.
_ENCODER_KEYS = ("backbone", "image_encoder", "student", "encoder", "segmentor")


#: Patches of a photo that are still drawn; attention is between all of them.
MOST_PATCHES = 20_000


@dataclass(frozen=True)
class Model:
    """A model of the figure: its name there, and the config of its image encoder."""

    name: str
    config: dict[str, Any]


def feature_maps(arguments: Sequence[str] | None = None) -> Path:
    """Draw the figure that the command line asks for; see ``tools/analysis_tools``."""
    args = _parser().parse_args(arguments)
    refuse_existing(args.out, args.overwrite)
    photo = read_photo(args.image)
    models = models_of(args.config, args.arch, args.checkpoint, args.readout)
    models += [vfm_of(value) for value in args.vfm]
    path = figure(
        photo,
        args.anchor,
        models,
        args.out,
        layers=args.layers,
        groups=args.show,
        short_side=args.size,
        device=args.device,
        smooth=args.smooth,
    )
    print(f"{path}: {len(models)} models, anchors {args.anchor or [_centre(photo)]}")
    return path


def figure(
    photo: np.ndarray,
    anchors: Sequence[tuple[int, int]],
    models: Sequence[Model],
    out: str | Path,
    layers: Sequence[int] | None = None,
    groups: Sequence[str] = GROUPS,
    short_side: int | None = None,
    device: str | None = "cpu",
    smooth: bool = False,
) -> Path:
    """Draw the maps of every model for every anchor into one picture.

    All models see the photo at the size that gives the grid of the first one, so that their maps
    have the same patches. A vision model with ``input_size`` has its own, and a CLIP that one
    guides has the nearest that is whole patches of both.

    Args:
        photo: RGB uint8 (H, W, 3), any size.
        anchors: Pixels (x, y) in the photo; empty takes its centre.
        models: At least one.
        out: File to write.
        layers: Blocks, 0-based; None takes four of the first CLIP, evenly spaced.
        groups: Of :data:`~mmclipdis.visualization.feature_maps.GROUPS`.
        short_side: Pixels that the first model sees of the photo's short side; None takes twice
            its native size for a CLIP, and 32 patches for another model.
        device: Where to compute, see :func:`mmclipdis.utils.device.usable_device`.
        smooth: Interpolate between the patches.

    Raises:
        ValueError: for an anchor outside, a layer or group that does not exist, or no model.
    """
    if not models:
        raise ValueError("no model to draw: give --arch, --config or --vfm")
    # What can be told before any weights are loaded.
    place = usable_device(device)
    check_groups(groups)
    check_picture_name(out)
    anchors = list(anchors) or [_centre(photo)]
    for anchor in anchors:
        anchor_patch(anchor, photo.shape[:2], (1, 1))
    found: dict[str, list[FeatureMap]] = {}
    grid: tuple[int, int] | None = None
    for model in models:
        encoder = build_encoder(model, place)
        grid = grid or _grid(photo.shape[:2], encoder, short_side)
        own = getattr(encoder, "fixed_grid", None) or _whole(grid, encoder)
        patches = [anchor_patch(anchor, photo.shape[:2], own) for anchor in anchors]
        is_clip = isinstance(encoder, CLIPViT)
        # a TimmVFM turns ImageNet's statistics into its own
        wanted = encoder.statistics if is_clip else IMAGENET
        image = _input(photo, own, encoder.patch_size, wanted).to(place)
        if is_clip:
            if encoder.needs_masks and "features" in groups:
                raise ValueError(
                    f"{model.name.splitlines()[0]}: its readout has scope='masks', and there are "
                    "no masks of a photo here: choose another, such as --readout proxyclip, or "
                    "leave the group 'features' out (--show cls blocks)"
                )
            layers = layers or spread_layers(encoder.num_blocks)
            guide = encoder.guide(image) if "features" in groups else None
            maps = clip_maps(encoder.tower, image, patches, layers, encoder.readout, groups, guide)
        else:
            maps = vfm_maps(encoder, image, patches) if "features" in groups else []
        found[_unused(model.name, found)] = maps
    return draw_feature_maps(photo, anchors, found, out, smooth)


def models_of(
    configs: Sequence[str],
    archs: Sequence[str],
    checkpoints: Sequence[str],
    readouts: Sequence[str],
) -> list[Model]:
    """The CLIP models (and teachers) that the lists of the command line describe.

    A list with one entry is repeated. Without ``configs`` and ``archs`` it is the tiny CLIP of the
    package.

    Raises:
        ValueError: if the lengths of the lists differ.
    """
    if not (configs or archs):
        archs, checkpoints = ["shapes-tiny"], checkpoints or ["shapes"]
    given = {"--config": configs, "--arch": archs, "--checkpoint": checkpoints}
    given["--readout"] = readouts
    count = max(map(len, given.values()))
    columns: list[list[str | None]] = []
    for name, values in given.items():
        if len(values) not in (0, 1, count):
            raise ValueError(
                f"{name} has {len(values)} entries for {count} models: give one for all of them "
                "or one for each"
            )
        columns.append(list(values) if len(values) == count else [*values, None][:1] * count)
    models = []
    for config, arch, checkpoint, readout in zip(*columns, strict=True):
        if config is None and checkpoint is None:
            raise ValueError(f"--arch {arch} needs weights: give --checkpoint a tag or a file")
        own, teachers = _in_config(config) if config else (dict(type="CLIPViT", arch=arch), [])
        if checkpoint:
            own["init_cfg"] = dict(type="Pretrained", checkpoint=checkpoint)
        if readout:
            own["readout"] = readout
        name = Path(config).stem if config else str(arch)
        models += [Model(f"{name}\n{readout}" if readout else name, own), *teachers]
    return models


def vfm_of(value: str) -> Model:
    """The teacher that ``NAME=FILE`` describes: a name of ``TimmVFM`` and its checkpoint.

    Raises:
        ValueError: if there is no file in it.
    """
    name, _, file = value.partition("=")
    if not name or not file:
        raise ValueError(f"--vfm {value}: expected NAME=FILE, such as dinov2-B=dinov2_vitb14.pth")
    config = dict(
        type=TimmVFM.__name__, model=name, init_cfg=dict(type="Pretrained", checkpoint=file)
    )
    return Model(name, config)


def read_photo(path: str | Path) -> np.ndarray:
    """RGB uint8 (H, W, 3) of a file, turned as its EXIF tag says.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no image, or above the limit of pixels.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no image at {path}")
    try:
        with open_picture(path) as image:
            return np.asarray(to_rgb(ImageOps.exif_transpose(image), path))
    except TooManyPixelsError:
        raise
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"cannot read {path} as an image; replace or remove it") from error


def _in_config(path: str) -> tuple[dict[str, Any], list[Model]]:
    """The CLIP image encoder of a config, and the vision models that teach it."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"no config at {path}")
    model = read_config_file(path).get("model", {})
    own = encoder_in(model, path)
    vfms = [{k: v for k, v in vfm.items() if k != "weight"} for vfm in model.get("vfms", ())]
    return own, [Model(str(v.get("model", v["type"])), v) for v in vfms]


def encoder_in(model: Mapping[str, Any], config: str) -> dict[str, Any]:
    """The config of the CLIP image encoder inside that of a model; ``config`` names its file.

    Raises:
        ValueError: there is none.
    """
    found = [model[key] for key in _ENCODER_KEYS if isinstance(model.get(key), Mapping)]
    if not found:
        raise ValueError(f"config {config!r} has no CLIP image encoder: none of {_ENCODER_KEYS}")
    inside = any(isinstance(found[0].get(key), Mapping) for key in _ENCODER_KEYS)
    return encoder_in(found[0], config) if inside else dict(found[0])


def build_encoder(model: Model, device: torch.device) -> Any:
    """The encoder of a model with its weights, in evaluation mode.

    Raises:
        ValueError: the config is of no image encoder.
    """
    encoder: Any = MODELS.build(model.config)
    if not hasattr(encoder, "patch_size"):
        raise ValueError(f"{model.name!r} is a {type(encoder).__name__}, not a CLIPViT or TimmVFM")
    encoder.init_weights()
    return encoder.to(device).eval()


def _grid(size: Sequence[int], encoder: Any, short_side: int | None) -> tuple[int, int]:
    """Patches (h, w) of a photo of ``size`` whose short side is resized."""
    patch_h, patch_w = encoder.patch_size
    if short_side is None:
        is_clip = isinstance(encoder, CLIPViT)
        short_side = 2 * min(encoder.tower.image_size) if is_clip else 32 * patch_h
    if short_side < max(patch_h, patch_w):
        raise ValueError(f"--size {short_side} is smaller than a patch of {patch_h} px")
    scale = short_side / min(size)
    grid = max(round(size[0] * scale / patch_h), 1), max(round(size[1] * scale / patch_w), 1)
    if grid[0] * grid[1] > MOST_PATCHES:
        raise ValueError(
            f"a photo of {size[0]} x {size[1]} pixels with a short side of {short_side} px has "
            f"{grid[0]} x {grid[1]} patches, more than {MOST_PATCHES}: choose a smaller --size, or "
            "cut the photo"
        )
    return grid


def _whole(grid: tuple[int, int], encoder: Any) -> tuple[int, int]:
    """The nearest grid whose patches are whole ones of the model that guides ``encoder``, too."""
    wanted = getattr(encoder, "pad_multiple", encoder.patch_size)
    steps = [side // own for side, own in zip(wanted, encoder.patch_size, strict=True)]
    rows, columns = (max(round(n / step), 1) * step for n, step in zip(grid, steps, strict=True))
    return rows, columns


def _input(
    photo: np.ndarray, grid: tuple[int, int], patch_size: tuple[int, int], statistics: Statistics
) -> Tensor:
    """The photo as a model takes it, ``(1, 3, H, W)``, resized to exactly ``grid`` patches."""
    height, width = grid[0] * patch_size[0], grid[1] * patch_size[1]
    resized = Image.fromarray(photo).resize((width, height), Image.Resampling.BICUBIC)
    mean, std = statistics.of_bytes
    values = (np.asarray(resized, dtype=np.float32) - mean) / std
    return torch.from_numpy(values.astype(np.float32)).permute(2, 0, 1)[None]


def _centre(photo: np.ndarray) -> tuple[int, int]:
    return photo.shape[1] // 2, photo.shape[0] // 2


def _unused(name: str, taken: Mapping[str, object]) -> str:
    """``name``, numbered where another row has it already."""
    count = 1 + sum(other.split(" #")[0] == name for other in taken)
    return name if count == 1 else f"{name} #{count}"


def _anchor(text: str) -> tuple[int, int]:
    try:
        x, y = (int(part) for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no pixel x,y such as 120,80") from error
    return x, y


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("image", help="photo of any size")
    add("--anchor", type=_anchor, action="append", default=[], metavar="X,Y",
        help="pixel of the photo, can be repeated; default: its centre")  # fmt: skip
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--config", nargs="+", default=[],
        help="configs; drawn are the CLIP image encoder and the teachers of DeCLIP")  # fmt: skip
    source.add_argument("--arch", nargs="+", default=[],
        help="open_clip names; default: the package's shapes-tiny")  # fmt: skip
    add("--checkpoint", nargs="+", default=[],
        help="weights (tag or file) of each config or arch, or one for all")  # fmt: skip
    add("--readout", nargs="+", default=[],
        help="readout of each model, or one for all, or several for one model")  # fmt: skip
    add("--vfm", nargs="+", default=[], metavar="NAME=FILE",
        help="vision models, such as dinov2-B=dinov2_vitb14_reg4_pretrain.pth")  # fmt: skip
    add("--layers", nargs="+", type=int, help="blocks, 0-based; -1 is the last; default: four")
    add("--show", nargs="+", default=list(GROUPS), help=f"of {', '.join(GROUPS)}; default: all")
    add("--size", type=int, help="short side in pixels that the first model sees of the photo; "
        "default: twice its native size")  # fmt: skip
    add("--smooth", action="store_true", help="interpolate between the patches")
    add("--device", help="cpu, cuda, cuda:1, ...; a GPU if there is one")
    add("--out", default="work_dirs/feature_maps.png", help="picture to write")
    add("--overwrite", action="store_true", help="replace the picture")
    return parser

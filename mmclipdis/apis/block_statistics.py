"""Statistics of the blocks of a CLIP over many images: JSON, CSV and a picture."""

from __future__ import annotations

import argparse
import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS, init_default_scope
from PIL import Image
from torch import Tensor
from tqdm import tqdm

import mmclipdis.datasets  # noqa: F401  (registers the data sets that configs name)
from mmclipdis.apis.cfg_options import CfgOptions
from mmclipdis.apis.class_similarity import clip_of, writable_folder
from mmclipdis.apis.cli import UserInputError, read_config
from mmclipdis.apis.feature_maps import Model, build_encoder, encoder_in, read_photo
from mmclipdis.clip.towers.image_tower import ImageTower
from mmclipdis.datasets.distillation.images import images_below
from mmclipdis.models.backbones import CLIPViT
from mmclipdis.utils.device import usable_device
from mmclipdis.utils.statistics import Statistics
from mmclipdis.utils.whole_files import refuse_existing, write_text
from mmclipdis.visualization.block_figure import draw_block_statistics
from mmclipdis.visualization.block_statistics import PARTS, STATISTICS, BlockStatistics

FILES = ("blocks.json", "blocks.csv", "blocks.png")


def block_statistics(arguments: Sequence[str] | None = None) -> Path:
    """Measure and draw what the command line asks for; see ``tools/analysis_tools``.

    Returns:
        The folder with ``blocks.json``, ``blocks.csv`` and ``blocks.png``.

    Raises:
        FileExistsError: one of these is there.
        FileNotFoundError, UserInputError, ValueError: bad options, no images, or an encoder
            without transformer blocks.
    """
    args = _parser().parse_args(arguments)
    config = _config(args)
    paths = image_files(args.images, config)[: args.limit]
    folder = writable_folder(args.out)
    for name in FILES:
        refuse_existing(folder / name, args.overwrite)
    encoder = build_encoder(_model(args, config), usable_device(args.device))
    side = _side(args.size, encoder.tower)
    report = measure(encoder, paths, side, args.batch_size)
    settings = _settings(args, encoder, side)
    content = {"settings": settings, "definitions": DEFINITIONS, **report}
    write_text(folder / "blocks.json", json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    write_text(folder / "blocks.csv", as_csv(report))
    title = f"{settings['model']}: {report['images']} images of {side[0]} x {side[1]} px"
    draw_block_statistics(report, title, folder / "blocks.png")
    last = report["blocks"][-1]
    norms = ", ".join(f"{part} {last[part]['norm']:.2f}" for part in PARTS)
    print(f"{report['images']} images; norms in the last block: {norms}")
    print(", ".join(str(folder / name) for name in FILES))
    return folder


#: What the numbers of the JSON are; in full at :class:`BlockStatistics`.
DEFINITIONS = {
    "parts": "X -> U = X + A -> U + F: residual X, attention A, ffn F, output X + A + F; patch "
    "tokens only, of ordinary CLIP",
    "norm": "mean over tokens of the L2 norm",
    "entropy": "mean over tokens of -sum_c p_c log p_c / log D with p_c = x_c^2 / |x|^2",
    "maximum": "largest |x_c| of an image",
    "channel_mean": "mean over tokens of each channel",
    "over images": "mean",
}


def measure(
    encoder: Any, paths: Sequence[str], side: tuple[int, int], batch_size: int = 16
) -> dict[str, Any]:
    """:meth:`BlockStatistics.report` of the photos at ``paths``.

    Args:
        encoder: A ``CLIPViT``.
        paths: Of photos; each is resized so that it covers ``side`` and cut to its middle, as CLIP
            was trained.
        side: Height and width in pixels.
        batch_size: Photos in memory at a time.

    Raises:
        ValueError: a file is no image.
    """
    device = next(encoder.tower.parameters()).device
    statistics = BlockStatistics(encoder.tower)
    for start in tqdm(range(0, len(paths), batch_size), desc="images", disable=None):
        batch = [
            middle(read_photo(path), side, encoder.statistics)
            for path in paths[start : start + batch_size]
        ]
        statistics.add(torch.stack(batch).to(device))
    return statistics.report()


def middle(photo: np.ndarray, side: tuple[int, int], statistics: Statistics) -> Tensor:
    """The middle of an RGB photo (H, W, 3) as CLIP takes it: float32 ``(3, *side)``.

    Resized (bicubic) until it just covers ``side``, then cut.
    """
    scale = max(side[0] / photo.shape[0], side[1] / photo.shape[1])
    height, width = (round(scale * length) for length in photo.shape[:2])
    height, width = max(height, side[0]), max(width, side[1])
    resized = Image.fromarray(photo).resize((width, height), Image.Resampling.BICUBIC)
    top, left = (height - side[0]) // 2, (width - side[1]) // 2
    cut = np.asarray(resized, np.float32)[top : top + side[0], left : left + side[1]]
    mean, std = statistics.of_bytes
    return torch.from_numpy(((cut - mean) / std).astype(np.float32)).permute(2, 0, 1)


def image_files(source: str | None, config: Config | None) -> list[str]:
    """Photos in ``source`` (a folder, or a single file), or those of the config's test split.

    Raises:
        FileNotFoundError: there is no such file or folder, or no image in it.
        UserInputError: neither of the two is given.
    """
    if source is None:
        if config is None or config.get("test_dataloader") is None:
            raise UserInputError(
                "no images: name a folder of them, or give --config with a test_dataloader"
            )
        return _test_split(config)
    if Path(source).is_file():
        return [source]
    if not Path(source).is_dir():
        raise FileNotFoundError(f"no folder of images at {source!r}")
    found = images_below(source)
    if not found:
        raise FileNotFoundError(f"no image (.jpg, .png, ...) in {source!r} or below")
    return found


def _test_split(config: Config) -> list[str]:
    """The photos of ``test_dataloader.dataset``, in its order."""
    scope = config.get("default_scope", "mmengine")
    init_default_scope(scope)
    settings = {**config.test_dataloader.dataset, "pipeline": [], "_scope_": scope}
    dataset = DATASETS.build(settings)
    paths = [dataset.get_data_info(index).get("img_path") for index in range(len(dataset))]
    if not paths or None in paths:
        raise ValueError(
            f"{type(dataset).__name__} of the config's test_dataloader lists "
            + ("no images" if not paths else "data without img_path")
            + ": name a folder of images instead"
        )
    return paths


def _config(args: argparse.Namespace) -> Config | None:
    if args.config is None:
        if args.cfg_options:
            raise UserInputError("--cfg-options changes a config: give --config, too")
        return None
    if args.arch:
        raise UserInputError("--config names the encoder already: leave --arch out")
    args.work_dir, args.launcher = None, "none"
    return read_config(args, ("model",))


def _model(args: argparse.Namespace, config: Config | None) -> Model:
    if config is None:
        arch, checkpoint = clip_of(args.arch, args.checkpoint)
        own: dict[str, Any] = dict(type="CLIPViT", arch=arch)
    else:
        arch, checkpoint = Path(args.config).stem, args.checkpoint
        own = encoder_in(config.model, args.config)
        own.pop("vfm", None)  # guides the readout, which is not looked at
        kind = MODELS.get(own["type"])
        if kind is None or not issubclass(kind, CLIPViT):
            raise ValueError(
                f"{own['type']} of {args.config!r} has no transformer blocks to take statistics "
                "of; choose the config of a ViT, or --arch ViT-B-16-quickgelu"
            )
    own.update(readout="vanilla", any_readout=True)
    if checkpoint:
        own["init_cfg"] = dict(type="Pretrained", checkpoint=checkpoint)
    return Model(arch, own)


def _side(size: int | None, tower: ImageTower) -> tuple[int, int]:
    """Height and width of the photos: those that the tower was trained with, or a square."""
    if size is None:
        return tower.image_size
    if size < max(tower.patch_size) or any(size % patch for patch in tower.patch_size):
        raise ValueError(
            f"--size {size} is no whole patches of {tower.patch_size[0]} x {tower.patch_size[1]} px"
        )
    return size, size


def _settings(args: argparse.Namespace, encoder: Any, side: tuple[int, int]) -> dict[str, Any]:
    given = {"config": args.config, "arch": encoder.arch, "checkpoint": args.checkpoint}
    name = Path(args.config).stem if args.config else encoder.arch
    found = {"model": name if isinstance(name, str) else "CLIP", **given}
    return {**found, "images": args.images or "the config's test split", "size": list(side)}


def as_csv(report: Mapping[str, Any]) -> str:
    """A line a block and part: its number, the part, norm, entropy and maximum."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["block", "part", *STATISTICS])
    for number, block in enumerate(report["blocks"]):
        for part in PARTS:
            values = [f"{block[part][name]:.6g}" for name in STATISTICS]
            writer.writerow([number, part, *values])
    return text.getvalue()


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("images", nargs="?", help="folder of photos; default: the test split of --config")
    add("--config", help="a config; measured is its CLIP image encoder")
    add("--arch", help="open_clip name; default: the package's shapes-tiny")
    add("--checkpoint", help="weights (tag or file) of the arch, or of the config's encoder")
    add("--cfg-options", nargs="+", action=CfgOptions, help="settings that replace the config's")
    add("--size", type=_count, help="side in pixels of the square that CLIP sees, the middle of "
        "each photo; default: CLIP's native size")  # fmt: skip
    add("--limit", type=_count, help="how many images, the first ones; default: all")
    add("--batch-size", type=_count, default=16, help="default: %(default)s")
    add("--device", help="cpu, cuda, cuda:1, ...; a GPU if there is one")
    add("--out", default="work_dirs/block_statistics", help="folder to write into")
    add("--overwrite", action="store_true", help="replace what the folder holds of this tool")
    return parser

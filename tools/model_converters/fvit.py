"""Convert a released F-ViT checkpoint (CLIPSelf's detector, mmdet 2) to ours.

    python tools/model_converters/fvit.py configs/fvit/fvit_clipself_vitb16_ov-coco.py \
        released.pth fvit_clipself_vitb16_ov-coco.pth
    python tools/test.py configs/fvit/fvit_clipself_vitb16_ov-coco.py \
        fvit_clipself_vitb16_ov-coco.pth

The config says what the detector is: names and shapes are compared with it, and every key is
renamed, kept, or dropped with a reason; anything else is an error. For a config without mask head
(transfer of an LVIS detector) the mask head is dropped. The text encoder is not part of either
checkpoint. Released weights read CLIP as MaskCLIP does, and are marked so. The classes of the
config's data set are written as ``dataset_meta``, for mmdet's inferencers. Files are read with
``weights_only=True``; the target appears complete or not at all. Not run here: on a file that the
authors released.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from torch import Tensor

import mmclipdis  # noqa: F401  (registers the modules)
from mmclipdis.apis.cli import run
from mmclipdis.apis.resources import line_of
from mmclipdis.clip.towers.readout import get_readout
from mmclipdis.clip.weights import readout_mark
from mmclipdis.clip.weights.layouts import read_layout
from mmclipdis.clip.weights.renaming import LayoutReport
from mmclipdis.engine import read_checkpoint, write_checkpoint
from mmclipdis.engine.configs import read_config_file
from mmclipdis.models import FViT
from mmclipdis.models.detection.released import (
    ENCODER,
    add_marks,
    build_on_meta,
    check_fits,
    dataset_meta,
    tensors_in,
)
from mmclipdis.utils.whole_files import refuse_existing

_TOWER, _OUR_TOWER = "backbone.visual.", ENCODER + "tower."
_MASK_HEAD = "roi_head.mask_head."
_TEMPERATURE = "roi_head.bbox_head.detect_temperature"

_REMEDY = "choose the config with its tower and data set (LVIS: mask head and norms in the RPN)"

#: Start of a key -> why it has no place in our detector.
_DROPPED = {
    "roi_head.bbox_head.fc_cls.": "linear classifier that F-ViT never uses",
    "roi_head.bbox_head.all_embeddings": "text embeddings, made from the vocabulary in use",
}

#: Keys by which a released checkpoint is told from others.
_SIGNS = (_TOWER, "backbone.interpolate1.", "neck.", "rpn_head.", "roi_head.bbox_head.")


def convert(config: Config, source: Path, target: Path, *, overwrite: bool = False) -> LayoutReport:
    """Convert the file ``source`` for the detector of ``config``; say what became of every key.

    Args:
        config: With an ``FViT`` under ``model``; its weights (``init_cfg``) are not read.
        source: Released checkpoint.
        target: For ``tools/test.py`` and ``load_from``, with the weights under ``state_dict``.
        overwrite: Replace an existing target.

    Raises:
        FileExistsError, FileNotFoundError: as they say.
        ValueError: another layout, a config whose tower reads out otherwise, or weights that are
            not those of its detector.
    """
    refuse_existing(target, overwrite)
    content = read_checkpoint(source)
    released = weights_in(content, source)
    state, report = from_released(released, str(source))
    model = build_on_meta(config, FViT, "configs/fvit")
    expected = model.state_dict()
    if not model.roi_head.with_mask:
        for key in [key for key in state if key.startswith(_MASK_HEAD)]:
            del state[key]
            report.kept.remove(key)
            report.dropped[key] = "the config's detector has no mask head"
    encoder = model.backbone.encoder
    wanted = None if encoder.any_readout else encoder.readout
    readout_mark.check_readout(get_readout("maskclip"), wanted, repr(str(source)))
    add_marks(state, expected, report, get_readout("maskclip"))
    check_fits(state, expected, str(source), _REMEDY)
    meta = {"dataset_meta": named} if (named := dataset_meta(config, content)) else {}
    write_checkpoint(target, {"state_dict": state, "meta": meta}, overwrite)
    return report


def weights_in(checkpoint: Any, source: Path) -> dict[str, Tensor]:
    """The state dict of a checkpoint of mmdet, or the checkpoint itself if it is one.

    Raises:
        ValueError: There is none, or it holds something besides tensors.
    """
    state = checkpoint.get("state_dict", checkpoint) if isinstance(checkpoint, Mapping) else None
    return tensors_in(state, str(source))


def from_released(
    released: Mapping[str, Tensor], source: str
) -> tuple[dict[str, Tensor], LayoutReport]:
    """Rename the entries of a released state dict to those of an ``FViT``.

    Args:
        released: Official names and tensors.
        source: The file, for messages.

    Returns:
        Our names and the tensors, and what became of every key.

    Raises:
        ValueError: it is no released F-ViT checkpoint.
    """
    _check_layout(released, source)
    tower = {key: value for key, value in released.items() if key.startswith(_TOWER)}
    found = read_layout(tower, source)
    state = {_OUR_TOWER + name: value for name, value in found.state.items()}
    report = LayoutReport(dropped=dict(found.report.dropped))
    for key, name in found.report.names.items():
        report.note(key, _OUR_TOWER + name)
    for key, value in released.items():
        reason = next((why for start, why in _DROPPED.items() if key.startswith(start)), None)
        if key in tower:
            continue
        if reason is not None:
            report.dropped[key] = reason
        else:
            state[key] = value.reshape(()) if key == _TEMPERATURE and value.numel() == 1 else value
            report.note(key, key)
    return state, report


def _check_layout(released: Mapping[str, Tensor], source: str) -> None:
    if any(key.startswith(ENCODER) for key in released):
        raise ValueError(f"{source!r} has our layout already; there is nothing to convert")
    missing = [start for start in _SIGNS if not any(key.startswith(start) for key in released)]
    if missing:
        raise ValueError(
            f"{source!r} is no released F-ViT checkpoint: it has no {', '.join(missing)}*, but "
            f"{', '.join(list(released)[:3])}, ...; weights of CLIP alone need no conversion, or "
            "tools/model_converters/eva_clip.py"
        )


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", help="of the detector, such as those in configs/fvit")
    parser.add_argument("source", type=Path, help="released checkpoint")
    parser.add_argument("target", type=Path)
    parser.add_argument("--overwrite", action="store_true", help="replace the target")
    parser.add_argument("--report", action="store_true", help="say of every key what became of it")
    args = parser.parse_args(argv)
    try:
        config = read_config_file(args.config)
        report = convert(config, args.source, args.target, overwrite=args.overwrite)
    except (OSError, ValueError) as error:
        raise SystemExit(line_of(error)) from None
    print(report if args.report else f"{report.summary()} (--report names each)")


if __name__ == "__main__":
    run(lambda _: main(), None)

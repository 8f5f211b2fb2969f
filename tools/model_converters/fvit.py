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

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch import Tensor

import mmclipdis  # noqa: F401  (registers the modules)
from mmclipdis.apis.cli import run
from mmclipdis.apis.resources import line_of
from mmclipdis.clip.towers.readout import get_readout
from mmclipdis.clip.weights import activation_mark, readout_mark
from mmclipdis.clip.weights.eva_layout import LayoutReport
from mmclipdis.clip.weights.layouts import read_layout
from mmclipdis.engine import read_checkpoint, write_checkpoint
from mmclipdis.engine.configs import read_config_file
from mmclipdis.models import FViT
from mmclipdis.models.detection.names import config_metainfo
from mmclipdis.utils.whole_files import refuse_existing

_BACKBONE, _ENCODER = "backbone.", "backbone.encoder."
_TOWER, _OUR_TOWER = _BACKBONE + "visual.", _ENCODER + "tower."
_READOUT, _ACTIVATION = _ENCODER + readout_mark.MARK, _ENCODER + activation_mark.MARK
_MASK_HEAD = "roi_head.mask_head."
_TEMPERATURE = "roi_head.bbox_head.detect_temperature"

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
    model = build_on_meta(config)
    expected = model.state_dict()
    if not model.roi_head.with_mask:
        for key in [key for key in state if key.startswith(_MASK_HEAD)]:
            del state[key]
            report.kept.remove(key)
            report.dropped[key] = "the config's detector has no mask head"
    encoder = model.backbone.encoder
    wanted = None if encoder.any_readout else encoder.readout
    readout_mark.check_readout(get_readout("maskclip"), wanted, repr(str(source)))
    _add(state, expected, report)
    check_fits(state, expected, str(source))
    meta = {"dataset_meta": named} if (named := dataset_meta(config, content)) else {}
    write_checkpoint(target, {"state_dict": state, "meta": meta}, overwrite)
    return report


def dataset_meta(config: Config, content: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Names of classes for the ``dataset_meta`` of our file, which mmdet's inferencers read.

    They are those of the config's data set, with its base and novel classes; where these stand in a
    file that is not there (OV-LVIS), the ``CLASSES`` of the released file, if it has any.
    """
    found = config_metainfo(config) or {}
    if not found:
        found = {"classes": (content.get("meta") or {}).get("CLASSES")}
    kept = ("classes", "base_classes", "novel_classes")
    return {key: tuple(found[key]) for key in kept if found.get(key)}


def weights_in(checkpoint: Any, source: Path) -> dict[str, Tensor]:
    """The state dict of a checkpoint of mmdet, or the checkpoint itself if it is one.

    Raises:
        ValueError: There is none, or it holds something besides tensors.
    """
    state = checkpoint.get("state_dict", checkpoint) if isinstance(checkpoint, Mapping) else None
    if not isinstance(state, Mapping) or not state:
        raise ValueError(f"{str(source)!r} holds no state dict")
    others = [name for name, value in state.items() if not isinstance(value, Tensor)]
    if others:
        raise ValueError(
            f"{str(source)!r}: {others[0]!r} in the state dict is no tensor; save the weights alone"
        )
    return dict(state)


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
    if any(key.startswith(_ENCODER) for key in released):
        raise ValueError(f"{source!r} has our layout already; there is nothing to convert")
    missing = [start for start in _SIGNS if not any(key.startswith(start) for key in released)]
    if missing:
        raise ValueError(
            f"{source!r} is no released F-ViT checkpoint: it has no {', '.join(missing)}*, but "
            f"{', '.join(list(released)[:3])}, ...; weights of CLIP alone need no conversion, or "
            "tools/model_converters/eva_clip.py"
        )


def build_on_meta(config: Config) -> Any:
    """The detector of a config without storage for its weights.

    Raises:
        ValueError: the config has another model.
    """
    init_default_scope(config.get("default_scope", "mmdet"))
    with torch.device("meta"):
        model = MODELS.build(config.model)
    if not isinstance(model, FViT):
        raise ValueError(
            f"the config's model is a {type(model).__name__}; give one of configs/fvit"
        )
    return model


def _add(state: dict[str, Tensor], expected: Mapping[str, Tensor], report: LayoutReport) -> None:
    """Add to ``state`` what only our files have: marks, and counters that old norms lack."""
    state[_READOUT] = readout_mark.encode_readout(get_readout("maskclip"))
    report.added[_READOUT] = "released F-ViT weights were trained with MaskCLIP's readout"
    state[_ACTIVATION] = expected[_ACTIVATION]
    report.added[_ACTIVATION] = "the config's arch"
    for key in expected:
        norm, _, leaf = key.rpartition(".")
        if leaf == "num_batches_tracked" and key not in state and norm + ".running_mean" in state:
            state[key] = torch.tensor(0)
            report.added[key] = "counter of a norm that had none; only its training reads it"


def check_fits(state: Mapping[str, Tensor], expected: Mapping[str, Tensor], source: str) -> None:
    """Compare names and shapes with those of the config's detector.

    Raises:
        ValueError: naming the first entries that are missing, left over or of another shape.
    """
    problems = [f"missing {key}" for key in expected if key not in state]
    problems += [f"unexpected {key}" for key in state if key not in expected]
    problems += [
        f"{key} is {tuple(state[key].shape)}, expected {tuple(value.shape)}"
        for key, value in expected.items()
        if key in state and key != _READOUT and state[key].shape != value.shape
    ]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise ValueError(
            f"{source!r} is not of the config's detector: {'; '.join(problems[:3])}{more}; choose "
            "the config with its tower and data set (LVIS: mask head and norms in the RPN)"
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

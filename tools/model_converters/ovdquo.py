"""Convert a released OV-DQUO checkpoint (of a trainer built on IDEA-Research's DINO) to ours.

    python tools/model_converters/ovdquo.py configs/ovdquo/ovdquo_clipself_vitb16_ov-lvis.py \
        released.pth ovdquo_clipself_vitb16_ov-lvis.pth
    python tools/test.py configs/ovdquo/ovdquo_clipself_vitb16_ov-lvis.py \
        ovdquo_clipself_vitb16_ov-lvis.pth

The config says what the detector is: names and shapes are compared with it, and every key is
renamed, or dropped with a reason; anything else is an error. The running means (EMA) of a file are
taken where it has them, since they are what was tested. Read are tensors and plain data, and the
options (argparse.Namespace) that DINO saves with them; the target appears complete or not at all.

Not tried on a file that the authors released: DINO's names are public, those of what OV-DQUO adds
(text_proj, region_prompt, CLIP and the up-sampler inside of the backbone) are assumed. A message
names the keys that are not known, and then

    --rename fc_text.=text_proj.    says what their start is called in the layout assumed
    --drop backbone.0.teacher.      leaves keys out

docs/ovdquo.md lists the names.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config
from torch import Tensor
from torch.serialization import safe_globals

import mmclipdis  # noqa: F401  (registers the modules)
from mmclipdis.apis.cli import run
from mmclipdis.apis.resources import line_of
from mmclipdis.clip.towers.readout import get_readout
from mmclipdis.clip.weights import readout_mark
from mmclipdis.clip.weights.renaming import LayoutReport
from mmclipdis.engine import read_checkpoint, write_checkpoint
from mmclipdis.engine.configs import read_config_file
from mmclipdis.models.backbones import CLIPViT
from mmclipdis.models.detection import OVDQUO
from mmclipdis.models.detection.ovdquo.checkpoint import Renames, from_released
from mmclipdis.models.detection.released import (
    add_marks,
    build_on_meta,
    check_fits,
    dataset_meta,
    tensors_in,
)
from mmclipdis.utils.whole_files import refuse_existing

#: Where a file has weights: running means first.
_AVERAGES, _WEIGHTS = ("ema_model", "model_ema", "ema_state_dict"), ("model", "state_dict")
_REMEDY = (
    "choose the config with its tower and data set (label_enc has 49 rows on OV-COCO, 101 on "
    "OV-LVIS); what has another name in the file than assumed is named by --rename OLD=NEW "
    "(docs/ovdquo.md)"
)


def convert(
    config: Config,
    source: Path,
    target: Path,
    *,
    renames: Renames | None = None,
    averages: bool = True,
    overwrite: bool = False,
) -> tuple[LayoutReport, str]:
    """Convert the file ``source`` for the detector of ``config``; say what became of every key.

    Args:
        config: With an ``OVDQUO`` under ``model``; its weights (``init_cfg``) are not read.
        source: Released checkpoint.
        target: For ``tools/test.py`` and ``load_from``, with the weights under ``state_dict``.
        renames: What differs from the names assumed.
        averages: Take running means (EMA), where the file has them.
        overwrite: Replace an existing target.

    Returns:
        The report, and where in the file the weights were.

    Raises:
        FileExistsError, FileNotFoundError: as they say.
        ValueError: another layout, a config whose tower reads out otherwise, or weights that are
            not those of its detector.
    """
    refuse_existing(target, overwrite)
    with safe_globals([argparse.Namespace]):  # plain data, too
        content = read_checkpoint(source)
    released, place = weights_in(content, str(source), averages)
    state, report = from_released(released, str(source), renames)
    model = build_on_meta(config, OVDQUO, "configs/ovdquo")
    expected = model.state_dict()
    encoder = model.backbone.encoder
    readout = encoder.readout
    if isinstance(encoder, CLIPViT):
        readout = get_readout("maskclip")  # of CLIPSelf's weights
        wanted = None if encoder.any_readout else encoder.readout
        readout_mark.check_readout(readout, wanted, repr(str(source)))
    add_marks(state, expected, report, readout)
    check_fits(state, expected, str(source), _REMEDY)
    meta = {"dataset_meta": named} if (named := dataset_meta(config, content)) else {}
    write_checkpoint(target, {"state_dict": state, "meta": meta}, overwrite)
    return report, place


def weights_in(content: Any, source: str, averages: bool) -> tuple[dict[str, Tensor], str]:
    """The weights in a checkpoint of DINO's trainer, and under which key they were.

    Raises:
        ValueError: There is no state dict, or it holds something besides tensors.
    """
    places = (*(_AVERAGES if averages else ()), *_WEIGHTS)
    content = content if isinstance(content, Mapping) else {}
    place = next((key for key in places if content.get(key)), "")
    state = tensors_in(content[place] if place else content, source)
    prefix = "module."
    if all(key.startswith(prefix) for key in state):
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state, place


def renames_of(given: Sequence[str], drop: Sequence[str]) -> Renames:
    """What ``--rename`` and ``--drop`` say.

    Raises:
        ValueError: a rename without ``=``, or without what stands before it.
    """
    pairs = [text.partition("=") for text in given]
    for text, (old, sign, _) in zip(given, pairs, strict=True):
        if not (old and sign):
            raise ValueError(f"--rename {text!r}: give OLD=NEW, such as fc_text.=text_proj.")
    return Renames({old: new for old, _, new in pairs}, tuple(drop))


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", help="of the detector, such as those in configs/ovdquo")
    parser.add_argument("source", type=Path, help="released checkpoint")
    parser.add_argument("target", type=Path)
    parser.add_argument(
        "--rename",
        action="append",
        default=[],
        metavar="OLD=NEW",
        help="start of a key, and what stands there in the layout assumed",
    )
    parser.add_argument(
        "--drop", action="append", default=[], metavar="OLD", help="start of keys that are left out"
    )
    parser.add_argument(
        "--no-ema",
        action="store_true",
        help="take the weights themselves, and not their running means",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the target")
    parser.add_argument("--report", action="store_true", help="say of every key what became of it")
    args = parser.parse_args(argv)  # fmt: skip
    try:
        report, place = convert(
            read_config_file(args.config),
            args.source,
            args.target,
            renames=renames_of(args.rename, args.drop),
            averages=not args.no_ema,
            overwrite=args.overwrite,
        )
    except (OSError, ValueError) as error:
        raise SystemExit(line_of(error)) from None
    print(report if args.report else f"{report.summary()} (--report names each)")
    what = "running means (EMA)" if place in _AVERAGES else "weights"
    print(f"{what} of {repr(place) if place else 'the file'}")


if __name__ == "__main__":
    run(lambda _: main(), None)

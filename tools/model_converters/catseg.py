"""Convert official CAT-Seg checkpoints to ours, and back.

    python tools/model_converters/catseg.py model_base.pth catseg_vitb16.pth
    python tools/model_converters/catseg.py --reverse catseg_vitb16.pth model_base.pth

ViT-B and ViT-L are told apart by their shapes. Every key is renamed once or listed with the reason
why it is dropped; anything else is an error. Files are read with ``weights_only=True``; a
target that exists is replaced with ``--overwrite`` only.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from mmclipdis.apis.cli import run
from mmclipdis.apis.resources import line_of
from mmclipdis.engine import read_checkpoint, write_checkpoint
from mmclipdis.models.segmentation.catseg.checkpoint import (
    ConversionReport,
    from_official,
    to_official,
)
from mmclipdis.utils.whole_files import refuse_existing


def weights_in(checkpoint: Any, source: Path) -> dict[str, Tensor]:
    """The state dict under ``model`` or ``state_dict``, or the checkpoint itself if it is one.

    Raises:
        ValueError: There is none, or it holds something besides tensors.
    """
    state = checkpoint
    if isinstance(checkpoint, Mapping):
        state = checkpoint.get("model", checkpoint.get("state_dict", checkpoint))
    if not isinstance(state, Mapping):
        raise ValueError(
            f"{source} holds a {type(state).__name__} where a state dict is expected (under "
            "'model', under 'state_dict', or as the whole file)."
        )
    others = [name for name, value in state.items() if not isinstance(value, Tensor)]
    if others:
        raise ValueError(
            f"{source}: {len(others)} entries of the state dict are no tensors, such as "
            f"{others[0]!r}; remove them, or save the weights alone."
        )
    return dict(state)


def convert(
    source: Path, target: Path, reverse: bool = False, overwrite: bool = False
) -> ConversionReport:
    """Convert the file ``source`` to ``target`` and return what became of every key.

    Raises:
        FileExistsError: the target is there, and ``overwrite`` is false.
        FileNotFoundError, ValueError: there is no such source, or it is not CAT-Seg's.
    """
    refuse_existing(target, overwrite)
    checkpoint = read_checkpoint(source)
    weights = weights_in(checkpoint, source)
    if reverse:
        extra = checkpoint.get("meta", {}).get("catseg_extra")
        official, report = to_official(weights, extra)
        write_checkpoint(target, {"model": official}, overwrite)
        return report
    ours, extra, report = from_official(weights)
    content = {"state_dict": ours, "meta": {"catseg_extra": extra}}
    write_checkpoint(target, content, overwrite)
    return report


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Convert official CAT-Seg checkpoints.")
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--reverse", action="store_true", help="from ours to official")
    parser.add_argument("--overwrite", action="store_true", help="replace the target")
    args = parser.parse_args()
    try:
        print(convert(args.source, args.target, args.reverse, args.overwrite))
    except (OSError, ValueError) as error:
        raise SystemExit(line_of(error)) from None


if __name__ == "__main__":
    run(lambda _: main(), None)

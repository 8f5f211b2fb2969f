"""Convert official CAT-Seg checkpoints to ours, and back.

    python tools/model_converters/catseg.py model_base.pth catseg_vitb16.pth
    python tools/model_converters/catseg.py --reverse catseg_vitb16.pth model_base.pth

ViT-B and ViT-L are told apart by their shapes. Every key is renamed once or listed with the reason
why it is dropped; anything else is an error. Files are read with ``weights_only=True``.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmclipdis.engine import read_checkpoint
from mmclipdis.models.segmentation.catseg_checkpoint import (
    ConversionReport,
    from_official,
    to_official,
)


def weights_in(checkpoint: Mapping[str, Any], key: str) -> dict[str, Tensor]:
    """The state dict under ``key``, or the checkpoint itself if it is one."""
    state = checkpoint.get(key, checkpoint)
    return {name: value for name, value in state.items() if isinstance(value, Tensor)}


def convert(source: Path, target: Path, reverse: bool = False) -> ConversionReport:
    """Convert the file ``source`` to ``target`` and return what became of every key."""
    checkpoint = read_checkpoint(source)
    if reverse:
        extra = checkpoint.get("meta", {}).get("catseg_extra")
        official, report = to_official(weights_in(checkpoint, "state_dict"), extra)
        torch.save({"model": official}, target)
        return report
    ours, extra, report = from_official(weights_in(checkpoint, "model"))
    torch.save({"state_dict": ours, "meta": {"catseg_extra": extra}}, target)
    return report


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Convert official CAT-Seg checkpoints.")
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--reverse", action="store_true", help="from ours to official")
    args = parser.parse_args()
    try:
        print(convert(args.source, args.target, args.reverse))
    except (FileNotFoundError, ValueError) as error:
        raise SystemExit(f"{error}") from None


if __name__ == "__main__":
    main()

#!/usr/bin/env python
"""A checkpoint in the form that ships: no optimiser, no copy of the tiny CLIP, kernels in float16.

The detector of the package was made by::

    python tools/train.py configs/shapes/fvit.py --work-dir work_dirs/fvit \
        --cfg-options randomness.seed=0
    python tools/model_converters/slim.py work_dirs/fvit/iter_700.pth \
        mmclipdis/apis/zoo/weights/fvit-shapes.safetensors --overwrite

Inferencers, ``tools/test.py`` and the tools of mmseg and mmdet take the file as any checkpoint.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from mmclipdis.apis.cli import run
from mmclipdis.engine.checkpoint_io import read_checkpoint
from mmclipdis.engine.slim_checkpoint import write_slim
from mmclipdis.utils.whole_files import refuse_existing


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line and convert."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path, help="of a training")
    parser.add_argument("out", type=Path, help="a .safetensors")
    parser.add_argument("--made-by", default="tools/train.py", help="what the file says of itself")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT")
    args = parser.parse_args(arguments)
    refuse_existing(args.out, args.overwrite)
    checkpoint = read_checkpoint(args.checkpoint)
    before, path = args.checkpoint.stat().st_size, write_slim(args.out, checkpoint, args.made_by)
    print(f"{path}: {path.stat().st_size:,} bytes of {before:,}")


if __name__ == "__main__":
    run(main, None)

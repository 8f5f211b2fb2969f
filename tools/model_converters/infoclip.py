"""Export the CAT-Seg inside a checkpoint of InfoCLIP.

    python tools/model_converters/infoclip.py work_dirs/.../iter_80000.pth catseg.pth

The result fits the configs of configs/catseg, and tools/model_converters/catseg.py --reverse goes
on to the official layout. Files are read with ``weights_only=True``.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

from mmclipdis.apis.cli import run
from mmclipdis.apis.resources import line_of
from mmclipdis.engine import read_checkpoint, write_checkpoint
from mmclipdis.models.segmentation.infoclip.checkpoint import student_of
from mmclipdis.utils.whole_files import refuse_existing


def convert(source: Path, target: Path, overwrite: bool = False) -> int:
    """Write the segmentor of the file ``source`` to ``target``; the number of its tensors.

    Raises:
        FileExistsError: the target is there, and ``overwrite`` is false.
        FileNotFoundError, ValueError: there is no such file, or it is not InfoCLIP's.
    """
    refuse_existing(target, overwrite)
    checkpoint = read_checkpoint(source)
    state = checkpoint.get("state_dict", checkpoint) if isinstance(checkpoint, Mapping) else {}
    if not isinstance(state, Mapping):
        raise ValueError(f"{source}: 'state_dict' is a {type(state).__name__}, not a state dict")
    try:
        student = student_of(state)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None
    write_checkpoint(target, {"state_dict": student, "meta": {}}, overwrite)
    return len(student)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--overwrite", action="store_true", help="replace the target")
    args = parser.parse_args()
    try:
        tensors = convert(args.source, args.target, args.overwrite)
        print(f"{args.target}: {tensors} tensors")
    except (OSError, ValueError) as error:
        raise SystemExit(line_of(error)) from None


if __name__ == "__main__":
    run(lambda _: main(), None)

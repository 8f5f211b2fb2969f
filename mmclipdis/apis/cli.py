"""What the command-line tools share: options, reading configs, and one-line errors."""

from __future__ import annotations

import argparse
import difflib
import logging
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

import torch.distributed
from mmengine.config import Config

import mmclipdis
from mmclipdis.apis.cfg_options import CfgOptions
from mmclipdis.apis.config_check import UserInputError, check_config
from mmclipdis.apis.plain_values import check_plain_values
from mmclipdis.apis.resources import (
    CLOSED_PIPE,
    all_causes,
    is_closed_pipe,
    raising_loggers,
    resource_message,
    silence_output,
)
from mmclipdis.apis.zoo.listing import find, near
from mmclipdis.apis.zoo.resolving import config_path
from mmclipdis.compat.optional import HAS_MMDET, HAS_MMSEG, MMDET_REMEDY, MMSEG_REMEDY
from mmclipdis.engine.configs import read_config_file
from mmclipdis.utils.places import ROOT

DEBUG_VARIABLE = "MMCLIPDIS_DEBUG"
PACKAGE = str(Path(mmclipdis.__file__).parent)
EXIT_CODE = 2
#: What a constructor fails with that was given a value of another kind than it expects.
OF_VALUES = (
    *(ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError),
    ValueError,
)
FILE_ERRORS = (
    FileExistsError,
    FileNotFoundError,
    IsADirectoryError,
    NotADirectoryError,
    PermissionError,
)


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that training and testing have in common (those of mmseg)."""
    parser.add_argument("--work-dir", help="folder for logs and checkpoints")
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        action=CfgOptions,
        help="settings that replace those of the config, as key=value, for example "
        "train_dataloader.batch_size=2 or key='[a,b]'",
    )
    parser.add_argument(
        "--launcher",
        choices=["none", "pytorch", "slurm", "mpi"],
        default="none",
        help="what started the processes of a distributed run",
    )
    parser.add_argument("--local_rank", "--local-rank", type=int, default=0)
    parser.add_argument(
        "--debug", action="store_true", help=f"show tracebacks (or set {DEBUG_VARIABLE}=1)"
    )


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line; sets ``LOCAL_RANK`` as mmengine expects it.

    Raises:
        UserInputError: ``--cfg-options`` has a part that cannot be read.
    """
    args = parser.parse_args(arguments)
    os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
    if args.debug:
        os.environ[DEBUG_VARIABLE] = "1"
    return args


def read_config(args: argparse.Namespace, needs: Sequence[str]) -> Config:
    """Read the config, put in the options of the command line, and choose the work folder.

    A config is a file, or one of the package: by its name in the zoo, or by its path there.
    The work folder is ``--work-dir``, or else the config's own, or else ``work_dirs/CONFIG_NAME``.

    Raises:
        UserInputError: there is no such file, it is not a config, an option fits nothing in it, or
            an entry of ``needs`` is missing.
    """
    path = Path(args.config)
    if not path.is_file():
        packaged = _packaged(args.config)
        if packaged is None:
            raise UserInputError(f"config {args.config!r} does not exist{_did_you_mean(path)}")
        path = packaged
    config = read_config_file(path)
    if args.cfg_options:
        try:
            config.merge_from_dict(args.cfg_options)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            reason = str(error.args[0] if error.args else error).rstrip(".")
            raise UserInputError(f"--cfg-options does not fit the config: {reason}.") from error
    missing = [name for name in needs if config.get(name) is None]
    if missing:
        raise UserInputError(
            f"config {args.config!r} has no {' and no '.join(missing)}; add it, or take it from a "
            "_base_ file."
        )
    for name in needs:
        if isinstance(config[name], (str, int, float)):
            raise UserInputError(
                f"{name} must be a dict of settings, got {config[name]!r} (config {args.config!r})."
            )
    if config.get("default_scope") == "mmseg" and not HAS_MMSEG:
        raise UserInputError(f"config {args.config!r} {MMSEG_REMEDY}.")
    if config.get("default_scope") == "mmdet" and not HAS_MMDET:
        raise UserInputError(f"config {args.config!r} {MMDET_REMEDY}.")
    check_config(config)
    check_plain_values(config)
    config.launcher = args.launcher
    if args.work_dir is not None:
        config.work_dir = args.work_dir
    elif config.get("work_dir") is None:
        config.work_dir = str(Path("work_dirs") / path.stem)
    return config


def _packaged(config: str) -> Path | None:
    """A config of the package, which has no other path once installed: by name, or below ROOT."""
    try:
        path = config_path(config)
    except FileNotFoundError:
        return None
    info = find(config) if path is None else None
    return path if info is None else info.path


def _did_you_mean(path: Path) -> str:
    if not path.suffix:
        near_names = near(str(path))[:2]
        return f"; did you mean {' or '.join(near_names)}?" if near_names else "."
    folders = [Path("configs"), ROOT / "configs"]
    files = {file.resolve() for folder in folders for file in folder.rglob("*.py")}
    names = difflib.get_close_matches(path.name, {file.name for file in files}, n=3, cutoff=0.5)
    matches = [os.path.relpath(f) for name in names for f in sorted(files) if f.name == name][:3]
    return f"; did you mean {' or '.join(matches)}?" if matches else "."


def run(main: Callable[[Sequence[str] | None], object], arguments: Sequence[str] | None) -> None:
    """Run a tool; mistakes of the user become one line and exit code 2.

    Mistakes are errors that mmclipdis raises on purpose (``ValueError`` and the like), files that
    are missing, what the machine lacks, names that no registry knows, and values of a config that
    the class they are given to does not take. A closed pipe (``| head``) ends the tool without a
    word. All other errors keep their traceback, and with ``--debug`` or ``MMCLIPDIS_DEBUG=1`` these
    do, too.
    """
    try:
        with raising_loggers():
            result = main(arguments)
            sys.stdout.flush()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    except Exception as error:
        if is_closed_pipe(error):  # "| head" has read enough
            silence_output()
            sys.exit(CLOSED_PIPE)
        message = user_message(error)
        if message is None or os.environ.get(DEBUG_VARIABLE) == "1":
            raise
        _exit(message)
    _end_distributed_run(result)


def _end_distributed_run(result: object) -> None:
    """End one of several processes at once, with ``result`` (the runner) still alive.

    Taking down DDP and gloo's threads now and then aborts a process whose work is done and saved
    ("terminate called without an active exception"), and torchrun then reports a failed run.
    """
    dist = torch.distributed
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return
    dist.barrier()
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _exit(message: str) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(EXIT_CODE)


def user_message(error: BaseException) -> str | None:
    """Return the line to print when the error is the user's to mend, and None when it is a bug.

    What the machine lacks counts wherever it was found; see :mod:`mmclipdis.apis.resources`.
    """
    for cause in _chain(error):
        place, line, message = _origin(cause)
        lacking = resource_message(cause)
        if lacking is not None:
            return lacking
        if isinstance(cause, FILE_ERRORS):
            return message
        # a "raise" of ours, not a call that failed in our code
        ours = place.startswith(PACKAGE + os.sep) and line.startswith("raise ")
        if ours and isinstance(cause, (ValueError, TypeError, RuntimeError, ImportError, OSError)):
            return message
        # an unknown type, or an argument that it does not take
        if isinstance(cause, (KeyError, TypeError)) and f"mmengine{os.sep}registry" in place:
            return message
    # last: an error of ours that was raised while handling one of these says more
    found = (resource_message(cause) for cause in all_causes(error))
    lacking = next((message for message in found if message is not None), None)
    return lacking or _refused_values(error)


def _refused_values(error: BaseException) -> str | None:
    """What a config gives to a class whose constructor fails; None if none was being built.

    mmengine and torch say ``'<=' not supported between 'float' and 'str'`` and not of what.
    """
    built = None
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_code.co_name == "build_from_cfg" and "obj_cls" in frame.f_locals:
            built = frame.f_locals
    if built is None or not isinstance(error, OF_VALUES):
        return None
    name = getattr(built["obj_cls"], "__name__", built["obj_cls"])
    given = ", ".join(f"{k}={_short(v)}" for k, v in built["args"].items() if _short(v))
    reason = " ".join(str(error).split())[:200].rstrip(".") or "no message"
    return (
        f"{name} does not accept what the config gives it: {type(error).__name__}: {reason}; "
        f"given: {given[:300] or 'nothing'}. --debug shows where it stopped."
    )


def _short(value: object) -> str:
    """A value as a config has it; nothing for what is long or was built."""
    plain = (str, int, float, bool, list, tuple, dict, type(None))
    text = repr(value) if isinstance(value, plain) else ""
    return text if len(text) <= 120 else ""


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield the error, then what it was raised from."""
    while error is not None:
        yield error
        error = error.__cause__


def _origin(error: BaseException) -> tuple[str, str, str]:
    """Return the file that raised the error, the line of code, and the message.

    Errors of data loader workers arrive as text; their last traceback entry counts.
    """
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    if text.startswith("Caught "):
        entry = r'^\s*File "([^"]+)", line \d+, in .*\n\s*(.*)$'
        entries = re.findall(entry, text, flags=re.MULTILINE)
        place, line = entries[-1] if entries else ("", "")
        return place, line, text.strip().splitlines()[-1].split(": ", 1)[-1]
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return "", "", text
    return frames[-1].filename, frames[-1].line or "", text

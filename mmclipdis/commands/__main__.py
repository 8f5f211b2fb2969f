"""The command ``mmclipdis``, with its subcommands, and how it ends."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from collections.abc import Sequence
from typing import Any

import click

from mmclipdis.commands.completion import completion
from mmclipdis.commands.convert import convert
from mmclipdis.commands.doctor import doctor
from mmclipdis.commands.export import export
from mmclipdis.commands.models import models
from mmclipdis.commands.photos import detect, segment, tag
from mmclipdis.commands.reproduce import reproduce
from mmclipdis.commands.training import test, train
from mmclipdis.commands.web import web
from mmclipdis.version import __version__

#: Of mistakes on the command line, as :data:`mmclipdis.apis.cli.EXIT_CODE`.
MISTAKE = 2
EPILOG = """\b
Exit codes:
  0    done
  1    done, but some photos could not be read (or the doctor found a trouble)
  2    something is wrong with what was asked for; one line says what
  130  interrupted; what is in the output folder is whole
  141  the reader of a pipe has gone

\b
Example:
  mmclipdis segment photo.jpg --words "grass, sand, apple; plum" --out results/
"""


class Ordered(click.Group):
    """Lists its subcommands in the order in which they were added."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of the subcommands."""
        return list(self.commands)


@click.group(
    cls=Ordered,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    invoke_without_command=True,
    epilog=EPILOG,
)
@click.version_option(__version__, prog_name="mmclipdis")
@click.pass_context
def mmclipdis(context: click.Context) -> None:
    """Segment, detect and tag photos by any words; train, test and export the models."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())
        context.exit(MISTAKE)


for _command in (segment, detect, tag, models, web, export):
    mmclipdis.add_command(_command)
for _command in (train, test, reproduce, convert, doctor, completion):
    mmclipdis.add_command(_command)


def command(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; see :data:`EPILOG`.

    Args:
        arguments: The words behind ``mmclipdis``; None for those of the process.
    """
    words, stdout = None if arguments is None else list(arguments), sys.stdout
    try:
        code = mmclipdis.main(words, prog_name="mmclipdis", standalone_mode=False)
    except click.ClickException as error:
        print(f"error: {_message(error)}", file=sys.stderr)
        return MISTAKE
    except click.Abort:  # what click makes of Ctrl-C
        print("interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    except ImportError as error:  # by its name: its module is not worth importing for --help
        if type(error).__name__ != "IncompatibleEnvironmentError":
            raise
        print(f"error: {error}", file=sys.stderr)
        return MISTAKE
    except SystemExit as stop:
        if sys.stdout is not stdout:  # click put a deaf one there, since a pipe's reader has gone
            return 128 + signal.SIGPIPE
        if not isinstance(stop.code, int):  # a message, which Python prints
            raise
        return stop.code
    return code if isinstance(code, int) else 0


def _message(error: click.ClickException) -> str:
    """One line: what is wrong, and for what the parser found, where all options are listed."""
    message = " ".join(error.format_message().split())
    context = getattr(error, "ctx", None)
    if context is None or message.endswith("--help."):
        return message
    return f"{message.rstrip('.')}; see {context.command_path} --help."


def main() -> int:
    """The command as a process of its own: what it warns of is a line, without a place in code."""
    usual = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
        if issubclass(category, UserWarning):
            print(f"warning: {' '.join(str(message).split())}", file=sys.stderr)
        else:
            usual(message, category, *place, **more)

    warnings.showwarning = show
    # FFmpeg says on stderr, too, what is wrong with a video
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    return command()


if __name__ == "__main__":
    sys.exit(main())

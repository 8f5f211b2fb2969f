"""How a fault must end: in one line that names the thing and the remedy, or in a warning."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from mmclipdis.apis import cli

Tool = Callable[[Sequence[str] | None], object]


def ends_in(
    line: str, tool: Tool, arguments: Sequence[object], capsys: pytest.CaptureFixture[str]
) -> str:
    """Run a command-line tool that must end with exit code 2 and one line; return the line.

    Args:
        line: Regular expression that is found in it.
        tool: What the command runs, such as ``mmclipdis.apis.run.train``.
        arguments: The words behind the command.
        capsys: pytest's, to read what was printed.
    """
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        cli.run(tool, [str(word) for word in arguments])
    printed = capsys.readouterr()
    assert stop.value.code == cli.EXIT_CODE, stop.value.code
    assert "Traceback" not in printed.out + printed.err
    last = printed.err.splitlines()[-1]
    assert last.startswith("error: "), printed.err
    check_line(last.removeprefix("error: "), line)
    return last.removeprefix("error: ")


def raises(line: str, call: Callable[..., Any], *args: Any, **options: Any) -> str:
    """Call Python code that must raise an error our tools would print as one line; return it."""
    with pytest.raises(Exception) as caught:  # noqa: PT011  (any kind, as long as it is ours)
        call(*args, **options)
    message = cli.user_message(caught.value)
    assert message is not None, f"a traceback, not a line: {caught.value!r}"
    check_line(message, line)
    return message


def check_line(message: str, line: str) -> None:
    """One line, with what it must say, and without advice to read files unsafely."""
    assert "\n" not in message.strip(), message
    assert re.search(line, message), f"{line!r} is not in {message!r}"
    assert "weights_only=False" not in message
    assert len(message) < 700, "nobody reads this"

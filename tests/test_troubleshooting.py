"""docs/troubleshooting.md has the messages as the code says them. Takes two seconds."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.paths import ROOT

PAGE = ROOT / "docs/troubleshooting.md"
#: What stands for a name, a number or a file in a heading.
GAP = "…"


def messages(path: Path) -> Iterator[str]:
    """Texts of a file, with a gap where an f-string puts something in."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.JoinedStr):
            yield "".join(p.value if isinstance(p, ast.Constant) else GAP for p in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def headings() -> list[str]:
    return re.findall(r"(?m)^### `(.+)`$", PAGE.read_text())


def says(message: str, heading: str) -> bool:
    """Whether the parts of a heading stand in a message, one after the other."""
    place = 0
    for part in filter(None, (part.strip() for part in heading.split(GAP))):
        place = message.find(part, place) + len(part)
        if place < len(part):
            return False
    return True


def test_every_heading_is_a_message_of_the_code() -> None:
    files = [*(ROOT / "mmclipdis").rglob("*.py"), *(ROOT / "tools").rglob("*.py")]
    files.append(ROOT / "mmclipdis_startup.py")
    known = [message for file in files for message in messages(file)]
    wrong = [h for h in headings() if not any(says(message, h) for message in known)]
    assert wrong == []
    assert len(headings()) >= 40 and len(headings()) == len(set(headings()))


def test_every_heading_has_a_reason_and_a_remedy() -> None:
    sections = re.split(r"(?m)^#{2,3} ", PAGE.read_text())[1:]
    bare = [s.splitlines()[0] for s in sections if s.startswith("`") and len(s.split()) < 15]
    assert bare == []


def test_parts_of_a_heading_must_come_in_order() -> None:
    assert says("config 'x' does not exist; did you", "config … does not exist")
    assert not says("does not exist: config", "config … does not exist")

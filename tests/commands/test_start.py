"""What a subcommand is kept from importing can be imported again when that fails."""

from __future__ import annotations

import sys
from typing import Any

import pytest

import mmclipdis
from mmclipdis.commands import start as module

NAMES = ("no_segmentation", "no_detection", "no_metrics")


@pytest.mark.parametrize("error", [None, ImportError("no torch"), KeyboardInterrupt()])
def test_what_is_absent_for_a_while_is_as_it_was_afterwards(
    error: BaseException | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    optional: Any = sys.modules["mmclipdis.compat.optional"]
    monkeypatch.setitem(sys.modules, "mmclipdis.compat.optional", optional)  # put back at the end
    libraries = {"segment": "no_segmentation", "detect": "no_detection", "tag": None}
    monkeypatch.setattr(module, "LIBRARIES", libraries)
    monkeypatch.setattr(module, "OPTIONAL", ("no_metrics",))
    seen: list[set[str]] = []

    def register() -> None:
        seen.append({name for name in NAMES if name in sys.modules})
        if error is not None:
            raise error

    monkeypatch.setattr(mmclipdis, "register", register)
    before = {**sys.modules}
    try:
        if error is None:
            module.start("segment")
        else:
            with pytest.raises(type(error)):
                module.start("segment")
        left = {name for name in {*sys.modules} - {*before} if not name.startswith("mmclipdis")}
    finally:
        sys.modules.pop("no_detection", None)
    assert seen == [{"no_detection", "no_metrics"}]
    # where all went well, the other task's library stays away
    assert left == ({"no_detection"} if error is None else set())
    assert before.items() - {("mmclipdis.compat.optional", optional)} <= {**sys.modules}.items()

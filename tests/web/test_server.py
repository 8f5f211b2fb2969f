"""The page before it is there: which models it offers, who reaches it, and ports that are taken."""

from __future__ import annotations

import importlib.util
import os
import socket
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch

from mmclipdis.apis.zoo import DEFAULTS
from mmclipdis.web import address, launch, server
from mmclipdis.web.address import check_port, is_loopback
from mmclipdis.web.offers import label, offered_models
from mmclipdis.web.server import Running
from tests.faults.endings import raises


def test_models_of_each_task_are_offered_packaged_ones_first():
    offered = offered_models()
    assert {task: infos[0].name for task, infos in offered.items()} == DEFAULTS
    for infos in offered.values():
        offline = [info.offline for info in infos]
        assert offline == sorted(offline, reverse=True)


def test_models_that_somebody_has_to_fetch_or_train_first_are_not_offered(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)
    names = {info.name: info for infos in offered_models().values() for info in infos}
    assert {"clearclip-vitb16", "clip-rn50"} <= names.keys()  # open_clip downloads what they need
    assert label(names["clearclip-vitb16"]) == "clearclip-vitb16 (needs a download)"
    assert label(names["fvit-shapes"]) == "fvit-shapes (tiny, for the examples)"
    by_hand = {"catseg-vitb16", "declip-vitb16", "fvit-openai-vitb16", "dclip-shapes"}
    assert not by_hand & names.keys()

    for name in ("DeCLIP_evab_dinov2B_csa_560_0.25_seg.pt", "catseg-vitb16.pth"):
        file = tmp_path / "hub" / "checkpoints" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    names = {info.name for infos in offered_models().values() for info in infos}
    assert {"catseg-vitb16", "declip-vitb16"} <= names


def test_an_operator_says_which_models_are_offered():
    offered = offered_models(allowed=["fvit-shapes"])
    assert {task: [info.name for info in infos] for task, infos in offered.items()} == {
        "detect": ["fvit-shapes"]
    }
    offered = offered_models("clip-shapes", ["fvit-shapes"])
    assert list(offered) == ["detect", "tag"]


@pytest.mark.parametrize(
    ("model", "line"),
    [
        ("clearclip-shape", "no model 'clearclip-shape'; did you mean 'clearclip-shapes'"),
        ("configs/shapes/fvit.py", "The page takes names of the zoo"),
    ],
)
def test_only_names_of_the_zoo_can_be_offered(model, line):
    raises(line, launch, model=model)


@pytest.fixture
def taken():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


def test_a_port_in_use_is_a_line_with_the_remedy(taken):
    line = rf"^cannot listen on 127.0.0.1:{taken} \(Address already in use\); if another .* --port"
    raises(line, check_port, "127.0.0.1", taken)
    raises(line, launch, port=taken)


def test_an_address_of_another_machine_is_a_line():
    raises("cannot listen on 192.0.2.1:7860", check_port, "192.0.2.1", 7860)
    raises("a port is a number from 1 to 65535, got 0", check_port, "127.0.0.1", 0)


def test_limits_that_are_none_are_a_line():
    raises("limits must be positive", launch, max_megabytes=0)


def test_without_gradio_there_is_a_line(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(address, "find_spec", lambda name: None if name == "gradio" else find(name))
    raises(r"pip install 'mmclipdis\[web\]'", launch)
    raises(r"pip install 'mmclipdis\[web\]'", server.build, "folder")


@pytest.mark.parametrize(
    ("host", "own"),
    [
        ("127.0.0.1", True),
        ("localhost", True),
        ("::1", True),
        ("[::1]", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.0.7", False),
        ("example.org", False),
    ],
)
def test_it_is_known_who_reaches_an_address(host, own):
    assert is_loopback(host) is own


@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_an_address_of_ipv6_is_served_under_the_name_that_browsers_send(host, tmp_path):
    pytest.importorskip("gradio", reason="gradio is not installed: pip install '.[web]'")
    page = Mock()
    page.launch.return_value = None, "http://[::1]:7860/", None
    server._serve(page, tmp_path, host, 7860, False, 1, False)
    served = page.launch.call_args.kwargs
    assert served["server_name"] == "[::1]"  # gradio asks that page whether it is there
    _, trusted = served["app_kwargs"]["middleware"]
    assert "[::1]" in trusted.kwargs["allowed_hosts"]


#: What gradio reads and would else send, keep, or put into the folder it was started in.
VARIABLES = (
    *("GRADIO_TEMP_DIR", "GRADIO_EXAMPLES_CACHE", "GRADIO_ANALYTICS_ENABLED"),
    *("GRADIO_RUN_HISTORY", "HF_HUB_DISABLE_TELEMETRY"),
)


class Page:
    """In place of gradio's."""

    def __init__(self) -> None:
        self.closed = 0

    def close(self, verbose: bool = True) -> None:
        self.closed += 1


@pytest.fixture
def asked(monkeypatch) -> dict[str, Any]:
    """What ``launch`` asks of ``build``; nothing is served. A port that is free for sure."""
    seen: dict[str, Any] = {}

    def build(folder: Path, **options: Any) -> Page:
        seen.update(options, folder=folder, page=Page())
        seen["environment"] = {name: os.environ[name] for name in VARIABLES}
        return seen["page"]

    def serve(page: Page, folder: Path, *_: Any) -> Running:
        return Running("http://address/", None, page, folder)

    monkeypatch.setattr(server, "check_gradio", lambda: None)
    monkeypatch.setattr(server, "build", build)
    monkeypatch.setattr(server, "_serve", serve)
    monkeypatch.setattr(server, "check_port", lambda *_: None)
    return seen


def test_by_default_nothing_is_sent_or_shared_and_nothing_stays(asked, capsys, monkeypatch):
    monkeypatch.delenv("GRADIO_RUN_HISTORY", raising=False)
    monkeypatch.setenv("GRADIO_TEMP_DIR", "/of/another/program")
    running = launch(block=False)
    temporary, cache, *switches = asked["environment"].values()
    assert Path(temporary).parent == Path(cache).parent == asked["folder"] == running.folder
    assert switches == ["False", "False", "1"]
    assert asked["allowed"] is None
    assert running.folder.is_dir()
    assert running.folder.stat().st_mode & 0o077 == 0
    running.close()
    running.close()
    assert asked["page"].closed == 1
    assert not running.folder.exists()
    assert os.environ["GRADIO_TEMP_DIR"] == "/of/another/program"
    assert "GRADIO_RUN_HISTORY" not in os.environ
    printed = capsys.readouterr()
    assert "The page is at http://address/" in printed.out
    assert printed.err == ""


@pytest.mark.parametrize("options", [{"host": "0.0.0.0"}, {"share": True}])
def test_others_are_warned_of_and_start_no_downloads(asked, capsys, options):
    running = launch(block=False, **options)
    running.close()
    assert "warning: other machines reach this page" in capsys.readouterr().err
    assert set(DEFAULTS.values()) <= set(asked["allowed"])
    offered = offered_models(allowed=asked["allowed"])
    assert all(info.offline for infos in offered.values() for info in infos)


def test_a_page_that_cannot_start_leaves_nothing(asked, monkeypatch):
    def fail(*_: Any) -> None:
        raise OSError("no")

    monkeypatch.setattr(server, "_serve", fail)
    with pytest.raises(OSError, match="no"):
        launch(block=False)
    assert not asked["folder"].exists()
    assert asked["page"].closed == 1


def test_ctrl_c_ends_the_page_and_removes_its_folder(asked, monkeypatch):
    class Interrupted:
        def wait(self, _: float) -> bool:
            raise KeyboardInterrupt

    monkeypatch.setattr(server.threading, "Event", Interrupted)
    running = launch()
    assert running.page.closed == 1
    assert not asked["folder"].exists()

"""The other subcommands hand on what they are given: trainings, converters, exports, lists."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import weakref
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import mmclipdis
from mmclipdis.apis import cli
from mmclipdis.apis import run as run_module
from mmclipdis.commands import convert as convert_module
from mmclipdis.commands.__main__ import command
from tests.paths import ROOT


@pytest.mark.parametrize("name", ["train", "test"])
def test_a_training_gets_all_words_and_its_help_says_who_it_is(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command([name, "--help"]) == 0
    assert f"usage: mmclipdis {name} [-h]" in capsys.readouterr().out
    given: list[Any] = []
    monkeypatch.setattr(run_module, name, given.append)
    words = ["config.py", "--work-dir", "w", "--cfg-options", "a=1", "b=2"]
    before = sys.argv
    assert command([name, *words]) == 0
    assert given == [words] and sys.argv is before


def test_the_runner_of_a_training_lives_until_a_distributed_run_has_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runners: weakref.WeakSet[Any] = weakref.WeakSet()
    alive: list[int] = []

    def train(words: list[str]) -> object:
        runner = ModuleType("runner")  # which takes weak references
        runners.add(runner)
        return runner

    monkeypatch.setattr(run_module, "train", train)
    monkeypatch.setattr(cli, "_end_distributed_run", lambda _: alive.append(len(runners)))
    assert command(["train", "config.py"]) == 0
    assert alive == [1]


def test_a_mistake_in_a_training_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["train", "configs/shapes/clearclp.py"]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("error: config") and "did you mean" in line


def test_all_converters_are_there_with_their_summaries(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert command(["convert", "--help"]) == 0
    text = capsys.readouterr().out
    files = [path for kind in ("model", "dataset") for path in
             (ROOT / "tools" / f"{kind}_converters").glob("*.py")]  # fmt: skip
    assert len(files) >= 13
    for path in files:
        assert f"\n  {path.stem} " in text


def test_a_converter_is_run_as_a_script_with_its_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Any] = []

    def start(words: list[str], env: dict[str, str]) -> Any:
        asked.append((words, env["PYTHONPATH"]))
        return SimpleNamespace(returncode=3)

    monkeypatch.setattr(subprocess, "run", start)
    assert command(["convert", "coco-object", "data/coco", "--help"]) == 3
    ((python, script, *words), path) = asked[0]
    assert python == sys.executable and words == ["data/coco", "--help"]
    assert Path(script).samefile(ROOT / "tools/dataset_converters/coco_object.py")
    assert path.startswith(str(Path(mmclipdis.__file__).parents[1]))
    assert command(["convert", "cocoobject"]) == 2
    assert "no converter 'cocoobject'; there are catseg, " in capsys.readouterr().err
    assert convert_module.TOOLS.is_dir()


def test_an_interrupted_converter_is_waited_for_and_says_it_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: Any, **__: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        return SimpleNamespace(returncode=130)

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(subprocess, "run", interrupted)
    assert command(["convert", "coco_object", "data/coco"]) == 130
    assert capsys.readouterr().err == "" and signal.getsignal(signal.SIGINT) is before


def test_an_export_gets_words_and_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []

    def export(*args: Any, **options: Any) -> Path:
        given.append((args, options))
        return Path("x.onnx")

    module = ModuleType("mmclipdis.export")
    module.export = export  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mmclipdis.export", module)
    asked = ["export", "clearclip-shapes", "--words", "a, b", "--out", "x.onnx", "--no-check"]
    assert command(asked) == 0
    settings = {"format": "onnx", "checkpoint": None, "image_size": None, "check": False}
    settings.update(task=None, cfg_options=None)
    assert given == [(("clearclip-shapes", "a, b", Path("x.onnx")), settings)]
    more = ["--cfg-options", "model.segments=None", "model.head.sizes=[1,2]"]
    assert command([*asked, *more]) == 0 and command([*asked[:2], *more, *asked[2:]]) == 0
    settings = {"model.segments": None, "model.head.sizes": [1, 2]}
    assert [options["cfg_options"] for _, options in given[1:]] == [settings, settings]
    for size, task in (("64", "tag"), ("48x64", "segment")):
        assert command([*asked, "--image-size", size, "--task", task]) == 0
    assert [(o["image_size"], o["task"]) for _, o in given[3:]] == [
        (64, "tag"),
        ((48, 64), "segment"),
    ]


def test_settings_that_are_none_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["export", "clip-shapes", "--words", "a, b", "--out", "x.onnx", "--cfg-options"]
    assert command([*asked, "model.x"]) == 2
    assert "--cfg-options takes key=value pairs, got 'model.x'" in capsys.readouterr().err
    assert command([*asked[:-1], "--image-size", "48,64"]) == 2
    assert "--image-size '48,64': give a side or height x width" in capsys.readouterr().err


def test_models_are_listed_for_people_and_for_scripts(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert command(["models", "--task", "detect"]) == 0
    text = capsys.readouterr().out
    assert "fvit-shapes" in text and "clearclip" not in text
    assert command(["models", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert {entry["task"] for entry in listed} == {"segment", "detect", "tag"}
    offline = {entry["name"] for entry in listed if entry["offline"]}
    assert {"clearclip-shapes", "fvit-shapes", "clip-shapes"} <= offline


def test_the_web_page_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)  # type: ignore[arg-type]
    assert command(["web"]) == 2
    assert "run: pip install 'mmclipdis[web]'" in capsys.readouterr().err


@pytest.fixture
def with_gradio(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if gradio were installed."""
    gradio = ModuleType("gradio")
    gradio.__spec__ = ModuleSpec("gradio", None)
    monkeypatch.setitem(sys.modules, "gradio", gradio)


@pytest.mark.usefixtures("with_gradio")
def test_a_port_in_use_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert command(["web", "--port", str(port)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"cannot listen on 127.0.0.1:{port}" in line
    assert re.search("give another (port, such as )?--port", line)


@pytest.mark.usefixtures("with_gradio")
def test_the_web_page_gets_its_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    from mmclipdis import web

    given: list[Any] = []
    monkeypatch.setattr(web, "launch", lambda **options: given.append(options))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert command(["web", "--port", str(port), "--model", "clip-shapes"]) == 0
    expected = {"model": "clip-shapes", "host": "127.0.0.1", "port": port, "device": None}
    assert given == [{**expected, "share": False}]


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_shells_get_a_script_that_completes(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["completion", shell]) == 0
    assert f"_MMCLIPDIS_COMPLETE={shell}_complete" in capsys.readouterr().out


def test_models_and_formats_are_completed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("_MMCLIPDIS_COMPLETE", "bash_complete")
    for words, expected in (
        ("mmclipdis segment a.png --model clearclip-s", "clearclip-shapes"),
        ("mmclipdis segment a.png --format png,la", "png,labels"),
    ):
        monkeypatch.setenv("COMP_WORDS", words)
        monkeypatch.setenv("COMP_CWORD", "4")
        assert command([]) == 0
        assert f"plain,{expected}\n" in capsys.readouterr().out

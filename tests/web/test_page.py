"""What clicks do: searches, other colours, heat maps, models of a task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

gradio = pytest.importorskip("gradio", reason="gradio is not installed: pip install '.[web]'")

from mmclipdis.apis.zoo import DEFAULTS  # noqa: E402
from mmclipdis.commands.photos import USUAL  # noqa: E402
from mmclipdis.web import page as page_module  # noqa: E402
from mmclipdis.web.desk import Desk  # noqa: E402
from mmclipdis.web.examples import write_examples  # noqa: E402
from mmclipdis.web.page import _Wires, make_page  # noqa: E402

LABELS = {task: [(f"{name} (tiny)", name)] for task, name in DEFAULTS.items()}
OFFERED = {task: [name] for task, name in DEFAULTS.items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("web")


@pytest.fixture(scope="module")
def wires(folder: Path) -> _Wires:
    with gradio.Blocks():
        return _Wires(Desk(OFFERED, folder, device="cpu"), LABELS, [None] * 8, {})


@pytest.fixture(scope="module")
def sent(folder: Path) -> list[Any]:
    """What a browser sends for the first example."""
    file, words, task = write_examples(folder / "examples")[0]
    photo = {"path": file, "orig_name": "beach.png"}
    return [photo, words, task, DEFAULTS[task], "", 0.0, 0.6]


def difference(first: Any, second: Any) -> float:
    return float(np.abs(np.asarray(first, float) - np.asarray(second, float)).mean())


def test_a_search_fills_in_everything_and_remembers_its_question(wires, sent):
    drawn, key, rows, note, file, word, heat, question = wires.search(*sent)
    assert drawn.size == (320, 240)
    assert key.count("<li>") == len(rows.value["data"]) == 5
    assert note == ""
    assert Path(file.value["path"] if isinstance(file.value, dict) else file.value).is_file()
    assert [value for _, value in word.choices] == sent[1].split(", ")
    assert (word.value, heat) == (None, None)
    assert (question.words, question.name) == (sent[1], "beach.png")


def test_nothing_is_searched_again_without_a_photo_or_words(wires, sent):
    skip = wires.again(None, *sent[1:])
    assert skip == wires.again(sent[0], " ", *sent[2:])
    assert len(skip) == len(wires.again(*sent)) == 8
    assert wires.again(*sent)[0].size == (320, 240)


def test_other_colours_are_those_of_what_is_shown_whatever_is_typed(wires, sent):
    drawn, *_, question = wires.search(*sent)
    photo = np.asarray(wires.desk.answer(question).photo)
    faint, _, heat = wires.redraw(question, None, 0.1)
    assert 0 < difference(faint, photo) < difference(drawn, photo)
    assert heat is None
    _, _, faint = wires.redraw(question, "water", 0.1)
    assert 0 < difference(faint, photo) < difference(wires.look(question, "water", 0.9), photo)


def test_who_opens_the_heat_maps_sees_that_of_the_first_word(wires, sent):
    *_, question = wires.search(*sent)
    word, heat = wires.look_first(question, None, 0.6)
    assert word == "water"
    assert difference(heat, wires.look(question, word, 0.6)) == 0
    assert difference(heat, wires.look(question, "fish", 0.6)) > 5
    kept = wires.look_first(question, "fish", 0.6)
    assert kept == wires.look_first(None, None, 0.6) != [word, heat]
    assert wires.look(question, None, 0.6) is wires.look(None, "x", 0.6) is None


def test_a_task_brings_its_models_and_its_least_score(wires):
    models, threshold = wires.choose("detect")
    assert (models.choices, models.value) == (LABELS["detect"], "fvit-shapes")
    assert threshold == USUAL["detect"]  # as on the command line
    models, threshold = wires.choose("train")
    assert (models.value, threshold) == ("clearclip-shapes", 0.0)


def test_few_downloads_are_kept(wires, sent, folder, monkeypatch):
    monkeypatch.setattr(page_module, "KEPT_FILES", 2)
    for _ in range(4):
        wires.search(*sent)
    assert len(list(folder.glob("results_*"))) == 2


def test_the_page_asks_for_nothing_from_elsewhere_and_offers_no_api(folder, wires):
    examples = write_examples(folder / "examples")
    page = make_page(wires.desk, examples, LABELS, ("segment", "clearclip-shapes"))
    config = page.get_config_file()
    assert not config.get("analytics_enabled", False)
    assert {one["api_visibility"] for one in config["dependencies"]} == {"private"}
    labels = [one["props"].get("label") for one in config["components"]]
    for label in ("Photo", "Words", "What to make", "Model", "Background", "Least score"):
        assert label in labels

"""Behind the page: answers for typed words, models that stay, pictures, tables and downloads."""

from __future__ import annotations

import csv
import io
import json
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmclipdis.apis import OpenVocabSegInferencer, Segmentation
from mmclipdis.apis.zoo import DEFAULTS
from mmclipdis.web.desk import THRESHOLDS, Desk, Question
from mmclipdis.web.examples import write_examples
from mmclipdis.web.outputs import legend, pack, picture, summary, table
from tests.faults.endings import raises

OFFERED = {task: [name] for task, name in DEFAULTS.items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("web")


@pytest.fixture(scope="module")
def questions(folder: Path) -> dict[str, Question]:
    """One of each task: the examples of the page."""
    examples = write_examples(folder / "examples")
    return {
        task: Question(Path(file), Path(file).name, words, task, DEFAULTS[task])
        for file, words, task in examples
    }


@pytest.fixture(scope="module")
def desk(folder: Path) -> Desk:
    return Desk(OFFERED, folder, device="cpu")


def test_the_examples_are_one_of_each_task_with_words_that_are_there(questions):
    assert list(questions) == ["segment", "detect", "tag"]
    for question in questions.values():
        assert question.words.endswith("umbrella") or "umbrella" in question.words
        assert Image.open(question.photo).size == (320, 240)


def test_the_same_question_is_answered_from_memory_and_other_words_without_loading(
    desk, questions, monkeypatch
):
    first = desk.answer(questions["segment"])
    assert desk.answer(questions["segment"]) is first
    monkeypatch.setattr(desk, "_load", lambda *_: pytest.fail("the model was loaded again"))
    other = desk.answer(replace(questions["segment"], words="kite, water"))
    assert other.names == ("kite", "water")


def test_an_answer_is_that_of_the_inferencer(desk, questions):
    question = replace(questions["segment"], words="sky, grass; lawn", background="sand")
    photo = np.asarray(Image.open(question.photo))
    (expected,) = OpenVocabSegInferencer(device="cpu")(
        photo, ["sky", ["grass", "lawn"]], background=["sand"]
    )
    np.testing.assert_array_equal(desk.answer(question).labels, expected.labels)


def test_a_number_as_background_is_the_least_score_unless_another_was_chosen(desk, questions):
    question = replace(questions["detect"], threshold=THRESHOLDS["detect"])
    usual = desk.answer(question).scores
    scores = desk.answer(replace(question, background="0.8")).scores
    assert scores.tolist() == [score for score in usual.tolist() if score >= 0.8]
    assert 0 < len(scores) < len(usual)
    line = "background=0.8 and threshold=0.4 are two thresholds: give one"
    raises(line, desk.answer, replace(question, background="0.8", threshold=0.4))


def test_other_words_are_answered_within_a_second(desk, questions):
    desk.answer(questions["segment"])
    start = time.process_time()  # of this process alone, whatever else the machine does
    result = desk.answer(replace(questions["segment"], words="road, brick, ball, fish, kite"))
    shown = picture(result, 0.6), legend(result), table(result)
    assert time.process_time() - start < 1
    assert all(shown)


def test_another_photo_in_the_place_of_one_is_searched_anew(desk, folder):
    file = folder / "upload.png"
    question = Question(file, "upload.png", "kite, sand", "segment", DEFAULTS["segment"])
    sizes = []
    for side in (40, 56):
        Image.new("RGB", (side, 40), (90, 160, 60)).save(file)
        sizes.append(desk.answer(question).size)
    assert sizes == [(40, 40), (40, 56)]


def test_few_models_and_results_stay(folder, monkeypatch):
    made = []
    desk = Desk({"tag": ["a", "b", "c"]}, folder)
    found = Segmentation(np.zeros((4, 4), int), ("x",), np.zeros((4, 4, 3), np.uint8))
    monkeypatch.setattr(
        desk, "_load", lambda *key: made.append(key[1]) or (lambda *_, **__: [found])
    )
    file = folder / "small.png"
    Image.new("RGB", (4, 4)).save(file)
    for number, model in enumerate("abcacb"):
        desk.answer(Question(file, "small.png", f"x{number}", "tag", model))
    assert made == ["a", "b", "c", "a", "b"]
    assert len(desk._results) == 6


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"words": " , "}, "^no words"),
        ({"words": "very " * 90 + "long, sand"}, r"tokens, and the text tower reads 77"),
        ({"model": "configs/clearclip/clearclip_vitb16_voc20.py"}, "page does not offer the model"),
        ({"model": "/etc/passwd"}, "page does not offer the model '/etc/passwd' to segment"),
        ({"model": DEFAULTS["tag"]}, "page does not offer the model"),
        ({"task": "train"}, "no task 'train'"),
        ({"photo": Path("/etc/passwd")}, "was not uploaded to this page"),
        ({"background": "1.5"}, "threshold is a score in"),
        ({"words": "sand, sky", "background": "sky"}, "both among the words and the background"),
    ],
)
def test_what_makes_no_sense_is_a_line(desk, questions, change, line):
    raises(line, desk.answer, replace(questions["segment"], **change))


def test_a_photo_outside_is_not_read_through_a_link(desk, questions, folder, tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (folder / "link.png").symlink_to(tmp_path / "a.png")
    question = replace(questions["segment"], photo=folder / "link.png")
    raises("was not uploaded to this page", desk.answer, question)


def test_a_segmentation_beyond_memory_is_a_line(desk, questions, folder):
    file = folder / "large.png"
    Image.new("1", (4000, 3900)).save(file)
    many = ",".join(f"w{i}" for i in range(60))
    question = replace(questions["segment"], photo=file, words=many)
    raises("60 words on 15,600,000 pixels .* use up to 32 words", desk.answer, question)


def test_a_heat_map_is_of_one_word_at_the_size_of_the_photo(desk, questions):
    for question in questions.values():
        found = desk.heat(question, question.words.split(",")[0])
        assert found.values.shape == (240, 320)


def test_what_is_shown_names_what_was_found(desk, questions):
    for task, question in questions.items():
        result = desk.answer(question)
        shown = table(result)
        first = {"segment": "share", "detect": "score", "tag": "score"}[task]
        assert shown["headers"][:2] == ["name", first]
        assert len(shown["data"]) == min(len(result.to_rows()), 300)
        assert picture(result, 0.5).height >= 240
        assert bool(legend(result)) == (task != "tag")


def test_words_are_escaped_in_the_legend(desk, questions):
    words = "<script>alert(1)</script>, <b>"
    text = legend(desk.answer(replace(questions["segment"], words=words)))
    assert "&lt;b&gt;" in text or "&lt;script&gt;" in text
    assert "<script" not in text
    assert "<b>" not in text


def test_one_word_without_a_background_is_told(desk, questions):
    with pytest.warns(UserWarning, match="one word"):
        result = desk.answer(replace(questions["segment"], words="kite"))
    assert "all pixels become it" in summary(result)
    assert summary(desk.answer(questions["segment"])) == ""


def test_a_table_has_no_formulas_and_its_head_without_rows(desk, questions, tmp_path):
    def written(task: str, **change: object) -> str:
        result = desk.answer(replace(questions[task], **change))
        with zipfile.ZipFile(pack(result, 0.6, tmp_path)) as archive:
            return archive.read(f"{result.title}_table.csv").decode()

    assert ",'=1+2," in written("tag", words="=1+2, kite")
    assert written("detect", threshold=1.0) == "photo,name,score,x1,y1,x2,y2\n"


@pytest.mark.parametrize("task", list(OFFERED))
def test_a_download_has_picture_table_json_and_labels(desk, questions, task, tmp_path):
    question = replace(questions[task], name="../../Öl & <sand>.png")
    result = desk.answer(question)
    path = pack(result, 0.6, tmp_path)
    assert path.parent == tmp_path
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    ends = ["overlay.png", "table.csv", "coco.json", *(["labels.png"] * (task == "segment"))]
    assert list(files) == [f"{path.stem}_{end}" for end in ends]
    assert path.stem == "Öl_sand_"
    rows = list(csv.DictReader(io.StringIO(files[f"{path.stem}_table.csv"].decode())))
    assert [row["name"] for row in rows] == [row["name"] for row in result.to_rows()]
    coco = json.loads(files[f"{path.stem}_coco.json"])
    assert [one["name"] for one in coco["categories"]] == list(result.names)
    if task == "segment":
        labels = Image.open(io.BytesIO(files[f"{path.stem}_labels.png"]))
        np.testing.assert_array_equal(np.asarray(labels), result.labels)

"""What the inferencers of all tasks promise: streams, broken photos, words, threads."""

from __future__ import annotations

import contextlib
import copy
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from mmclipdis.apis import (
    Failure,
    OpenVocabSegInferencer,
    Segmentation,
)
from mmclipdis.apis.inferencers import search
from tests.apis.inferencers.colours import of_words
from tests.apis.inferencers.conftest import SHAPES
from tests.apis.inferencers.test_segment import NAMES, photo
from tests.faults.endings import raises


@pytest.fixture(scope="module")
def searchers(detector, tagger) -> dict[str, Any]:
    """One inferencer a task, on the tiny CLIP."""
    tiny = OpenVocabSegInferencer(SHAPES / "clip.py", device="cpu", templates="a {}.")
    return {"segment": tiny, "detect": detector, "tag": tagger}


def test_a_stream_reads_a_photo_when_its_result_is_asked_for(segmentor) -> None:
    given: list[int] = []

    def endless() -> Iterator[np.ndarray]:
        for number in range(10**9):
            given.append(number)
            yield photo()

    stream = segmentor.stream(endless(), NAMES, batch_size=2)
    assert not given
    next(stream), next(stream), next(stream)
    assert len(given) == 4


@pytest.mark.parametrize("batch_size", [1, 4])
def test_photos_before_an_error_are_not_lost(
    segmentor: OpenVocabSegInferencer, batch_size: int
) -> None:
    def ends_badly() -> Iterator[np.ndarray]:
        yield photo()
        yield photo()
        raise RuntimeError("the camera is gone")

    for photos, error in ((ends_badly(), "camera is gone"), ([photo()] * 2 + ["x.png"], "x.png")):
        stream = segmentor.stream(photos, NAMES, batch_size=batch_size)
        found = [next(stream).names, next(stream).names]
        with pytest.raises((RuntimeError, FileNotFoundError), match=error):
            next(stream)
        assert found == [tuple(NAMES)] * 2


def test_a_generator_may_use_one_array_for_all_photos_of_a_batch(
    segmentor: OpenVocabSegInferencer,
) -> None:
    def shown() -> Iterator[np.ndarray]:
        buffer = photo()
        for channel in range(3):
            buffer[:] = 255 * np.eye(3, dtype=np.uint8)[channel]
            yield buffer

    found = segmentor(shown(), NAMES, batch_size=3)
    assert [[*result.shares()] for result in found] == [["red"], ["green"], ["blue"]]


@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_broken_photo_is_named_and_the_others_follow(
    segmentor, tmp_path: Path, batch_size: int
) -> None:
    Image.fromarray(photo()).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_text("no photo")
    Image.fromarray(photo(12, 8)).save(tmp_path / "c.png")
    options = dict(batch_size=batch_size, on_error="yield")
    first, broken, last = segmentor.stream(tmp_path, NAMES, **options)
    assert isinstance(broken, Failure) and broken.path.endswith("b.png")
    assert "cannot read" in broken.message and "\n" not in broken.message
    assert isinstance(first, Segmentation) and last.path == tmp_path / "c.png"
    assert np.array_equal(last.labels, segmentor(photo(12, 8), NAMES)[0].labels)
    raises(r"cannot read .*b\.png", segmentor, tmp_path, NAMES)
    raises("on_error must be 'raise' or 'yield', got 'skip'", segmentor.stream, [], NAMES,
           on_error="skip")  # fmt: skip


def test_a_photo_that_the_model_refuses_is_found_in_its_batch(
    segmentor, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = segmentor.model.test_step

    def refuse(data: Any) -> Any:
        if any(tuple(one.shape[1:]) == (16, 40) for one in data["inputs"]):
            raise ValueError("too wide\nfor me")
        return step(data)

    monkeypatch.setattr(segmentor.model, "test_step", refuse)
    sizes = [(8, 12), (8, 20), (16, 16)]  # resized to 16 pixels in height
    found = list(
        segmentor.stream([photo(*size) for size in sizes], NAMES, batch_size=3, on_error="yield")
    )
    kinds = [type(one).__name__ for one in found]
    assert kinds == ["Segmentation", "Failure", "Segmentation"]
    assert found[1] == Failure("photo 1", "too wide for me")


def test_a_background_word_or_threshold_leaves_pixels_unnamed(segmentor) -> None:
    (usual,) = segmentor(photo(), ["red", "green", "blue"])
    (without,) = segmentor(photo(), ["red", "green"], background="blue")
    assert without.names == ("red", "green") and without.nothing == 255
    assert np.array_equal(without.labels == 255, usual.labels == 2)
    assert (without.labels == 255).any() and (without.labels == 0).any()
    (doubtful,) = segmentor(photo(), NAMES, threshold=1.0)
    assert set(doubtful.shares()) == {"none"}
    (again,) = segmentor(photo(), NAMES, background=0)
    assert "none" not in again.shares()
    assert segmentor.model.asked_threshold is None
    raises("threshold 0.5 with one word: .*its probability is 1 everywhere", segmentor, photo(),
           "red", threshold=0.5)  # fmt: skip
    with pytest.warns(UserWarning, match="one word and no background: all pixels become 'red'"):
        segmentor(photo(), "red")


def test_a_stock_segmentor_takes_a_threshold_too() -> None:
    config = of_words()
    config.model.update(type="EncoderDecoder", test_cfg={"mode": "whole"})
    config.model.data_preprocessor.type = "SegDataPreProcessor"
    stock = OpenVocabSegInferencer(config, device="cpu")
    assert set(stock(photo(), NAMES, threshold=1.0)[0].shares()) == {"none"}
    assert "none" not in stock(photo(), NAMES, threshold=0.01)[0].shares()
    heat = stock(photo(), NAMES)[0].heatmap("blue")
    assert heat.values.shape == (8, 12) and heat.peak()[0] >= 6


def test_the_heat_map_of_a_segmentor_is_the_cosine(segmentor) -> None:
    (found,) = segmentor(photo(), NAMES)
    heat = found.heatmap("red")
    assert heat.values[:, :2].mean() == pytest.approx(0.5**0.5, abs=1e-3)  # and as much ground
    assert heat.values[:, -2:].mean() == pytest.approx(0, abs=1e-3)
    assert segmentor(photo())[0].names == tuple(NAMES)  # the words stay
    raises("was not made by an inferencer", Segmentation(found.labels, found.names,
           found.photo).heatmap, "red")  # fmt: skip


def test_an_unknown_precision_is_refused() -> None:
    raises("precision must be one of fp32, bf16, fp16, got 'int8'", OpenVocabSegInferencer,
           Config(), precision="int8")  # fmt: skip


def test_texts_are_read_as_mmdets_inferencer_reads_them(segmentor) -> None:
    own = segmentor(photo(), NAMES)[0]
    texts = ["red . blue", ["green", "ground", "red"]]
    found = segmentor([photo()] * 2, texts=texts, custom_entities=True, batch_size=2)
    assert [result.names for result in found] == [("red", "blue"), ("green", "ground", "red")]
    for result in found:
        (alone,) = OpenVocabSegInferencer(of_words(), device="cpu")(photo(), list(result.names))
        assert np.array_equal(alone.labels, result.labels)
    both = segmentor([photo()] * 2, texts="red, [blue, green]")
    assert {result.names for result in both} == {("red", "blue")}
    again = segmentor(photo())[0]
    assert again.names == own.names and np.array_equal(again.labels, own.labels)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"texts": ["a", "b"]}, "2 texts for 1 photos: give one text for all"),
        ({"texts": " . "}, "names no classes: write 'kite . red apple'"),
        ({"texts": "a . b", "names": NAMES}, "names=... or texts=..., not both"),
        ({"custom_entities": True}, "says how to read texts=..., which is not given"),
    ],
)
def test_texts_that_cannot_be_read(segmentor, options: dict[str, Any], line: str) -> None:
    raises(line, segmentor, photo(), **options)


@pytest.mark.parametrize(
    ("task", "precision"),
    [("segment", "bf16"), ("detect", "fp16"), ("tag", "bf16"), ("tag", "fp16")],
)
def test_lower_precisions_find_nearly_the_same(
    searchers: dict[str, Any],
    pictures: Path,
    task: str,
    precision: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    searcher, file = searchers[task], min(pictures.iterdir())
    (exact,) = searcher(file, ["apple", "kite"])
    heat = exact.heatmap("apple").values
    monkeypatch.setattr(searcher, "precision", precision)
    (lower,) = searcher(file, ["apple", "kite"])
    if task == "segment":
        assert (exact.labels == lower.labels).mean() > 0.95
    else:
        np.testing.assert_allclose(lower.scores[:2], exact.scores[:2], atol=0.02)
        assert not np.array_equal(lower.scores[:2], exact.scores[:2])
    rounded = lower.heatmap("apple").values
    assert 0 < np.abs(rounded - heat).max() < 0.03


def test_words_that_somebody_gave_the_model_are_kept() -> None:
    segmentor = OpenVocabSegInferencer(of_words(), device="cpu")
    segmentor(photo(), ["red", "green"])
    segmentor.model.set_vocabulary(["blue", "ground"])
    assert segmentor(photo())[0].names == ("blue", "ground")
    assert segmentor(photo(), texts="red . green")[0].names == ("red", "green")
    assert segmentor(photo())[0].names == ("blue", "ground")


def test_results_may_be_written_and_not_kept(segmentor, tmp_path: Path) -> None:
    photos = (photo() for _ in range(3))
    kept = segmentor(photos, NAMES, out_dir=tmp_path / "out", return_results=False)
    assert kept == [] and len(list((tmp_path / "out").iterdir())) == 3
    (tmp_path / "file").write_text("")
    raises("a file stands where a folder is needed", segmentor, photo(), NAMES,
           out_dir=tmp_path / "file" / "out")  # fmt: skip


def test_a_folder_that_cannot_be_written_is_named_before_the_first_photo(
    segmentor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(folder: Path) -> None:
        raise OSError(30, "Read-only file system", str(folder))

    monkeypatch.setattr(search, "make_folder", refuse)
    raises(r"written into '\S+/out' \(Read-only file system\); give a folder that you may write",
           segmentor, tmp_path / "absent.png", NAMES, out_dir=tmp_path / "out")  # fmt: skip


def test_texts_for_photos_that_nobody_counted_are_counted(segmentor) -> None:
    photos = (photo() for _ in range(2))
    raises("3 texts for 2 photos", segmentor, photos, texts=["red . blue"] * 3)
    photos = (photo() for _ in range(2))
    raises("1 texts for 2 or more photos", segmentor, photos, texts=["red . blue"])


def test_both_names_of_one_thing_are_refused(segmentor) -> None:
    raises("words and names are two names", segmentor, photo(), NAMES, names=NAMES)
    raises("weights and checkpoint are two names", OpenVocabSegInferencer, Config(), "a",
           checkpoint="b")  # fmt: skip


def test_threads_that_share_a_model_get_their_own_words(
    segmentor: OpenVocabSegInferencer, monkeypatch: pytest.MonkeyPatch
) -> None:
    both, met = threading.Barrier(2), list[bool]()
    forward = type(segmentor).forward

    def slow(self: Any, *args: Any, **options: Any) -> Any:
        with contextlib.suppress(threading.BrokenBarrierError):  # where they take turns
            both.wait(0.4)
            met.append(True)
        return forward(self, *args, **options)

    monkeypatch.setattr(type(segmentor), "forward", slow)
    found: dict[int, Segmentation] = {}

    def search_for(words: list[str]) -> None:
        found[len(words)] = segmentor(photo(), words)[0]

    asked = [NAMES[:2], NAMES[::-1][:3]]
    threads = [threading.Thread(target=search_for, args=(list(words),)) for words in asked]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not met
    for words in asked:
        alone = segmentor(photo(), list(words))[0]
        assert np.array_equal(found[len(words)].labels, alone.labels)


def test_an_inferencer_is_copied(segmentor: OpenVocabSegInferencer) -> None:
    other = copy.copy(segmentor.turn)
    with segmentor.turn, other:
        assert other is not segmentor.turn

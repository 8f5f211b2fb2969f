"""Names that a detector is asked for, or told by a checkpoint, and that cannot be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("mmdet")

from mmengine.registry import DefaultScope

from mmclipdis.models.text_encoder import OpenCLIPTextEncoder
from tests.faults.endings import check_line, raises
from tests.models.detection.fvit.test_names import META, fresh, predict
from tests.models.detection.fvit.tiny import CLASSES, DIM, NOVEL, batch, bbox_head, build
from tests.models.detection.fvit.tiny import config as tiny_config
from tests.tiny import tiny_arch

LONG = "the very long name of a thing that goes on and on " * 12
#: What somebody writes as texts, and the line.
TEXTS: dict[str, tuple[Any, str]] = {
    "empty": ("", "text='' names no classes: write 'kite . red apple'"),
    "no names": (" . . ", "names no classes: write 'kite . red apple'"),
    "empty list": ([], "names no classes: give"),
    "twice": ("kite . apple . Kite", "same name stands for two classes: 'Kite'.*leave one out"),
    "synonyms": (
        "fish, [wheel, tyre]",
        r"class 'wheel' has 2 names \(wheel, tyre\): this model takes one name a class; leave",
    ),
    "background": ("kite . background", "which the detector adds itself: leave that class out"),
    "no text": (3, "3 are no class names: write a list"),
    "too long": (LONG, r"does not fit 16 tokens: 'There is .*; use a shorter class name"),
}


@pytest.fixture(autouse=True)
def mmdet_scope() -> None:
    DefaultScope.get_instance("test-detection-names", scope_name="mmdet")


@pytest.fixture(scope="module")
def model() -> Any:
    DefaultScope.get_instance("test-detection-names-model", scope_name="mmdet")
    return build().eval()


@pytest.mark.parametrize("case", TEXTS)
@pytest.mark.filterwarnings("ignore:the text encoder is random")
def test_texts(case: str, model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    text, line = TEXTS[case]
    if case == "too long":
        arch = {**tiny_arch(), "embed_dim": DIM}
        arch["text_cfg"] = dict(arch["text_cfg"], vocab_size=49408)
        encoder = OpenCLIPTextEncoder(arch, cache_dir=False)
        monkeypatch.setattr(model.roi_head.bbox_head.text, "encoder", encoder)
    before = model.vocabulary, model.roi_head.bbox_head.novel
    raises(line, predict, model, [text, "kite"])
    assert (model.vocabulary, model.roi_head.bbox_head.novel) == before


@pytest.mark.parametrize(
    ("told", "line"),
    [
        ({"text": "a . b", "tokens_positive": [[[0, 1]]]}, "tokens_positive chooses parts"),
        ({"stuff_text": "sky"}, "stuff_texts .* write all names into texts"),
    ],
)
def test_other_words_of_mmdets_grounding_models(told: Any, line: str, model: Any) -> None:
    data = batch(model, False)
    data["data_samples"][1].set_metainfo(told)
    raises(line, model, **data, mode="predict")


def test_texts_where_nothing_reads_them(tmp_path: Path) -> None:
    torch.save(torch.randn(5, DIM), tmp_path / "text.pt")
    options: dict[str, Any] = dict(text_encoder=None, text_embeddings=str(tmp_path / "text.pt"))
    model = build(tiny_config(bbox_head(vocabulary=CLASSES, novel_classes=NOVEL, **options)))
    line = r"no text encoder reads .*text\.pt.*give the box head a text_encoder"
    raises(line, predict, model.eval(), ["kite"])


def test_texts_to_train_on() -> None:
    model = build().train()
    data = batch(model, True)
    data["data_samples"][0].set_metainfo({"text": ("cat", "zebra"), "custom_entities": True})
    line = r"text names 2 classes \(cat, zebra\) to train on.*leave the text out"
    raises(line, model, **data, mode="loss")


@pytest.mark.parametrize(
    ("meta", "line"),
    [
        ({"classes": "cat"}, "is the text 'cat', whose letters"),
        ({"classes": ("cat", "dog", "cat")}, "same name stands for two classes: 'cat'"),
        (
            {**META, "novel_classes": ("dogs",)},
            r"dataset_meta\['novel_classes'\] lists \['dogs'\].*4 classes: spell them alike",
        ),
        (
            {"classes": CLASSES, "base_classes": ("lion",)},
            r"dataset_meta\['base_classes'\] lists \['lion'\]",
        ),
        ({"classes": ("cat", "background")}, "leave that class out"),
    ],
)
def test_the_dataset_meta_of_a_checkpoint(meta: dict[str, Any], line: str) -> None:
    model = fresh()

    def write() -> None:
        model.dataset_meta = meta

    raises(line, write)


def test_a_checkpoint_of_other_classes_than_the_config(recwarn: pytest.WarningsRecorder) -> None:
    fresh(vocabulary=["zebra"]).dataset_meta = META
    check_line(
        str(recwarn.pop(UserWarning).message),
        r"names 4 classes \(cat, dog, cow, ...\), the vocabulary of the config 1 class \(zebra\): "
        "the config's are used; take vocabulary='dataset'",
    )


def test_no_names_at_all() -> None:
    raises(
        "no class names yet: .* run it with VocabularyHook, or name a vocabulary", predict, fresh()
    )

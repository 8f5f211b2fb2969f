"""The classes of a detector: its own words behind them, novelty, changes that fail."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from mmclipdis.models.detection.class_text import DetectorText
from tests.models.test_class_text import Letters

CLASSES = ["cat", "horse"]

pytestmark = pytest.mark.filterwarnings("ignore:the text encoder is random")


def text(**options):
    return DetectorText(Letters(), templates="{}", **options)


def test_words_have_the_last_rows_and_are_no_classes():
    found = text(vocabulary=CLASSES, words=("thing", "stuff"), novel_classes=("horse",))
    assert found.embeddings().tolist() == [[1, 3], [1, 5], [1, 5], [1, 5]]
    assert found.vocabulary.class_names == (*CLASSES, "thing", "stuff")
    assert found.classes.class_names == tuple(CLASSES)
    assert found.novel == (False, True)


def test_without_words_there_are_only_classes():
    found = text(vocabulary=CLASSES)
    assert len(found.embeddings()) == 2 and found.novel is None
    with pytest.raises(ValueError, match="named 'background', which the detector adds itself"):
        found.set_vocabulary(["cat", "background"])


def test_classes_of_the_data_set_come_with_its_flags():
    found = text(words=("thing",))
    assert found.follow_dataset and found.classes is None and found.novel is None
    with pytest.raises(RuntimeError, match="VocabularyHook"):
        found.embeddings()
    with pytest.raises(ValueError, match="2 flags of novelty for 0 classes"):
        found.set_novel((True, False))
    found.set_vocabulary(CLASSES)
    found.set_novel([True, False])
    assert found.novel == (True, False)
    found.set_novel(None)
    assert found.novel is None
    found.set_vocabulary(CLASSES, ["cat"])
    assert found.novel == (True, False)


def test_flags_of_the_config_stay():
    found = text(vocabulary=CLASSES, novel_classes=["cat"])
    assert not found.follow_dataset
    found.set_novel((True, True))
    assert found.novel == (True, False)


@pytest.mark.parametrize(
    ("names", "novel", "message"),
    [
        (["dog", "Thing"], None, "one named 'thing'"),
        (["dog", "background"], None, "a class of the background"),
        (["dog"], ["cow"], "novel_classes lists .'cow'."),
        (["dog"], "dog", "is the text 'dog', whose letters"),
        (["dog", "dog"], (), "two classes"),
    ],
)
def test_a_change_that_fails_changes_nothing(names, novel, message):
    found = text(vocabulary=CLASSES, words=("thing",), novel_classes=["cat"])
    with pytest.raises(ValueError, match=message):
        found.set_vocabulary(names, novel)
    assert found.classes.class_names == tuple(CLASSES) and found.novel == (True, False)
    assert len(found.embeddings()) == 3


def test_novel_classes_are_names():
    with pytest.raises(ValueError, match="'dataset' or names, got 'coco'"):
        text(novel_classes="coco")


def test_a_file_of_embeddings_has_the_words_last(tmp_path):
    rows = torch.randn(3, 4)
    torch.save(rows, tmp_path / "text.pt")
    options = dict(text_embeddings=str(tmp_path / "text.pt"), words=("thing",))
    found = DetectorText(vocabulary=CLASSES, **options)
    torch.testing.assert_close(found.embeddings(), F.normalize(rows, dim=1))
    with pytest.raises(ValueError, match="detector's 4 rows for 3 classes the last row.*'thing'"):
        found.set_vocabulary([*CLASSES, "cow"])
    assert found.vocabulary.class_names == (*CLASSES, "thing"), "nothing changes"


def test_checkpoints_hold_nothing_of_it():
    assert not text(vocabulary=CLASSES).state_dict()

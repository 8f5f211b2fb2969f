"""Names that data samples bring themselves."""

from __future__ import annotations

import pytest
from mmseg.structures import SegDataSample

from mmclipdis.models.asked_names import asked_names, by_asked_names


def sample(**meta: object) -> SegDataSample:
    return SegDataSample(metainfo=meta)


def test_a_text_is_read_from_metainfo_and_from_a_field() -> None:
    packed = sample(text="kite . red apple", custom_entities=True)
    field = SegDataSample()
    field.text = ["kite", "red apple"]
    for found in (packed, field, packed.metainfo):
        assert asked_names(found) == (("kite",), ("red apple",))
    assert asked_names(sample(img_path="a.png")) is None
    assert asked_names(sample(text=None, custom_entities=False, tokens_positive=None)) is None


def test_samples_are_grouped_by_what_they_ask_for() -> None:
    texts = ["kite . apple", None, ["kite", "apple"], "sand", None]
    groups = by_asked_names([sample(text=text) for text in texts])
    assert groups == [((("kite",), ("apple",)), [0, 2]), (None, [1, 4]), ((("sand",),), [3])]


def test_parts_of_a_text_are_refused() -> None:
    with pytest.raises(ValueError, match="tokens_positive chooses parts of the text"):
        asked_names(sample(text="kite . apple", tokens_positive=[[[0, 4]]]))

"""Class names as people write them, and what can be read in two ways."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmclipdis.clip.text.names import names_of_text, read_names
from mmclipdis.clip.text.vocabulary import Vocabulary
from mmclipdis.models.text_encoder import build_vocabulary, typed_names

THREE = (("sky",), ("street",), ("car", "van"))

SAME = {
    "list": ["sky", "street", ["car", "van"]],
    "tuple": ("sky", "street", ("car", "van")),
    "array": np.array(["sky", "street"]),
    "generator": (name for name in ("sky", "street", ["car", "van"])),
    "text": "sky, street, [car, van]",
    "text without blanks": "sky,street,[car,van]",
    "text with a comma at the end": "sky, street, [ car , van ] , ",
    "lines": "sky\nstreet\ncar, van\n",
    "lines of Windows": "\r\nsky\r\nstreet\r\ncar,van\r\n",
    "dict": {"sky": None, "street": [], "car": ["van"]},
    "dict with the name among its synonyms": {"sky": "sky", "street": (), "car": ["car", "van"]},
}


@pytest.mark.parametrize("form", SAME)
def test_every_form_is_read_alike(form: str) -> None:
    expected = THREE[:2] if form == "array" else THREE
    names = SAME[form]
    assert Vocabulary.from_names(read_names(names) if isinstance(names, str) else names).names == (
        expected
    )


@pytest.mark.parametrize("form", [form for form in SAME if form != "generator"])
def test_a_config_reads_them_so(form: str) -> None:
    vocabulary = build_vocabulary(SAME[form])
    assert vocabulary is not None
    assert vocabulary.names == (THREE[:2] if form == "array" else THREE)
    named = build_vocabulary({"names": SAME[form], "templates": "single"})
    assert named is not None and named.names == vocabulary.names


@pytest.mark.parametrize("kind", [str, Path])
def test_a_class_file_is_read_wherever_names_are_taken(tmp_path: Path, kind: type) -> None:
    path = tmp_path / "classes.txt"
    path.write_text("sky\nstreet\ncar, van\n", encoding="utf-8")
    assert Vocabulary.from_names(read_names(kind(path))).names == THREE
    for source in (kind(path), {"names": kind(path)}, typed_names(kind(path))):
        found = build_vocabulary(source)
        assert found is not None and found.names == THREE


def test_a_single_word_is_a_class_where_people_type_and_a_data_set_in_a_config() -> None:
    assert typed_names("cat") == [["cat"]]
    assert typed_names("voc21") == "voc21" and typed_names("ADE20KDataset") == "ADE20KDataset"
    assert typed_names(["cat", "dog"]) == ["cat", "dog"]
    with pytest.raises(ValueError, match="'cat' is neither a registered data set"):
        build_vocabulary("cat")


def test_apostrophes_and_inner_quotes_are_parts_of_a_name() -> None:
    assert read_names("cat's eye, 5\" gun") == [["cat's eye"], ['5" gun']]


AMBIGUOUS: dict[str, tuple[Any, str]] = {
    "only brackets": ("[car, van]", "one class or several"),
    "a list as text": ("['sky', 'car']", "one class or several"),
    "open bracket": ("sky, [car, van", "brackets that enclose no synonyms"),
    "closed twice": ("sky, car], van", "brackets that enclose no synonyms"),
    "nested": ("sky, [car, [van]]", "brackets that enclose no synonyms"),
    "before a bracket": ("sky, a [car]", "brackets that enclose no synonyms"),
    "behind a bracket": ("sky, [car] b", "brackets that enclose no synonyms"),
    "quotes": ("'sky', 'car'", "in quotes"),
    "semicolons": ("sky; car", "semicolons"),
    "empty": (" ", "at least one class name"),
    "empty in the middle": ("sky,,car", "class 1 has an empty name"),
    "empty brackets": ("sky, []", "class 1 has an empty name"),
    "blank line": ("sky\n\ncar", "line 2 is blank"),
    "semicolons in lines": ("sky\ncar; van", "line 2 has a semicolon: .*; a line is one class"),
    "commas over lines": ("sky,\ncar", "line 1 has an empty name"),
    "set": ({"sky", "car"}, "is a set, which has no order"),
    "bytes": (b"sky", "no class names"),
    "number": (3, "no class names"),
    "counter": (Counter("sky"), "are no synonyms"),
    "index of names": ({"sky": 0, "car": 1}, "'sky': 0 are no synonyms"),
    "half a bracket in a list": (["sky", "[car", "van]"], "'\\[car' is no name"),
    "the other half": (["sky", "van]"], "'van\\]' is no name"),
    "lines in a list": (["sky\ncar"], "line break"),
}


@pytest.mark.parametrize("case", AMBIGUOUS)
def test_what_can_be_read_in_two_ways_is_refused_in_a_line(case: str) -> None:
    names, message = AMBIGUOUS[case]
    with pytest.raises(ValueError, match=message) as caught:
        Vocabulary.from_names(read_names(names))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".json", ".csv", ".yaml"])
def test_another_kind_of_file_is_no_class_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"classes{suffix}"
    path.write_text('["sky"]')
    with pytest.raises(ValueError, match="no text with a class a line"):
        read_names(path)


def test_a_class_named_background_is_the_background_wherever_it_stands() -> None:
    assert Vocabulary.from_names(["cat", "Background"]).background == 1
    assert Vocabulary.from_names(["cat", ["sky", "background"]]).background == 1
    assert Vocabulary.from_names(["cat", "dog"]).background is None
    assert Vocabulary.from_names(["background", "rest"], background_index=1).background == 1


@pytest.mark.parametrize(
    "text",
    [
        "sky . street . car",
        "sky. street. car.",
        " sky .  street . car . ",
        "sky .\nstreet .\ncar",
        "sky, street, car",
        ["sky", "street", "car"],
        ("sky", "street", "car"),
        (["sky"], ("street",), "car"),
    ],
)
@pytest.mark.parametrize("custom", [True, False])
@pytest.mark.filterwarnings("error")
def test_a_text_prompt_names_classes(text: Any, custom: bool) -> None:
    assert names_of_text(text, custom) == (("sky",), ("street",), ("car",))


def test_a_text_prompt_keeps_points_and_commas_inside_names() -> None:
    assert names_of_text("st.john . apple, red") == (("st.john",), ("apple, red",))
    assert names_of_text("sky, [car, van]") == (("sky",), ("car", "van"))
    assert names_of_text("red apple") == (("red apple",),)


def test_a_sentence_is_one_name_and_says_so(recwarn: pytest.WarningsRecorder) -> None:
    with pytest.warns(UserWarning, match="noun phrases are not looked for; write 'kite . red"):
        assert names_of_text("a kite above the sand") == (("a kite above the sand",),)
    recwarn.clear()
    names_of_text("a kite above the sand", custom_entities=True)
    assert not recwarn.list


@pytest.mark.parametrize("text", ["", " . ", ".", [], 3, {"kite"}])
def test_a_text_prompt_without_names_is_refused(text: Any) -> None:
    with pytest.raises(ValueError, match=r"names no classes|no class names|has no order"):
        names_of_text(text)

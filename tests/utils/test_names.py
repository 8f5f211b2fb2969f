"""What takes names of classes takes lists of names, and nothing that looks like one."""

from __future__ import annotations

from typing import Any

import pytest

from mmclipdis.utils.names import check_metainfo, group_lists, name_list


@pytest.mark.parametrize("names", [("a", "b"), ["a", "b"], (n for n in "ab")])
def test_lists_of_names_are_tuples(names: Any) -> None:
    assert name_list(names, "x") == ("a", "b")


def test_one_name_with_its_comma_is_a_list() -> None:
    assert name_list(("thing",), "x") == ("thing",)
    assert group_lists({"all": ["thing"]}, "x") == {"all": ("thing",)}


def test_equal_names_are_named_with_their_places() -> None:
    with pytest.raises(ValueError, match=r"classes has 'b' more than once \(places 1, 2\)"):
        name_list("abb".replace("", " ").split(), "classes")
    assert name_list(("b", "b"), "classes", twice=True) == ("b", "b")


def test_metainfo_of_what_is_no_names_is_left_alone() -> None:
    check_metainfo({"classes": ("a",), "palette": [], "isthing": (True,), "note": "a"}, "data")
    check_metainfo({"classes": None, "novel_classes": ()}, "data")

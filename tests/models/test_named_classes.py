"""Names in use, and the ``dataset_meta`` that tools write and read, are one thing."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from torch import nn

from mmclipdis.models.named_classes import NamedClasses, write_names_into


class Named(NamedClasses, nn.Module):
    """Takes any names."""

    def __init__(self, follow_dataset: bool = True, names: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.follow_dataset = follow_dataset
        self.vocabulary: Any = None
        if names:
            self.set_vocabulary(names)

    def set_vocabulary(self, names: Any) -> None:
        self.vocabulary = SimpleNamespace(class_names=tuple(names))


def test_a_model_that_follows_its_data_takes_the_names_each_time() -> None:
    model = Named()
    assert model.dataset_meta == {}
    for names in (("cat", "dog"), ("kite",)):
        model.dataset_meta = {"classes": names, "palette": [(1, 2, 3)] * len(names), "extra": 1}
        assert model.vocabulary.class_names == names
        assert model.dataset_meta["classes"] == names
        assert model.dataset_meta["palette"] == [(1, 2, 3)] * len(names)
        assert model.dataset_meta["extra"] == 1


@pytest.mark.parametrize("meta", [None, {}, {"classes": None}, {"classes": ()}])
def test_a_meta_without_names_changes_nothing(meta: Any) -> None:
    model = Named(names=("cat",))
    model.dataset_meta = meta
    assert model.dataset_meta["classes"] == ("cat",)
    assert len(model.dataset_meta["palette"]) == 1


def test_a_chosen_vocabulary_stays_and_is_what_is_read() -> None:
    model = Named(follow_dataset=False, names=("cat", "dog"))
    model.dataset_meta = {"classes": ["a", "b", "c"], "palette": [[9, 9, 9]] * 3}
    assert model.vocabulary.class_names == ("cat", "dog")
    assert model.dataset_meta == {"classes": ("cat", "dog"), "palette": [[9, 9, 9]] * 2}


def test_who_holds_the_dict_sees_new_names_and_the_data_sets_own_stays_as_it_is() -> None:
    own = {"classes": ("cat", "dog"), "palette": [[1, 1, 1], [2, 2, 2]]}
    model = Named()
    model.dataset_meta = own
    held = model.dataset_meta
    model.set_vocabulary(("kite", "sand", "apple"))
    model.write_names()
    assert held is model.dataset_meta
    assert held["classes"] == ("kite", "sand", "apple")
    assert held["palette"][:2] == [[1, 1, 1], [2, 2, 2]] and len(held["palette"]) == 3
    assert own == {"classes": ("cat", "dog"), "palette": [[1, 1, 1], [2, 2, 2]]}


@pytest.mark.parametrize(
    ("palette", "changed", "same"),
    [("coco", "random", "coco"), ("random", "random", "random"), ("green", "green", "green")],
)
def test_named_palettes_of_mmdet(palette: str, changed: str, same: str) -> None:
    for names, expected in ((("a", "b"), changed), (("cat",), same)):
        meta: dict[str, Any] = {"classes": ("cat",), "palette": palette}
        write_names_into(meta, names)
        assert meta == {"classes": names, "palette": expected}


def test_one_colour_for_all_stays() -> None:
    meta: dict[str, Any] = {"classes": ("cat",), "palette": (220, 20, 60)}
    write_names_into(meta, ("a", "b"))
    assert meta["palette"] == (220, 20, 60)

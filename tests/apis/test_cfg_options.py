"""--cfg-options reads what mmengine reads, and refuses what that guesses at (under a second)."""

from __future__ import annotations

import argparse
from typing import Any

import pytest
from mmengine.config import DictAction

from mmclipdis.apis.cfg_options import CfgOptions
from tests.faults.endings import raises


def read(words: list[str], action: Any = CfgOptions) -> Any:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cfg-options", nargs="+", action=action)
    return parser.parse_args(["--cfg-options", *words]).cfg_options


@pytest.mark.parametrize(
    "words",
    [
        ["a.b=1", "c=x=y", "d=", "e=None"],
        ["a=[1,(2,3)]", "b='[x,y]'", "c=1,2"],
        ["a=a photo of a {}.", "b=['{}.','a {}.']", "a=2"],
    ],
)
def test_values_are_those_of_mmengine(words: list[str]) -> None:
    assert read(words) == read(words, DictAction)


@pytest.mark.parametrize("value", ["{b:1}", "{'b':[1,2],c:3}", "[{b:1}]", "({ 'b' : 1})"])
def test_a_dictionary_is_refused_with_the_way_to_give_one(value: str) -> None:
    raises(r"a dictionary cannot be given; .* a\.NAME=VALUE", read, [f"a={value}"])


@pytest.mark.parametrize(
    ("word", "line"), [("a=[1,2", "Imbalanced brackets"), ("a", "key=value"), ("=1", "key=value")]
)
def test_a_word_that_cannot_be_read_is_named(word: str, line: str) -> None:
    assert repr(word) in raises(line, read, ["b=1", word])

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import open_clip
import pytest

from mmclipdis.clip.text.templates import TEMPLATES, TemplateSet, get_templates
from tests.faults.endings import raises


def test_imagenet80_are_openais_templates_in_their_order() -> None:
    expected = tuple(t("zebra") for t in open_clip.OPENAI_IMAGENET_TEMPLATES)
    assert len(expected) == 80
    assert get_templates("imagenet80").render("zebra") == expected


def test_single_and_catseg_are_one_prompt_each() -> None:
    assert get_templates("single").render("dog") == ("a photo of a dog.",)
    assert get_templates("catseg").render("dog") == ("A photo of a dog in the scene",)


def test_tcl9_are_nine_that_name_the_class_once() -> None:
    prompts = get_templates("tcl9").render("cat")
    assert len(set(prompts)) == 9
    assert (prompts[0], prompts[-1]) == ("itap of a cat.", "a photo of cats.")


def test_vild63_renders_63_different_prompts() -> None:
    prompts = get_templates("vild63").render("dog")
    assert len(prompts) == len(set(prompts)) == 63
    for expected in (
        "There is a dog in the scene.",
        "There is the dog in the scene.",
        "This is a photo of one dog in the scene.",
        "itap of my dog.",
        "This is a photo of many dog.",
        "This is a bad photo of the dog.",
        "This is a photo of the hard to see dog.",
        "This is a jpeg corrupted photo of a dog.",
        "This is a black and white photo of the dog.",
        "This is the cartoon dog.",
        "This is an embroidered dog.",
        "This is a painting of a dog.",
    ):
        assert expected in prompts


def test_vild63_prepends_this_is_only_before_a_and_the() -> None:
    for prompt in get_templates("vild63").render("dog"):
        assert prompt.startswith(("This is a", "This is the", "There is", "itap of"))


@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        ("apple", "itap of an apple."),
        ("Apple", "itap of an apple."),
        ("dining table", "itap of a dining table."),
        ("tree_frog", "itap of a tree frog."),
        ("food/other", "itap of a food or other."),
        ("floor-other-merged", "itap of a floor-other-merged."),
        ("toilet tissue.", "itap of a toilet tissue."),
    ],
)
def test_vild63_normalises_the_name_and_picks_the_article(raw: str, sentence: str) -> None:
    assert sentence in get_templates("vild63").render(raw)


def test_own_patterns_are_accepted_alone_or_as_a_list() -> None:
    assert get_templates("art of {}").render("a {}") == ("art of a {}",)
    assert get_templates(["x {}", "{} y"]).render("cat") == ("x cat", "cat y")
    assert get_templates(TEMPLATES["single"]) is TEMPLATES["single"]


def test_key_depends_on_what_is_rendered_only() -> None:
    same = TemplateSet("mine", ("a photo of a {}.",))
    assert same.key() == get_templates("single").key()
    assert len({t.key() for t in TEMPLATES.values()}) == len(TEMPLATES)
    assert TemplateSet("v", same.formats, vild=True).key() != same.key()


def test_unknown_name_lists_the_allowed_ones() -> None:
    with pytest.raises(ValueError, match=r"unknown templates 'imagenet'.*imagenet80.*catseg"):
        get_templates("imagenet")


@pytest.mark.parametrize("bad", [[], ["no place"], ["{} and {}"], [3]])
def test_patterns_without_one_place_for_the_name_are_refused(bad: list[str]) -> None:
    with pytest.raises(ValueError, match=r"\{\}"):
        get_templates(bad)


MORE = {"Traffic  Light": ["a signal at a crossing.", "red, yellow and green."]}


def test_single_names_have_sentences_behind_their_patterns(tmp_path: Path) -> None:
    file = tmp_path / "more.json"
    file.write_text(json.dumps(MORE))
    plain = get_templates("imagenet80")
    for more in (MORE, file, str(file)):
        found = get_templates(dict(patterns="imagenet80", more=more))
        own = (*plain.render("traffic light"), *MORE["Traffic  Light"])
        assert found.render("traffic light") == own
        assert found.render("cat") == plain.render("cat")
        assert found.key() != plain.key()
        assert hash(found) == hash(get_templates(dict(patterns="imagenet80", more=MORE)))
    changed = dict(patterns="imagenet80", more={"cat": ["a cat."]})
    assert get_templates(changed).key() != found.key()


@pytest.mark.parametrize(
    ("value", "line"),
    [
        (dict(more=MORE), "have the keys 'patterns' and 'more', got \\['more'\\]"),
        (
            dict(patterns="single", more={}),
            "class names with lists of sentences each, and has none",
        ),
        (dict(patterns="single", more=["a"]), "class names with lists of sentences each"),
        (dict(patterns="single", more={"cat": "a cat."}), "'cat' has no list of sentences"),
        (dict(patterns="single", more={"cat": ["", "a"]}), "'cat' has no list of sentences"),
        (dict(patterns="single", more={"cat": ["a"], "Cat ": ["b"]}), "has a name twice"),
        (dict(patterns="single", more="none.json"), "no file 'none.json' of sentences"),
    ],
)
def test_sentences_that_are_none_are_refused(value: Any, line: str) -> None:
    raises(line, get_templates, value)

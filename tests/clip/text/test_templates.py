from __future__ import annotations

import open_clip
import pytest

from mmclipdis.clip.text.templates import TEMPLATES, TemplateSet, get_templates


def test_imagenet80_are_openais_templates_in_their_order() -> None:
    expected = tuple(t("zebra") for t in open_clip.OPENAI_IMAGENET_TEMPLATES)
    assert len(expected) == 80
    assert get_templates("imagenet80").render("zebra") == expected


def test_single_and_catseg_are_one_prompt_each() -> None:
    assert get_templates("single").render("dog") == ("a photo of a dog.",)
    assert get_templates("catseg").render("dog") == ("A photo of a dog in the scene",)


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

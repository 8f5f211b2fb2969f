from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmclipdis.clip.text.vocabulary import Vocabulary, bundled_names, novel_flags

VOC_RENAMED = {"boat": "ship", "diningtable": "table"}


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_queries_keep_class_order_and_know_their_class() -> None:
    v = Vocabulary.from_names([["sky", "wall"], "cat", ["dog", "puppy", "hound"]])
    assert v.queries == ("sky", "wall", "cat", "dog", "puppy", "hound")
    assert v.query_to_class == (0, 0, 1, 2, 2, 2)
    assert v.class_names == ("sky", "cat", "dog")
    assert v.num_classes == 3


def test_prompts_are_rendered_for_every_query() -> None:
    v = Vocabulary.from_names([["cat", "kitty"], "dog"], "catseg")
    assert v.prompts() == tuple((f"A photo of a {n} in the scene",) for n in v.queries)


def test_white_space_is_collapsed() -> None:
    assert Vocabulary.from_names(["bed ", " traffic\t  light"]).queries == ("bed", "traffic light")


@pytest.mark.parametrize("ending", ["", "\n", "\n\n", "\r\n", "\n \n"])
def test_trailing_blank_lines_are_no_classes(tmp_path: Path, ending: str) -> None:
    v = Vocabulary.from_file(write(tmp_path / "c.txt", f"cat\ndog{ending}"))
    assert v.names == (("cat",), ("dog",))


def test_byte_order_mark_is_no_part_of_a_name(tmp_path: Path) -> None:
    assert Vocabulary.from_file(write(tmp_path / "c.txt", "\ufeffcat\n")).queries == ("cat",)


def test_separator_decides_what_is_a_synonym(tmp_path: Path) -> None:
    path = write(tmp_path / "c.txt", "cat,kitty\nfood, other; meal\n")
    by_semicolon = Vocabulary.from_file(path, separator=";")
    assert by_semicolon.names == (("cat,kitty",), ("food, other", "meal"))
    assert len(Vocabulary.from_file(path, separator=None).queries) == 2
    with pytest.raises(ValueError, match="line 2 has a semicolon"):
        Vocabulary.from_file(path)
    path = write(tmp_path / "d.txt", "cat,kitty\nfood, meal\n")
    assert Vocabulary.from_file(path).names == (("cat", "kitty"), ("food", "meal"))


def test_corrclip_calls_a_person_people_and_has_no_bed_in_the_background() -> None:
    for name in ("ade20k", "cityscapes", "coco_stuff164k", "context59", "context60", "voc20"):
        ours, theirs = Vocabulary.bundled(f"corrclip_{name}"), Vocabulary.bundled(name)
        differ = [(a, b) for a, b in zip(ours.names, theirs.names, strict=True) if a != b]
        assert differ == [(("people",), ("person",))]
    voc, proxy = Vocabulary.bundled("corrclip_voc21"), Vocabulary.bundled("proxyclip_voc21")
    assert voc.names[0] == proxy.names[0] and voc.background_index == 0
    coco, proxy = (Vocabulary.bundled(f"{m}_coco_object") for m in ("corrclip", "proxyclip"))
    assert [n for n in proxy.names[0] if n not in coco.names[0]] == ["bed"]
    assert (coco.names[1], len(coco.queries)) == (("people",), 96)


def test_first_only_is_catsegs_rule() -> None:
    names = ["bag, handbag", "cat"]
    v = Vocabulary.from_names(names, separator=", ", first_only=True)
    assert v.names == (("bag",), ("cat",))
    assert Vocabulary.from_names(names, separator=", ").names == (("bag", "handbag"), ("cat",))
    assert Vocabulary.from_names(names).queries == ("bag, handbag", "cat")


def test_background_names_replace_those_of_the_background_class() -> None:
    v = Vocabulary.from_names(
        ["background", "cat"], background_index=0, background_names=["sky", "wall"]
    )
    assert v.names == (("sky", "wall"), ("cat",))
    assert v.background_index == 0


@pytest.mark.parametrize("options", [{}, {"background_index": 2}, {"background_index": -1}])
def test_background_must_be_one_of_the_classes(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="background_index"):
        Vocabulary.from_names(["a", "b"], background_names=["sky"], **options)
    if options:
        with pytest.raises(ValueError, match=r"classes are 0\.\.1"):
            Vocabulary.from_names(["a", "b"], **options)


def test_empty_vocabulary_is_refused() -> None:
    with pytest.raises(ValueError, match="empty vocabulary"):
        Vocabulary.from_names([])


@pytest.mark.parametrize("text", ["", "\n", "  \n\n"])
def test_empty_class_file_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ValueError, match=r"c\.txt' is empty"):
        Vocabulary.from_file(write(tmp_path / "c.txt", text))


def test_blank_line_in_the_middle_is_refused_with_its_number(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="line 2 is blank"):
        Vocabulary.from_file(write(tmp_path / "c.txt", "cat\n \ndog\n"))


@pytest.mark.parametrize("line", ["dog,", ",dog", "dog,,puppy"])
def test_empty_synonym_is_refused_with_its_line(tmp_path: Path, line: str) -> None:
    with pytest.raises(ValueError, match="line 2 has an empty name"):
        Vocabulary.from_file(write(tmp_path / "c.txt", f"cat\n{line}\n"))


def test_missing_and_binary_class_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.txt"):
        Vocabulary.from_file(tmp_path / "nowhere.txt")
    (tmp_path / "c.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="not UTF-8"):
        Vocabulary.from_file(tmp_path / "c.txt")


def test_name_twice_in_a_class_is_refused() -> None:
    with pytest.raises(ValueError, match="class 1 has the same name twice: dog"):
        Vocabulary.from_names(["cat", ["dog", "puppy", "Dog "]])


def test_duplicate_classes_are_refused_by_file_and_name(tmp_path: Path) -> None:
    message = r"c\.txt' \(class i is line i \+ 1\): .*'bag' \(classes 0 and 2\).*allow_duplicates"
    with pytest.raises(ValueError, match=message):
        Vocabulary.from_file(write(tmp_path / "c.txt", "bag\ncat\nbag\n"))


def test_allowed_duplicates_warn() -> None:
    with pytest.warns(UserWarning, match="scores tie and the first class wins"):
        v = Vocabulary.from_names(["bag", "cat", "Bag"], allow_duplicates=True)
    assert v.num_classes == 3


@pytest.mark.parametrize("bad", ["cat", [3], [["cat", 3]], [[]], [""], [" "], [["a", ""]]])
def test_what_is_no_list_of_names_is_refused(bad: object) -> None:
    with pytest.raises(ValueError, match="name"):
        Vocabulary.from_names(bad)  # type: ignore[arg-type]


def test_key_tells_vocabularies_apart() -> None:
    base = Vocabulary.from_names(["cat", "dog"])
    others = [
        Vocabulary.from_names(["dog", "cat"]),
        Vocabulary.from_names([["cat", "dog"]]),
        Vocabulary.from_names(["cat", "dog"], "single"),
        Vocabulary.from_names(["cat", "dog"], background_index=0),
        Vocabulary.from_names(["cat dog"]),
    ]
    assert len({v.key() for v in (base, *others)}) == 6
    assert base.key() == Vocabulary.from_names(("cat ", "dog"), "imagenet80").key()


def test_key_is_the_same_in_every_process() -> None:
    vocabulary = Vocabulary.from_names([["cat", "kitty"], "dog"], "a {}", background_index=1)
    assert vocabulary.key() == "944b44387714d773c2bb8410ac3fa9d05c20382216abf512eebe8158546c2a61"


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.text(st.characters(categories=["L", "N"], exclude_characters=","), min_size=1),
        min_size=1,
        unique_by=str.lower,
    )
)
def test_file_round_trip(names: list[str]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = write(Path(directory) / "c.txt", "\n".join(names) + "\n")
        assert Vocabulary.from_file(path) == Vocabulary.from_names(names)


# Class files of the package against the data sets' own names (training_free spec 2.2).


def metainfo(name: str) -> tuple[str, ...]:
    datasets = pytest.importorskip("mmseg.datasets")
    return tuple(getattr(datasets, name).METAINFO["classes"])


def fused(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name.replace(" ", "") for name in names)


def voc20() -> tuple[str, ...]:
    return tuple(VOC_RENAMED.get(n, n) for n in metainfo("PascalVOCDataset")[1:])


def objects365() -> tuple[str, ...]:
    names = pytest.importorskip("mmdet.datasets").Objects365V1Dataset.METAINFO["classes"]
    return tuple({"hamimelon": "hami melon"}.get(n, n).strip() for n in names)  # "tissue "


@pytest.mark.parametrize(
    ("name", "derive"),
    [
        ("voc20", voc20),
        ("voc21", lambda: ("background", *voc20())),
        ("context59", lambda: metainfo("PascalContextDataset59")),
        ("context60", lambda: metainfo("PascalContextDataset")),
        ("coco_object", lambda: ("background", *metainfo("COCOStuffDataset")[:80])),
        ("coco_stuff164k", lambda: fused(metainfo("COCOStuffDataset"))),
        ("cityscapes", lambda: fused(metainfo("CityscapesDataset"))),
        ("ade20k", lambda: fused(metainfo("ADE20KDataset"))),
        ("objects365", objects365),
    ],
)
def test_class_files_follow_the_data_sets(name: str, derive: object) -> None:
    expected = derive()  # type: ignore[operator]
    vocabulary = Vocabulary.bundled(name)
    assert vocabulary.queries == expected
    assert vocabulary.background_index == (0 if expected[0] == "background" else None)


@pytest.mark.filterwarnings("ignore:the same name stands for two classes")
@pytest.mark.parametrize(
    ("name", "classes", "queries"),
    [("sclip_voc20", 20, 30), ("sclip_voc21", 21, 56), ("sclip_coco_object", 81, 113)],
)
def test_sclip_files_have_the_published_number_of_queries(
    name: str, classes: int, queries: int
) -> None:
    v = Vocabulary.bundled(name)
    assert (v.num_classes, len(v.queries)) == (classes, queries)
    plain = Vocabulary.bundled(name.removeprefix("sclip_"))
    expanded = {"background": 26, "person": 8 if classes == 81 else 7}
    if classes != 81:
        expanded["tvmonitor"] = 5
    sizes = [expanded.get(n, 1) for n in plain.class_names]
    assert [len(synonyms) for synonyms in v.names] == sizes
    for synonyms, plain_name in zip(v.names, plain.class_names, strict=True):
        assert plain_name in expanded or synonyms == (plain_name,)


@pytest.mark.filterwarnings("ignore:the same name stands for two classes")
@pytest.mark.parametrize(("name", "words"), [("voc21", 26), ("coco_object", 17)])
def test_proxyclips_lists_differ_from_the_plain_ones_in_the_background_alone(
    name: str, words: int
) -> None:
    plain, ours = Vocabulary.bundled(name), Vocabulary.bundled(f"proxyclip_{name}")
    assert ours.names[1:] == plain.names[1:] and ours.background_index == 0
    of_sclip = Vocabulary.bundled(f"sclip_{name}").names[0]
    left_out = {
        "lamp",
        "door",
        "window",
        "wardrobe",
        "ceiling",
        "shelf",
        "curtain",
        "stair",
        "fence",
    }
    expected = [w for w in of_sclip if name == "voc21" or w not in left_out]
    assert list(ours.names[0]) == expected and len(expected) == words


def test_only_two_lists_of_coco_object_share_a_name_between_classes() -> None:
    sharing = {"sclip_coco_object", "proxyclip_coco_object"}
    for name in bundled_names():
        if name not in sharing:
            Vocabulary.bundled(name)
    for name in sharing:
        with pytest.warns(UserWarning, match="'bed'"):
            Vocabulary.bundled(name)
        with pytest.raises(ValueError, match="'bed'"):
            Vocabulary.bundled(name, allow_duplicates=False)


def test_unknown_bundled_name_lists_the_files() -> None:
    with pytest.raises(ValueError, match=r"unknown class file 'voc'.*voc20"):
        Vocabulary.bundled("voc")


def test_flags_of_novel_classes():
    classes = ("cat", "dog", "cow")
    assert novel_flags(classes, ("cow", "cat")) == (True, False, True)
    assert novel_flags(classes, ()) == (False, False, False)


@pytest.mark.parametrize(
    ("novel", "message"), [("cat", "is the text .cat."), (("cats", "dog"), r"lists \['cats'\]")]
)
def test_flags_of_what_is_no_class_are_refused(novel, message):
    with pytest.raises(ValueError, match=message):
        novel_flags(("cat", "dog"), novel)


def test_sentences_of_no_class_warn() -> None:
    more = dict(patterns="single", more={"cat": ["a cat with whiskers."]})
    with pytest.warns(UserWarning, match="of 1 names, and none of them is a class, such as 'dog'"):
        Vocabulary.from_names(["dog"], more)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        both = Vocabulary.from_names([["dog", "Cat"]], more)
    assert [len(prompts) for prompts in both.prompts()] == [1, 2]

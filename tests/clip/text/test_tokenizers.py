"""Tokenizers: their files are read as the families of models need, and no other is taken."""

from __future__ import annotations

import copy
import importlib
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from open_clip.tokenizer import SimpleTokenizer, get_clean_fn

from mmclipdis.clip.text.tokenizer_files import (
    FAMILIES,
    FileTokenizer,
    build_tokenizer,
    family_of,
)
from mmclipdis.clip.text.tokenizers import ClipTokenizer, clip_tokenizer
from mmclipdis.clip.text.tower import build_text_tower

from .toy_tokenizers import WORDS, write_tokenizer

SIGLIP2 = dict(hf_tokenizer_name="timm/ViT-B-16-SigLIP2", vocab_size=len(WORDS))


def build(path: Path, clean: str | None = None, **text_cfg: Any) -> FileTokenizer:
    text_cfg = {**SIGLIP2, "tokenizer_kwargs": dict(clean="canonicalize"), **text_cfg}
    found = build_tokenizer(text_cfg, 64, "given as a dict", path, clean)
    assert isinstance(found, FileTokenizer)
    return found


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    return write_tokenizer(tmp_path / "tokenizer.json")


# What it reads


def test_golden_ids_of_the_toy_tokenizer(toy: Path) -> None:
    tokenizer = build(toy)
    texts = ["A photo of a CAT!", " ".join(["a"] * 11)]
    ids = tokenizer(texts, 8)
    assert ids.tolist() == [[4, 5, 6, 4, 7, 1, 0, 0], [4] * 7 + [1]]
    assert tokenizer.lengths(ids).tolist() == [6, 8]


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("Fire-hydrant's_2", "firehydrants 2"),
        ("TV-monitor &amp; CRT", "tvmonitor crt"),
    ],
)
def test_golden_strings_of_canonicalize(text: str, clean: str) -> None:
    assert get_clean_fn("canonicalize")(text) == clean


def test_clean_is_the_archs_unless_chosen(toy: Path) -> None:
    text, unknown = "A_cat", 3
    assert build(toy)([text], 4).tolist() == [[4, 7, 1, 0]]
    assert build(toy, "lower")([text], 4).tolist() == [[unknown, 1, 0, 0]]
    assert build(toy, tokenizer_kwargs=None).clean == "whitespace"  # as in open_clip


def test_a_folder_is_its_tokenizer_json(toy: Path) -> None:
    assert build(toy.parent).key() == build(toy).key()


def test_what_stands_around_a_text_is_the_familys_and_not_the_files(tmp_path: Path) -> None:
    """Gemma's own files start with <bos> and have no <eos>; some pad on the left."""
    file = write_tokenizer(tmp_path / "gemma.json", template="<bos> $A")
    library: Any = importlib.import_module("tokenizers")
    saved = library.Tokenizer.from_file(str(file))
    saved.enable_padding(direction="left", length=64, pad_id=2)
    saved.enable_truncation(3)
    saved.save(str(file))
    assert build(file)(["a photo of a cat"], 8).tolist() == [[4, 5, 6, 4, 7, 1, 0, 0]]


def test_an_unknown_family_has_the_frame_and_the_padding_of_its_file(tmp_path: Path) -> None:
    file = write_tokenizer(tmp_path / "own.json", template="<bos> $A <eos>")
    tokenizer = build(file, hf_tokenizer_name="some/model")
    ids = tokenizer(["a cat", "a a a a a a"], 5)
    assert ids.tolist() == [[2, 4, 7, 1, 0], [2, 4, 4, 4, 1]]
    assert tokenizer.lengths(ids).tolist() == [4, 5]


@pytest.mark.parametrize(
    ("name", "pad", "before", "behind"),
    [
        ("timm/ViT-SO400M-16-SigLIP2-512", 0, (), ("<eos>",)),
        ("timm/ViT-B-16-SigLIP-i18n-256", 1, (), ("</s>",)),
        ("timm/ViT-B-16-SigLIP", 1, (), ("</s>",)),
        ("facebook/xlm-v-base", 1, ("<s>",), ("</s>",)),
        ("google/mt5-base", 0, (), ("</s>",)),
        ("bert-base-uncased", 0, ("[CLS]",), ("[SEP]",)),
        ("google-deepmind/tips", 0, (), ()),
    ],
)
def test_families_of_the_archs(
    name: str, pad: int, before: tuple[str, ...], behind: tuple[str, ...]
) -> None:
    family = family_of(name)
    assert family is not None
    assert (family.pad, family.prefix, family.suffix) == (pad, before, behind)
    assert family_of("some/model") is None and len(FAMILIES) == 7


def test_pads_that_are_ends_of_text_do_not_lengthen_it(tmp_path: Path) -> None:
    """SigLIP pads with </s>, which also ends the text."""
    words = ("<pad>", "</s>", "<unk>", "a", "cat")
    file = write_tokenizer(tmp_path / "t5.json", words, None)
    tokenizer = build(file, hf_tokenizer_name="timm/ViT-B-16-SigLIP", vocab_size=5)
    ids = tokenizer(["a cat"], 6)
    assert ids.tolist() == [[3, 4, 1, 1, 1, 1]] and tokenizer.lengths(ids).tolist() == [3]


def test_berts_separator_is_written_as_padding_and_counts(tmp_path: Path) -> None:
    words = ("[PAD]", "[CLS]", "[SEP]", "[UNK]", "a", "cat")
    file = write_tokenizer(tmp_path / "bert.json", words, "[CLS] $A [SEP]", "[UNK]")
    options = dict(hf_tokenizer_name="bert-base-uncased", vocab_size=6)
    tokenizer = build(file, **options, tokenizer_kwargs=dict(strip_sep_token=True))
    ids = tokenizer(["a cat", "a a a a a"], 6)
    assert ids.tolist() == [[1, 4, 5, 0, 0, 0], [1, 4, 4, 4, 4, 0]]
    assert tokenizer.lengths(ids).tolist() == [4, 6]


def test_a_tokenizer_without_frame_ends_at_its_last_token(tmp_path: Path) -> None:
    words = ("<pad>", "<s>", "<unk>", "a", "cat")
    file = write_tokenizer(tmp_path / "tips.json", words, None)
    tokenizer = build(file, hf_tokenizer_name="google-deepmind/tips", vocab_size=5)
    ids = tokenizer(["a cat", ""], 4)
    assert ids.tolist() == [[3, 4, 0, 0], [0] * 4]
    assert tokenizer.lengths(ids).tolist() == [2, 0]


def test_tokens_for_gaps_beyond_the_table_are_no_other_family(tmp_path: Path) -> None:
    """T5's vocabulary has a hundred more tokens than the table of SigLIP; no text has them."""
    file = write_tokenizer(tmp_path / "x.json", (*WORDS, "extra_id_0", "extra_id_1"))
    assert build(file)(["a cat"], 3).tolist() == [[4, 7, 1]]
    file = write_tokenizer(tmp_path / "y.json", WORDS, added=("<mask>",))
    assert build(file)(["a cat"], 3).tolist() == [[4, 7, 1]]


def test_it_can_be_copied(toy: Path) -> None:
    """Towers share it, since copies of large tables take long; another process gets its own."""
    tokenizer = build(toy)
    assert copy.deepcopy(tokenizer) is tokenizer
    other = pickle.loads(pickle.dumps(tokenizer))
    assert other is not tokenizer and other.key() == tokenizer.key()
    assert other(["a cat"], 4).tolist() == [[4, 7, 1, 0]]


def test_the_key_knows_file_and_clean(toy: Path, tmp_path: Path) -> None:
    other = write_tokenizer(tmp_path / "other.json", (*WORDS[:-1], "dog"))
    keys = {build(toy).key(), build(toy, "lower").key(), build(other).key()}
    assert len(keys) == 3
    write_tokenizer(toy, (*WORDS[:-1], "dog"))  # the file has changed on disk
    assert build(toy).key() == build(other).key()


def test_clips_own_is_open_clips_word_for_word() -> None:
    texts = ["a photo of a cat", "Fire-hydrant's <end_of_text>"]
    own = clip_tokenizer(12)
    assert torch.equal(own(texts, 12), SimpleTokenizer()(texts, context_length=12))
    assert own is clip_tokenizer(12) and own.key() == ""
    clean = build_tokenizer({}, 12, "x", clean="canonicalize")
    assert isinstance(clean, ClipTokenizer)
    plain = SimpleTokenizer(clean="canonicalize")(texts, context_length=12)
    assert torch.equal(clean(texts, 12), plain)


def test_a_model_of_sentencepiece_is_read(tmp_path: Path) -> None:
    library: Any = importlib.import_module("sentencepiece")
    lines = ["a photo of a cat", "a photo of a dog", "the dog of a cat"] * 9
    library.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_prefix=str(tmp_path / "spiece"), vocab_size=24,
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    plain = library.SentencePieceProcessor(model_file=str(tmp_path / "spiece.model"))
    tokenizer = build(
        tmp_path, hf_tokenizer_name="google/mt5-base", vocab_size=plain.get_piece_size()
    )
    ids = plain.encode("a photo of a cat")
    assert tokenizer(["A photo of a cat!"], 32).tolist()[0] == [*ids, 1] + [0] * (31 - len(ids))
    with pytest.raises(ValueError, match="has no '<eos>'"):
        build(tmp_path)


# What it refuses


def test_a_tokenizer_is_never_guessed() -> None:
    message = (
        r"arch 'ViT-B-16-SigLIP2' needs the tokenizer 'timm/ViT-B-16-SigLIP2' \(SigLIP 2's, of "
        r"Gemma\), which is never downloaded or guessed: give the text encoder tokenizer=PATH of "
        r"the tokenizer.json"
    )
    with pytest.raises(ValueError, match=message):
        build_text_tower("ViT-B-16-SigLIP2")
    with pytest.raises(ValueError, match="'facebook/xlm-v-base' .XLM-V's."):
        build_text_tower("ViT-H-14-worldwide-quickgelu")
    with pytest.raises(ValueError, match="PATH of the tokenizer.model that comes"):
        build_text_tower("TIPSv2-B-14")


def test_an_arch_with_clips_own_takes_no_file(toy: Path) -> None:
    with pytest.raises(ValueError, match="has CLIP's own tokenizer.*leave tokenizer out"):
        build_text_tower("PE-Core-B-16", toy)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("<pad>", "</s>", "<unk>", *WORDS[3:]), "it has no '<eos>'"),
        (("<eos>", "<pad>", *WORDS[2:]), "its '<pad>' is 1, not 0; its '<eos>' is 0, not 1"),
        ((*WORDS, "dog", "bird"), "it has 10 tokens, the text tower's table 8"),
        (WORDS[:6], "it has 6 tokens, the text tower's table 8"),
    ],
)
def test_another_family_is_refused(tmp_path: Path, words: tuple[str, ...], message: str) -> None:
    file = write_tokenizer(tmp_path / "tokenizer.json", words, None)
    with pytest.raises(ValueError, match="of another family than arch") as error:
        build(file)
    assert message in str(error.value)
    assert "give that of 'timm/ViT-B-16-SigLIP2' (SigLIP 2's, of Gemma)" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["some/model", "timm/ViT-B-16-SigLIP2"])
def test_a_tokenizer_must_end_where_the_tower_is_pooled(toy: Path, name: str) -> None:
    """Otherwise each text would be pooled at its first place."""
    with pytest.raises(ValueError, match=r"ends a text with the ids \[1\], .* pooled at the id 2"):
        build(toy, hf_tokenizer_name=name, pool_type="eos")


def test_files_that_are_no_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no tokenizer at '.*none.json'; give a tokenizer"):
        build(tmp_path / "none.json")
    with pytest.raises(FileNotFoundError, match="no tokenizer in the folder.*tokenizer.json, spi"):
        build(tmp_path)
    importlib.import_module("tokenizers")
    for content in (b"no json", b"{}", b"\xff\xfe"):
        file = tmp_path / "tokenizer.json"
        file.write_bytes(content)
        with pytest.raises(ValueError, match="is no tokenizer.json: .*; give that file") as error:
            build(file)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["tokenizers", "sentencepiece"])
def test_a_missing_package_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    file = tmp_path / ("tokenizer.json" if name == "tokenizers" else "spiece.model")
    file.write_text("{}")
    monkeypatch.setitem(sys.modules, name, None)  # what an import then says is an ImportError
    message = rf"needs the package {name}, which is not installed; run: pip install 'mmclipdis\[tex"
    with pytest.raises(ImportError, match=message):
        build(file)


def test_nothing_is_imported_before_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tokenizers", "sentencepiece", "transformers"):
        monkeypatch.setitem(sys.modules, name, None)  # what an import then says is an ImportError
    assert build_text_tower("shapes-tiny").tokenize(["a cat"]).shape[0] == 1


@pytest.mark.parametrize(
    ("text_cfg", "message"),
    [
        (dict(tokenizer_kwargs=dict(language="de")), "a tokenizer with language"),
        (dict(tokenizer_mode="clips"), "a tokenizer with mode"),
    ],
)
def test_options_that_are_not_read_are_refused(
    toy: Path, text_cfg: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=f"{message}, which is not supported"):
        build(toy, **text_cfg)


def test_clean_is_one_of_three(toy: Path) -> None:
    with pytest.raises(ValueError, match="clean='upper': choose one of 'lower', 'canonicalize'"):
        build(toy, "upper")

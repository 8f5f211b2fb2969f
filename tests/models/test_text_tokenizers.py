"""Text encoders with tokenizers from files, in the heads, as configs name them. Takes 3 seconds."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.registry import MODELS

from mmclipdis.apis.inferencers.words import check_lengths
from mmclipdis.clip.text.vocabulary import Vocabulary
from mmclipdis.engine.random_weights import take_as_meant
from mmclipdis.models import OpenCLIPTextEncoder
from mmclipdis.models.class_text import ClassText
from mmclipdis.models.segmentation import CosineSegHead
from tests.clip.text.toy_tokenizers import WORDS, write_tokenizer

VISION = dict(image_size=32, patch_size=8, width=32, head_width=16, layers=1)
SIGLIP = dict(
    no_causal_mask=True, pool_type="last", proj_bias=True, norm_kwargs=dict(eps=1e-6),
    hf_tokenizer_name="timm/ViT-B-16-SigLIP2", tokenizer_kwargs=dict(clean="canonicalize"),
)  # fmt: skip


def arch(**text_cfg: Any) -> dict[str, Any]:
    size = dict(context_length=8, vocab_size=len(WORDS), width=48, heads=3, layers=2)
    return dict(embed_dim=16, vision_cfg=VISION, text_cfg={**size, **text_cfg})


def config(**options: Any) -> dict[str, Any]:
    return dict(type="OpenCLIPTextEncoder", cache_dir=False, progress=False, **options)


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    return write_tokenizer(tmp_path / "tokenizer.json")


def dinotxt() -> dict[str, Any]:
    return arch(context_length=24, vocab_size=49408, dense_channels=6)


def test_a_config_names_the_tokenizer_and_how_texts_are_cleaned(toy: Path) -> None:
    encoder = MODELS.build(config(arch=arch(**SIGLIP), tokenizer=str(toy)))
    assert isinstance(encoder, OpenCLIPTextEncoder)
    assert encoder.tokenize(["A photo of a CAT!"]).tolist() == [[4, 5, 6, 4, 7, 1, 0, 0]]
    other = MODELS.build(config(arch=arch(**SIGLIP), tokenizer=str(toy.parent), clean="lower"))
    assert other.tokenize(["A CAT!"]).tolist() == [[4, 3, 1, 0, 0, 0, 0, 0]]
    assert not any("token" in name and "embedding" not in name for name in encoder.state_dict())


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))])
def test_a_tokenizer_that_is_not_there_yet_is_asked_for_with_the_first_text(
    tmp_path: Path, copied: Any
) -> None:
    """In every copy of the encoder, and in that of another process; the caches ask for it, too."""
    source = OpenCLIPTextEncoder(arch(**SIGLIP), tokenizer=tmp_path / "tokenizer.json")
    encoder = copied(source)
    take_as_meant(encoder)
    names = Vocabulary.from_names(["cat"], "single")
    for ask in (
        lambda: encoder.tokenize(["a cat"]),
        lambda: encoder.embed(names),
        encoder.tower.fingerprint,
        lambda: check_lengths(encoder, names),
    ):
        with pytest.raises(FileNotFoundError, match="no tokenizer at '.*tokenizer.json'; give a"):
            ask()
    write_tokenizer(tmp_path / "tokenizer.json")
    assert encoder.tokenize(["a cat"]).tolist() == [[4, 7, 1, 0, 0, 0, 0, 0]]
    there = OpenCLIPTextEncoder(arch(**SIGLIP), tokenizer=tmp_path)
    there.load_state_dict(encoder.state_dict())
    assert encoder.tower.fingerprint() == there.tower.fingerprint()
    assert torch.equal(source.tokenize(["a cat"]), encoder.tokenize(["a cat"]))


def test_weights_of_siglip_load_and_other_tables_are_refused(toy: Path, tmp_path: Path) -> None:
    """Of another vocabulary, width and context."""
    source = OpenCLIPTextEncoder(arch(**SIGLIP), tokenizer=toy)
    file = tmp_path / "siglip.pt"
    torch.save(source.tower.text.state_dict() | {"logit_bias": torch.tensor(-10.0)}, file)
    init_cfg = dict(type="Pretrained", checkpoint=str(file))
    encoder = OpenCLIPTextEncoder(arch(**SIGLIP), tokenizer=toy, init_cfg=init_cfg)
    encoder.init_weights()
    ids = encoder.tokenize(["a cat"])
    assert torch.equal(encoder.encode(ids), source.encode(ids))
    for other, message in (
        (dict(vocab_size=9), r"token_embedding.weight is \(8, 48\), expected \(9, 48\)"),
        (dict(width=36), r"expected \(8, 36\)|expected \(36,\)"),
        (dict(context_length=9), r"positional_embedding is \(8, 48\), expected \(9, 48\)"),
    ):
        more = ("dog",) if "vocab_size" in other else ()
        words = write_tokenizer(tmp_path / "words.json", (*WORDS, *more))
        wrong = OpenCLIPTextEncoder(arch(**SIGLIP | other), tokenizer=words, init_cfg=init_cfg)
        with pytest.raises(ValueError, match=message) as error:
            wrong.init_weights()
        assert "\n" not in str(error.value)


def test_weights_of_tips_load(tmp_path: Path) -> None:
    words = ("<pad>", "<s>", "<unk>", "x", *WORDS[4:])
    file = write_tokenizer(tmp_path / "tokenizer.json", words, None)
    tips = dict(house_model="tips", hf_tokenizer_name="google-deepmind/tips")
    cfg = arch(**tips, width=16, heads=2)
    source = OpenCLIPTextEncoder(cfg, tokenizer=file)
    torch.save(source.tower.text.state_dict(), tmp_path / "text.pt")
    init_cfg = dict(type="Pretrained", checkpoint=str(tmp_path / "text.pt"))
    encoder = OpenCLIPTextEncoder(cfg, tokenizer=file, init_cfg=init_cfg)
    encoder.init_weights()
    ids = encoder.tokenize(["a cat", "photo"])
    assert ids.tolist() == [[4, 7], [5, 0]]
    assert torch.equal(encoder.encode(ids), source.encode(ids))


def test_words_that_are_too_long_are_told_by_any_tokenizer(toy: Path) -> None:
    encoder = OpenCLIPTextEncoder(arch(**SIGLIP), tokenizer=toy)
    check_lengths(encoder, Vocabulary.from_names(["cat"], "single"))
    with pytest.raises(ValueError, match="with its prompt it has 14 tokens.*reads 8; use a short"):
        check_lengths(encoder, Vocabulary.from_names(["cat", "a cat of " * 3], "single"))


# dino.txt: half of the channels are of dense maps


@pytest.mark.filterwarnings("ignore:OpenCLIPTextEncoder uses random weights")
def test_a_head_of_maps_takes_the_dense_half_by_itself() -> None:
    names = ["cat", "dog"]
    head = CosineSegHead(config(arch=dinotxt()), names, templates="single")
    encoder = head.text_encoder
    assert (encoder.embed_dim, encoder.dense_dim) == (16, 6)
    assert head.embeddings().shape == (2, 6)
    assert head.scores(torch.randn(1, 6, 3, 3)).shape == (1, 2, 3, 3)
    ids = encoder.tokenize(["a photo of a cat."])
    half = torch.nn.functional.normalize(encoder.encode(ids)[:, 10:], dim=1)
    torch.testing.assert_close(head.embeddings()[:1], half, atol=1e-6, rtol=0)
    surgery = CosineSegHead(encoder, names, score_norm="surgery", redundant="empty")
    assert surgery.scores(torch.randn(1, 6, 3, 3)).shape == (1, 2, 3, 3)


@pytest.mark.filterwarnings("ignore:OpenCLIPTextEncoder uses random weights")
@pytest.mark.parametrize(("asked", "found"), [(None, 16), (16, 16), (6, 6)])
def test_class_text_has_the_channels_that_its_image_encoder_has(
    asked: int | None, found: int
) -> None:
    text = ClassText(config(arch=dinotxt()), ["cat", "dog"], "single", embed_dim=asked)
    assert text.embeddings().shape == (2, found)
    with pytest.raises(ValueError, match="the image encoder has 7 channels, the text encoder 16"):
        text.expect_channels(7)

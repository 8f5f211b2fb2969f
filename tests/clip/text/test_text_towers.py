"""Text towers of every family: equal to open_clip's own, and padded, cut and pooled as trained.

Takes three seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mmclipdis.clip.text.encoder import embed_empty, embed_vocabulary, ensemble
from mmclipdis.clip.text.house_text import Talk2DinoText, TipsText, sinusoids
from mmclipdis.clip.text.tokenizers import Tokenizer
from mmclipdis.clip.text.tower import TextTower, build_text_tower
from mmclipdis.clip.text.vocabulary import Vocabulary
from mmclipdis.clip.towers.build import build_text_transformer
from mmclipdis.clip.weights.trainable import split_qkv

from .toy_tokenizers import WORDS, write_tokenizer

VISION = dict(image_size=32, patch_size=8, width=32, head_width=16, layers=1)
SIGLIP = dict(
    no_causal_mask=True, pool_type="last", proj_bias=True, norm_kwargs=dict(eps=1e-6), pad_id=1,
    act_kwargs=dict(approximate="tanh"),
)  # fmt: skip
#: text_cfg of the families, but for size and tokenizer.
KINDS: dict[str, dict[str, Any]] = {
    "clip": {},
    "metaclip2": dict(pool_type="eos", eos_id=2, pad_id=1),
    "mobileclip_s": dict(no_causal_mask=True),
    "siglip": SIGLIP,
    "siglip_i18n": {**SIGLIP, "proj_bias": False, "proj_type": "none"},
    "clipa": dict(no_causal_mask=True, pool_type="last"),
    "causal_last": dict(pool_type="last"),
}
#: Padded with 1; 2 ends a text, and 49 is the largest id of a row (encoders spec 7, MetaCLIP 2).
IDS = torch.tensor([[0, 30, 49, 12, 2, *[1] * 7], [0, 9, 2, *[1] * 9], [0, *range(3, 13), 2]])


class Fixed(Tokenizer):
    """Texts that are numbers, padded with 1."""

    def __call__(self, texts: Sequence[str], context_length: int) -> Tensor:
        ids = torch.ones(len(texts), context_length, dtype=torch.long)
        for row, text in zip(ids, texts):
            for place, word in enumerate(text.split() if "Photo" not in text else ()):
                row[place] = int(word)
        return ids

    def lengths(self, ids: Tensor) -> Tensor:
        return (ids != 1).sum(1)

    def key(self) -> str:
        return "fixed"


def arch(**text_cfg: Any) -> dict[str, Any]:
    size = dict(context_length=12, vocab_size=50, width=48, heads=3, layers=3)
    return dict(embed_dim=16, vision_cfg=VISION, text_cfg={**size, **text_cfg})


def randomise(module: torch.nn.Module, seed: int = 0) -> Any:
    generator = torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
            parameter.requires_grad = False
    return module.double()


def tower_of(kind: str, **text_cfg: Any) -> TextTower:
    cfg = arch(**{**KINDS[kind], **text_cfg})
    if kind == "siglip_i18n":
        cfg["embed_dim"] = 48
    return TextTower(randomise(build_text_transformer(cfg)), Fixed())


# Equality with open_clip


@pytest.mark.parametrize("kind", KINDS)
def test_encoding_equals_open_clip(kind: str) -> None:
    """Of the ids as they come from the tokenizer, cut where the tower allows it."""
    tower = tower_of(kind)
    expected = tower.text(IDS)
    ids = IDS if not tower.cut else IDS[:2, :5]
    torch.testing.assert_close(tower.encode(ids), expected[: len(ids)], atol=1e-12, rtol=0)
    assert tower.embed_dim == expected.shape[1] and tower.dense_dim == tower.embed_dim


@pytest.mark.parametrize("kind", KINDS)
def test_encoding_works_with_split_projections(kind: str) -> None:
    tower = tower_of(kind)
    expected = tower.encode(IDS)
    split_qkv(tower.text)
    torch.testing.assert_close(tower.encode(IDS), expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_the_embeddings_of_names_are_open_clips(kind: str) -> None:
    """Through the batches: the lengths are those that the pool needs, not the largest id's."""
    tower = tower_of(kind)
    names = [" ".join(map(str, row[row != 1].tolist())) for row in IDS]
    found = embed_vocabulary(
        tower, Vocabulary.from_names(names, ["{}"]), batch_size=2, progress=False, cache_dir=False
    )
    torch.testing.assert_close(found, F.normalize(tower.text(IDS), dim=1), atol=1e-12, rtol=0)


def test_a_tower_pooled_at_an_id_is_not_cut_at_the_largest() -> None:
    """The bug that was: up to 1.95 off open_clip (encoders spec 1.1)."""
    tower = tower_of("metaclip2")
    assert tower.lengths(IDS).tolist() == [5, 3, 12]
    full = tower.text(IDS[:1])
    torch.testing.assert_close(tower.encode(IDS[:1, :5]), full, atol=1e-12, rtol=0)
    largest = IDS[:1, : int(IDS[0].argmax()) + 1]  # without the 2: pooled at the first place
    assert float((tower.encode(largest) - full).norm()) > 0.5


@pytest.mark.parametrize("kind", ["mobileclip_s", "siglip", "clipa"])
def test_towers_that_read_the_padding_are_never_cut(kind: str) -> None:
    tower = tower_of(kind)
    assert not tower.cut and tower.tokenize(["0 9 2"]).shape == (1, 12)
    assert tower.lengths(IDS).tolist() == [12] * 3
    cut = build_text_transformer(arch(**KINDS[kind], context_length=5)).double()
    state = tower.text.state_dict()
    state["positional_embedding"] = state["positional_embedding"][:5]
    cut.requires_grad_(False).load_state_dict(state)
    assert float((cut(IDS[:1, :5]) - tower.text(IDS[:1])).norm()) > 0.1  # it would be another
    message = r"tokens have shape \(1, 5\), expected \(N, 12\): this text tower reads the padding"
    with pytest.raises(ValueError, match=message):
        tower.encode(IDS[:1, :5])


def test_masked_padding_is_not_seen() -> None:
    """open_clip's use_pad_mask, for towers pooled at their end of text."""
    text: Any = open_clip.transformer.TextTransformer(
        12, 50, 48, 3, 3, output_dim=16, no_causal_mask=True, use_pad_mask=True, pad_id=1,
        pool_type="eos", eos_id=2,
    )  # fmt: skip
    tower = TextTower(randomise(text), Fixed())
    expected = text(IDS)
    assert tower.cut
    torch.testing.assert_close(tower.encode(IDS), expected, atol=1e-12, rtol=0)
    torch.testing.assert_close(tower.encode(IDS[:2, :5]), expected[:2], atol=1e-12, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_open_clips(kind: str) -> None:
    tower = tower_of(kind)
    tower.text.requires_grad_(True)
    found = torch.autograd.grad(tower.encode(IDS).square().sum(), list(tower.text.parameters()))
    plain = torch.autograd.grad(tower.text(IDS).square().sum(), list(tower.text.parameters()))
    for mine, theirs in zip(found, plain, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-9, rtol=1e-9)


def test_open_clips_archs_have_the_switches_of_their_family() -> None:
    """Of the configs themselves, at tiny size."""
    expected = {
        "ViT-B-16-SigLIP2": (False, "last"),
        "ViT-SO400M-14-SigLIP": (False, "last"),
        "ViT-SO400M-16-SigLIP-i18n-256": (False, "last"),
        "MobileCLIP-S1": (False, "argmax"),
        "MobileCLIP-B": (True, "argmax"),
        "PE-Core-B-16": (True, "argmax"),
        "ViT-H-14-worldwide": (True, "eos"),
        "ViT-L-14-CLIPA": (False, "last"),
    }
    for name, switches in expected.items():
        config = open_clip.get_model_config(name)
        config["text_cfg"] |= dict(width=48, heads=3, layers=1, vocab_size=50)
        if config["text_cfg"].get("proj_type") == "none":
            config["embed_dim"] = 48
        tower = TextTower(build_text_transformer(config), Fixed())
        assert (tower.cut, tower.text.pool_type) == switches, name
        assert tower.embed_dim == config["embed_dim"]
        assert tower.context_length == (16 if name == "ViT-SO400M-14-SigLIP" else
                                        config["text_cfg"]["context_length"])  # fmt: skip


def test_siglip_from_a_file_pads_to_its_full_context(tmp_path: Path) -> None:
    file = write_tokenizer(tmp_path / "tokenizer.json")
    cfg = arch(**SIGLIP | dict(pad_id=0), vocab_size=len(WORDS), hf_tokenizer_name="x/SigLIP2")
    tower = build_text_tower(cfg, file)
    assert tower.tokenize(["a cat"]).tolist() == [[4, 7, 1, *[0] * 9]]
    with pytest.raises(ValueError, match="text does not fit 12 tokens: 'a a a"):
        tower.tokenize([" ".join("a" * 12)])


# What the caches know


def test_fingerprints_know_tokenizer_clean_mask_and_pool(tmp_path: Path) -> None:
    files = [write_tokenizer(tmp_path / "a.json"), tmp_path / "b.json"]
    write_tokenizer(files[1], (*WORDS[:-1], "dog"))
    base = dict(vocab_size=len(WORDS), hf_tokenizer_name="x/SigLIP2", eos_id=1)
    towers = [
        build_text_tower(arch(**base, **kind), file, clean)
        for kind in (dict(no_causal_mask=True), {}, dict(pool_type="eos"))
        for file in files
        for clean in ("lower", "canonicalize")
    ]
    for tower in towers[1:]:
        tower.text.load_state_dict(towers[0].text.state_dict())
    assert len({tower.fingerprint() for tower in towers}) == len(towers) == 12
    assert towers[0].fingerprint() == build_same(towers[0], base, files[0]).fingerprint()


def build_same(tower: TextTower, base: dict[str, Any], file: Path) -> TextTower:
    other = build_text_tower(arch(**base, no_causal_mask=True), file, "lower")
    other.text.load_state_dict(tower.text.state_dict())
    return other


def test_the_fingerprint_of_clips_own_towers_is_as_it_was() -> None:
    """So that files of embeddings and caches of earlier versions stay valid."""
    tower = build_text_tower(arch(vocab_size=49408))
    with torch.no_grad():
        for parameter in tower.text.parameters():
            parameter.copy_(torch.linspace(-1, 1, parameter.numel()).view(parameter.shape))
    assert tower.fingerprint()[:16] == "396b6cad9e6a2fc5"
    other = build_text_tower(arch(vocab_size=49408, no_causal_mask=True))
    other.text.load_state_dict(tower.text.state_dict())
    assert other.fingerprint() != tower.fingerprint()


# TIPS


def tips(**text_cfg: Any) -> TextTower:
    cfg = arch(house_model="tips", hf_tokenizer_name="google-deepmind/tips", **text_cfg)
    return TextTower(randomise(build_text_transformer(cfg | dict(embed_dim=48))), Fixed())


def test_golden_sinusoids_of_tips() -> None:
    table = sinusoids(3, 4).double()
    golden = torch.tensor([0.841471, 0.0001, 0.540302, 1.0], dtype=torch.float64)
    torch.testing.assert_close(table[1], golden, atol=6e-7, rtol=0)
    assert table[0].tolist() == [0, 0, 1, 1]


def naive_tips(text: TipsText, ids: Tensor) -> Tensor:
    """One text ``(L,)``, without its padding, block by block."""
    x = text.token_embedding(ids)[None] * 48**0.5 + sinusoids(12, 48)[: len(ids)].double()
    for block in text.transformer.resblocks:
        normed = block.ln_1(x)
        x = x + block.attn(normed, normed, normed, need_weights=False)[0]
        up = F.linear(block.ln_2(x), block.mlp[0].weight, block.mlp[0].bias).relu()
        x = x + F.linear(up, block.mlp[2].weight, block.mlp[2].bias)
    return text.ln_final(x).sum(1) / (len(ids) + 1e-8)


def test_tips_equals_the_formula_and_ignores_its_padding() -> None:
    tower = tips(pad_id=1)
    assert isinstance(tower.text, TipsText) and tower.cut and tower.embed_dim == 48
    assert tower.lengths(IDS).tolist() == [5, 3, 12]
    naive = torch.cat([naive_tips(tower.text, row[row != 1]) for row in IDS])
    full = tower.encode(IDS)
    torch.testing.assert_close(full, naive, atol=1e-12, rtol=0)
    torch.testing.assert_close(tower.encode(IDS[:2, :5]), full[:2], atol=1e-12, rtol=0)


def test_tips_has_the_names_of_its_files() -> None:
    names = set(tips().text.state_dict())
    block = "transformer.resblocks.0."
    assert names >= {
        *("token_embedding.weight", "ln_final.weight", "ln_final.bias"),
        *(block + end for end in ("attn.in_proj_weight", "attn.out_proj.bias", "mlp.c_fc.weight")),
    }
    assert not [name for name in names if "position" in name or "projection" in name]


def test_a_text_without_a_token_is_refused() -> None:
    with pytest.raises(ValueError, match="text '' has no token; give a word"):
        tips(pad_id=1).tokenize(["5 6", ""])


def test_the_two_sides_of_a_tips_are_of_one_width() -> None:
    with pytest.raises(ValueError, match="its width 48 must be embed_dim=16"):
        build_text_transformer(arch(house_model="tips"))


# dino.txt


def test_dense_channels_are_those_of_a_sliced_projection() -> None:
    cfg = arch(vocab_size=49408, context_length=24, dense_channels=8)
    tower = TextTower(randomise(build_text_transformer(cfg)), None, 8)
    sliced = randomise(build_text_transformer(cfg | dict(embed_dim=8)))
    state = tower.text.state_dict()
    sliced.load_state_dict({**state, "text_projection": state["text_projection"][:, 8:]})
    other, names = TextTower(sliced), Vocabulary.from_names(["cat", "a long dog"])
    options: dict[str, Any] = dict(progress=False, cache_dir=False)
    dense = embed_vocabulary(tower, names, dense=True, **options)
    torch.testing.assert_close(dense, embed_vocabulary(other, names, **options), atol=1e-12, rtol=0)
    empty = embed_empty(tower, names.templates, dense=True)
    torch.testing.assert_close(empty, embed_empty(other, names.templates), atol=1e-12, rtol=0)
    tokens = tower.tokenize(["a cat"])
    torch.testing.assert_close(
        tower.encode(tokens)[:, 8:], other.encode(tokens), atol=1e-12, rtol=0
    )


def test_both_halves_of_an_embedding_are_remembered_apart(tmp_path: Path) -> None:
    cfg = arch(vocab_size=49408, context_length=24, dense_channels=8)
    tower = TextTower(randomise(build_text_transformer(cfg)), None, 8)
    names = Vocabulary.from_names(["cat"])
    for _ in range(2):  # from memory, and again from the disk
        for dense, channels in ((False, 16), (True, 8), (False, 16)):
            found = embed_vocabulary(tower, names, dense=dense, progress=False, cache_dir=tmp_path)
            assert found.shape == (1, channels)
        tower.memory = type(tower.memory)()
    with pytest.raises(ValueError, match=r"dense_dim=17 is none of 1..16"):
        TextTower(tower.text, None, 17)


# Talk2DINO


def talk2dino() -> TextTower:
    cfg = arch(house_model="talk2dino", clip_embed_dim=16, vocab_size=49408, context_length=24)
    cfg |= dict(embed_dim=32, quick_gelu=True)
    return TextTower(randomise(build_text_transformer(cfg)))


def test_psi_is_linear_tanh_linear() -> None:
    text: Any = talk2dino().text
    assert isinstance(text, Talk2DinoText)
    one, two = text.linear_layer, text.hidden_layers[0]
    t = torch.randn(3, 16, generator=torch.manual_seed(0)).double()
    hand = torch.tanh(t @ one.weight.T + one.bias) @ two.weight.T + two.bias
    torch.testing.assert_close(text.psi(t), hand, atol=1e-12, rtol=0)
    names = {"linear_layer.weight", "linear_layer.bias", "hidden_layers.0.weight"}
    assert names <= set(text.state_dict()) and hand.shape == (3, 32)


def test_prompts_are_averaged_as_they_are_before_psi() -> None:
    tower = talk2dino()
    names = Vocabulary.from_names(["cat", "a long dog"], ["a {}.", "itap of a {}."])
    options: dict[str, Any] = dict(progress=False, cache_dir=False)
    found = embed_vocabulary(tower, names, **options)
    naive, other = [], []
    for prompts in names.prompts():
        clip = torch.cat([tower.sentences(tower.tokenize([p])) for p in prompts])
        naive.append(tower.text.psi(clip.mean(0)))
        other.append(F.normalize(tower.text.psi(clip), dim=1).mean(0))
    torch.testing.assert_close(found, F.normalize(torch.stack(naive), dim=1), atol=1e-12, rtol=0)
    assert float((found - F.normalize(torch.stack(other), dim=1)).abs().max()) > 1e-3
    assert found.shape == (2, 32) and tower.embed_dim == 32
    tokens = tower.tokenize([p for prompts in names.prompts() for p in prompts])
    torch.testing.assert_close(ensemble(tower, tokens, 2), found, atol=1e-12, rtol=0)
    empty = embed_empty(tower, names.templates)
    assert empty.shape == (32,)
    torch.testing.assert_close(
        tower.encode(tower.tokenize(["a cat."])), tower.text(tower.tokenizer(["a cat."], 24)),
        atol=1e-12, rtol=0,
    )  # fmt: skip


# The archs of the house, and what is refused


HOUSE = {
    "TIPSv2-B-14": (768, 64), "TIPSv2-L-14": (1024, 64), "TIPSv2-SO400M-14": (1152, 64),
    "TIPSv2-g-14": (1536, 64), "dinotxt-v2-L-14": (2048, 77), "dinotxt-v3-L-16": (2048, 77),
    "Talk2DINO-B-14": (768, 77), "Talk2DINO-L-14": (1024, 77),
}  # fmt: skip


@pytest.mark.parametrize("name", HOUSE)
def test_archs_of_the_house_are_open_clips_in_form(name: str) -> None:
    assert name in open_clip.list_models()
    config = open_clip.get_model_config(name)
    with torch.device("meta"):
        text: Any = build_text_transformer(name)
    tower = TextTower(text, Fixed(), config["text_cfg"].get("dense_channels"))
    assert (tower.embed_dim, tower.context_length) == HOUSE[name]
    assert tower.dense_dim == (1024 if "dinotxt" in name else tower.embed_dim)
    assert {"mean", "std", "interpolation", "resize_mode"} == set(config["preprocess_cfg"])
    if name == "TIPSv2-SO400M-14":
        assert text.transformer.resblocks[0].mlp[0].out_features == 4304


@pytest.mark.parametrize("name", ["xlm-roberta-base-ViT-B-32", "mt5-base-ViT-B-32"])
def test_text_towers_of_another_library_are_refused(name: str) -> None:
    with pytest.raises(
        ValueError, match=f"{name}' has the Hugging Face text tower .*embeddings=FI"
    ):
        build_text_tower(name, "tokenizer.json")


@pytest.mark.parametrize(
    ("text_cfg", "message"),
    [
        (dict(embed_cls=True), "a class token"),
        (dict(pool_type="first"), "pool_type='first'"),
        (dict(qk_norm=True), "another kind of attention"),
        (dict(hf_tokenizer_name="some/tokenizer"), "the tokenizer 'some/tokenizer' .its own."),
        (dict(house_model="x"), "house_model='x' in text_cfg: choose 'tips' or 'talk2dino'"),
    ],
)
def test_other_towers_are_refused(text_cfg: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_text_tower(arch(**text_cfg))

"""Text tower and class embeddings: equal to open_clip's plain path, and cached safely."""

from __future__ import annotations

import copy
import sys
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from open_clip.transformer import TextTransformer
from safetensors import safe_open
from safetensors.torch import save_file

from mmclipdis.clip.text.embedding_cache import MemoryCache, weights_version
from mmclipdis.clip.text.encoder import TextTower, build_text_tower, embed_vocabulary
from mmclipdis.clip.text.vocabulary import Vocabulary
from mmclipdis.clip.towers.build import build_text_transformer
from mmclipdis.clip.weights.trainable import set_trainable, split_qkv

VISION = dict(image_size=32, patch_size=8, width=32, head_width=16, layers=1)


def text_arch(**text_cfg: Any) -> dict[str, Any]:
    defaults = dict(context_length=24, vocab_size=49408, width=16, heads=2, layers=3)
    text_cfg = {**defaults, **text_cfg}
    return dict(embed_dim=8, quick_gelu=True, vision_cfg=VISION, text_cfg=text_cfg)


def randomise(tower: TextTower, seed: int = 0) -> TextTower:
    generator = torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in tower.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))
            parameter.requires_grad = False
    return tower


@pytest.fixture
def tower() -> TextTower:
    return randomise(build_text_tower(text_arch())).double()


@pytest.fixture
def cache(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The default cache directory, empty."""
    monkeypatch.setenv("MMCLIPDIS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of the batches that reach the text transformer."""
    sizes: list[int] = []
    plain = TextTower.sentences

    def spy(self: TextTower, tokens: torch.Tensor) -> torch.Tensor:
        sizes.append(len(tokens))
        return plain(self, tokens)

    monkeypatch.setattr(TextTower, "sentences", spy)
    return sizes


def naive_embeddings(tower: TextTower, vocabulary: Vocabulary) -> torch.Tensor:
    """One prompt at a time, full context, open_clip's own forward."""
    rows = []
    for query in vocabulary.queries:
        prompts = vocabulary.templates.render(query)
        tokens = [tower.tokenizer([p], tower.context_length) for p in prompts]
        units = [F.normalize(tower.text(t), dim=1) for t in tokens]
        rows.append(F.normalize(torch.cat(units).mean(0, keepdim=True), dim=1))
    return torch.cat(rows)


# Tokens


def test_golden_tokens_of_catsegs_prompt(tower: TextTower) -> None:
    tokens = tower.tokenize(["A photo of a person in the scene"])
    golden = [49406, 320, 1125, 539, 320, 2533, 530, 518, 3562, 49407]
    assert tokens.tolist() == [golden]


def test_tokens_are_open_clips_cut_at_the_longest_text(tower: TextTower) -> None:
    texts = ["a cat", "a photo of a fire hydrant.", ""]
    tokens = tower.tokenize(texts)
    full = open_clip.tokenize(texts)
    longest = int((full[1] == 49407).nonzero()) + 1
    assert tokens.shape == (3, longest)
    assert torch.equal(tokens, full[:, :longest]) and not full[:, longest:].any()
    assert tokens[2].tolist() == [49406, 49407, *[0] * (longest - 2)]


@pytest.mark.parametrize("odd", [" traffic light", "traffic light \n", "Traffic\t  LIGHT"])
def test_white_space_and_case_do_not_change_the_tokens(tower: TextTower, odd: str) -> None:
    assert torch.equal(tower.tokenize([odd]), tower.tokenize(["traffic light"]))


def test_fused_names_are_other_tokens(tower: TextTower) -> None:
    assert tower.tokenize(["trafficlight"]).tolist() != tower.tokenize(["traffic light"]).tolist()


def test_a_text_that_just_fits_is_kept_and_a_longer_one_refused(tower: TextTower) -> None:
    fits = " ".join(["cat"] * 22)
    assert tower.tokenize([fits]).shape == (1, 24)
    with pytest.raises(ValueError, match=r"does not fit 24 tokens: 'cat cat.*shorter"):
        tower.tokenize(["dog", fits + " cat"])


def test_token_zero_inside_a_text_is_no_padding(tower: TextTower) -> None:
    tokens = tower.tokenize(["!cat!!x", "cat"])
    full = open_clip.tokenize(["!cat!!x", "cat"])
    assert torch.equal(tokens, full[:, : tokens.shape[1]]) and tokens[0, -1] == 49407


@pytest.mark.parametrize("bad", [[], "cat"])
def test_tokenize_wants_a_list_of_texts(tower: TextTower, bad: Any) -> None:
    with pytest.raises(ValueError, match="list of texts"):
        tower.tokenize(bad)


def test_a_token_table_too_small_for_the_tokenizer_is_named() -> None:
    small = build_text_tower(text_arch(vocab_size=100))
    with pytest.raises(ValueError, match="not among the 100 tokens"):
        small.tokenize(["cat"])


# Encoding


def test_encoding_equals_open_clip_at_full_length(tower: TextTower) -> None:
    texts = ["a cat", "A photo of a person in the scene", "", " ".join(["dog"] * 22)]
    full = open_clip.tokenize(texts, tower.context_length)
    expected = tower.text(full)
    assert expected.std() > 0.1
    for tokens in (full, tower.tokenize(texts)):
        torch.testing.assert_close(tower.encode(tokens), expected, atol=1e-10, rtol=0)
    for i in range(4):  # a batch gives what single texts give
        single = tower.encode(tower.tokenize(texts[i : i + 1]))
        torch.testing.assert_close(single, expected[i : i + 1], atol=1e-10, rtol=0)


def test_encoding_has_the_gradients_of_open_clip(tower: TextTower) -> None:
    tower.requires_grad_(True)
    tokens = open_clip.tokenize(["a cat", "a big dog"], tower.context_length)
    weight = torch.randn(2, 8, dtype=torch.float64)
    names = [name for name, _ in tower.text.named_parameters()]
    parameters = list(tower.text.parameters())
    expected = torch.autograd.grad((tower.text(tokens) * weight).sum(), parameters)
    ours = torch.autograd.grad((tower(tokens[:, :5]) * weight).sum(), parameters)
    for name, a, b in zip(names, ours, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-10, rtol=0, msg=name)


@pytest.mark.parametrize("parts", [("q", "v"), ("all",)])
def test_encoding_works_with_split_projections(tower: TextTower, parts: tuple[str, ...]) -> None:
    tokens = tower.tokenize(["a cat", "dog"])
    before = tower.encode(tokens)
    trained = set_trainable(tower, parts)
    assert trained
    after = tower.encode(tokens)
    torch.testing.assert_close(after.detach(), before, atol=1e-12, rtol=0)
    after.sum().backward()
    assert all(dict(tower.named_parameters())[n].grad is not None for n in trained)


def test_layer_scale_and_eos_pooling_are_honoured() -> None:
    arch = text_arch(ls_init_value=0.3, pool_type="eos", eos_id=49407)
    tower = randomise(build_text_tower(arch)).double()
    tokens = open_clip.tokenize(["a cat", "a big dog"], tower.context_length)
    tokens[0, 1] = 49407  # the first end of text counts
    expected = tower.text(tokens)
    torch.testing.assert_close(tower.encode(tokens[:, :6]), expected, atol=1e-10, rtol=0)


def golden_tower() -> TextTower:
    """Text part of the CAT-Seg spec's tiny CLIP, filled by its rule (section 9, C)."""
    shape = dict(context_length=12, vocab_size=100, width=64, heads=2, layers=3)
    arch = {**text_arch(**shape), "embed_dim": 16}
    text = split_qkv(build_text_transformer(arch).double())
    with torch.no_grad():
        for name, parameter in text.named_parameters():
            state = np.random.RandomState(zlib.crc32(name.encode()))
            value = torch.from_numpy(state.standard_normal(tuple(parameter.shape)))
            if parameter.ndim >= 2:
                value = value / (parameter.numel() / parameter.shape[0]) ** 0.5
            else:
                value = 1 + 0.1 * value if name.endswith("weight") else 0.05 * value
            parameter.copy_(value)
    return TextTower(text)


def test_golden_values_of_the_catseg_spec() -> None:
    tokens = torch.zeros(3, 12, dtype=torch.long)
    for row, ids in zip(
        tokens, ([98, 5, 6, 7, 99], [98, 11, 99], [98, 1, 2, 3, 4, 5, 99]), strict=True
    ):
        row[: len(ids)] = torch.tensor(ids)
    tower = golden_tower()
    with torch.no_grad():
        out, cut = tower.encode(tokens), tower.encode(tokens[:, :7])
    torch.testing.assert_close(cut, out, atol=1e-12, rtol=0)
    found = [out.mean(), out.std(unbiased=False), out[0, 0], out[1, 5], out[2, 15]]
    golden = [0.182630, 1.851605, -0.199049, -4.067225, 1.680777]
    torch.testing.assert_close(
        torch.stack(found), torch.tensor(golden, dtype=torch.float64), atol=1e-6, rtol=0
    )


@pytest.mark.parametrize("shape", [(3,), (1, 25), (2, 0)])
def test_tokens_of_a_wrong_shape_are_refused(tower: TextTower, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected \(N, L\) with L <= 24"):
        tower.encode(torch.zeros(shape, dtype=torch.long))


def test_another_class_of_tower_is_refused() -> None:
    with pytest.raises(ValueError, match="Linear is not open_clip's TextTransformer"):
        TextTower(torch.nn.Linear(2, 2))


# Embeddings of a vocabulary


BIASED = {"patterns": ["a {}.", "the {}."], "more": {"airplane": ["wings.", "a jet."], "x": []}}


@pytest.mark.parametrize("templates", ["imagenet80", "vild63", "single", "catseg", BIASED])
def test_embeddings_equal_the_naive_loop(tower: TextTower, templates: Any) -> None:
    v = Vocabulary.from_names([["cat", "tabby cat"], "airplane", "traffic light"], templates)
    out = embed_vocabulary(tower, v, batch_size=50, progress=False, cache_dir=False)
    assert out.shape == (4, 8)
    torch.testing.assert_close(out, naive_embeddings(tower, v), atol=1e-10, rtol=0)
    torch.testing.assert_close(out.norm(dim=1), torch.ones(4, dtype=out.dtype))


def test_embeddings_do_not_depend_on_batch_size_or_template_order(tower: TextTower) -> None:
    v = Vocabulary.from_names(["cat", "dog"])
    backwards = Vocabulary.from_names(["cat", "dog"], v.templates.formats[::-1])
    out = embed_vocabulary(tower, v, cache_dir=False, progress=False)
    one_by_one = embed_vocabulary(tower, backwards, batch_size=1, cache_dir=False, progress=False)
    torch.testing.assert_close(out, one_by_one, atol=1e-12, rtol=0)


def test_permuting_the_classes_permutes_the_embeddings(tower: TextTower) -> None:
    a = embed_vocabulary(tower, Vocabulary.from_names(["cat", "dog", "sky"]), cache_dir=False)
    b = embed_vocabulary(tower, Vocabulary.from_names(["sky", "cat", "dog"]), cache_dir=False)
    torch.testing.assert_close(a[[2, 0, 1]], b, atol=1e-12, rtol=0)


def test_every_sentence_is_encoded_once(tower: TextTower, encoded: list[int]) -> None:
    templates = ["a {}.", "the {}.", "a {}."]
    with pytest.warns(UserWarning, match="same name"):
        v = Vocabulary.from_names(["bag", "cat", "bag"], templates, allow_duplicates=True)
    out = embed_vocabulary(tower, v, cache_dir=False, progress=False)
    assert sum(encoded) == 4
    torch.testing.assert_close(out, naive_embeddings(tower, v), atol=1e-10, rtol=0)


def test_single_template_is_the_plain_normalised_embedding(tower: TextTower) -> None:
    out = embed_vocabulary(tower, Vocabulary.from_names(["cat"], "single"), cache_dir=False)
    plain = tower.encode(tower.tokenize(["a photo of a cat."]))
    torch.testing.assert_close(out, F.normalize(plain, dim=1), atol=1e-12, rtol=0)


def test_batch_size_must_be_positive(tower: TextTower) -> None:
    with pytest.raises(ValueError, match="batch_size=0"):
        embed_vocabulary(tower, Vocabulary.from_names(["cat"]), batch_size=0)


def test_half_precision_weights_give_fp32_unit_rows(tower: TextTower) -> None:
    tower.to(torch.bfloat16)
    out = embed_vocabulary(tower, Vocabulary.from_names(["cat"], "single"), cache_dir=False)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out.norm(dim=1), torch.ones(1))


def test_autocast_does_not_change_the_embeddings(tower: TextTower) -> None:
    v = Vocabulary.from_names(["cat", "dog"], "single")
    tower.float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = embed_vocabulary(tower, v, cache_dir=False)
    tower.memory = MemoryCache()
    assert torch.equal(inside, embed_vocabulary(tower, v, cache_dir=False))


def test_progress_bar_appears_only_when_asked_and_on_terminals(
    tower: TextTower, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    embed_vocabulary(tower, Vocabulary.from_names(["cow"]), cache_dir=False, progress=True)
    assert "text embeddings" not in capsys.readouterr().err
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    embed_vocabulary(tower, Vocabulary.from_names(["cat"]), cache_dir=False, progress=False)
    assert "text embeddings" not in capsys.readouterr().err
    embed_vocabulary(tower, Vocabulary.from_names(["dog"]), cache_dir=False, progress=True)
    assert "text embeddings" in capsys.readouterr().err


# Caches


def test_memory_and_disk_give_what_was_computed(
    tower: TextTower, cache: Any, encoded: list[int]
) -> None:
    v = Vocabulary.from_names(["cat", "dog"], "single")
    computed = embed_vocabulary(tower, v)
    assert len(encoded) == 1 and len(list(cache.iterdir())) == 1
    assert torch.equal(embed_vocabulary(tower, v), computed)  # memory
    tower.memory = MemoryCache()
    assert torch.equal(embed_vocabulary(tower, v), computed)  # disk
    assert len(encoded) == 1


def test_an_equal_tower_in_another_run_reads_the_disk(cache: Any, encoded: list[int]) -> None:
    v = Vocabulary.from_names(["cat", "dog"], "single")
    first, second = (randomise(build_text_tower(text_arch())) for _ in range(2))
    assert first.fingerprint() == second.fingerprint()
    assert torch.equal(embed_vocabulary(first, v), embed_vocabulary(second, v))
    assert len(encoded) == 1


def test_the_cached_tensor_cannot_be_spoilt(tower: TextTower) -> None:
    v = Vocabulary.from_names(["cat"], "single")
    first = embed_vocabulary(tower, v, cache_dir=False)
    kept = first.clone()
    first.zero_()
    assert torch.equal(embed_vocabulary(tower, v, cache_dir=False), kept)


def test_embeddings_cached_under_inference_mode_serve_training(tower: TextTower) -> None:
    v = Vocabulary.from_names(["cat"], "single")
    with torch.inference_mode():
        embed_vocabulary(tower, v, cache_dir=False)
    out = embed_vocabulary(tower, v, cache_dir=False)
    weight = torch.ones_like(out, requires_grad=True)
    (out * weight).sum().backward()
    assert not out.requires_grad and torch.equal(weight.grad, out)


def grow(tower: TextTower) -> None:
    with torch.no_grad():
        tower.text.ln_final.weight.mul_(1.5).add_(0.1)


def load(tower: TextTower) -> None:
    state = {k: v.roll(1, 0) for k, v in tower.state_dict().items()}
    tower.load_state_dict(state)


def step(tower: TextTower) -> None:
    tower.requires_grad_(True)
    tower.encode(tower.tokenize(["cat"])).square().sum().backward()
    torch.optim.AdamW(tower.parameters(), lr=0.1).step()
    tower.requires_grad_(False)


def swap_data(tower: TextTower) -> None:
    """As mmengine's EMA hook does; PyTorch's version counter does not see it."""
    for parameter in tower.parameters():
        parameter.data.copy_(parameter.data.flip(0))


def replace_data(tower: TextTower) -> None:
    weight = tower.text.transformer.resblocks[1].mlp.c_fc.weight
    weight.data = weight.data.flip(0).clone()


@pytest.mark.parametrize("change", [grow, load, step, swap_data, replace_data])
def test_changed_weights_are_noticed_by_both_caches(
    tower: TextTower, cache: Any, change: Callable[[TextTower], None]
) -> None:
    v = Vocabulary.from_names(["cat", "dog"], "single")
    before, print_before = embed_vocabulary(tower, v), tower.fingerprint()
    change(tower)
    after = embed_vocabulary(tower, v)
    assert tower.fingerprint() != print_before
    assert (after - before).abs().max() > 1e-3
    torch.testing.assert_close(after, naive_embeddings(tower, v), atol=1e-10, rtol=0)


def test_one_written_row_of_a_large_table_is_noticed(tower: TextTower) -> None:
    table = tower.text.token_embedding.weight
    before = weights_version(tower.text)
    table.data[12345] += 1e-3
    row = weights_version(tower.text)
    table.data[:, 5] += 1e-3
    assert len({before, row, weights_version(tower.text)}) == 3
    assert weights_version(tower.text) == weights_version(tower.text)


def test_weights_back_from_a_detour_find_their_embeddings(
    tower: TextTower, cache: Any, encoded: list[int]
) -> None:
    v = Vocabulary.from_names(["cat"], "single")
    state = {k: t.clone() for k, t in tower.state_dict().items()}
    before = embed_vocabulary(tower, v)
    grow(tower)
    embed_vocabulary(tower, v)
    tower.load_state_dict(state)
    assert torch.equal(embed_vocabulary(tower, v), before)
    assert len(encoded) == 2


def test_trainable_towers_leave_the_disk_alone(tower: TextTower, cache: Any) -> None:
    set_trainable(tower, ("q",))
    embed_vocabulary(tower, Vocabulary.from_names(["cat"]))
    assert not cache.exists()


def test_names_templates_weights_and_tokenizer_each_have_their_entry(
    tower: TextTower, cache: Any
) -> None:
    for names, templates in ((["cat"], "single"), (["dog"], "single"), (["cat"], "catseg")):
        embed_vocabulary(tower, Vocabulary.from_names(names, templates))
    other = build_text_tower(text_arch(tokenizer_kwargs=dict(clean="canonicalize")))
    other.requires_grad_(False).double().load_state_dict(tower.state_dict())
    embed_vocabulary(other, Vocabulary.from_names(["cat"], "single"))
    gelu = build_text_tower({**text_arch(), "quick_gelu": False})
    gelu.requires_grad_(False).double().load_state_dict(tower.state_dict())
    embed_vocabulary(gelu, Vocabulary.from_names(["cat"], "single"))
    assert len(list(cache.iterdir())) == 5


def truncate(path: Any) -> None:
    path.write_bytes(path.read_bytes()[:50])


def overwrite(path: Any) -> None:
    path.write_bytes(b"not a safetensors file")


def other_key(path: Any) -> None:
    save_file({"embeddings": torch.ones(1, 8)}, path, metadata={"key": "another"})


def no_entry(path: Any) -> None:
    save_file({"something": torch.ones(1, 8)}, path)


@pytest.mark.parametrize("damage", [truncate, overwrite, other_key, no_entry])
def test_a_damaged_file_is_reported_and_replaced(
    tower: TextTower, cache: Any, damage: Callable[[Any], None], encoded: list[int]
) -> None:
    v = Vocabulary.from_names(["cat"], "single")
    before = embed_vocabulary(tower, v)
    damage(next(cache.iterdir()))
    tower.memory = MemoryCache()
    with pytest.warns(UserWarning, match="damaged"):
        assert torch.equal(embed_vocabulary(tower, v), before)
    tower.memory = MemoryCache()
    assert torch.equal(embed_vocabulary(tower, v), before)
    assert len(encoded) == 2
    assert len(list(cache.iterdir())) == 1  # nothing temporary is left


def test_values_that_are_not_finite_are_not_believed(tower: TextTower, cache: Any) -> None:
    v = Vocabulary.from_names(["cat"], "single")
    before = embed_vocabulary(tower, v)
    path = next(cache.iterdir())
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    save_file({"embeddings": before * float("nan")}, path, metadata=metadata)
    tower.memory = MemoryCache()
    with pytest.warns(UserWarning, match="not finite"):
        assert torch.equal(embed_vocabulary(tower, v), before)


def test_a_directory_that_cannot_be_written_only_warns(tower: TextTower, tmp_path: Any) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.warns(UserWarning, match="not cached"):
        embed_vocabulary(tower, Vocabulary.from_names(["cat"], "single"), cache_dir=blocked / "x")


def test_the_memory_cache_forgets_the_oldest(tower: TextTower, encoded: list[int]) -> None:
    tower.memory = MemoryCache(size=2)
    vocabularies = [Vocabulary.from_names([n], "single") for n in ("cat", "dog", "sky")]
    for index in (0, 1, 0, 2, 0, 1):  # "dog" is the oldest when "sky" comes
        embed_vocabulary(tower, vocabularies[index], cache_dir=False)
    assert len(encoded) == 4


def test_memory_needs_no_disk_and_survives_a_copy(tower: TextTower, encoded: list[int]) -> None:
    v = Vocabulary.from_names(["cat"], "single")
    before = embed_vocabulary(tower, v, cache_dir=False)
    clone = copy.deepcopy(tower)
    assert torch.equal(embed_vocabulary(clone, v, cache_dir=False), before)
    assert isinstance(clone.text, TextTransformer)
    assert not any(key.startswith("memory") for key in tower.state_dict())


def test_what_the_weights_do_not_tell_is_in_the_fingerprint() -> None:
    """Towers of the same weights that compute something else must not share a cached embedding."""
    towers = [build_text_tower(text_arch(heads=heads)) for heads in (1, 2)]
    towers.append(build_text_tower({**text_arch(heads=2), "quick_gelu": False}))
    for tower in towers[1:]:
        tower.load_state_dict(towers[0].state_dict())
    assert len({tower.fingerprint() for tower in towers}) == 3

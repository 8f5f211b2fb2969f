"""The originals' names become timm's and open_clip's: equal weights and forward passes (4 s)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import open_clip
import pytest
import timm
import torch
from open_clip.convert import convert_mobile_clip_state_dict, load_big_vision_weights
from open_clip.model import _build_text_tower
from timm.models.eva import EvaBlock, checkpoint_filter_fn
from timm.models.vision_transformer import _convert_dinov2
from torch import Tensor, nn

from mmclipdis.clip.weights.dino_layout import dinov2_to_timm, dinov3_to_timm, fit_bias
from mmclipdis.clip.weights.dinotxt_layout import dinotxt_to_open_clip
from mmclipdis.clip.weights.files import read_file
from mmclipdis.clip.weights.layouts import read_layout
from mmclipdis.clip.weights.loading import load_strictly
from mmclipdis.clip.weights.mobileclip_layout import mobileclip_to_open_clip
from mmclipdis.clip.weights.trainable import split_qkv
from mmclipdis.clip.weights.vfm import load_vfm
from tests.layout_files import filled, pixels

State = dict[str, Tensor]
TINY = dict(img_size=8, patch_size=4, embed_dim=8, depth=2, num_heads=2)


def shapes_of(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in module.state_dict().items()}


def swapped(state: Mapping[str, Tensor], *pairs: tuple[str, str]) -> State:
    """The same weights under other names: the first of ``pairs`` is replaced by the second."""
    out = {}
    for name, value in state.items():
        for old, new in pairs:
            name = name.replace(old, new)
        out[name] = value
    return out


def assert_equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


# ------------------------------------------------------------------------- Perception Encoder
def tiny_pe(class_token: bool = True) -> Any:
    options = dict(TINY, num_classes=6, class_token=class_token, ref_feat_shape=(2, 2))
    return timm.create_model("vit_pe_core_base_patch16_224", **options).double().eval()


def official_pe(model: Any) -> State:
    """The weights of timm's model under the official names, filled by rule F."""
    state = filled(shapes_of(model))
    state["head.bias"] = torch.zeros(6, dtype=torch.float64)
    model.load_state_dict(state)
    pool = {k: state.pop(k) for k in list(state) if k.startswith("attn_pool.")}
    out = {"proj": state.pop("head.weight").T, "positional_embedding": state.pop("pos_embed")[0]}
    del state["head.bias"]
    if "cls_token" in state:
        out["class_embedding"] = state.pop("cls_token")[0, 0]
    mlp = (("mlp.fc1", "mlp.c_fc"), ("mlp.fc2", "mlp.c_proj"))
    out |= swapped(
        state,
        *(("patch_embed.proj", "conv1"), ("norm_pre", "ln_pre"), ("attn.qkv.", "attn.in_proj_")),
        *(("attn.proj", "attn.out_proj"), ("norm1", "ln_1"), ("norm2", "ln_2"), *mlp),
        *(("norm.", "ln_post."), ("blocks.", "transformer.resblocks.")),
    )
    for leaf in ("weight", "bias"):
        parts = [pool.pop(f"attn_pool.{part}.{leaf}") for part in ("q", "kv")]
        out[f"attn_pool.attn.in_proj_{leaf}"] = torch.cat(parts)
    out["attn_pool.probe"] = pool.pop("attn_pool.latent")
    names = (("attn_pool.proj", "attn_pool.attn.out_proj"), ("attn_pool.norm", "attn_pool.layern"))
    return out | swapped(pool, *names, ("layern.", "layernorm."), *mlp)


@pytest.mark.parametrize("class_token", [True, False])
@pytest.mark.parametrize("prefix", ["", "visual."])
@torch.no_grad()
def test_perception_encoder_loads_to_an_equal_forward(class_token: bool, prefix: str) -> None:
    model, again = tiny_pe(class_token), tiny_pe(class_token)
    official = {prefix + k: v for k, v in official_pe(model).items()}
    text = {"token_embedding.weight": torch.ones(3, 4), "text_projection": torch.ones(4, 6)}
    text |= {"positional_embedding": torch.ones(2, 4), "logit_scale": torch.ones(1)}
    given = {**official, **text} if prefix else official
    found = read_layout(given, "f")
    state = {k.removeprefix("visual.trunk."): v for k, v in found.state.items() if "visual." in k}
    assert_equal(checkpoint_filter_fn(given, again), state)
    again.load_state_dict(state)
    assert torch.equal(again(pixels()), model(pixels()))
    assert not prefix or found.state["positional_embedding"].shape == (2, 4)
    assert found.report.added["visual.trunk.head.bias"] == "zero: the file has none"


# ------------------------------------------------------------------------- DINOv2, TIPS, DINOv3
def official_dinov3(bias: float = 0.0, k_bias: float = 0.0, masked: bool = True) -> State:
    model = timm.create_model("vit_base_patch16_dinov3", **TINY, num_classes=0)
    state = filled(shapes_of(model))
    state = swapped(state, ("gamma_", "ls"), ("reg_token", "storage_tokens"))
    state = {k + ".gamma" if ".ls" in k else k: v for k, v in state.items()}
    both = torch.full((8,), bias).double()
    for i in range(2):
        stem = f"blocks.{i}.attn.qkv.bias"
        state[stem] = torch.cat([both, torch.full((8,), k_bias).double(), both])
        if masked:
            state[stem + "_mask"] = torch.ones(24).double().index_fill(0, torch.arange(8, 16), 0)
    return state | {"mask_token": torch.zeros(1, 8), "rope_embed.periods": torch.ones(2)}


def dinov3_model(qkvb: bool) -> Any:
    name = "vit_base_patch16_dinov3" + "_qkvb" * qkvb
    return timm.create_model(name, **TINY, num_classes=0).double().eval()


@pytest.mark.parametrize(("qkvb", "bias"), [(False, 0.0), (True, 0.0), (True, 0.3)])
@torch.no_grad()
def test_dinov3_loads_as_by_timms_filter(qkvb: bool, bias: float) -> None:
    official, model = official_dinov3(bias, k_bias=0.7), dinov3_model(qkvb)
    state, report = dinov3_to_timm(official)
    state = fit_bias(state, model.state_dict(), "f")
    assert_equal(checkpoint_filter_fn(dict(official), dinov3_model(qkvb)), state)
    model.load_state_dict(state)
    assert torch.isfinite(model(pixels())).all()
    assert report.dropped["mask_token"] and report.dropped["blocks.0.attn.qkv.bias_mask"]


def test_a_bias_of_dinov3_that_has_no_place_is_refused(tmp_path: Path) -> None:
    torch.save(official_dinov3(0.3), tmp_path / "dinov3.pth")
    with pytest.raises(ValueError, match=r"q_bias' that is not zero, .* choose timm's .*_qkvb"):
        load_vfm(dinov3_model(False), tmp_path / "dinov3.pth", "mine")
    load_vfm(dinov3_model(True), tmp_path / "dinov3.pth", "mine")
    with pytest.raises(ValueError, match=r"DINOv3 whose 'blocks.0.attn.qkv.bias' gives k a bias"):
        read_layout(official_dinov3(k_bias=0.1, masked=False), "f")


@pytest.mark.parametrize(("qkvb", "bias"), [(False, 0.0), (True, 0.3)])
def test_dinov3_loads_into_a_tower_whose_projections_are_split(qkvb: bool, bias: float) -> None:
    whole, split = dinov3_model(qkvb), split_qkv(dinov3_model(qkvb))
    for model in (whole, split):
        state = fit_bias(dinov3_to_timm(official_dinov3(bias))[0], model.state_dict(), "f")
        load_strictly(model, state, "tower", "f")
    assert torch.equal(split(pixels()), whole(pixels()))
    if not qkvb:
        state = dinov3_to_timm(official_dinov3(0.3))[0]
        with pytest.raises(ValueError, match="that is not zero, for which the tower has no place"):
            fit_bias(state, split.state_dict(), "f")


@pytest.mark.parametrize("name", ["vit_base_patch14_reg1_tipsv2", "vit_base_patch14_reg4_dinov2"])
@torch.no_grad()
def test_dinov2_and_tips_load_as_by_timms_filter(name: str) -> None:
    model = timm.create_model(name, **TINY, num_classes=0).double().eval()
    shapes = shapes_of(model) | {"pos_embed": (1, 5, 8), "mask_token": (1, 8)}
    official = swapped(filled(shapes), ("reg_token", "register_tokens"))
    state, _ = dinov2_to_timm(official)
    assert_equal(_convert_dinov2(dict(official), model), state)
    model.load_state_dict(state)
    assert_equal(
        read_layout(official, "f").state, {f"visual.trunk.{k}": v for k, v in state.items()}
    )


def test_text_of_tips_has_a_scale_from_its_temperature(tmp_path: Path) -> None:
    block = "transformer.resblocks.0."
    arrays = {
        **{"token_embedding": np.ones((5, 8), np.float32), "ln_final.weight": np.ones(8)},
        **{block + "attn.in_proj_weight": np.ones((24, 8)), block + "ln_1.bias": np.ones(8)},
        **{"temperature": np.float32(0.005066), "temperature_contrastive": np.float32(0.1)},
    }
    np.savez(tmp_path / "text.npz", **arrays)
    found = read_layout(read_file(tmp_path / "text.npz")[0], "f")
    assert "token_embedding.weight" in found.state
    assert found.state["logit_scale"].exp() == pytest.approx(1 / 0.005066)
    assert list(found.report.dropped) == ["temperature_contrastive"]
    raw = read_file(tmp_path / "text.npz")[0]
    with pytest.raises(ValueError, match="whose temperature is -1.0, not positive"):
        read_layout({**raw, "temperature": torch.tensor(-1.0)}, "f")


# ------------------------------------------------------------------------- dino.txt
class DinoTxtHead(nn.Module):
    """The head of the spec's golden value: two EvaBlocks without rotation, and a norm."""

    def __init__(self) -> None:
        super().__init__()
        options: dict[str, Any] = dict(
            qkv_bias=False,
            qkv_fused=True,
            mlp_ratio=1.5,
            swiglu_mlp=True,
            swiglu_align_to=1,
            init_values=1.0,
            attn_type="rope",
            norm_layer=lambda d, **kw: nn.LayerNorm(d, eps=1e-5, **kw),
        )
        self.blocks = nn.ModuleList([EvaBlock(4, 2, **options) for _ in range(2)])
        self.ln_final = nn.LayerNorm(4, eps=1e-5)

    def forward(self, tokens: Tensor) -> Tensor:
        for block in self.blocks:
            tokens = block(tokens)
        return self.ln_final(tokens)


def official_head(state: State, prefix: str, blocks: str) -> State:
    pairs = (("blocks.", blocks), ("gamma_", "ls"), ("fc2", "w3"), ("fc1_g", "w1"), ("fc1_x", "w2"))
    out = swapped(state, *pairs)
    return {prefix + (k + ".gamma" if ".ls" in k else k): v for k, v in out.items()}


GOLDEN = "1.987950 -0.890134 -0.074445 -0.008903 1.447978 -1.165266 0.777610 -0.123963"
VARIANTS = [("visual_model.head.", "blocks."), ("", "block_list."), ("head.", "block_list.")]


@pytest.mark.parametrize(("prefix", "blocks"), VARIANTS)
@torch.no_grad()
def test_head_of_dinotxt_gives_the_number_of_the_spec(prefix: str, blocks: str) -> None:
    head = DinoTxtHead().double().eval()
    official = official_head(filled(shapes_of(head)), prefix, blocks)
    state = read_layout(official, "f").state
    head.load_state_dict({k.removeprefix("visual.head."): v for k, v in state.items()})
    i, c = torch.meshgrid(torch.arange(8.0), torch.arange(4.0), indexing="ij")
    tokens = head((0.3 * i - 0.2 * c + 0.05 * i * c).double()[None])
    embedding = torch.cat([tokens[0, 0], tokens[0, 5:].mean(0)])
    assert " ".join(f"{value:.6f}" for value in embedding.tolist()) == GOLDEN


def naive_text(state: State, ids: Tensor) -> Tensor:
    """The official text tower, from its own names: 2 heads, causal, read at the largest id."""

    def linear(x: Tensor, name: str) -> Tensor:
        return nn.functional.linear(x, state[f"{name}.weight"], state.get(f"{name}.bias"))

    def norm(x: Tensor, name: str) -> Tensor:
        return nn.functional.layer_norm(
            x, (8,), state[f"{name}.weight"], state[f"{name}.bias"], 1e-5
        )

    start = "text_model.backbone."
    x = state[start + "token_embedding.weight"][ids] + state[start + "positional_embedding"]
    for i in range(2):
        block = f"{start}blocks.{i}."
        q, k, v = linear(norm(x, block + "attention_norm"), block + "attention.qkv").chunk(3, -1)
        heads = [t.view(len(ids), 2, 4).transpose(0, 1) for t in (q, k, v)]
        scores = heads[0] @ heads[1].transpose(1, 2) / math.sqrt(4)
        scores = scores + torch.full_like(scores, -math.inf).triu(1)
        x = x + linear((scores.softmax(-1) @ heads[2]).transpose(0, 1).reshape(-1, 8),
                       block + "attention.proj")  # fmt: skip
        hidden = nn.functional.gelu(linear(norm(x, block + "ffn_norm"), block + "feed_forward.fc1"))
        x = x + linear(hidden, block + "feed_forward.fc2")
    x = norm(x, start + "ln_final")[ids.argmax()]
    return x @ state["text_model.head.linear_projection.weight"].T


@torch.no_grad()
def test_text_of_dinotxt_runs_as_open_clips() -> None:
    shapes: dict[str, tuple[int, ...]] = {
        **{"backbone.token_embedding.weight": (12, 8), "backbone.positional_embedding": (6, 8)},
        **{"backbone.ln_final.weight": (8,), "backbone.ln_final.bias": (8,)},
        "head.linear_projection.weight": (6, 8),
    }
    for i in range(2):
        for name, shape in (
            *(("attention_norm", (8,)), ("ffn_norm", (8,)), ("attention.proj", (8, 8))),
            *(("feed_forward.fc1", (32, 8)), ("feed_forward.fc2", (8, 32))),
        ):
            shapes |= {f"backbone.blocks.{i}.{name}.weight": shape}
            shapes |= {f"backbone.blocks.{i}.{name}.bias": shape[:1]}
        shapes[f"backbone.blocks.{i}.attention.qkv.weight"] = (24, 8)
    official = {f"text_model.{k}": v for k, v in filled(shapes).items()}
    state, report = dinotxt_to_open_clip({**official, "logit_scale": torch.ones(1)})
    assert state.pop("logit_scale").shape == ()
    assert report.added["transformer.resblocks.0.attn.in_proj_bias"].startswith("zero")
    cfg = dict(context_length=6, vocab_size=12, width=8, heads=2, layers=2)
    tower = _build_text_tower(6, open_clip.CLIPTextCfg(**cfg), False).double().eval()
    tower.load_state_dict(state)
    ids = torch.tensor([1, 5, 7, 11, 0, 0])
    torch.testing.assert_close(tower(ids[None])[0], naive_text(official, ids), rtol=0, atol=1e-12)
    bare = {k.removeprefix("text_model."): v for k, v in official.items()}
    assert_equal(read_layout(bare, "f").state, state)


# ------------------------------------------------------------------------- MobileCLIP, big_vision
def original_mobileclip(fastvit: bool) -> State:
    text = {
        "embedding_layer.weight": (12, 8),
        "positional_embedding.pos_embed.pos_embed": (1, 1, 6, 8),
        **{"transformer.0.pre_norm_mha.0.weight": (8,), "final_layer_norm.bias": (8,)},
        **{"transformer.0.pre_norm_mha.1.qkv_proj.weight": (24, 8)},
        **{"transformer.0.pre_norm_mha.1.out_proj.bias": (8,), "projection_layer": (8, 6)},
        **{f"transformer.0.pre_norm_ffn.{i}.weight": (8, 8) for i in (0, 1, 4)},
    }
    vit = {
        **{"patch_emb.0.block.conv.weight": (4, 3, 4, 4), "patch_emb.0.block.norm.bias": (4,)},
        **{"cls_token": (1, 1, 8), "pos_embed.pos_embed.pos_embed": (1, 1, 4, 8)},
        **{"transformer.1.pre_norm_mha.0.weight": (8,), "post_transformer_norm.bias": (8,)},
        **{"transformer.1.pre_norm_mha.1.qkv_proj.weight": (24, 8), "classifier.proj": (8, 6)},
        **{"transformer.1.pre_norm_mha.1.out_proj.bias": (8,)},
        **{f"transformer.1.pre_norm_ffn.{i}.weight": (8, 8) for i in (0, 1, 4)},
    }
    pyramid = {
        **{"patch_embed.0.rbr_conv.0.conv.weight": (4, 3, 3, 3), "head.proj": (8, 6)},
        **{"network.0.0.layer_scale": (4,), "network.0.0.convffn.fc1.weight": (8, 4, 1, 1)},
        **{"network.1.proj.0.lkb_origin.conv.weight": (8, 4, 7, 7), "network.2.0.norm.bias": (8,)},
        **{"conv_exp.se.reduce.weight": (2, 8, 1, 1), "network.1.proj.1.rbr_scale.bn.bias": (8,)},
    }
    shapes = {f"text_encoder.{k}": v for k, v in text.items()} | {"logit_scale": ()}
    shapes |= {f"image_encoder.model.{k}": v for k, v in (pyramid if fastvit else vit).items()}
    return filled(shapes)


@pytest.mark.parametrize("fastvit", [False, True])
def test_mobileclip_is_renamed_as_by_open_clip(fastvit: bool) -> None:
    official = original_mobileclip(fastvit)
    trunk = SimpleNamespace(pos_embed=None, head=SimpleNamespace(fc=nn.Linear(1, 1)))
    model: Any = SimpleNamespace(visual=SimpleNamespace(trunk=trunk))
    expected = convert_mobile_clip_state_dict(model, dict(official), fastvit)
    expected = {k.removeprefix("text."): v for k, v in expected.items()}
    state, report = mobileclip_to_open_clip(official)
    assert_equal(expected, {k: v.double() if "head.bias" in k else v for k, v in state.items()})
    assert sorted(report.names) == sorted(official) and not report.dropped
    assert_equal(read_layout(official, "f").state, state)


def big_vision_arrays(stacked: bool) -> dict[str, np.ndarray]:
    block = {
        **{f"LayerNorm_{i}/{leaf}": (8,) for i in (0, 1) for leaf in ("scale", "bias")},
        **{f"{MHA}{part}/kernel": (8, 2, 4) for part in ("query", "key", "value")},
        **{f"{MHA}{part}/bias": (2, 4) for part in ("query", "key", "value")},
        **{f"{MHA}out/kernel": (2, 4, 8), f"{MHA}out/bias": (8,)},
        **{"MlpBlock_0/Dense_0/kernel": (8, 16), "MlpBlock_0/Dense_0/bias": (16,)},
        **{"MlpBlock_0/Dense_1/kernel": (16, 8), "MlpBlock_0/Dense_1/bias": (8,)},
    }
    shapes: dict[str, tuple[int, ...]] = {
        **{"img/embedding/kernel": (4, 4, 3, 8), "img/embedding/bias": (8,)},
        **{"img/pos_embedding": (1, 4, 8), "img/MAPHead_0/probe": (1, 1, 8)},
        **{f"img/Transformer/encoder_norm/{leaf}": (8,) for leaf in ("scale", "bias")},
        **{f"img/MAPHead_0/{k}": v for k, v in block.items() if not k.startswith("LayerNorm_1")},
        **{"txt/Embed_0/embedding": (12, 8), "txt/pos_embedding": (1, 6, 8)},
        **{f"txt/Encoder_0/encoder_norm/{leaf}": (8,) for leaf in ("scale", "bias")},
        **{"txt/head/kernel": (8, 8), "txt/head/bias": (8,), "t": (1,), "b": (1,)},
    }
    for tower in ("img/Transformer/", "txt/Encoder_0/"):
        for name, shape in block.items():
            if stacked:
                shapes[f"{tower}encoderblock/{name}"] = (2, *shape)
            else:
                shapes |= {f"{tower}encoderblock_{i}/{name}": shape for i in (0, 1)}
    return {f"params/{k}": v.float().numpy() for k, v in filled(shapes).items()}


MHA = "MultiHeadDotProductAttention_0/"


@pytest.mark.parametrize("stacked", [False, True])
def test_big_vision_is_read_as_by_open_clip(tmp_path: Path, stacked: bool) -> None:
    np.savez(tmp_path / "siglip.npz", **big_vision_arrays(stacked))
    vision = {"timm_model_name": "test_vit", "timm_pool": "map"}  # replaced below
    text = dict(context_length=6, vocab_size=12, width=8, heads=2, layers=2, mlp_ratio=2.0)
    model = open_clip.CustomTextCLIP(
        8,
        vision | {"timm_proj": "none", "image_size": 224},
        text | dict(no_causal_mask=True, proj_bias=True, pool_type="last"),
        init_logit_bias=-10.0,
    )
    options = dict(TINY, num_classes=0, mlp_ratio=2.0)
    model.visual.trunk = timm.create_model("vit_base_patch16_siglip_224", **options)
    model.visual.trunk.attn_pool.mlp = timm.layers.Mlp(8, 16)
    load_big_vision_weights(model, str(tmp_path / "siglip.npz"))
    found = read_layout(read_file(tmp_path / "siglip.npz")[0], "f")
    expected = {k.removeprefix("text."): v for k, v in model.state_dict().items()}
    assert_equal(expected, found.state)

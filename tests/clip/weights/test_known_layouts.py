"""Layouts are told by name, those that are not read too, and models in parts are put together.

3 s; the towers are tiny.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn

from mmclipdis.clip.towers.build import build_image_tower, build_text_transformer
from mmclipdis.clip.weights.files import read_file
from mmclipdis.clip.weights.layouts import read_layout
from mmclipdis.clip.weights.loading import (
    load_image_tower,
    load_text_transformer,
    read_clip_checkpoint,
)
from mmclipdis.models.backbones import pretrained_source
from tests.layout_files import (
    DEPTH,
    GRID,
    HEADS,
    HIDDEN,
    PATCH,
    PLACES,
    WORDS,
    D,
    filled,
    hf_clip,
    hf_siglip,
)
from tests.tiny import tiny_arch

UNREAD = {
    "vision_model.encoder.layers.0.self_attn.qkv.weight": "a Hugging Face BLIP",
    "text_model.embeddings.word_embeddings.weight": "a Hugging Face Chinese-CLIP or AltCLIP",
    "clip.vision_model.embeddings.class_embedding": "a Hugging Face CLIP that was trained for",
    "vision_tower.vision_model.embeddings.patch_embedding.weight": "a vision-language model",
    "embeddings.class_embedding": "a Hugging Face CLIP tower without its projection",
    "image_encoder.model.patch_embed.0.reparam_conv.weight": "a re-parameterised MobileCLIP",
    "radio_model.model.patch_generator.embedder.weight": "a RADIO",
    "blocks.0.attn.qkv.weight": "a bare ViT",
}


@pytest.mark.parametrize("name", sorted(UNREAD))
def test_a_layout_that_is_not_read_is_named(name: str) -> None:
    with pytest.raises(ValueError, match=f"^'f' holds {UNREAD[name]}.*, which is not read; "):
        read_layout({name: torch.zeros(1)}, "f")


class Visual(nn.Module):
    """A tower that holds a trunk of timm, for loading alone."""

    def __init__(self, trunk: nn.Module) -> None:
        super().__init__()
        self.visual = nn.Module()
        self.visual.trunk = trunk


SIGLIP: dict[str, Any] = {
    "embed_dim": D,
    "vision_cfg": {"timm_model_name": "vit_base_patch16_siglip_224", "image_size": PATCH * GRID},
    "text_cfg": dict(
        **dict(context_length=PLACES, vocab_size=WORDS, width=D, heads=HEADS, layers=DEPTH),
        **dict(mlp_ratio=HIDDEN / D, no_causal_mask=True, proj_bias=True, pool_type="last"),
    ),
}


def siglip_visual() -> Visual:
    options = dict(img_size=PATCH * GRID, patch_size=PATCH, embed_dim=D, depth=DEPTH)
    trunk: Any = timm.create_model(
        "vit_base_patch16_siglip_224",
        **options,
        num_heads=HEADS,
        num_classes=0,
        mlp_ratio=HIDDEN / D,
        act_layer="gelu_tanh",
    )
    trunk.attn_pool.mlp = timm.layers.Mlp(D, HIDDEN)
    return Visual(trunk)


def saved(path: Path, state: dict[str, Tensor]) -> Path:
    torch.save(state, path)
    return path


def test_both_towers_load_from_hugging_faces_file(tmp_path: Path) -> None:
    path = saved(tmp_path / "hf.pt", hf_siglip())
    tower, text = siglip_visual(), build_text_transformer(SIGLIP)
    load_image_tower(tower, SIGLIP, path)
    load_text_transformer(text, SIGLIP, path)
    state = read_clip_checkpoint(SIGLIP, path).state_dict
    for name, value in {**tower.state_dict(), **text.state_dict()}.items():
        assert torch.equal(value, state[name].float()), name


TRUNKS = ["patch14_reg1_tipsv2", "patch14_reg4_dinov2", "patch16_dinov3", "patch16_siglip_224"]


@pytest.mark.parametrize("name", TRUNKS)
def test_the_trunk_alone_is_read_from_timms_own_file(tmp_path: Path, name: str) -> None:
    options = dict(img_size=8, patch_size=4, embed_dim=8, depth=1, num_heads=2, num_classes=0)
    name = f"vit_base_{name}"
    trunk, other = (timm.create_model(name, **options) for _ in range(2))
    path = saved(tmp_path / "pytorch_model.bin", trunk.state_dict())
    arch = {"embed_dim": 8, "vision_cfg": {"timm_model_name": name}, "text_cfg": {}}
    load_image_tower(Visual(other), arch, path)
    for key, value in trunk.state_dict().items():
        assert torch.equal(other.state_dict()[key], value), key


def test_half_of_a_file_says_which_half_it_is(tmp_path: Path) -> None:
    whole = hf_siglip()
    image = saved(tmp_path / "image.pt", {k: v for k, v in whole.items() if k.startswith("vis")})
    text = saved(tmp_path / "text.pt", {k: v for k, v in whole.items() if k.startswith("text")})
    with pytest.raises(ValueError, match=r"text.pt' holds no image tower; give the file"):
        load_image_tower(siglip_visual(), SIGLIP, text)
    with pytest.raises(ValueError, match=r"image.pt' holds no text tower; give .*embeddings=FILE"):
        load_text_transformer(build_text_transformer(SIGLIP), SIGLIP, image)
    load_image_tower(siglip_visual(), SIGLIP, [image, text])
    load_text_transformer(build_text_transformer(SIGLIP), SIGLIP, [image, text])
    with pytest.raises(ValueError, match=r"both hold 'visual.trunk.*leave out one"):
        read_clip_checkpoint(SIGLIP, [image, image])
    with pytest.raises(ValueError, match="list of weights is empty"):
        read_clip_checkpoint(SIGLIP, [])


def test_another_family_is_refused_by_name(tmp_path: Path) -> None:
    path = saved(tmp_path / "clip.pt", hf_clip())
    message = r"holds an OpenAI-style ViT of width 8 .* image tower of the SigLIP kind; choose"
    with pytest.raises(ValueError, match=message):
        load_image_tower(siglip_visual(), SIGLIP, path)
    path = saved(tmp_path / "siglip.pt", hf_siglip())
    pe = r"'PE-Core-B-16' has an image tower of the PE kind"
    with pytest.raises(ValueError, match=f"holds a SigLIP ViT of width 8 .* {pe}"):
        load_text_transformer(build_text_transformer(SIGLIP), "PE-Core-B-16", path)


def test_a_text_tower_of_hugging_face_beside_open_clips_image_tower_is_named(
    tmp_path: Path,
) -> None:
    arch = tiny_arch()
    names = {"visual.conv1.weight": (48, 3, 16, 16), "visual.positional_embedding": (17, 48)}
    names |= {"text.transformer.embeddings.word_embeddings.weight": (5, 4)}
    path = saved(tmp_path / "xlmr.pt", filled(names))
    message = r"holds a text tower of Hugging Face \(XLM-R.*\), which is not read; .*embeddings=F"
    with pytest.raises(ValueError, match=message):
        load_text_transformer(build_text_transformer(arch), arch, path)


def test_dinotxt_needs_its_backbone_and_its_head(tmp_path: Path) -> None:
    options = dict(img_size=8, patch_size=4, embed_dim=8, depth=1, num_heads=2, num_classes=0)
    trunk: Any = timm.create_model("vit_base_patch14_reg4_dinov2", **options)
    shapes = {k: tuple(v.shape) for k, v in trunk.state_dict().items()} | {"pos_embed": (1, 5, 8)}
    official = {k.replace("reg_token", "register_tokens"): v for k, v in filled(shapes).items()}
    backbone = saved(tmp_path / "backbone.pth", official)
    head_names = {"block_list.0.norm1.weight": (8,), "ln_final.weight": (8,)}
    head = saved(tmp_path / "head.pth", filled(head_names | {"ln_final.bias": (8,)}))
    vision = {"timm_model_name": "vit_base_patch14_reg4_dinov2", "head": {"blocks": 1}}
    arch = {"embed_dim": 16, "vision_cfg": vision, "text_cfg": {}}
    with pytest.raises(ValueError, match=r"DINOv2 ViT .* dino.txt kind; give the file of its head"):
        load_image_tower(Visual(trunk), arch, backbone)
    with pytest.raises(ValueError, match=r"holds the head of an image tower without its trunk; gi"):
        load_image_tower(Visual(trunk), arch, head)
    state = read_clip_checkpoint(arch, [backbone, head])
    tower = Visual(trunk)
    tower.visual.head = nn.ModuleDict(
        {"blocks": nn.ModuleList([nn.ModuleDict({"norm1": nn.LayerNorm(8, bias=False)})])}
    )
    tower.visual.head["ln_final"] = nn.LayerNorm(8)
    load_image_tower(tower, arch, [str(backbone), str(head)])
    assert torch.equal(tower.visual.head["ln_final"].bias.double(), state.state_dict[
        "visual.head.ln_final.bias"].float().double())  # fmt: skip
    assert state.source == f"{backbone}, {head}"


def test_talk2dino_takes_the_text_tower_of_a_clip_alone(tmp_path: Path) -> None:
    clip = saved(tmp_path / "clip.pt", hf_clip())
    names = {f"{part}.{leaf}": (3, 4) for part in ("linear_layer", "hidden_layers.0")
             for leaf in ("weight", "bias")}  # fmt: skip
    learned = saved(tmp_path / "talk2dino.pth", filled(names))
    vision = {"timm_model_name": "vit_base_patch14_reg4_dinov2"}
    arch = {"embed_dim": 3, "vision_cfg": vision, "text_cfg": {"house_model": "talk2dino"}}
    found = read_clip_checkpoint(arch, [clip, learned])
    assert not any(key.startswith("visual.") for key in found.state_dict)
    assert {"linear_layer.weight", "token_embedding.weight"} <= found.state_dict.keys()
    assert "takes the text tower" in found.report.dropped["visual_projection.weight"]


def test_init_cfg_names_one_file_or_several() -> None:
    assert pretrained_source(dict(type="Pretrained", checkpoint="a.pt"), "M") == "a.pt"
    assert pretrained_source(dict(type="Pretrained", checkpoint=("a", "b")), "M") == ["a", "b"]
    with pytest.raises(ValueError, match="names no checkpoint"):
        pretrained_source(dict(type="Pretrained", checkpoint=[]), "M")


def test_arrays_are_read_as_data(tmp_path: Path) -> None:
    half = torch.tensor([1.5, -2.0], dtype=torch.bfloat16)
    raw = half.view(torch.int16).numpy().view("V2")
    np.savez_compressed(tmp_path / "a.npz", one=np.ones((2, 3), np.float32), half=raw)
    found = read_file(tmp_path / "a.npz")[0]
    assert torch.equal(found["one"], torch.ones(2, 3)) and torch.equal(found["half"], half)
    np.savez(tmp_path / "objects.npz", bad=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="objects.npz' holds Python objects besides tensors"):
        read_file(tmp_path / "objects.npz")
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 no zip")
    with pytest.raises(ValueError, match="broken.npz' is not a readable checkpoint"):
        read_file(tmp_path / "broken.npz")
    np.savez_compressed(tmp_path / "bomb.npz", zeros=np.zeros(2**23, np.float32))
    with pytest.raises(ValueError, match="it unpacks to .* bytes, as no weights do"):
        read_file(tmp_path / "bomb.npz")


def test_an_arch_may_ask_for_the_gelu_of_jax() -> None:
    vision = dict(timm_model_name="vit_base_patch16_siglip_224", image_size=PATCH * GRID)
    sizes = dict(patch_size=PATCH, embed_dim=D, depth=DEPTH, num_heads=HEADS)
    for act, name in (("gelu_tanh", "GELUTanh"), ("gelu", "GELU")):
        kwargs = {"timm_model_kwargs": dict(sizes, act_layer=act)}
        tower: Any = build_image_tower({**SIGLIP, "vision_cfg": vision | kwargs})
        assert type(tower.trunk.blocks[0].mlp.act).__name__ == name

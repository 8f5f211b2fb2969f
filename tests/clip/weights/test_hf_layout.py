"""Hugging Face's names: our towers give the numbers of ``transformers`` 5.24 (2 s in all).

The numbers were printed by its own models with the weights of ``tests/layout_files.py``.
"""

from __future__ import annotations

from typing import Any

import open_clip
import pytest
import timm
import torch
from open_clip.model import _build_text_tower, _build_vision_tower
from safetensors.torch import save_file
from torch import Tensor

from mmclipdis.clip.weights.dino_layout import hf_dinov3_to_timm
from mmclipdis.clip.weights.layouts import read_layout
from mmclipdis.clip.weights.loading import load_strictly
from mmclipdis.clip.weights.vfm import load_vfm
from tests.layout_files import (
    DEPTH,
    GRID,
    HEADS,
    HIDDEN,
    PATCH,
    PLACES,
    WORDS,
    D,
    hf_clip,
    hf_dinov3,
    hf_siglip,
    pixels,
)

SIGLIP = "8.522115 2.312393 -2.039042 -0.344287 0.675047 -4.086610 -8.406570 -4.028159"
SIGLIP_TEXT = "-0.059367 -0.493952 -0.706116 -0.607684 -0.246908 0.215107 0.576321 0.681939"
NAFLEX = "10.168690 5.783607 0.444780 -0.278411 -0.580834 -5.327809 -9.887982 -6.187230"
CLIP = "1.512962 -1.157069 -3.307728 -3.973653 -2.855932 -0.456273"
CLIP_TEXT = "-2.712738 -3.098472 -2.093400 -0.148667 1.862797 3.038111"
METACLIP_2_TEXT = "-2.730715 -2.154292 -0.610875 1.206744 2.482694 2.644242"
#: Class token and last patch, without and with a gate.
DINOV3 = {
    False: (
        "1.593262 -0.366666 0.399447 0.821106 -1.603398 -1.305250 0.677821 0.128223",
        "-1.167521 1.370732 0.426042 -0.755318 0.875501 -0.818510 -1.148873 1.311862",
    ),
    True: (
        "1.324007 0.835895 -0.616569 -0.434371 0.462278 1.012862 -0.084456 -1.985538",
        "-1.412913 1.265624 0.007949 -0.971521 1.451578 -0.128858 -0.694178 0.852337",
    ),
}
TEXT = dict(context_length=PLACES, vocab_size=WORDS, width=D, heads=HEADS, layers=DEPTH)
SMALL = dict(img_size=PATCH * GRID, patch_size=PATCH, embed_dim=D, depth=DEPTH, num_heads=HEADS)


def text_tower(joint: int, **config: Any) -> Any:
    cfg = open_clip.CLIPTextCfg(**{**TEXT, "mlp_ratio": HIDDEN / D, **config})
    return _build_text_tower(joint, cfg, config.get("quick_gelu", False)).double().eval()


def part_of(state: dict[str, Tensor], prefix: str | None) -> dict[str, Tensor]:
    if prefix is not None:
        return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    return {k: v for k, v in state.items() if not k.startswith(("visual.", "logit_"))}


def printed(values: Tensor) -> str:
    return " ".join(f"{value:.6f}" for value in values.flatten().tolist())


def siglip_trunk(state: dict[str, Tensor], act: str = "gelu_tanh") -> Any:
    options = dict(SMALL, mlp_ratio=HIDDEN / D, num_classes=0, act_layer=act)
    trunk = timm.create_model("vit_base_patch16_siglip_224", **options).double().eval()
    trunk.attn_pool.mlp = timm.layers.Mlp(D, HIDDEN, act_layer=type(trunk.blocks[0].mlp.act))
    load_strictly(trunk.double(), part_of(state, "visual.trunk."), "trunk", "the file")
    return trunk


def siglip_text(state: dict[str, Tensor]) -> Any:
    tanh = {"approximate": "tanh"}
    options = dict(no_causal_mask=True, proj_bias=True, pool_type="last", act_kwargs=tanh)
    tower = text_tower(D, norm_kwargs={"eps": 1e-6}, **options)
    load_strictly(tower, part_of(state, None), "text", "the file")
    return tower


@torch.no_grad()
def test_siglip_gives_the_numbers_of_transformers() -> None:
    found = read_layout(hf_siglip(), "f")
    assert printed(siglip_trunk(found.state)(pixels())) == SIGLIP
    ids = torch.tensor([[4, 5, 6, 7, 1, 1]])
    assert printed(siglip_text(found.state)(ids)) == SIGLIP_TEXT
    assert found.state["logit_scale"].shape == found.state["logit_bias"].shape == ()
    assert not found.report.dropped


@torch.no_grad()
def test_siglip_without_tanh_differs_by_little_so_that_the_arch_must_say_it() -> None:
    state = read_layout(hf_siglip(), "f").state
    exact, tanh = (siglip_trunk(state, act)(pixels()) for act in ("gelu", "gelu_tanh"))
    assert 0 < (exact - tanh).abs().max() < 0.01 * tanh.abs().max()


@torch.no_grad()
def test_patches_of_naflex_become_a_convolution() -> None:
    state = read_layout(hf_siglip(naflex=True), "f").state
    assert printed(siglip_trunk(state)(pixels())) == NAFLEX


def test_towers_that_were_saved_alone_have_no_prefix() -> None:
    image = {k: v for k, v in hf_siglip(image="").items() if not k.startswith(("text", "logit"))}
    text = {k: v for k, v in hf_siglip(text="").items() if not k.startswith(("vision", "logit"))}
    both = read_layout(hf_siglip(), "f").state
    for alone, prefix in ((image, "visual."), (text, None)):
        found = read_layout(alone, "f")
        assert found.state.keys() == {
            k for k in both if not k.startswith("logit") and k.startswith("visual.") == bool(prefix)
        }


@pytest.mark.parametrize("meta", [False, True])
@torch.no_grad()
def test_clip_and_metaclip_2_give_the_numbers_of_transformers(meta: bool) -> None:
    state = read_layout(hf_clip(), "f").state
    vision = dict(image_size=PATCH * GRID, patch_size=PATCH, width=D, layers=DEPTH)
    cfg = open_clip.CLIPVisionCfg(head_width=D // HEADS, mlp_ratio=HIDDEN / D, **vision)
    image = _build_vision_tower(6, cfg, True).double().eval()
    load_strictly(image, part_of(state, "visual."), "image", "f")
    assert printed(image(pixels())) == CLIP
    cfg = open_clip.CLIPTextCfg(**TEXT, mlp_ratio=HIDDEN / D, **META[meta][0])
    text = _build_text_tower(6, cfg, True).double().eval()
    load_strictly(text, part_of(state, None), "text", "f")
    assert printed(text(torch.tensor([META[meta][1]]))) == META[meta][2]


META: dict[bool, tuple[dict[str, Any], list[int], str]] = {
    False: ({}, [4, 5, 6, 11, 0, 0], CLIP_TEXT),
    True: (dict(pool_type="eos", eos_id=2), [0, 3, 11, 2, 1, 1], METACLIP_2_TEXT),
}


def tiny_dinov3(gated: bool, bias: bool = True) -> Any:
    name = f"vit_small{'_plus' if gated else ''}_patch16_dinov3{'_qkvb' if bias else ''}"
    model = timm.create_model(name, **SMALL, mlp_ratio=HIDDEN / D, num_classes=0)
    return model.double().eval()


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("start", ["layer.", "model.layer."])
@torch.no_grad()
def test_dinov3_gives_the_numbers_of_transformers(gated: bool, start: str) -> None:
    model = tiny_dinov3(gated)
    state, report = hf_dinov3_to_timm(hf_dinov3(gated, start))
    model.load_state_dict(state)
    tokens = model.forward_features(pixels())
    got = tuple(map(printed, (tokens[0, 0], tokens[0, -1])))
    for one, other in zip(got, DINOV3[gated], strict=True):
        values = [torch.tensor(list(map(float, text.split()))) for text in (one, other)]
        torch.testing.assert_close(*values, rtol=0, atol=2e-6)
    assert list(report.dropped) == ["embeddings.mask_token"]


@torch.no_grad()
def test_a_vision_model_takes_hugging_faces_dinov3(tmp_path: Any) -> None:
    path, model = tmp_path / "model.safetensors", tiny_dinov3(False)
    save_file(hf_dinov3(), path)
    load_vfm(model, path, "vit_small_patch16_dinov3_qkvb")
    tokens = model.double().forward_features(pixels())[0, 0]
    expected = torch.tensor([float(value) for value in DINOV3[False][0].split()]).double()
    torch.testing.assert_close(tokens, expected, rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match=r"q_bias' that is not zero.*_qkvb"):
        load_vfm(tiny_dinov3(False, bias=False), path, "vit_small_patch16_dinov3")


def test_an_entry_that_nobody_knows_is_an_error() -> None:
    extra = {"vision_model.adapter.weight": torch.zeros(2)}
    with pytest.raises(ValueError, match=r"'f' holds weights of a Hugging Face SigLIP with the en"):
        read_layout(hf_siglip() | extra, "f")
    wrong = {"vision_model.embeddings.patch_embedding.weight": torch.zeros(D, 50)}
    with pytest.raises(ValueError, match="no square of RGB pixels"):
        read_layout(hf_siglip() | wrong, "f")

"""CAT-Seg's reading of CLIP: golden values of a tiny model, counts and groups of parameters."""

from __future__ import annotations

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from torch import nn

import mmclipdis  # noqa: F401
from mmclipdis.clip.text.encoder import TextTower
from mmclipdis.clip.towers.build import build_image_tower, build_text_transformer
from mmclipdis.clip.towers.readout import READOUTS, Readout
from mmclipdis.clip.weights.trainable import freeze_unread, set_trainable, split_qkv
from mmclipdis.models.segmentation.catseg.head import CATSegHead
from tests.models.segmentation.catseg.reference import fill_value, z

TINY = {
    "embed_dim": 16,
    "quick_gelu": True,
    "vision_cfg": {
        "image_size": 32,
        "layers": 3,
        "width": 128,
        "head_width": 64,
        "patch_size": 8,
    },
    "text_cfg": {
        "context_length": 12,
        "vocab_size": 100,
        "width": 64,
        "heads": 2,
        "layers": 3,
    },
}


def filled(module, prefix=""):
    module = split_qkv(module).double()
    with torch.no_grad():
        for name, value in module.named_parameters():
            value.copy_(fill_value(prefix + name, tuple(value.shape)))
    return module


@pytest.fixture(scope="module")
def tower():
    tower = build_image_tower(TINY, positions="size")
    filled(tower.visual, "visual.")
    return tower


def plain_dense(tower, images, residual, ffn):
    """All tokens (B, 1 + h w, E), CLS first, of the value-only last block; and block 0's output."""
    x = first = None
    for block in tower.blocks[:-1]:
        x = block(tower.embed(images) if x is None else x)
        first = x if first is None else first
    block = tower.blocks[-1]
    y = block.ln_1(x)
    bias = block.attn.in_proj_bias.chunk(3)[2]
    u = block.attn.out_proj(y @ block.attn.v_proj_weight.T + bias)
    u = u + {"cls": x[:, :1], "token": x, "none": 0}[residual]
    if ffn:
        u = u + block.mlp(block.ln_2(u))
    return tower.visual.ln_post(u) @ tower.visual.proj, first


@pytest.mark.parametrize(
    ("residual", "ffn", "probes"),
    [
        ("cls", True, (-0.404402, -3.139004)),
        ("token", True, (-0.404402, -1.329438)),
        ("none", False, (0.376953, -2.819872)),
    ],
)
def test_golden_dense_features(tower, residual, ffn, probes):
    images = z("clip_image", (2, 3, 48, 48))
    with torch.no_grad():
        plain, first = plain_dense(tower, images, residual, ffn)
        readout = Readout(("identity",), residual, ffn)
        features = tower.forward_dense(images, readout, intermediates=(0,))
    assert plain.shape == (2, 37, 16)
    assert [plain[0, 0, 0].item(), plain[0, 1, 3].item()] == pytest.approx(probes, abs=1e-6)
    patches = features.map.flatten(2).transpose(1, 2)
    torch.testing.assert_close(patches, plain[:, 1:], atol=1e-12, rtol=0)
    block = features.intermediates[0].flatten(2).transpose(1, 2)
    torch.testing.assert_close(block, first[:, 1:], atol=1e-12, rtol=0)
    if residual == "cls":
        assert READOUTS["catseg"] == readout
        statistics = [plain.mean().item(), plain.std(unbiased=False).item()]
        assert statistics == pytest.approx([-0.066928, 2.396358], abs=1e-6)
        assert patches[1, 35, 15].item() == pytest.approx(-2.151933, abs=1e-6)
        assert patches[1, 19, 7].item() == pytest.approx(3.720838, abs=1e-6)
        assert first[0, 0, 0].item() == pytest.approx(1.298123, abs=1e-6)
        assert first[1, 36, 15].item() == pytest.approx(-0.260077, abs=1e-6)


def test_golden_text_embeddings():
    text = build_text_transformer(TINY)
    filled(text)
    tower = TextTower(text)
    tokens = torch.zeros(3, 12, dtype=torch.long)
    for row, ids in enumerate([(98, 5, 6, 7, 99), (98, 11, 99), (98, 1, 2, 3, 4, 5, 99)]):
        tokens[row, : len(ids)] = torch.tensor(ids)
    with torch.no_grad():
        full, cut = tower.encode(tokens), tower.encode(tokens[:, :7])
    torch.testing.assert_close(full, cut, atol=1e-12, rtol=0)
    assert full.mean().item() == pytest.approx(0.182630, abs=1e-6)
    assert full.std(unbiased=False).item() == pytest.approx(1.851605, abs=1e-6)
    probes = [full[0, 0].item(), full[1, 5].item(), full[2, 15].item()]
    assert probes == pytest.approx([-0.199049, -4.067225, 1.680777], abs=1e-6)


def count(module, trainable=False):
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trainable)


@pytest.mark.parametrize(
    ("arch", "total", "visual", "trained", "tensors", "width", "ups"),
    [
        (
            "ViT-B-16-quickgelu",
            149_620_737,
            86_192_640,
            (14_155_776, 6_291_456),
            48,
            768,
            (786_688, 1_572_992),
        ),
        (
            "ViT-L-14-336-quickgelu",
            427_944_193,
            304_293_888,
            (50_331_648, 14_155_776),
            72,
            1024,
            (1_048_832, 2_097_280),
        ),
    ],
)
def test_golden_parameter_counts(arch, total, visual, trained, tensors, width, ups):
    with torch.device("meta"):
        image, text = build_image_tower(arch), build_text_transformer(arch)
        head = CATSegHead(embed_dim=image.embed_dim, width=image.width)
    assert image.width == width
    assert (count(image), count(image) + count(text) + 1) == (visual, total)  # 1: logit_scale
    names = set_trainable(image, ("q", "v")) + set_trainable(text, ("q", "v"))
    assert len(names) == tensors
    assert (count(image, True), count(text, True)) == trained
    assert tuple(count(up) for up in head.guidance_up) == ups
    all_trained = sum(trained) + count(head)
    expected = 25_115_873 if tensors == 48 else 70_270_177
    assert all_trained == expected
    # The value-only readout never reads the last block's q: frozen, DDP has no unused parameter.
    assert freeze_unread(image.blocks[-1], Readout(("identity",), "cls", True)) == ["q_proj_weight"]
    assert sum(p.requires_grad for m in (image, text) for p in m.parameters()) == tensors - 1


def test_golden_token_ids_of_the_published_prompt():
    tower = TextTower(build_text_transformer({**TINY, "text_cfg": {**TINY["text_cfg"], **WORDS}}))
    ids = tower.tokenize(["A photo of a person in the scene"])
    assert ids.tolist() == [[49406, 320, 1125, 539, 320, 2533, 530, 518, 3562, 49407]]


WORDS = {"vocab_size": 49408, "context_length": 20}


class Parts(nn.Module):
    """What the optimiser sees of a CATSeg model."""

    def __init__(self):
        super().__init__()
        self.image_encoder = build_image_tower(TINY)
        self.text_encoder = build_text_transformer(TINY)
        set_trainable(self.image_encoder, ("q", "v"))
        set_trainable(self.text_encoder, ("q", "v"))
        self.decode_head = CATSegHead(
            embed_dim=16,
            width=128,
            guidance_dims=(8, 4),
            aggregator={
                "hidden_dim": 16,
                "num_heads": 2,
                "guidance_proj_dims": (4, 4),
                "decoder_dims": (16, 8),
            },
        )


def test_golden_learning_rate_and_decay_groups():
    model = Parts()
    schedule = Config.fromfile("configs/_base_/schedules/catseg_80k.py")
    optimizer = build_optim_wrapper(model, schedule.optim_wrapper).optimizer
    name_of = {id(p): name for name, p in model.named_parameters()}
    norms = {
        id(p)
        for module in model.decode_head.modules()
        if isinstance(module, (nn.LayerNorm, nn.GroupNorm))
        for p in module.parameters()
    }
    seen = {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.requires_grad:
                seen[id(parameter)] = (group["lr"], group["weight_decay"])
    assert len(seen) == sum(p.requires_grad for p in model.parameters())
    for key, (rate, decay) in seen.items():
        encoder = not name_of[key].startswith("decode_head")
        assert rate == pytest.approx(2e-6 if encoder else 2e-4), name_of[key]
        assert decay == pytest.approx(0.0 if key in norms else 1e-4), name_of[key]
    assert optimizer.defaults["betas"] == (0.9, 0.999)
    assert optimizer.defaults["eps"] == 1e-8

"""Official CAT-Seg checkpoints: every key accounted for, there and back again."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mmclipdis.models.segmentation.catseg.aggregator import CATSegAggregator
from mmclipdis.models.segmentation.catseg.checkpoint import (
    from_official,
    shifted_window_mask,
    to_official,
)
from tests.models.segmentation.catseg.reference import fill_value, shift_mask, z
from tests.models.segmentation.catseg.test_segmentor import ARCH, build
from tests.paths import ROOT

CLIP = "sem_seg_head.predictor.clip_model."
A = "sem_seg_head.predictor.transformer."


def blocks(prefix, d, layers):
    shapes = {}
    for i in range(layers):
        p = f"{prefix}transformer.resblocks.{i}."
        for part in "qkv":
            shapes[f"{p}attn.{part}_proj_weight"] = (d, d)
        shapes |= {f"{p}attn.in_proj_bias": (3 * d,), f"{p}attn.out_proj.weight": (d, d)}
        shapes |= {f"{p}attn.out_proj.bias": (d,), f"{p}mlp.c_fc.weight": (4 * d, d)}
        shapes |= {f"{p}mlp.c_fc.bias": (4 * d,), f"{p}mlp.c_proj.weight": (d, 4 * d)}
        shapes[f"{p}mlp.c_proj.bias"] = (d,)
        for norm in ("ln_1", "ln_2"):
            shapes |= {f"{p}{norm}.weight": (d,), f"{p}{norm}.bias": (d,)}
    return shapes


def clip_shapes(c, d, layers, patch, grid, text_width, text_layers, context, vocab):
    v = "visual."
    shapes = {
        f"{v}conv1.weight": (d, 3, patch, patch),
        f"{v}class_embedding": (d,),
        f"{v}positional_embedding": (grid * grid + 1, d),
        f"{v}proj": (d, c),
        "token_embedding.weight": (vocab, text_width),
        "positional_embedding": (context, text_width),
        "text_projection": (text_width, c),
        "logit_scale": (),
    }
    for norm, size in ((f"{v}ln_pre", d), (f"{v}ln_post", d), ("ln_final", text_width)):
        shapes |= {f"{norm}.weight": (size,), f"{norm}.bias": (size,)}
    shapes |= blocks(v, d, layers) | blocks("", text_width, text_layers)
    return {CLIP + name: shape for name, shape in shapes.items()}


def linear(name, out, inp, *kernel, bias=True):
    shapes = {f"{name}.weight": (out, inp, *kernel)}
    return shapes | ({f"{name}.bias": (out,)} if bias else {})


def aggregator_shapes(c, h=128, layers=2, guidance=(256, 128), proj=(32, 16), dims=(64, 32)):
    shapes = linear("conv1", h, 1, 7, 7) | linear("guidance_projection.0", h, c, 3, 3)
    shapes |= linear("text_guidance_projection.0", h, c)
    for i in range(2):
        shapes |= linear(f"decoder_guidance_projection.{i}.0", proj[i], guidance[i], 3, 3)
    for layer in range(layers):
        p = f"layers.{layer}."
        shapes |= {f"{p}swin_block.guidance_norm.{x}": (h,) for x in ("weight", "bias")}
        for block in ("swin_block.block_1", "swin_block.block_2"):
            for norm in ("norm1", "norm2"):
                shapes |= {f"{p}{block}.{norm}.{x}": (h,) for x in ("weight", "bias")}
            for part, inp in (("q", 2 * h), ("k", 2 * h), ("v", h), ("proj", h)):
                shapes |= linear(f"{p}{block}.attn.{part}", h, inp)
            shapes |= linear(f"{p}{block}.mlp.fc1", 4 * h, h)
            shapes |= linear(f"{p}{block}.mlp.fc2", h, 4 * h)
        shapes[f"{p}swin_block.block_2.attn_mask"] = (4, 144, 144)
        a = f"{p}attention."
        shapes |= {f"{a}padding_tokens": (1, 1, h), f"{a}padding_guidance": (1, 1, h)}
        for part, inp in (("q", 2 * h), ("k", 2 * h), ("v", h)):
            shapes |= linear(f"{a}attention.{part}", h, inp)
        shapes |= linear(f"{a}MLP.0", 4 * h, h) | linear(f"{a}MLP.2", h, 4 * h)
        for norm in ("norm1", "norm2"):
            shapes |= {f"{a}{norm}.{x}": (h,) for x in ("weight", "bias")}
    inp = h
    for i in range(2):
        d = f"decoder{i + 1}."
        shapes |= {f"{d}up.weight": (inp, inp - proj[i], 2, 2), f"{d}up.bias": (inp - proj[i],)}
        conv = f"{d}conv.double_conv."
        shapes |= linear(f"{conv}0", dims[i], inp, 3, 3, bias=False)
        shapes |= linear(f"{conv}3", dims[i], dims[i], 3, 3, bias=False)
        for n in (1, 4):
            shapes |= {f"{conv}{n}.{x}": (dims[i],) for x in ("weight", "bias")}
        inp = dims[i]
    shapes |= linear("head", 1, dims[1], 3, 3)
    return {A + name: shape for name, shape in shapes.items()}


def official_shapes(clip, guidance=(256, 128), **aggregator):
    width = clip["d"]
    ups = {
        f"upsample{i + 1}.weight": (width, dim, 2 ** (i + 1), 2 ** (i + 1))
        for i, dim in enumerate(guidance)
    }
    ups |= {f"upsample{i + 1}.bias": (dim,) for i, dim in enumerate(guidance)}
    return clip_shapes(**clip) | aggregator_shapes(clip["c"], guidance=guidance, **aggregator) | ups


def clip_sizes(c, d, layers, patch, grid, text_width):
    sizes = {"c": c, "d": d, "layers": layers, "patch": patch, "grid": grid}
    return {**sizes, "text_width": text_width, "text_layers": 12, "context": 77, "vocab": 49408}


SIZES = {"B": clip_sizes(512, 768, 12, 16, 14, 512), "L": clip_sizes(768, 1024, 24, 14, 24, 768)}
TINY_CLIP = {
    "c": 12,
    "d": 64,
    "layers": 2,
    "patch": 8,
    "grid": 4,
    "text_width": 64,
    "text_layers": 2,
    "context": 16,
    "vocab": 49408,
}
TINY_AGGREGATOR = {"h": 16, "layers": 1, "guidance": (8, 4), "proj": (4, 4), "dims": (16, 8)}


def random_official(shapes):
    torch.manual_seed(0)
    state = {name: torch.randn(shape) for name, shape in shapes.items()}
    masks = {name: shifted_window_mask(24, 12) for name in state if name.endswith("attn_mask")}
    return {**state, **masks}


@pytest.fixture
def official():
    return random_official(official_shapes(TINY_CLIP, **TINY_AGGREGATOR))


@pytest.mark.parametrize(("size", "clip_count"), [("B", 350), ("L", 518)])
def test_every_key_of_the_released_models_is_renamed_once_or_dropped(size, clip_count):
    shapes = official_shapes(SIZES[size])
    state = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    prefixes = [sum(name.startswith(p) for name in state) for p in (CLIP, A, "upsample")]
    assert prefixes == [clip_count, 130, 4]
    ours, extra, report = from_official(state)
    assert set(report.renamed) | set(report.dropped) == set(state)
    assert not set(report.renamed) & set(report.dropped)
    assert len(set(report.renamed.values())) == len(report.renamed) == len(ours)
    assert sorted(report.dropped) == sorted(
        [CLIP + "logit_scale", *(f"{A}layers.{i}.swin_block.block_2.attn_mask" for i in range(2))]
    )
    assert list(extra) == ["logit_scale"]
    assert "dropped: never read" in str(report)


def test_round_trip_is_identical(official):
    ours, extra, _ = from_official(official)
    back, report = to_official(ours, extra)
    assert set(back) == set(official)
    assert set(back) == set(report.renamed.values()) | set(report.added)
    assert all(torch.equal(back[name], value) for name, value in official.items())


def tiny_segmentor(**options):
    vision = {**ARCH["vision_cfg"], "width": 64, "head_width": 64, "layers": 2}
    text = {**ARCH["text_cfg"], "width": 64, "heads": 1}
    arch = {**ARCH, "vision_cfg": vision, "text_cfg": text}
    settings = {
        "image_encoder": {
            "type": "CLIPViT",
            "arch": arch,
            "readout": "catseg",
            "trainable": ("q", "v"),
        },
        "text_encoder": {"type": "OpenCLIPTextEncoder", "arch": arch, "trainable": ("q", "v")},
    }
    return build(**{**settings, **options})


def test_the_segmentor_loads_all_of_it_and_gives_it_back(official):
    model = tiny_segmentor()
    ours, extra, _ = from_official(official)
    ours_shapes = {name: value.shape for name, value in ours.items()}
    own = model.state_dict()
    marks = {"image_encoder.readout", "image_encoder.quick_gelu", "text_encoder.quick_gelu"}
    assert ours_shapes == {k: v.shape for k, v in own.items() if k not in marks}
    model.load_state_dict(ours, strict=True)
    back, report = to_official(model.state_dict(), extra)
    assert set(report.dropped) == marks
    assert all(torch.equal(back[name], value) for name, value in official.items())


def test_a_converted_aggregator_gives_the_golden_logits():
    shapes = aggregator_shapes(512)
    state = {name: fill_value(name.removeprefix(A), shape) for name, shape in shapes.items()}
    clip = official_shapes({**TINY_CLIP, "c": 512})
    state = {name: torch.zeros(shape) for name, shape in clip.items()} | state
    ours, _, _ = from_official(state)
    model = CATSegAggregator().double().eval()
    prefix = "decode_head.aggregator."
    model.load_state_dict({k.removeprefix(prefix): v for k, v in ours.items() if prefix in k})
    inputs = z("img_feats", (2, 512, 24, 24)), z("text_feats", (5, 1, 512))[:, 0]
    guidance = z("res4", (2, 256, 48, 48)), z("res5", (2, 128, 96, 96))
    with torch.no_grad():
        logits = model(*inputs, guidance)
    assert logits.mean().item() == pytest.approx(0.429907, abs=1e-6)
    assert logits[1, 4, 95, 95].item() == pytest.approx(0.348537, abs=1e-6)


def test_weights_of_a_frozen_encoder_convert_too(official):
    frozen = {"type": "OpenCLIPTextEncoder", "arch": ARCH}
    model = build(text_encoder=frozen)
    assert any(name.endswith("in_proj_weight") for name in model.state_dict())
    back, _ = to_official(model.state_dict())
    assert not any(name.endswith("in_proj_weight") for name in back)
    assert back[CLIP + "logit_scale"].exp().item() == pytest.approx(100)


def test_the_mask_is_that_of_cyclically_shifted_windows():
    expected = shift_mask(24, 24, 12, 6, torch.zeros(1))
    assert torch.equal(shifted_window_mask(24, 12), expected)


def test_other_layouts_are_refused(official):
    with pytest.raises(ValueError, match=r"Not an official CAT-Seg checkpoint.*visual\.conv1"):
        from_official({"visual.conv1.weight": torch.zeros(1)})
    key = A + "layers.0.attention.norm1.weight"
    with pytest.raises(ValueError, match=r"missing .*layers.0.classes.norm1.weight"):
        from_official({k: v for k, v in official.items() if k != key})
    with pytest.raises(ValueError, match=r"norm1.weight has shape \(3,\), expected \(16,\)"):
        from_official({**official, key: torch.zeros(3)})
    with pytest.raises(ValueError, match=r"Unexpected key 'backbone.conv'"):
        from_official({**official, "backbone.conv": torch.zeros(3)})
    with pytest.raises(ValueError, match="without"):
        to_official({"backbone.conv1.weight": torch.zeros(1)})


def tool():
    path = ROOT / "tools/model_converters/catseg.py"
    spec = importlib.util.spec_from_file_location("catseg_converter", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tool_converts_files_both_ways(official, tmp_path):
    source, ours, back = (tmp_path / name for name in ("official.pth", "ours.pth", "back.pth"))
    torch.save({"model": official, "iteration": 80000}, source)
    report = tool().convert(source, ours)
    assert len(report.renamed) + len(report.dropped) == len(official)
    tiny_segmentor().load_state_dict(torch.load(ours, weights_only=True)["state_dict"])
    safe = tmp_path / "official.safetensors"
    save_file(official, safe)
    assert tool().convert(safe, tmp_path / "again.pth") == report
    tool().convert(ours, back, reverse=True)
    result = torch.load(back, weights_only=True)["model"]
    assert all(torch.equal(result[name], value) for name, value in official.items())


def test_the_tool_names_what_is_wrong_with_a_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        tool().convert(tmp_path / "none.pth", tmp_path / "out.pth")
    torch.save({"model": {"weight": torch.zeros(1)}, "object": Path("x")}, tmp_path / "object.pth")
    with pytest.raises(ValueError, match=r"object\.pth"):
        tool().convert(tmp_path / "object.pth", tmp_path / "out.pth")
    for content, message in (
        ([torch.zeros(1)], r"bad\.pth holds a list"),
        ({"model": [torch.zeros(1)]}, r"bad\.pth holds a list"),
        ({"model": {"weight": torch.zeros(1), "step": 3}}, r"no tensors, such as 'step'"),
    ):
        torch.save(content, tmp_path / "bad.pth")
        with pytest.raises(ValueError, match=message):
            tool().convert(tmp_path / "bad.pth", tmp_path / "out.pth")
    torch.save({"model": {"weight": torch.zeros(1)}}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="Not an official CAT-Seg checkpoint"):
        tool().convert(tmp_path / "other.pth", tmp_path / "out.pth")
    assert not (tmp_path / "out.pth").exists()

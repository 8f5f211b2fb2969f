"""Released OV-DQUO checkpoints (DINO's public names, others assumed) become ours, or an error."""

from __future__ import annotations

import argparse
import copy
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import load_checkpoint
from torch import Tensor

from tests.paths import ROOT

pytest.importorskip("mmdet")

from mmdet.registry import MODELS
from mmdet.testing import demo_mm_inputs
from mmengine.registry import DefaultScope

from mmclipdis.clip.weights.eva_layout import open_clip_to_official
from mmclipdis.models.detection.ovdquo.checkpoint import Renames, from_released
from tests.models.detection.ovdquo.test_configs import load, shrink_model
from tools.model_converters.ovdquo import convert, main

LAYERS = 2
VIT, RESNET = "ovdquo_clipself_vitb16_ov-coco", "ovdquo_openai_rn50_ov-coco"
#: Ours -> the released name, as the layout is described; {} is the number of a layer.
ENCODER = {
    **{f"self_attn.{n}": f"self_attn.{n}" for n in
       ("sampling_offsets", "attention_weights", "value_proj", "output_proj")},
    "norms.0": "norm1", "ffn.layers.0.0": "linear1", "ffn.layers.1": "linear2", "norms.1": "norm2",
}  # fmt: skip
DECODER = {
    **{f"cross_attn.{n}": f"cross_attn.{n}" for n in
       ("sampling_offsets", "attention_weights", "value_proj", "output_proj")},
    "self_attn.attn.in_proj": "self_attn.in_proj",  # followed by _weight, _bias
    "self_attn.attn.out_proj": "self_attn.out_proj",
    "norms.0": "norm2", "norms.1": "norm1", "norms.2": "norm3",
    "ffn.layers.0.0": "linear1", "ffn.layers.1": "linear2",
}  # fmt: skip
OTHERS = {
    "decoder.norm": "transformer.decoder.norm",
    "decoder.ref_point_head.layers.0": "transformer.decoder.ref_point_head.layers.0",
    "decoder.ref_point_head.layers.1": "transformer.decoder.ref_point_head.layers.1",
    "level_embed": "transformer.level_embed",
    "query_embedding": "transformer.tgt_embed",
    "memory_trans_fc": "transformer.enc_output",
    "memory_trans_norm": "transformer.enc_output_norm",
    "bbox_head.cls_branches.1": "transformer.enc_out_class_embed",
    **{f"bbox_head.reg_branches.{LAYERS}.{2 * i}": f"transformer.enc_out_bbox_embed.layers.{i}"
       for i in range(3)},
    "dn_query_generator.label_embedding": "label_enc",
    "text_proj.0": "text_proj.layers.0",
    "text_proj.2": "text_proj.layers.1",
    "backbone.upsample": "backbone.0.interpolate2.0",
    "backbone.region_prompt": "backbone.0.region_prompt",
}  # fmt: skip


@pytest.fixture(autouse=True)
def mmdet_scope() -> None:
    DefaultScope.get_instance("test-ovdquo-converter", scope_name="mmdet")


def tiny(name: str = VIT, prompt: str | None = None) -> Config:
    """A config of two layers; ``prompt`` is the file of a region prompt, which is not read."""
    config = load(name)
    shrink_model(config.model)
    config.model.data_preprocessor.pad_size_divisor = 64
    config.model.encoder.num_layers = config.model.decoder.num_layers = LAYERS
    if prompt is not None:
        config.model.backbone.region_prompt = prompt
    return config


def build(config: Config, seed: int) -> Any:
    """With every weight random, so that no two are alike."""
    torch.manual_seed(seed)
    model = MODELS.build(copy.deepcopy(config.model)).eval()
    with torch.no_grad():
        for name, value in model.named_parameters():
            if ".tower." in name:
                value.add_(0.02 * torch.randn_like(value))
            elif name.endswith("level_embed"):  # mmdet draws none
                value.normal_()
            else:
                value.add_(0.05 * torch.randn_like(value))
        for name, value in model.named_buffers():
            if "running_" in name:
                value.add_(torch.rand_like(value))
    model.set_vocabulary(("cat", "dog", "cow", "bus"), ("bus",))
    return model


def released_name(key: str, levels: int) -> str:
    if found := re.fullmatch(r"(encoder|decoder)\.layers\.(\d+)\.(.+)", key):
        side, number, rest = found.groups()
        for ours, theirs in (ENCODER if side == "encoder" else DECODER).items():
            if rest.startswith(ours):
                return f"transformer.{side}.layers.{number}.{theirs}{rest.removeprefix(ours)}"
    if found := re.fullmatch(r"neck\.(extra_)?convs\.(\d)\.(conv|gn)\.(\w+)", key):
        number = int(found[2]) + (levels if found[1] else 0)
        return f"input_proj.{number}.{('conv', 'gn').index(found[3])}.{found[4]}"
    for ours, theirs in OTHERS.items():
        if key == ours or key.startswith(ours + "."):
            return theirs + key.removeprefix(ours)
    raise KeyError(key)


def to_released(state: dict[str, Tensor], levels: int = 3) -> dict[str, Tensor]:
    """Ours under the released names, with what stands there twice."""
    out: dict[str, Tensor] = {}
    tower: dict[str, Tensor] = {}
    for key, value in state.items():
        if key.startswith("backbone.encoder.tower."):
            tower[key.removeprefix("backbone.encoder.tower.")] = value
        elif key.startswith("backbone.encoder."):
            continue  # marks
        elif found := re.fullmatch(r"bbox_head\.cls_branches\.0\.(\w+)", key):
            for number in range(LAYERS):
                for start in ("", "transformer.decoder."):
                    out[f"{start}class_embed.{number}.{found[1]}"] = value.clone()
        elif (found := re.fullmatch(r"bbox_head\.reg_branches\.(\d)\.(\d)\.(\w+)", key)) and int(
            found[1]
        ) < LAYERS:
            name = f"bbox_embed.{found[1]}.layers.{int(found[2]) // 2}.{found[3]}"
            out |= {name: value, f"transformer.decoder.{name}": value.clone()}
        else:
            out[released_name(key, levels)] = value
    if any(key.startswith("visual.trunk.") for key in tower):
        tower = open_clip_to_official(tower)[0]
    else:  # FrozenBatchNorm2d counts no batches
        tower = {k: v for k, v in tower.items() if not k.endswith("num_batches_tracked")}
    return out | {"backbone.0." + key: value for key, value in tower.items()}


def text_tower() -> dict[str, Tensor]:
    names = ("token_embedding.weight", "transformer.resblocks.0.ln_1.weight", "logit_scale")
    return {"backbone.0." + name: torch.ones(3) for name in names}


def file_of(
    folder: Path, state: dict[str, Tensor], name: str = "released.pth", **more: Any
) -> Path:
    args = argparse.Namespace(lr=1e-4, dataset_file="ovcoco", output_dir=None)
    torch.save({"model": state, "epoch": 3, "args": args, **more}, folder / name)
    return folder / name


@torch.no_grad()
def predictions(model: Any, side: int = 64) -> list[Tensor]:
    torch.manual_seed(0)
    data = demo_mm_inputs(2, [[3, side, side]] * 2, num_classes=2)
    for sample in data["data_samples"]:
        sample.set_metainfo(dict(scale_factor=(1.0, 1.0)))
    found = model(**model.data_preprocessor(data, False), mode="predict")
    return [each for s in found for each in (s.pred_instances.bboxes, s.pred_instances.scores)]


@pytest.mark.parametrize(("name", "levels"), [(VIT, 3), (RESNET, 2)])
def test_the_converted_detector_predicts_the_same(tmp_path: Path, name: str, levels: int) -> None:
    config = tiny(name, None if name == VIT else "prompt.pth")
    model = build(config, seed=0)
    released = to_released(model.state_dict(), levels) | text_tower()
    if name == RESNET:
        released["backbone.0.region_prompt"] = released.pop("backbone.0.region_prompt.weight")[None]
    source = file_of(tmp_path, released)
    report, place = convert(config, source, tmp_path / "ours.pth")
    assert place == "model"
    assert set(report.dropped) == set(text_tower())
    assert {*report.renamed, *report.dropped} == set(released)
    assert not report.kept
    other = build(config, seed=1)
    load_checkpoint(other, str(tmp_path / "ours.pth"), strict=True)
    ours, theirs = other.state_dict(), model.state_dict()
    assert ours.keys() == theirs.keys()
    differ = [key for key in theirs if not torch.equal(ours[key], theirs[key])]
    assert all(key.endswith("num_batches_tracked") for key in differ), differ
    other.bbox_head.text = model.bbox_head.text  # no checkpoint of ours holds it
    found, expected = predictions(other), predictions(model)
    assert sum(each.numel() for each in expected) > 0
    assert all(torch.equal(one, two) for one, two in zip(found, expected, strict=True))


def test_every_key_is_told_of_and_norms_go_where_they_belong(tmp_path: Path) -> None:
    """DINO's decoder calls the norm behind self-attention norm2; mmdet's comes first."""
    config = tiny()
    state = to_released(build(config, 0).state_dict())
    start = "transformer.decoder.layers.1.norm"
    for number in (1, 2, 3):
        state[f"{start}{number}.weight"] = torch.full((256,), float(number))
    report, _ = convert(config, file_of(tmp_path, state), tmp_path / "ours.pth")
    found = torch.load(tmp_path / "ours.pth", weights_only=True)["state_dict"]
    norms = [found[f"decoder.layers.1.norms.{i}.weight"][0].item() for i in range(3)]
    assert norms == [2, 1, 3]
    text = str(report)
    assert all(f"{key} -> {name}" in text for key, name in report.renamed.items())
    assert report.renamed["class_embed.1.bias"] == "bbox_head.cls_branches.0.bias"
    assert report.added.keys() == {"backbone.encoder.readout", "backbone.encoder.quick_gelu"}


def test_running_means_come_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tiny()
    config.dump(tmp_path / "tiny.json")
    state = to_released(build(config, 0).state_dict())
    means = {"module." + key: value + 1 for key, value in state.items()}
    source, target = file_of(tmp_path, state, ema_model=means), tmp_path / "ours.pth"
    for more, added, line in (
        ([], 1, "running means (EMA) of 'ema_model'"),
        (["--no-ema", "--overwrite"], 0, "weights of 'model'"),
    ):
        main([str(tmp_path / "tiny.json"), str(source), str(target), *more])
        assert line in capsys.readouterr().out
        found = torch.load(target, weights_only=True)
        bias = found["state_dict"]["bbox_head.cls_branches.0.bias"]
        assert torch.equal(bias, state["class_embed.0.bias"] + added)
        assert len(found["meta"]["dataset_meta"]["classes"]) == 65


def test_names_can_be_mended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tiny()
    config.dump(tmp_path / "tiny.json")
    state = to_released(build(config, 0).state_dict())
    for number in (0, 1):
        for leaf in ("weight", "bias"):
            state[f"fc.{2 * number}.{leaf}"] = state.pop(f"text_proj.layers.{number}.{leaf}")
    state["teacher.weight"] = torch.ones(3)
    words = [str(tmp_path / "tiny.json"), str(file_of(tmp_path, state)), str(tmp_path / "ours.pth")]
    with pytest.raises(
        SystemExit, match=r"not known: fc.0.weight, .* and 1 more; say with --rename"
    ):
        main(words)
    main([*words, "--rename", "fc.=text_proj.", "--drop", "teacher.", "--report"])
    said = capsys.readouterr().out
    assert "fc.2.bias -> text_proj.2.bias" in said and "teacher.weight dropped: --drop" in said
    for more, message in (
        (["--rename", "fc"], "--rename 'fc': give OLD=NEW"),
        (["--rename", "nothing.=text_proj."], "no key that begins with 'nothing.'"),
        (["--rename", "fc.2.=fc.0."], "two keys have one name"),
    ):
        with pytest.raises(SystemExit, match=message):
            main([*words, *more, "--overwrite"])


def test_what_is_no_such_checkpoint_is_named(tmp_path: Path) -> None:
    ours = build(tiny(), 0).state_dict()
    good = to_released(ours)
    clip = {k.removeprefix("backbone.0."): v for k, v in good.items() if "visual." in k}
    classes = {k: v for k, v in good.items() if "class_embed" not in k}
    classes |= {f"class_embed.{i}.bias": torch.ones(91) for i in range(LAYERS)}
    mmdet = {k: v for k, v in ours.items() if not k.startswith("backbone.")}
    fvit = {
        "backbone.visual.pos_embed": torch.ones(3),
        "roi_head.bbox_head.fc_reg.bias": torch.ones(3),
    }
    two = {**good, "class_embed.1.bias": torch.ones(1)}
    cases: list[tuple[dict[str, Tensor], str]] = [
        (ours, "has our layout already"),
        (mmdet, "is a detector of mmdet"),
        (fvit, r"two-stage detector such as F-ViT.*model_converters/fvit.py"),
        (clip, r"holds an EVA-CLIP ViT of width 16 .*CLIP alone"),
        (classes, "classifies 91 classes by itself, as DINO does"),
        ({"x": torch.ones(1)}, r"no released OV-DQUO checkpoint; it has no transformer"),
        (two, "class_embed.1.bias differs .* all layers share one"),
        ({**good, "x.y": torch.ones(1)}, "keys that are not known: x.y; say with --rename"),
    ]
    for state, message in cases:
        with pytest.raises(ValueError, match=message) as error:
            from_released(state, "released.pth")
        assert len(str(error.value)) < 700 and "\n" not in str(error.value)


def test_what_is_not_of_the_config_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    config = tiny()
    good = to_released(build(config, 0).state_dict())
    less = {k: v for k, v in good.items() if k != "transformer.tgt_embed.weight"}
    no_clip = {k: v for k, v in good.items() if "visual." not in k}
    table = {**good, "label_enc.weight": torch.ones(101, 256)}
    prompt = {**good, "backbone.0.region_prompt": torch.ones(4, 2, 2)}
    declip = tiny("ovdquo_declip_vitb16_ov-coco")
    net = Config(dict(model=dict(type="mmdet.FPN", in_channels=[4], out_channels=4, num_outs=1)))
    cases: list[tuple[Config, dict[str, Any], str]] = [
        (config, less, "missing query_embedding.weight; choose the config"),
        (config, no_clip, "missing backbone.encoder.tower.visual"),
        (config, table, r"label_embedding.weight is \(101, 256\), expected \(49, 256\); .*on OV-L"),
        (config, prompt, "unexpected backbone.region_prompt.weight"),
        (config, {**good, "x": "y"}, "'x' in the state dict is no tensor"),
        (config, {}, "is no tensor"),
        (declip, good, "set readout='maskclip'"),
        (net, good, "is a FPN; give one of configs/ovdquo"),
    ]
    for number, (each, state, message) in enumerate(cases):
        source = file_of(tmp_path, state, f"{number}.pth")
        with pytest.raises(ValueError, match=message) as error:
            convert(each, source, tmp_path / "ours.pth")
        assert len(str(error.value)) < 700 and "\n" not in str(error.value)
        assert not (tmp_path / "ours.pth").exists()
    (tmp_path / "ours.pth").write_text("mine")
    with pytest.raises(FileExistsError, match="--overwrite"):
        convert(config, file_of(tmp_path, good), tmp_path / "ours.pth")


def test_renames_change_the_start_of_a_key() -> None:
    renames = Renames({"a": "b"}, ("c",))
    assert [renames.assumed(key) for key in ("ax", "xa", "cx")] == ["bx", "xa", None]


def test_the_page_lists_the_names() -> None:
    page = (ROOT / "docs/ovdquo.md").read_text("utf-8")
    for name in ("tgt_embed", "text_proj", "region_prompt", "--rename", "label_enc"):
        assert name in page

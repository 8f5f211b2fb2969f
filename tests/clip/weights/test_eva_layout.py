"""Names of EVA02-CLIP: official and open_clip's, there and back, equal embeddings (spec 4)."""

from __future__ import annotations

import open_clip
import pytest
import torch
from timm.models.eva import checkpoint_filter_fn

from mmclipdis.clip.weights.eva_layout import official_to_open_clip, open_clip_to_official
from tests.eva_files import TINY, hash_values, rope_tables, timm_trunk, tiny_vision, vision_shapes

#: Image embedding of the tiny tower by an independent implementation, for an image of hash values.
GOLDEN = [0.92955, 0.10118, -0.62602, -1.14911, -0.00585, -0.40105, 0.63971, 1.44325]

#: (arch, official vision tensors, tensors of open_clip's model, width, blocks, patch, grid, joint)
SIZES = [
    ("EVA02-B-16", 260, 410, 768, 12, 16, 14, 512),
    ("EVA02-L-14-336", 512, 662, 1024, 24, 14, 24, 768),
]


def with_prefix(state, prefix):
    return {prefix + name: value for name, value in state.items()}


def open_clip_model(arch):
    config = {k: v for k, v in open_clip.get_model_config(arch).items() if k != "custom_text"}
    with torch.device("meta"):
        return open_clip.CustomTextCLIP(**config).state_dict()


@pytest.mark.parametrize("size", SIZES, ids=lambda size: size[0])
def test_official_layout_becomes_exactly_open_clips_model(size):
    arch, vision, total, *dims = size
    expected = open_clip_model(arch)
    official = {k: torch.empty(s, device="meta") for k, s in vision_shapes(*dims).items()}
    assert len(official) == vision
    text = {k: v for k, v in expected.items() if not k.startswith("visual.")}
    assert sum(k.startswith("text.") for k in text) == 149
    state = {**with_prefix(official, "visual."), **rope_tables(dims[1], 4), **text}

    converted, report = official_to_open_clip(state)
    assert len(converted) == total
    assert {k: v.shape for k, v in converted.items()} == {k: v.shape for k, v in expected.items()}
    assert len(report.renamed) == vision and len(report.kept) == 150
    assert len(report.dropped) == 2 * (1 + dims[1])
    assert all("RoPE" in reason for reason in report.dropped.values())

    back, report = open_clip_to_official(converted)
    assert {k: v.shape for k, v in back.items()} == {
        k: v.shape for k, v in state.items() if "freqs_" not in k
    }
    assert all(back[k] is state[k] for k in back) and not report.dropped


def test_embedding_is_the_golden_one():
    converted, _ = official_to_open_clip(with_prefix(tiny_vision(), "visual."))
    trunk = timm_trunk()
    trunk.load_state_dict({k.removeprefix("visual.trunk."): v for k, v in converted.items()})
    image = 2 * hash_values(3 * 16 * 16, 99).view(1, 3, 16, 16).float()
    with torch.no_grad():
        got = trunk(image)[0]
    torch.testing.assert_close(got, torch.tensor(GOLDEN), rtol=0, atol=1e-4)


def test_names_and_values_are_those_of_timms_converter():
    official = with_prefix(tiny_vision(), "visual.") | rope_tables(TINY["depth"], 16)
    trunk = timm_trunk()
    expected = checkpoint_filter_fn(dict(official), trunk)
    got, _ = official_to_open_clip(official)
    got = {k.removeprefix("visual.trunk."): v for k, v in got.items()}
    assert set(got) == set(expected) == set(trunk.state_dict())
    assert all(torch.equal(got[k], expected[k]) for k in got)


def test_temperature_inside_the_text_tower_moves_out_of_it():
    state = with_prefix(tiny_vision(), "visual.") | {"text.logit_scale": torch.tensor(4.0)}
    converted, report = official_to_open_clip(state)
    assert converted["logit_scale"] == 4.0
    assert report.renamed["text.logit_scale"] == "logit_scale"
    with pytest.raises(ValueError, match="two entries that become 'logit_scale'"):
        official_to_open_clip(state | {"logit_scale": torch.tensor(5.0)})


def test_other_eva_designs_are_refused():
    state = with_prefix(tiny_vision(), "visual.")
    fused = {k.replace("q_proj", "qkv"): v for k, v in state.items()}
    plain = {k.replace("mlp.w1", "mlp.fc1"): v for k, v in state.items()}
    for other in (fused, plain):
        with pytest.raises(ValueError, match="EVA01, EVA02-E.*supported are EVA02-B-16"):
            official_to_open_clip(other)
    converted = official_to_open_clip(state)[0]
    plain = {k.replace("fc1_g", "fc1"): v for k, v in converted.items()}
    with pytest.raises(ValueError, match="no known official layout"):
        open_clip_to_official(plain)


def test_report_names_every_key_and_counts():
    state = with_prefix(tiny_vision(), "visual.") | rope_tables(1, 4)
    lines = str(official_to_open_clip(state)[1]).splitlines()
    assert lines[-1] == "71 keys renamed, 0 kept, 4 dropped"
    assert len(lines) == len(state) + 1
    assert "visual.blocks.0.mlp.w1.bias -> visual.trunk.blocks.0.mlp.fc1_g.bias" in lines
    assert "visual.rope.freqs_cos dropped: RoPE table, computed for every image size" in lines

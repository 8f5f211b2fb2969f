"""Checkpoint layouts: each loads to the same tower, and each wrong one is one clear error."""

from __future__ import annotations

import os
import pickle
from logging import WARNING, getLogger
from pathlib import Path
from urllib.error import URLError

import open_clip
import open_clip.pretrained
import pytest
import torch
from open_clip.transformer import QuickGELU
from safetensors.torch import save_file
from timm.models.eva import checkpoint_filter_fn
from torch import nn

from mmclipdis.clip.towers.build import build_image_tower, build_text_transformer
from mmclipdis.clip.towers.readout import READOUTS, Readout
from mmclipdis.clip.weights import fetching
from mmclipdis.clip.weights.eva_layout import official_to_open_clip
from mmclipdis.clip.weights.files import read_file
from mmclipdis.clip.weights.loading import (
    load_image_tower,
    load_text_transformer,
    model_config,
    read_clip_checkpoint,
)
from mmclipdis.clip.weights.readout_mark import encode_readout, readout_json
from mmclipdis.clip.weights.trainable import split_qkv
from mmclipdis.utils.downloading import DownloadError
from tests.eva_files import EVA_ARCH, TinyEva, tiny_official, vision_shapes


def _resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture
def model(arch):
    torch.manual_seed(3)
    return open_clip.CLIP(**arch).eval()


def contiguous(state):
    return {key: value.detach().clone().contiguous() for key, value in state.items()}


def prefixed(state, image, text):
    return {(image if k.startswith("visual.") else text) + k: v for k, v in state.items()}


LAYOUTS = {
    "bare": lambda state: state,
    "state_dict": lambda state: {"state_dict": state, "epoch": 3},
    "model": lambda state: {"model": state},
    "module prefix": lambda state: {"state_dict": prefixed(state, "module.", "module.")},
    "custom text": lambda state: prefixed(state, "", "text."),
    "half precision": lambda state: {k: v.half() for k, v in state.items()},
    "a run": lambda state: {
        "state_dict": prefixed(state, "backbone.tower.", "decode_head.text_encoder.text.")
    },
}


def assert_same_towers(arch, path, model, tolerance=0.0):
    image, text = build_image_tower(arch), build_text_transformer(arch)
    load_image_tower(image, arch, path)
    load_text_transformer(text, arch, path)
    images, tokens = torch.randn(1, 3, 64, 64), torch.tensor([[1, 5, 7, 99] + [0] * 12])
    with torch.no_grad():
        expected = model.encode_image(images), model.encode_text(tokens)
        got = image.visual(images), text(tokens)
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=tolerance + 1e-6)


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_every_pt_layout_loads_to_the_same_towers(tmp_path, arch, model, layout):
    torch.save(LAYOUTS[layout](contiguous(model.state_dict())), tmp_path / "clip.pt")
    tolerance = 2e-2 if layout == "half precision" else 0.0
    assert_same_towers(arch, tmp_path / "clip.pt", model, tolerance)


def test_safetensors_load(tmp_path, arch, model):
    path = tmp_path / "clip.safetensors"
    save_file(contiguous(model.state_dict()), path, metadata={"quick_gelu": "true"})
    assert_same_towers(arch, path, model)
    assert read_clip_checkpoint(arch, path).quick_gelu is True


def test_split_qkv_is_fused_again(tmp_path, arch, model):
    path = tmp_path / "split.pt"
    expected = model.encode_image(images := torch.randn(1, 3, 64, 64))
    state = contiguous(split_qkv(model).state_dict())
    assert not any(key.endswith("in_proj_weight") for key in state)
    torch.save(state, path)
    tower = build_image_tower(arch)
    load_image_tower(tower, arch, path)
    torch.testing.assert_close(tower.encode_image(images), expected, rtol=0, atol=1e-5)


def test_compact_token_embeddings_are_expanded_reproducibly(tmp_path, arch, model):
    state = contiguous(model.state_dict())
    table = state.pop("token_embedding.weight")
    ids = torch.tensor([3, 98, 99])
    compact = {"ids": ids, "rows": table[ids].half(), "size": torch.tensor(len(table))}
    state.update({f"token_embedding.{k}": v for k, v in compact.items()})
    save_file(state, tmp_path / "compact.safetensors")
    reads = [
        read_clip_checkpoint(arch, tmp_path / "compact.safetensors").state_dict for _ in range(2)
    ]
    got, again = (read["token_embedding.weight"].float() for read in reads)
    assert torch.equal(got, again)
    assert torch.equal(got[ids], table[ids].half().float())
    unseen = torch.tensor([i for i in range(len(table)) if i not in ids])
    assert 0.015 < got[unseen].std() < 0.025  # open_clip's initialisation is N(0, 0.02)
    assert len(got[unseen].unique(dim=0)) == len(unseen)


class _Archive(nn.Module):
    """An OpenAI archive is a TorchScript module with three extra, non-weight entries."""

    def __init__(self, model, marks=("input_resolution", "context_length", "vocab_size")):
        super().__init__()
        self.visual, self.transformer, self.ln_final = (
            model.visual,
            model.transformer,
            model.ln_final,
        )
        self.token_embedding = model.token_embedding
        self.positional_embedding, self.logit_scale = model.positional_embedding, model.logit_scale
        self.text_projection = model.text_projection
        for name in marks:
            self.register_buffer(name, torch.tensor(1))

    def forward(self, image):
        return self.visual(image)


@pytest.fixture
def openai_archive(tmp_path, model):
    path = tmp_path / "ViT-tiny.pt"
    torch.jit.trace(_Archive(model), torch.randn(1, 3, 64, 64), check_trace=False).save(str(path))
    return path


def test_openai_torchscript_archive_loads(arch, model, openai_archive):
    assert_same_towers(arch, openai_archive, model)


def test_openai_archive_with_gelu_is_refused(arch, openai_archive):
    with pytest.raises(ValueError, match=r"trained with QuickGELU.*set quick_gelu=True"):
        load_image_tower(build_image_tower(arch), arch | {"quick_gelu": False}, openai_archive)


def test_another_torchscript_archive_is_not_taken_for_openais(tmp_path, arch, model):
    archive = torch.jit.trace(_Archive(model, ()), torch.randn(1, 3, 64, 64), check_trace=False)
    archive.save(str(tmp_path / "clip.pt"))
    assert read_clip_checkpoint(arch, tmp_path / "clip.pt").quick_gelu is None


def test_openai_tag_with_gelu_arch_is_refused_before_any_download():
    with pytest.raises(ValueError, match="use arch='ViT-B-16-quickgelu'"):
        read_clip_checkpoint("ViT-B-16", "openai")
    with pytest.raises(ValueError, match="use arch='ViT-L-14-quickgelu'"):
        read_clip_checkpoint("ViT-L-14", "metaclip_fullcc")


def test_marked_gelu_weights_with_quickgelu_arch_are_refused(tmp_path, arch, model):
    path = tmp_path / "gelu.safetensors"
    save_file(contiguous(model.state_dict()), path, metadata={"quick_gelu": "false"})
    with pytest.raises(ValueError, match="trained with GELU, but the given arch .* QuickGELU"):
        read_clip_checkpoint(arch, path)


@pytest.mark.parametrize("name", ["ViT-B-16", "ViT-B-32", "ViT-L-14", "ViT-L-14-336"])
def test_quickgelu_names_build_quickgelu_blocks(name, arch):
    for config_name, kind in ((name, nn.GELU), (f"{name}-quickgelu", QuickGELU)):
        small = model_config(config_name) | {k: arch[k] for k in ("vision_cfg", "text_cfg")}
        for tower in (build_image_tower(small).visual, build_text_transformer(small)):
            assert isinstance(tower.transformer.resblocks[0].mlp.gelu, kind)


def test_wrong_width_names_both_and_the_remedy(tmp_path, arch, model):
    torch.save(model.state_dict(), tmp_path / "clip.pt")
    other = arch | {"vision_cfg": arch["vision_cfg"] | {"width": 32}}
    with pytest.raises(
        ValueError, match=r"does not fit .*of width 64 .*of width 32 .*choose the arch"
    ):
        load_image_tower(build_image_tower(other), other, tmp_path / "clip.pt")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"conv1.weight": torch.zeros(2)}, "holds no CLIP checkpoint: expected"),
        ([torch.zeros(2)], "holds a list, expected a state dict"),
    ],
)
def test_other_layouts_are_refused(tmp_path, arch, content, message):
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=message):
        read_clip_checkpoint(arch, tmp_path / "other.pt")


def official_eva(text=None, **kwargs):
    """An official EVA02-CLIP checkpoint with the text tower of ``EVA_ARCH``."""
    text = text or build_text_transformer(EVA_ARCH)
    return tiny_official(contiguous(text.state_dict()), **kwargs)


def run_of(official, image, text):
    """Names of a run of this package that holds both towers."""
    state = official_to_open_clip(official)[0]
    scale = {"decode_head." + "logit_scale": state.pop("logit_scale")}
    state = {k.removeprefix("text."): v for k, v in state.items()}
    return {"state_dict": prefixed(state, image, text) | scale, "meta": {}, "optimizer": {}}


EVA_LAYOUTS = {
    "official": lambda state: state,
    "half precision": lambda state: {k: v.half() for k, v in state.items()},
    "DeCLIP": lambda state: {
        **{"epoch": 6, "name": "run", "optimizer": {"state": {}}},
        "state_dict": prefixed(state, "module.", "module."),
    },
    "wrapped": lambda state: {"model": state},
    "compiled": lambda state: {"module": prefixed(state, "_orig_mod.module.", "_orig_mod.module.")},
    "open_clip": lambda state: official_to_open_clip(state)[0],
    "a segmentor": lambda state: run_of(state, "backbone.tower.", "decode_head.text.tower.text."),
    "a distillation": lambda state: run_of(state, "student.tower.", "text_encoder.tower.text."),
}


@pytest.mark.parametrize("layout", sorted(EVA_LAYOUTS))
def test_every_eva_layout_loads_to_the_same_towers(tmp_path, layout):
    torch.manual_seed(4)
    expected = build_text_transformer(EVA_ARCH)
    path, tower, text = tmp_path / "eva.pt", TinyEva(), build_text_transformer(EVA_ARCH)
    torch.save(EVA_LAYOUTS[layout](official_eva(expected)), path)
    load_image_tower(tower, EVA_ARCH, path)
    load_text_transformer(text, EVA_ARCH, path)
    tolerance = 1e-3 if layout == "half precision" else 0.0
    want = checkpoint_filter_fn(official_eva(expected), tower.visual.trunk)  # timm's own reader
    got = tower.visual.trunk.state_dict()
    assert got.keys() == want.keys() and all(v.dtype == torch.float32 for v in got.values())
    for name, value in got.items():
        torch.testing.assert_close(value, want[name], rtol=0, atol=tolerance)
    for one, other in zip(text.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=tolerance)


@pytest.mark.parametrize("scale", ["logit_scale", "text.logit_scale"])
def test_temperature_of_eva_is_found(tmp_path, scale):
    torch.save(official_eva(scale=scale), tmp_path / "eva.pt")
    state = read_clip_checkpoint(EVA_ARCH, tmp_path / "eva.pt").state_dict
    assert state["logit_scale"] == torch.tensor(4.6052)
    assert "positional_embedding" in state and not any("freqs" in key for key in state)


def test_eva_is_refused_although_its_text_tower_would_fit(tmp_path, arch, model):
    state = {k: v for k, v in model.state_dict().items() if not k.startswith("visual.")}
    state = {"text." + k: v for k, v in state.items()}
    torch.save(official_eva() | state, tmp_path / "eva.pt")
    text = build_text_transformer(arch)
    before = contiguous(text.state_dict())
    message = r"eva.pt' holds an EVA-CLIP ViT of width 32 with 3 blocks.*OpenAI-style kind; choose"
    with pytest.raises(ValueError, match=message):
        load_text_transformer(text, arch, tmp_path / "eva.pt")
    assert all(torch.equal(value, before[key]) for key, value in text.state_dict().items())


def test_openai_weights_are_refused_by_an_eva_arch(tmp_path, model):
    torch.save(model.state_dict(), tmp_path / "clip.pt")
    with pytest.raises(ValueError, match=r"OpenAI-style ViT of width 64.*the EVA-CLIP kind"):
        load_image_tower(TinyEva(), EVA_ARCH, tmp_path / "clip.pt")


def of_size(arch):
    """Official vision weights of an arch, without values and with one byte an entry."""
    width, depth, patch, grid, joint = {
        "EVA02-B-16": (768, 12, 16, 14, 512),
        "EVA02-L-14-336": (1024, 24, 14, 24, 768),
    }[arch]
    shapes = vision_shapes(width, depth, patch, grid, joint)
    return {"visual." + k: torch.zeros(1).expand(shape) for k, shape in shapes.items()}


def test_sizes_are_told_apart_and_named(tmp_path):
    path = tmp_path / "eva.pt"
    torch.save(of_size("EVA02-B-16"), path)  # expanded tensors are saved as one entry each
    tower = TinyEva()
    message = r"does not fit .*width 768 with 12 blocks.*\(as EVA02-B-16\).*arch='EVA02-B-16'"
    with pytest.raises(ValueError, match=message):
        load_image_tower(tower, "EVA02-L-14-336", path)
    with pytest.raises(ValueError, match=r"'ViT-B-16-quickgelu' has .*choose arch='EVA02-B-16'"):
        load_image_tower(tower, "ViT-B-16-quickgelu", path)
    torch.save(of_size("EVA02-L-14-336"), path)
    with pytest.raises(ValueError, match=r"24 x 24 positions \(as EVA02-L-14-336\)"):
        load_image_tower(tower, "EVA02-B-16", path)


def test_eva01_is_refused_by_name(tmp_path):
    state = {k.replace("q_proj", "qkv"): v for k, v in official_eva().items()}
    torch.save(state, tmp_path / "eva01.pt")
    with pytest.raises(ValueError, match=r"eva01.pt' holds an EVA tower without separate q, k, v"):
        read_clip_checkpoint(EVA_ARCH, tmp_path / "eva01.pt")


def test_eva_tags_of_open_clip_resolve(tmp_path, monkeypatch):
    torch.save(official_to_open_clip(official_eva())[0], tmp_path / "open_clip.bin")
    asked = []

    def download(config):
        asked.append(config["hf_hub"])
        return str(tmp_path / "open_clip.bin")

    monkeypatch.setattr(fetching, "FOLDER", tmp_path / "clip")
    monkeypatch.setattr(open_clip.pretrained, "download_pretrained", download)
    checkpoint = read_clip_checkpoint("EVA02-B-16", "merged2b_s8b_b131k")
    assert asked == ["timm/eva02_base_patch16_clip_224.merged2b_s8b_b131k/"]
    assert checkpoint.quick_gelu is False
    assert "visual.trunk.blocks.0.mlp.fc1_g.weight" in checkpoint.state_dict


def test_run_that_saves_only_its_student_is_read(tmp_path):
    state = official_to_open_clip(official_eva())[0]
    student = {"student.tower." + k: v for k, v in state.items() if k.startswith("visual.")}
    vfm = {"vfm.model.patch_embed.proj.weight": torch.zeros(8, 3, 4, 4)}
    torch.save({"state_dict": student | vfm}, tmp_path / "run.pth")
    load_image_tower(TinyEva(), EVA_ARCH, tmp_path / "run.pth")
    teacher = {k.replace("student", "teacher"): v for k, v in student.items()}
    torch.save({"state_dict": student | teacher}, tmp_path / "both.pth")
    with pytest.raises(ValueError, match="several CLIP towers .*student.*teacher"):
        load_image_tower(TinyEva(), EVA_ARCH, tmp_path / "both.pth")


CSA = dict(attention=("qq", "kk"), residual="none", ffn=False, scale="sqrt")
MARKS = {
    "name at the top": lambda state: {"state_dict": state, "readout": "csa"},
    "fields at the top": lambda state: {"state_dict": state, "readout": CSA},
    "bare": lambda state: state | {"readout": encode_readout(READOUTS["csa"])},
    "a backbone": lambda state: (
        prefixed(state, "backbone.tower.", "head.")
        | {"backbone.readout": encode_readout(READOUTS["csa"])}
    ),
    "a backbone in half precision": lambda state: (
        prefixed(state, "module.tower.", "head.")
        | {"module.readout": encode_readout(READOUTS["csa"]).half()}
    ),
}


@pytest.mark.parametrize("mark", sorted(MARKS))
def test_readout_is_read_and_compared(tmp_path, arch, model, mark):
    path, tower = tmp_path / "clip.pt", build_image_tower(arch)
    torch.save(MARKS[mark](contiguous(model.state_dict())), path)
    assert read_clip_checkpoint(arch, path).readout == READOUTS["csa"]
    load_image_tower(tower, arch, path, READOUTS["declip"])
    load_image_tower(tower, arch, path)
    with pytest.raises(ValueError, match=r"clip.pt' was saved with the readout .*'csa'.*'qq'"):
        load_image_tower(tower, arch, path, READOUTS["qq"])


def test_readout_in_a_safetensors_header(tmp_path, arch, model):
    path, unscaled = tmp_path / "clip.safetensors", Readout(("qq", "kk"), scale="none")
    state = contiguous(model.state_dict())
    save_file(state, path, metadata={"readout": readout_json(unscaled)})
    assert read_clip_checkpoint(arch, path).readout == unscaled
    save_file(state, path)
    assert read_clip_checkpoint(arch, path).readout is None
    save_file(state, path, metadata={"readout": "scaled"})
    with pytest.raises(ValueError, match="'readout' that is no readout .unknown readout 'scaled'"):
        read_clip_checkpoint(arch, path)


@pytest.mark.parametrize("place", ["student.", "text_encoder.", ""])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16])
def test_activation_of_a_run_is_read_and_compared(tmp_path, arch, model, place, dtype):
    path, gelu = tmp_path / "run.pth", arch | {"quick_gelu": False}
    state = prefixed(contiguous(model.state_dict()), "student.tower.", "text_encoder.tower.text.")
    state[place + "quick_gelu"] = torch.tensor(1, dtype=dtype)
    torch.save({"state_dict": state, "meta": {}}, path)
    assert read_clip_checkpoint(arch, path).quick_gelu is True
    assert read_clip_checkpoint(arch, path).report.dropped[place + "quick_gelu"]
    message = "run.pth' was trained with QuickGELU, but the given arch is built with GELU"
    with pytest.raises(ValueError, match=message):
        load_image_tower(build_image_tower(gelu), gelu, path)
    with pytest.raises(ValueError, match=message):
        load_text_transformer(build_text_transformer(gelu), gelu, path)
    state |= {"student.quick_gelu": torch.tensor(0), "text_encoder.quick_gelu": torch.tensor(1)}
    torch.save({"state_dict": state, "meta": {}}, path)
    with pytest.raises(ValueError, match="run.pth' holds towers with GELU and with QuickGELU"):
        read_clip_checkpoint(arch, path)


@pytest.mark.parametrize("wrapper", ["model", "module", "state_dict"])
def test_wrappers_are_searched_in_the_order_of_the_official_code(tmp_path, arch, model, wrapper):
    order = ("model", "module", "state_dict")
    state, path = contiguous(model.state_dict()), tmp_path / "clip.pt"
    behind = order[order.index(wrapper) + 1 :]
    torch.save({name: {"other": torch.ones(1)} for name in behind} | {wrapper: state}, path)
    assert_same_towers(arch, path, model)
    config = {"model": {"width": 64}, "module": {}, "state_dict": state}
    torch.save(config, path)  # a model that is a config holds no weights
    assert_same_towers(arch, path, model)


def test_of_a_run_with_ensembled_weights_the_mixed_ones_are_read(tmp_path, arch, model):
    state = prefixed(contiguous(model.state_dict()), "student.tower.", "text_encoder.tower.text.")
    trained = {name: torch.zeros_like(value) for name, value in state.items()}
    run = {"meta": {}, "state_dict": state, "unmixed_state_dict": trained, "optimizer": {}}
    torch.save(run, tmp_path / "iter_2.pth")
    assert_same_towers(arch, tmp_path / "iter_2.pth", model)


def test_two_towers_in_a_file_are_refused(tmp_path, arch, model):
    state = contiguous(model.state_dict())
    both = {f"{p}.{k}": v for p in ("student", "teacher") for k, v in state.items()}
    torch.save(both, tmp_path / "both.pt")
    with pytest.raises(ValueError, match="several CLIP towers .*student.*teacher"):
        read_clip_checkpoint(arch, tmp_path / "both.pt")


def test_pickled_objects_are_not_loaded(tmp_path, arch):
    class Payload:
        def __reduce__(self):
            return (print, ("executed",))

    (tmp_path / "evil.pt").write_bytes(b"")
    torch.save({"model": Payload()}, tmp_path / "evil.pt", pickle_module=pickle)
    with pytest.raises(ValueError, match=r"evil.pt' holds Python objects besides tensors"):
        read_clip_checkpoint(arch, tmp_path / "evil.pt")


@pytest.mark.parametrize(
    "content",
    [
        b"<!DOCTYPE html><html>Not found</html>",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 9\n",
        *(b"\x80\x02u", b"\x80\x02h\x01", b"\x80\x02X\x01\x00\x00\x00\xff", b"\x80\x02K", b""),
    ],
)
def test_what_is_no_checkpoint_is_said_to_be_none(tmp_path, arch, content):
    (tmp_path / "page.pt").write_bytes(content)
    message = r"page.pt' is (no checkpoint, or holds|not a readable checkpoint)"
    with pytest.raises(ValueError, match=message):
        read_clip_checkpoint(arch, tmp_path / "page.pt")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_what_is_not_looked_at_is_not_read(tmp_path, suffix):
    """The image and the text tower each read the file; neither pays for the other."""
    path, state = tmp_path / f"big.{suffix}", {"a": torch.ones(4), "b": torch.zeros(25_000_000)}
    save_file(state, path) if suffix == "safetensors" else torch.save(state, path)
    before = _resident_bytes()
    entries, _ = read_file(path)
    assert entries["a"].sum() == 4
    assert _resident_bytes() - before < 50e6


def test_broken_and_missing_files_are_clear_errors(tmp_path, arch):
    (tmp_path / "broken.safetensors").write_bytes(b"12345678")
    with pytest.raises(ValueError, match=r"broken.safetensors' is not a readable checkpoint"):
        read_clip_checkpoint(arch, tmp_path / "broken.safetensors")
    with pytest.raises(FileNotFoundError, match="neither a file nor weights known"):
        read_clip_checkpoint(arch, tmp_path / "absent.pt")
    with pytest.raises(FileNotFoundError, match="known tags: openai"):
        read_clip_checkpoint("ViT-B-16-quickgelu", "opennai")


def test_unknown_arch_lists_close_names():
    with pytest.raises(ValueError, match="unknown CLIP arch 'ViT-B16'; close names: .*ViT-B-16"):
        build_image_tower("ViT-B16")
    with pytest.raises(ValueError, match="arch dict lacks \\['text_cfg'\\]"):
        build_image_tower(dict(embed_dim=8, vision_cfg={}))


def test_a_tag_that_cannot_be_downloaded_is_one_line(tmp_path, monkeypatch):
    said = []

    def fail(*_, **__):
        said.append(getLogger("huggingface_hub.utils._http").isEnabledFor(WARNING))
        raise URLError("Name or service\nnot known")

    def unreachable(*_):
        raise DownloadError("no route")

    monkeypatch.setattr(fetching, "FOLDER", tmp_path)
    monkeypatch.setattr(fetching, "download", unreachable)
    monkeypatch.setattr(open_clip.pretrained, "download_pretrained", fail)
    line = (
        r"cannot download the weights 'openai' of 'ViT-B-16-quickgelu' from 'timm/.*Name or "
        rf"service; from https:.*/ViT-B-16\.pt: no route; .*put it to {tmp_path}/ViT-B-16\.pt"
    )
    with pytest.raises(FileNotFoundError, match=line) as caught:
        read_clip_checkpoint("ViT-B-16-quickgelu", "openai")
    assert "\n" not in str(caught.value)
    assert said == [False], "each time that it tries again"
    assert getLogger("huggingface_hub.utils._http").isEnabledFor(WARNING)

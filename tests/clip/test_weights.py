"""Checkpoint layouts: each loads to the same tower, and each wrong one is one clear error."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import open_clip
import pytest
import torch
from open_clip.transformer import QuickGELU
from safetensors.torch import save_file
from torch import nn

from mmclipdis.clip.files import read_file
from mmclipdis.clip.towers import build_image_tower, build_text_transformer
from mmclipdis.clip.trainable import split_qkv
from mmclipdis.clip.weights import (
    load_image_tower,
    load_text_transformer,
    model_config,
    read_clip_checkpoint,
)


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


def test_wrong_width_names_the_tensor_and_the_remedy(tmp_path, arch, model):
    torch.save(model.state_dict(), tmp_path / "clip.pt")
    other = arch | {"vision_cfg": arch["vision_cfg"] | {"width": 32}}
    with pytest.raises(ValueError, match=r"does not fit the image tower.*shape: .*choose the arch"):
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


@pytest.mark.parametrize("block", ["visual.blocks.0", "visual.trunk.blocks.0"])
def test_eva_is_refused_although_its_text_tower_would_fit(tmp_path, arch, model, block):
    state = {k: v for k, v in model.state_dict().items() if not k.startswith("visual.")}
    state = {"text." + k: v for k, v in state.items()} | {f"{block}.norm1.bias": torch.zeros(2)}
    torch.save(state, tmp_path / "eva.pt")
    text = build_text_transformer(arch)
    before = contiguous(text.state_dict())
    with pytest.raises(ValueError, match=r"EVA-CLIP .* arch='ViT-B-16-quickgelu'"):
        load_text_transformer(text, arch, tmp_path / "eva.pt")
    assert all(torch.equal(value, before[key]) for key, value in text.state_dict().items())


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

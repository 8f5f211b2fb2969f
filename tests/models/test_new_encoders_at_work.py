"""SigLIP, PE, TIPS, DINO and dino.txt in each model that takes an encoder (4 s in all).

What only reads the tower, and segmentors, are in ``test_new_encoders.py``; tools in
``tests/apis/inferencers/test_new_encoders.py``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import BaseDataElement, InstanceData
from safetensors.torch import save_file
from torch import Tensor

from mmclipdis.engine.random_weights import take_as_meant
from mmclipdis.models import CLIPViT
from mmclipdis.models.distillation.regions import predict_regions
from mmclipdis.models.segmentation import OpenVocabSegmentor
from mmclipdis.visualization.feature_maps import clip_maps
from tests import layout_files as hf
from tests.clip.text.toy_tokenizers import WORDS, write_tokenizer
from tests.clip.towers.test_timm_vit import KINDS
from tests.faults.endings import raises
from tests.models.recognition.tiny_dclip import samples
from tests.models.test_new_encoders import NAMES, arch_of, encoders
from tests.tiny_stages import tiny_fastvit_arch

TINY_VFM = dict(type="TimmVFM", model_kwargs=dict(depth=2, embed_dim=24, num_heads=2))
DINOV3 = TINY_VFM | dict(model="dinov3-S")
DINO = TINY_VFM | dict(model="dino-B-8")
BRANCHES = dict(attention="affinity", affinity=dict(scale=4.0))
ALL = [*KINDS, "dinotxt"]


def built(config: dict[str, Any], scope: str = "mmengine") -> Any:
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(scope):
        model: Any = MODELS.build(config)
    take_as_meant(model)
    return model


def without_gradient(model: Any) -> list[str]:
    """What trains and got none, which stops DDP."""
    return [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]


def tensors(found: Any) -> list[Tensor]:
    if isinstance(found, Tensor):
        return [found]
    return [one for part in found or () for one in tensors(part)]


# --- weights -----------------------------------------------------------------------------------


def hf_arch() -> dict[str, Any]:
    """The arch of ``layout_files.hf_siglip``."""
    sizes = dict(embed_dim=hf.D, depth=hf.DEPTH, num_heads=hf.HEADS, patch_size=hf.PATCH)
    trunk = sizes | dict(img_size=hf.PATCH * hf.GRID, mlp_ratio=2, act_layer="gelu_tanh")
    text = dict(width=hf.D, heads=hf.HEADS, layers=hf.DEPTH, mlp_ratio=2, proj_bias=True)
    return dict(
        embed_dim=hf.D,
        vision_cfg=dict(
            timm_model_name="vit_base_patch16_siglip_224",
            timm_pool="map",
            timm_proj="none",
            timm_model_kwargs=trunk,
        ),
        text_cfg=text
        | dict(
            context_length=hf.PLACES,
            vocab_size=hf.WORDS,
            no_causal_mask=True,
            pool_type="last",
            hf_tokenizer_name="timm/ViT-B-16-SigLIP2",
        ),
    )


def test_a_file_of_hugging_face_segments(tmp_path: Path) -> None:
    state = {name: values.float() for name, values in hf.hf_siglip().items()}
    save_file(state, tmp_path / "model.safetensors")
    words = (*WORDS, *(f"word{i}" for i in range(hf.WORDS - len(WORDS))))
    path = write_tokenizer(tmp_path / "tokenizer.json", words)
    part = dict(
        arch=hf_arch(),
        init_cfg=dict(type="Pretrained", checkpoint=str(tmp_path / "model.safetensors")),
    )
    text = dict(part, type="OpenCLIPTextEncoder", tokenizer=str(path), cache_dir=False)
    model = OpenVocabSegmentor(
        backbone=dict(part, type="CLIPViT"),
        decode_head=dict(
            type="CosineSegHead", text_encoder=text, vocabulary=NAMES, templates=["{}"]
        ),
        test_cfg=dict(mode="whole"),
    ).eval()
    (result,) = model.predict(torch.randn(1, 3, 13, 21))
    assert result.pred_sem_seg.data.shape == (1, 13, 21)
    table = model.backbone.tower.visual.trunk.pos_embed[0]
    assert torch.equal(table, state["vision_model.embeddings.position_embedding.weight"])


@pytest.mark.parametrize("kind", ALL)
def test_what_q_and_v_learned_loads_fused_split_and_by_init_cfg(kind: str, tmp_path: Path) -> None:
    tuned = built(dict(type="CLIPViT", arch=arch_of(kind), trainable=("q", "v")))
    with torch.no_grad():
        for parameter in tuned.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    file = tmp_path / "tuned.pth"
    torch.save(tuned.state_dict(), file)
    images = torch.randn(1, 3, 3 * tuned.patch_size[0], 4 * tuned.patch_size[0])
    wanted = tuned.eval()(images)[0]
    source = dict(type="Pretrained", checkpoint=str(file))
    for trainable in ((), ("q", "v")):
        fresh = built(dict(type="CLIPViT", arch=arch_of(kind), trainable=trainable))
        fresh.load_state_dict(torch.load(file))
        named = CLIPViT(arch=arch_of(kind), trainable=trainable, init_cfg=source)
        assert torch.equal(fresh.eval()(images)[0], wanted)
        assert torch.equal(named.eval()(images)[0], wanted)


# --- distillation, detection, recognition ------------------------------------------------------


@pytest.mark.parametrize("kind", ALL)
def test_declip_learns_from_dinov3(kind: str) -> None:
    """Content and context are finite, and whatever trains gets a gradient."""
    student = dict(type="CLIPViT", arch=arch_of(kind), readout="csa", trainable=("all",))
    losses = dict(
        content_loss=dict(type="ContentLoss"), context_loss=dict(type="ContextCorrelationLoss")
    )
    model = built(dict(type="DeCLIP", student=student, vfms=[DINOV3], **losses)).train()
    side, native = 4 * model.student.patch_size[0], model.teacher.tower.image_size[0]
    crops = torch.randn(2, 3, native, native)
    found = model(
        dict(
            image=torch.randn(2, 3, side, side),
            crops=crops,
            boxes=torch.tensor([[0, 0, 0, 0.5, 0.5], [1, 0.2, 0.2, 1, 1]]),
            proxies={64: torch.randn(2, 3, 64, 64)},
        ),
        mode="loss",
    )
    assert all(value.isfinite() for value in found.values())
    sum(found.values()).backward()
    assert not without_gradient(model)
    assert all(parameter.grad is None for parameter in model.teacher.parameters())
    whole = model.teacher.tower.encode_image(crops)
    assert torch.equal(model.crop_embeddings(crops), whole[:, -model.teacher.embed_dim :])
    assert whole.shape[1] == model.teacher.image_dim


def test_a_crop_of_dinotxt_is_the_mean_of_its_map() -> None:
    """The half of its embedding that text for maps is compared with."""
    model = built(dict(type="CLIPViT", arch=arch_of("dinotxt")))
    images = torch.randn(2, 3, 48, 64)
    mean = model.dense(images).map.mean((2, 3))
    half = model.tower.encode_image(images)[:, -model.embed_dim :]
    torch.testing.assert_close(half, mean)
    assert (model.embed_dim, model.image_dim) == (48, 96)


@pytest.mark.parametrize("kind", ["siglip", "dinotxt"])
def test_regions_are_named_by_box_and_by_crop(kind: str) -> None:
    model = built(dict(type="CLIPViT", arch=arch_of(kind)))
    sample = BaseDataElement(gt_regions=InstanceData(labels=torch.tensor([0])))
    inputs = dict(
        image=torch.randn(1, 3, 64, 64),
        crops=torch.randn(1, 3, 64, 64),
        boxes=torch.tensor([[0, 0, 0, 1.0, 1.0]]),
    )
    text = F.normalize(torch.randn(6, model.embed_dim), dim=1)
    (found,) = predict_regions(model, inputs, [sample], text, ("rois", "crops"))
    assert found.pred_regions.rois.shape == found.pred_regions.crops.shape == (1, 5)


@pytest.mark.parametrize("kind", ["siglip", "pe-no-cls", "tips", "dinotxt"])
@pytest.mark.parametrize("detector", ["FViTBackbone", "OVDQUOViTBackbone"])
def test_detectors_have_levels_and_map(kind: str, detector: str) -> None:
    arch = arch_of(kind)
    arch["vision_cfg"]["timm_model_kwargs"]["depth"] = 4
    blocks = (0, 1, 2, -1) if detector == "FViTBackbone" else (0, 1, -1)
    more = dict(norm_cfg=dict(type="BN")) if detector == "FViTBackbone" else {}
    encoder = dict(type="CLIPViT", arch=arch, readout="csa")
    model = built(dict(type=detector, encoder=encoder, out_indices=blocks, **more)).train()
    patch = model.encoder.patch_size[0]
    images = torch.randn(2, 3, 4 * patch, 6 * patch)
    sum(level.sum() for level in tensors(model(images)) if level.requires_grad).backward()
    assert not without_gradient(model)
    *levels, dense = tensors(model.eval()(images))
    native = model.encoder.tower.forward_blocks(images, [blocks[-2]])[0]
    assert any(level.shape == native.shape and torch.equal(level, native) for level in levels)
    assert dense.shape == (2, model.encoder.embed_dim, 4, 6) and dense.isfinite().all()


def recognizer(kind: str, tokenizer: str, model: str = "ZeroShotRecognizer", **more: Any) -> Any:
    both = encoders(kind, tokenizer)
    sides = dict(encoder=both["image"], text_encoder=both["text"])
    return built(dict(type=model, vocabulary=["cat", "photo", "a"], **sides, **more))


@pytest.mark.parametrize("kind", ["siglip", "pe", "dinotxt"])
def test_dclip_learns(kind: str, toy_tokenizer: str) -> None:
    model = recognizer(kind, toy_tokenizer, "DCLIP", projectors=dict(out_dim=8)).train()
    labels = samples(torch.tensor([[1.0, 0.0, -1.0], [0.0, 1.0, 1.0]]))
    losses = model(torch.randn(2, 3, 64, 64), labels, mode="loss")
    sum(value for value in losses.values() if value.requires_grad).backward()
    assert not without_gradient(model)


@pytest.mark.parametrize("kind", ["siglip", "pe", "tips", "dinotxt"])
def test_the_whole_image_is_compared_with_the_whole_text(kind: str, toy_tokenizer: str) -> None:
    model = recognizer(kind, toy_tokenizer, templates=["{}"]).eval()
    images = torch.randn(2, 3, 56, 56) if kind == "tips" else torch.randn(2, 3, 64, 64)
    unit = F.normalize(model.encoder.tower.encode_image(images), dim=1)
    text = model.text.encoder.embed(model.vocabulary)
    torch.testing.assert_close(model(images), 100 * unit @ text.T)


def test_segments_want_one_text_for_map_and_image(toy_tokenizer: str) -> None:
    line = "images in 96 channels and its dense map has 48.*leave segments out"
    raises(line, recognizer, "dinotxt", toy_tokenizer, segments=dict(projector="none.pth"))


@pytest.mark.parametrize("model", ["DCLIP", "ZeroShotRecognizer"])
def test_stages_and_text_that_looks_both_ways_name_things(model: str) -> None:
    arch = tiny_fastvit_arch()
    arch["text_cfg"].update(vocab_size=49408, no_causal_mask=True)
    text = dict(type="OpenCLIPTextEncoder", arch=arch, cache_dir=False, progress=False)
    more = dict(projectors=dict(out_dim=8)) if model == "DCLIP" else {}
    encoder = dict(type="CLIPConvNet", arch=arch)
    found = built(
        dict(type=model, encoder=encoder, text_encoder=text, vocabulary=["cat", "dog"], **more)
    ).eval()(torch.randn(1, 3, 64, 96))
    assert found.isfinite().all() and found.shape[-1] == 2


# --- readouts ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["siglip", "dinov3", "dinotxt"])
@pytest.mark.parametrize("readout", ["proxyclip", "branches"])
def test_windows_are_stitched_before_the_head(kind: str, readout: str) -> None:
    arch = arch_of(kind)
    arch["vision_cfg"]["timm_model_kwargs"]["depth"] = 4
    branches = BRANCHES | dict(branches=dict(spatial=0.7, semantic=0.0, blocks=(0, 2)))
    given: Any = readout if readout == "proxyclip" else branches
    head = dict(type="CosineSegHead", embeddings=torch.randn(4, 48), vocabulary=list("abcd"))
    slide = dict(mode="slide", crop_size=48, stride=16, stitch="values", return_probs=True)
    backbone = dict(type="CLIPViT", arch=arch, readout=given, vfm=DINO)
    model = OpenVocabSegmentor(backbone, head, test_cfg=slide).eval()
    take_as_meant(model)
    (result,) = model.predict(torch.randn(1, 3, 61, 93))
    assert result.seg_logits.data.shape == (4, 61, 93) and result.seg_logits.data.isfinite().all()


@pytest.mark.parametrize("readout", ["catseg", "corrclip", dict(deep=1, mid=0, summed=(0, 1), k=4)])
def test_readouts_that_read_cls_are_refused_without_one(readout: Any) -> None:
    guide = dict(vfm=DINO) if readout == "corrclip" else {}
    for kind in ("siglip", "pe-no-cls"):
        raises("needs the CLS token.*choose another", CLIPViT, arch_of(kind), readout, **guide)
    for kind in ("pe", "tips", "dinov3"):
        CLIPViT(arch_of(kind), readout, **guide)


@pytest.mark.parametrize("kind", ALL)
def test_figures_leave_prefix_tokens_out(kind: str) -> None:
    model = built(dict(type="CLIPViT", arch=arch_of(kind))).eval()
    image = torch.randn(1, 3, 3 * model.patch_size[0], 5 * model.patch_size[0])
    found = clip_maps(model.tower, image, [(2, 1), (0, 4)], [0, model.num_blocks - 1])
    assert found and all(one.values.shape == (3, 5) for one in found)

"""SigLIP, PE, TIPS and dino.txt in the models that take an encoder. The file takes about 10 s."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.registry import MODELS
from mmseg.registry import MODELS as SEGMENTORS

from mmclipdis.engine.random_weights import take_as_meant
from mmclipdis.models import CLIPViT, OpenCLIPTextEncoder
from tests.clip.text.toy_tokenizers import WORDS
from tests.clip.towers.test_dinotxt import tiny_arch
from tests.clip.towers.test_timm_vit import KINDS, TINY
from tests.models.segmentation.catseg.test_segmentor import AGGREGATOR, sample

NAMES = ["cat", "photo", "a photo"]
HALF = dict(mean=[127.5] * 3, std=[127.5] * 3, bgr_to_rgb=True)


def arch_of(kind: str) -> dict[str, Any]:
    """A tiny arch with both sides; SigLIP's text is pooled at its last place."""
    if kind == "dinotxt":
        text = dict(context_length=16, vocab_size=49408, width=16, heads=2, layers=2)
        return tiny_arch() | dict(text_cfg=text | dict(dense_channels=48))
    name, pool, head, channels, side, more = KINDS[kind]
    vision = dict(
        timm_model_name=name,
        timm_pool=pool,
        timm_proj=head,
        timm_model_kwargs=dict(TINY, img_size=side) | more,
    )
    text = dict(context_length=16, vocab_size=49408, width=16, heads=2, layers=2)
    if kind == "siglip":
        text |= dict(
            context_length=8,
            vocab_size=len(WORDS),
            no_causal_mask=True,
            pool_type="last",
            proj_bias=True,
            hf_tokenizer_name="timm/ViT-B-16-SigLIP2",
        )
    return dict(embed_dim=channels, vision_cfg=vision, text_cfg=text)


def encoders(kind: str, tokenizer: str, **options: Any) -> dict[str, Any]:
    """Configs of both sides."""
    words = dict(tokenizer=tokenizer) if kind == "siglip" else {}
    text = dict(type="OpenCLIPTextEncoder", arch=arch_of(kind), cache_dir=False, progress=False)
    return dict(image=dict(type="CLIPViT", arch=arch_of(kind), **options), text=text | words)


@pytest.mark.parametrize("kind", [*KINDS, "dinotxt"])
@pytest.mark.parametrize("trainable", [("all",), ("q", "v"), ("blocks",)])
@pytest.mark.parametrize("readout", ["vanilla", "csa", "maskclip"])
def test_whatever_trains_gets_a_gradient(kind: str, trainable: Any, readout: str) -> None:
    """DDP stops otherwise: what only the image embedding reads is frozen, too."""
    model = CLIPViT(arch=arch_of(kind), readout=readout, trainable=trainable)
    take_as_meant(model)
    side = 4 * model.patch_size[0]
    model(torch.randn(1, 3, side, side))[0].square().sum().backward()
    found = {name: p.grad is not None for name, p in model.named_parameters() if p.requires_grad}
    assert found and all(found.values()), [name for name, has in found.items() if not has]


@pytest.mark.parametrize("kind", ["siglip", "pe", "tips", "dinotxt"])
def test_a_file_of_both_towers_segments(kind: str, toy_tokenizer: str, tmp_path: Path) -> None:
    """In open_clip's names, by ``init_cfg`` alone; ours, and mmseg's segmentor."""
    both = encoders(kind, toy_tokenizer)
    image, text = MODELS.build(both["image"]), MODELS.build(both["text"])
    assert isinstance(image, CLIPViT) and isinstance(text, OpenCLIPTextEncoder)
    file = tmp_path / "clip.pt"
    torch.save({**image.tower.state_dict(), **text.tower.text.state_dict()}, file)
    init_cfg = dict(type="Pretrained", checkpoint=str(file))
    head = dict(
        type="CosineSegHead",
        text_encoder=both["text"] | dict(init_cfg=init_cfg),
        vocabulary=NAMES,
        templates=["{}"],
    )
    backbone = both["image"] | dict(init_cfg=init_cfg)
    take_as_meant(image)
    take_as_meant(text)
    side = 4 * image.patch_size[0]
    photo, whole = torch.randn(1, 3, side, side + 8), ConfigDict(mode="whole")
    model = SEGMENTORS.build(
        dict(type="OpenVocabSegmentor", backbone=backbone, decode_head=head, test_cfg=whole)
    ).eval()
    with torch.no_grad():
        (result,) = model.predict(photo, None)
    assert result.pred_sem_seg.data.shape == (1, side, side + 8)
    for mine, theirs in zip(model.backbone.parameters(), image.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    stock = SEGMENTORS.build(
        dict(type="EncoderDecoder", backbone=backbone, decode_head=head, test_cfg=whole)
    ).eval()
    metas = [dict(ori_shape=(side, side), img_shape=(side, side), padding_size=[0] * 4)]
    with torch.no_grad():
        logits = stock.inference(photo[..., :side], metas)
    assert logits.shape == (1, len(NAMES), side, side)


def prepared(statistics: dict[str, Any]) -> dict[str, Any]:
    return dict(data_preprocessor=dict(type="MixedSizeSegDataPreProcessor", **statistics))


def test_statistics_of_another_clip_are_refused_by_name(toy_tokenizer: str) -> None:
    both = encoders("siglip", toy_tokenizer)
    head = dict(type="CosineSegHead", text_encoder=both["text"], vocabulary=NAMES)
    clip = dict(mean=[122.771, 116.746, 104.094], std=[68.501, 66.632, 70.323])
    for kind in ("OpenVocabSegmentor", "EncoderDecoder"):
        whole = ConfigDict(mode="whole")
        config = dict(type=kind, backbone=both["image"], decode_head=head, test_cfg=whole)
        with pytest.raises(ValueError, match=r"data_preprocessor has mean=.*127.5"):
            SEGMENTORS.build(config | prepared(clip))
        SEGMENTORS.build(config | prepared(HALF))


@pytest.mark.parametrize("kind", ["siglip", "pe", "dinotxt"])
def test_a_step_of_catseg_trains_q_and_v_alone(kind: str, toy_tokenizer: str) -> None:
    both = encoders(kind, toy_tokenizer, readout="maskclip", trainable=("q", "v"))
    model = SEGMENTORS.build(
        dict(
            type="CATSeg",
            image_encoder=both["image"],
            text_encoder=both["text"] | dict(trainable=("q", "v")),
            decode_head=dict(type="CATSegHead", guidance_dims=(8, 4), aggregator=AGGREGATOR),
            vocabulary=["cat", "photo", "a", "of"],
            templates=["{}"],
            clip_size=(64, 64),
            guidance_indices=(0, 1),
            test_cfg=dict(mode="whole"),
        )
    ).train()
    take_as_meant(model)
    losses = model(torch.randn(2, 3, 48, 64), [sample(48, 64), sample(48, 64)], mode="loss")
    losses["decode.loss_bce"].backward()
    image = {n for n, p in model.image_encoder.named_parameters() if p.requires_grad}
    assert image and all(n.endswith(("q_proj.weight", "v_proj.weight")) for n in image)
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name


@pytest.mark.parametrize("kind", ["siglip", "pe", "dinov3"])
def test_detectors_get_blocks_and_tokens(kind: str) -> None:
    encoder = CLIPViT(arch=arch_of(kind), readout="csa")
    take_as_meant(encoder)
    features = encoder.tower.forward_dense(
        torch.randn(1, 3, 48, 80), encoder.readout, intermediates=[0, 1], with_tokens=True
    )
    assert features.tokens is not None and features.tokens.shape == (1, 48, 3, 5)
    assert [tuple(x.shape) for x in features.intermediates] == [(1, 48, 3, 5)] * 2


@pytest.mark.parametrize("kind", ["siglip", "pe", "dinov3"])
@pytest.mark.parametrize(
    "readout",
    ["naclip", "gem", "clip_surgery", dict(attention=dict(kk=1.0, layers=1.0), layers=[0, 1])],
)
def test_readouts_of_several_blocks_run(kind: str, readout: Any) -> None:
    if readout in ("gem", "clip_surgery"):
        readout = dict(blocks=2, attention="gem" if readout == "gem" else "vv")
    encoder = CLIPViT(arch=arch_of(kind), readout=readout)
    take_as_meant(encoder)
    with torch.no_grad():
        dense = encoder.dense(torch.randn(1, 3, 48, 80)).map
    assert dense.shape[-2:] == (3, 5)
    assert dense.isfinite().all()

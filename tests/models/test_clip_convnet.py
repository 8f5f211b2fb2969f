"""CLIPConvNet as a citizen of the mm world: pyramid, dense map, weights, what is trained.

Takes five seconds.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import load_checkpoint, save_checkpoint
from mmengine.runner.checkpoint import get_state_dict
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

import mmclipdis  # noqa: F401  (registers the modules)
from mmclipdis.clip.towers.readout import READOUTS
from mmclipdis.clip.towers.stage_trunks import build_stage_visual
from mmclipdis.models.segmentation import OpenVocabSegmentor
from tests.models.stock import step, stock_config
from tests.tiny import tiny_arch, tiny_resnet_arch
from tests.tiny_stages import tiny_convnext_arch, tiny_deep_fastvit_arch, tiny_fastvit_arch

ARCHS = {
    "fastvit": tiny_fastvit_arch(),
    "fastvit-64": tiny_deep_fastvit_arch(),
    "convnext": tiny_convnext_arch(),
}
EMBEDDINGS = F.normalize(torch.randn(3, 32, generator=torch.Generator().manual_seed(0)), dim=1)


def build(arch: str = "fastvit", **kwargs: Any) -> Any:
    return MODELS.build(dict(type="CLIPConvNet", arch=ARCHS[arch], **kwargs))


def trained_names(module: torch.nn.Module) -> set[str]:
    return {name for name, p in module.named_parameters() if p.requires_grad}


def test_defaults_are_a_frozen_mobileclip() -> None:
    with torch.device("meta"):
        backbone = MODELS.build(dict(type="CLIPConvNet"))
    assert backbone.arch == "MobileCLIP-S1" and backbone.embed_dim == 512
    assert (backbone.width, backbone.patch_size) == (1024, (32, 32))
    assert backbone.readout == READOUTS["vanilla"]
    assert not trained_names(backbone)


def test_a_frozen_backbone_in_train_mode_is_deterministic_and_keeps_no_graph() -> None:
    arch = tiny_convnext_arch(drop_path_rate=0.9)
    backbone = MODELS.build(dict(type="CLIPConvNet", arch=arch)).train()
    images = torch.randn(2, 3, 64, 64)
    first, second = (backbone.dense(images, with_cls=True) for _ in range(2))
    assert torch.equal(first.map, second.map) and torch.equal(first.cls, second.cls)
    assert not first.map.requires_grad


@pytest.fixture(params=["fastvit", "convnext"])
def clip_file(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path, Any]:
    """A file with the names of open_clip, and its image tower."""
    torch.manual_seed(1)
    arch = ARCHS[request.param]
    visual = build_stage_visual(arch).eval()
    text = open_clip.CLIP(**tiny_arch())
    with torch.no_grad():
        for tensor in visual.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(0.1 * torch.rand_like(tensor))
    state = {f"visual.{name}": value for name, value in visual.state_dict().items()}
    state |= {k: v for k, v in text.state_dict().items() if not k.startswith("visual.")}
    torch.save(state, tmp_path / "clip.pt")
    return request.param, tmp_path / "clip.pt", visual


def from_file(arch: str, path: Path, **kwargs: Any) -> Any:
    backbone = build(arch, init_cfg=dict(type="Pretrained", checkpoint=str(path)), **kwargs)
    backbone.init_weights()
    return backbone


def test_weights_of_open_clip_are_loaded_strictly(
    clip_file: tuple[str, Path, Any], tmp_path: Path
) -> None:
    arch, path, visual = clip_file
    backbone, images = from_file(arch, path), torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        embedding = backbone.dense(images, with_cls=True).cls
        torch.testing.assert_close(embedding, visual(images))
    state = torch.load(path, weights_only=True)
    name = next(key for key in state if ".stages.1." in key and key.endswith("weight"))
    for change, message in (
        ({name: None}, f"missing: {name}"),
        ({"visual.trunk.more": torch.zeros(1)}, "unexpected: visual.trunk.more"),
        ({name: torch.zeros(1)}, rf"shape: {name} is \(1,\)"),
    ):
        changed = {k: v for k, v in {**state, **change}.items() if v is not None}
        torch.save(changed, tmp_path / "wrong.pt")
        with pytest.raises(ValueError, match=message):
            from_file(arch, tmp_path / "wrong.pt")
    other = "convnext" if arch == "fastvit" else "fastvit"
    with pytest.raises(ValueError, match="does not fit|image tower of the"):
        from_file(other, path)


def test_weights_come_before_the_first_image(clip_file: tuple[str, Path, Any]) -> None:
    arch, path, visual = clip_file
    backbone = build(arch, init_cfg=dict(type="Pretrained", checkpoint=str(path))).eval()
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        embedding = backbone.dense(images, with_cls=True).cls
        torch.testing.assert_close(embedding, visual(images))


def test_a_run_is_saved_and_loaded(tmp_path: Path) -> None:
    run, model, images = tmp_path / "run.pth", torch.nn.Module(), torch.randn(1, 3, 64, 64)
    model.backbone = build()
    expected = model.backbone(images)[0]
    save_checkpoint({"state_dict": get_state_dict(model), "meta": {}}, str(run))
    model.backbone = build()
    load_checkpoint(model, str(run), strict=True)
    assert torch.equal(model.backbone(images)[0], expected)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        (dict(out_indices=("mpa",)), "'mpa' is neither 'map' nor a stage of this FastViT or Conv"),
        (dict(out_indices=(4,)), "4 is neither 'map' nor a stage of .*, 0 to 3"),
        (dict(out_indices=()), "out_indices is empty"),
        (dict(readout="v"), "readout 'v' needs attention in the last layer.* only 'vanilla'"),
        (dict(readout="clearclip"), "'clearclip' .* needs attention in the last layer"),
        (dict(readout="proxyclip"), "'proxyclip' needs attention in the last layer"),
        (dict(positions="size"), "positions='size': .* has no table of positions"),
        (dict(trainable=("q", "v")), r"trainable=\('q', 'v'\): choose \(\) or \('all',\)"),
        (dict(trainable=("blocks", 1)), r"\('all',\); this FastViT or ConvNeXt has no transf"),
    ],
)
def test_wrong_arguments_are_clear_errors(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(**kwargs)


def test_each_backbone_names_the_one_to_use() -> None:
    for kind, arch, other in (
        ("CLIPViT", "MobileCLIP-S1", "CLIPConvNet"),
        ("CLIPViT", "convnext_base_w", "CLIPConvNet"),
        ("CLIPResNet", "MobileCLIP2-S4", "CLIPConvNet"),
        ("CLIPConvNet", "ViT-B-16", "CLIPViT"),
        ("CLIPConvNet", "RN50", "CLIPResNet"),
    ):
        with pytest.raises(ValueError, match=rf"arch '{arch}' .*use the backbone .*{other}"):
            MODELS.build(dict(type=kind, arch=arch))


@pytest.mark.parametrize("kind", ["CLIPConvNet", "CLIPResNet"])
def test_what_needs_blocks_says_so(kind: str) -> None:
    if kind == "CLIPConvNet":
        encoder = dict(type=kind, arch=ARCHS["fastvit"])
    else:
        encoder = dict(type=kind, arch=tiny_resnet_arch())
    text = dict(type="OpenCLIPTextEncoder", arch=tiny_arch(), cache_dir=False)
    loss = dict(type="ContentLoss")
    for config in (
        dict(type="FViTBackbone", encoder=encoder),
        dict(type="OVDQUOViTBackbone", encoder=encoder),
        dict(type="DeCLIP", student=encoder, content_loss=loss),
        dict(
            type="mmseg.CATSeg",
            image_encoder=encoder,
            text_encoder=text,
            decode_head=dict(type="CATSegHead"),
        ),
    ):
        with pytest.raises(ValueError, match=f"is a {kind}, which has no transformer blocks; tak"):
            MODELS.build(config)


@pytest.mark.parametrize("arch", ["fastvit", "convnext"])
def test_a_stock_segmentor_of_mmseg_trains_and_predicts(arch: str) -> None:
    DefaultScope.get_instance(f"fcn-on-{arch}", scope_name="mmseg")
    from mmseg.registry import MODELS as SEGMENTATION

    config = stock_config("mmseg", "fcn/fcn_r50-d8_4xb2-40k_cityscapes-512x1024.py").model
    config.backbone = dict(type="CLIPConvNet", arch=ARCHS[arch], trainable=("all",))
    config.backbone["out_indices"] = (2, 3)
    config.decode_head.update(in_channels=64, in_index=1, channels=8)
    config.auxiliary_head.update(in_channels=32, in_index=0, channels=8)
    statistics = build(arch).statistics
    for name in ("mean", "std"):
        of_pixels = [255 * value for value in getattr(statistics, name)]
        config.data_preprocessor[name] = of_pixels
    model = SEGMENTATION.build(config)
    losses = step(model, "mmseg")
    assert losses and all(value.isfinite() for value in losses.values())


def segmentor(arch: str, **test_cfg: Any) -> Any:
    return OpenVocabSegmentor(
        backbone=dict(type="CLIPConvNet", arch=ARCHS[arch]),
        decode_head=dict(
            type="CosineSegHead",
            embeddings=EMBEDDINGS,
            vocabulary=["sky", "grass", "cow"],
            logit_scale=100.0,
        ),
        test_cfg=dict(return_probs=True, **test_cfg),
    ).eval()


@pytest.mark.parametrize("arch", ARCHS)
def test_segmentor_scores_the_dense_map(arch: str) -> None:
    torch.manual_seed(0)
    model = segmentor(arch, mode="slide", crop_size=(128, 128), stride=(64, 64))
    image = torch.randn(1, 3, 128, 128)
    (result,) = model.predict(image)
    unit = F.normalize(model.backbone.dense(image).map, dim=1)
    cosines = torch.einsum("qe,behw->bqhw", EMBEDDINGS, unit)
    logits = 100 * F.interpolate(cosines, size=(128, 128), mode="bilinear", align_corners=False)[0]
    torch.testing.assert_close(result.seg_logits.data, logits.softmax(dim=0), rtol=0, atol=1e-4)
    assert torch.equal(result.pred_sem_seg.data[0], result.seg_logits.data.argmax(dim=0))


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("mode", ["whole", "slide"])
def test_segmentor_takes_photos_of_any_size(arch: str, mode: str) -> None:
    crops = dict(crop_size=(128, 128), stride=(64, 64)) if mode == "slide" else {}
    model = segmentor(arch, mode=mode, **crops)
    for size in ((20, 15), (65, 127), (150, 130)):
        sample = SegDataSample(metainfo=dict(ori_shape=size, img_shape=size))
        (result,) = model.predict(torch.randn(1, 3, *size), [sample])
        assert result.pred_sem_seg.data.shape == (1, *size)
        assert isinstance(result.pred_sem_seg, PixelData)
        assert np.isfinite(result.seg_logits.data.numpy()).all()


@pytest.mark.parametrize("arch", ["fastvit", "convnext"])
def test_it_tags_photos(arch: str) -> None:
    """CLIP's zero-shot recognition and DCLIP's tokens, which have no mean token here."""
    text_cfg = dict(context_length=16, vocab_size=49408, width=32, heads=2, layers=1)
    whole = {**ARCHS["convnext"], "text_cfg": text_cfg}
    encoder = dict(type="CLIPConvNet", arch={**ARCHS[arch], "text_cfg": text_cfg})
    text = dict(type="OpenCLIPTextEncoder", arch=whole, cache_dir=False, progress=False)
    if arch == "fastvit":
        text["arch"] = encoder["arch"]
    names, images = ["cat", "dog"], torch.randn(2, 3, 64, 96)
    plain = MODELS.build(
        dict(type="ZeroShotRecognizer", encoder=encoder, text_encoder=text, vocabulary=names)
    ).eval()
    embeddings = plain.text.embeddings()
    image = plain.encoder.tower.encode_image(images)
    want = 100 * F.cosine_similarity(image[:, None], embeddings[None], dim=2)
    torch.testing.assert_close(plain(images), want, rtol=1e-4, atol=1e-4)
    dclip = MODELS.build(
        dict(type="DCLIP", encoder=encoder, text_encoder=text, vocabulary=names)
    ).eval()
    tokens = dclip.tokens(images)
    assert torch.equal(tokens, dclip.encoder.dense(images).map.flatten(2).mT)
    assert dclip(images).shape == (2, 2, 2)

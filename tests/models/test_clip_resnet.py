"""CLIPResNet as a citizen of the mm world: pyramid, dense map, weights, what is trained."""

from __future__ import annotations

from pathlib import Path

import mmseg
import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import load_checkpoint, save_checkpoint
from mmengine.runner.checkpoint import get_state_dict
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

import mmclipdis  # noqa: F401  (registers the modules)
from mmclipdis.clip.towers.readout import READOUTS
from mmclipdis.models.segmentation import OpenVocabSegmentor
from mmclipdis.utils.statistics import CLIP
from tests.tiny import tiny_arch, tiny_resnet_arch

STAGES = (0, 1, 2, 3)


def build(**kwargs):
    return MODELS.build(dict(type="CLIPResNet", arch=tiny_resnet_arch(), **kwargs))


def trained_names(module):
    return {name for name, p in module.named_parameters() if p.requires_grad}


def test_defaults_are_those_of_dclip():
    with torch.device("meta"):
        backbone = MODELS.build(dict(type="CLIPResNet"))
    assert backbone.arch == "RN101-quickgelu" and backbone.embed_dim == 512
    assert (backbone.width, backbone.patch_size) == (2048, (32, 32))
    assert backbone.readout == READOUTS["v"] and backbone.tower.positions == "size"
    assert not trained_names(backbone)


def test_dense_has_the_mean_token_and_on_demand_the_embedding():
    backbone, images = build(), torch.randn(2, 3, 64, 64)
    features = backbone.dense(images)
    assert features.mean_token.shape == (2, 32) and features.cls is None
    embedding = backbone.dense(images, with_cls=True).cls
    torch.testing.assert_close(embedding, backbone.tower.visual(images))
    assert build(mean_token=False).dense(images).mean_token is None


def test_a_new_frozen_backbone_has_no_batch_norm_in_train_mode():
    frozen, learning = build(norm_eval=False), build(norm_eval=False, trainable=("all",))
    norm_modes = [
        {m.training for m in backbone.modules() if isinstance(m, torch.nn.BatchNorm2d)}
        for backbone in (frozen, learning)
    ]
    assert norm_modes == [{False}, {True}]


def test_a_frozen_backbone_keeps_no_graph():
    features = build().train().dense(torch.randn(1, 3, 64, 64), with_cls=True)
    assert not any(t.requires_grad for t in (features.map, features.cls, features.mean_token))


@pytest.fixture
def clip_file(tmp_path):
    torch.manual_seed(1)
    model = open_clip.CLIP(**tiny_resnet_arch())
    with torch.no_grad():
        for name, tensor in model.visual.state_dict().items():
            if name.endswith(("running_mean", "running_var", "bn3.weight")):
                tensor.add_(torch.rand_like(tensor))
    torch.save(model.state_dict(), tmp_path / "clip.pt")
    return tmp_path / "clip.pt", model.eval()


def from_file(path, **kwargs):
    backbone = build(init_cfg=dict(type="Pretrained", checkpoint=str(path)), **kwargs)
    backbone.init_weights()
    return backbone


def test_image_and_text_encoder_load_from_the_same_file(clip_file):
    path, model = clip_file
    images, tokens = torch.randn(2, 3, 64, 64), torch.tensor([[1, 5, 7, 99] + [0] * 12])
    backbone = from_file(path)
    init_cfg = dict(type="Pretrained", checkpoint=str(path))
    text = MODELS.build(
        dict(type="OpenCLIPTextEncoder", arch=tiny_resnet_arch(), init_cfg=init_cfg)
    )
    text.init_weights()
    assert text.embed_dim == backbone.embed_dim == 32
    with torch.no_grad():
        expected = model.encode_image(images), model.encode_text(tokens)
        got = backbone.dense(images, with_cls=True).cls, text(tokens)
    torch.testing.assert_close(got, expected)


def test_weights_are_loaded_once_and_not_by_the_constructor(clip_file):
    path, model = clip_file
    backbone = build(init_cfg=dict(type="Pretrained", checkpoint=str(path)))
    own, stored = backbone.tower.visual.conv1.weight, model.visual.conv1.weight
    assert not torch.equal(own, stored)
    backbone.init_weights()
    assert torch.equal(own, stored)
    with torch.no_grad():
        own.zero_()
    backbone.init_weights()  # a second call must not undo training
    assert own.abs().max() == 0


def test_a_run_is_saved_and_loaded_with_its_marks(clip_file, tmp_path):
    run, model, images = tmp_path / "run.pth", torch.nn.Module(), torch.randn(1, 3, 64, 64)
    model.backbone = from_file(clip_file[0])
    expected = model.backbone(images)[0]
    save_checkpoint({"state_dict": get_state_dict(model), "meta": {}}, str(run))
    assert torch.equal(from_file(run)(images)[0], expected)
    model.backbone = build()
    load_checkpoint(model, str(run), strict=True)
    assert torch.equal(model.backbone(images)[0], expected)
    with pytest.raises(ValueError, match=r"run.pth' was saved with the readout 'v'.*'vv'"):
        from_file(run, readout="vv")
    assert torch.isfinite(from_file(run, readout="vv", any_readout=True)(images)[0]).all()
    gelu = MODELS.build(dict(type="CLIPResNet", arch=tiny_resnet_arch() | {"quick_gelu": False}))
    model.backbone = gelu
    with pytest.raises(ValueError, match="was trained with QuickGELU"):
        load_checkpoint(model, str(run))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        (dict(out_indices=("mpa",)), "'mpa' is neither 'map' nor a stage of a CLIP ResNet, 0 to 3"),
        (dict(out_indices=(4,)), "4 is neither 'map' nor a stage"),
        (dict(out_indices=()), "out_indices is empty"),
        (dict(readout="vanilla"), "readout 'vanilla' needs transformer blocks.* choose 'v'"),
        (dict(readout="clip_surgery"), "readout 'clip_surgery' needs transformer blocks"),
        (dict(positions="bicubic"), "unknown position rule 'bicubic'"),
        (dict(trainable=("q", "v")), r"trainable=\('q', 'v'\): choose \(\) or \('all',\)"),
        (dict(trainable=("blocks", 1)), r"trainable=\('blocks', 1\): choose \(\) or \('all',\)"),
    ],
)
def test_wrong_arguments_are_clear_errors(kwargs, message):
    with pytest.raises(ValueError, match=message):
        build(**kwargs)


def test_a_vit_and_a_resnet_each_name_the_backbone_to_use():
    with pytest.raises(ValueError, match="use the backbone CLIPViT"):
        MODELS.build(dict(type="CLIPResNet", arch=tiny_arch()))
    with pytest.raises(ValueError, match="use the backbone CLIPResNet"):
        MODELS.build(dict(type="CLIPViT", arch="RN50-quickgelu"))
    with pytest.raises(ValueError, match="CLIPResNet.init_cfg must be"):
        build(init_cfg=dict(type="Kaiming", layer="Conv2d")).init_weights()


@pytest.mark.parametrize("readout", ["v", "vv"])
def test_runs_under_autocast(readout):
    backbone, images = build(readout=readout), torch.randn(1, 3, 64, 96)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (half,) = backbone(images)
    (full,) = backbone(images)
    assert (half.float() - full).abs().max() < 0.1 * full.abs().max()


def test_stock_upernet_of_mmseg_trains_on_the_stages():
    DefaultScope.get_instance("upernet-on-clip", scope_name="mmseg")
    configs = Path(mmseg.__file__).parent / ".mim" / "configs" / "_base_" / "models"
    cfg = Config.fromfile(configs / "upernet_r50.py").model
    cfg.pop("pretrained", None)
    widths, norm = [32, 64, 128, 256], dict(type="BN", requires_grad=True)
    cfg.backbone = dict(
        type="CLIPResNet", arch=tiny_resnet_arch(), out_indices=STAGES, trainable=("all",)
    )
    cfg.decode_head.update(in_channels=widths, channels=8, num_classes=3, norm_cfg=norm)
    cfg.auxiliary_head.update(in_channels=widths[2], channels=8, num_classes=3, norm_cfg=norm)
    mean, std = CLIP.of_bytes
    cfg.data_preprocessor.update(size=(64, 96), mean=mean, std=std)
    model = MODELS.build(cfg).train()
    sample = SegDataSample(metainfo=dict(img_shape=(64, 96), ori_shape=(64, 96)))
    label = np.random.default_rng(0).integers(0, 3, (1, 64, 96))
    sample.gt_sem_seg = PixelData(data=torch.from_numpy(label))
    image = torch.randint(0, 255, (3, 64, 96), dtype=torch.uint8)
    batch = dict(inputs=[image] * 2, data_samples=[sample] * 2)
    losses = model(**model.data_preprocessor(batch, training=True), mode="loss")
    total, _ = model.parse_losses(losses)
    total.backward()
    assert total.isfinite()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


def test_segmentor_scores_the_dense_map_and_pads_small_windows():
    torch.manual_seed(0)
    embeddings = F.normalize(torch.randn(3, 32), dim=1)
    model = OpenVocabSegmentor(
        backbone=dict(type="CLIPResNet", arch=tiny_resnet_arch(), readout="vv"),
        decode_head=dict(
            type="CosineSegHead",
            embeddings=embeddings,
            vocabulary=["sky", "grass", "cow"],
            logit_scale=100.0,
        ),
        test_cfg=dict(mode="slide", crop_size=(64, 64), stride=(32, 32), return_probs=True),
    ).eval()
    image = torch.randn(1, 3, 64, 64)
    (result,) = model.predict(image)
    unit = F.normalize(model.backbone.dense(image).map, dim=1)
    cosines = torch.einsum("qe,behw->bqhw", embeddings, unit)
    logits = 100 * F.interpolate(cosines, size=(64, 64), mode="bilinear", align_corners=False)[0]
    torch.testing.assert_close(result.seg_logits.data, logits.softmax(dim=0), rtol=0, atol=1e-4)
    assert torch.equal(result.pred_sem_seg.data[0], result.seg_logits.data.argmax(dim=0))
    small = SegDataSample(metainfo=dict(ori_shape=(40, 30)))
    (result,) = model.predict(torch.randn(1, 3, 20, 15), [small])
    assert result.pred_sem_seg.data.shape == (1, 40, 30)

"""The CAT-Seg segmentor: training, testing, vocabulary, views."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from mmengine.model import MMDistributedDataParallel
from mmengine.runner.checkpoint import load_state_dict
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

import mmclipdis  # noqa: F401
from mmclipdis.engine.random_weights import take_as_meant
from mmclipdis.models.segmentation.catseg.views import CATSegTestSettings, views_of
from mmclipdis.models.segmentation.prediction import full_size_scores
from mmclipdis.models.segmentation.windows import coverage, cut, slide_windows
from tests.ranks import group_of_one

ARCH = {
    "embed_dim": 12,
    "quick_gelu": True,
    "vision_cfg": {
        "image_size": 32,
        "layers": 3,
        "width": 16,
        "head_width": 8,
        "patch_size": 8,
    },
    "text_cfg": {
        "context_length": 16,
        "vocab_size": 49408,
        "width": 16,
        "heads": 2,
        "layers": 2,
    },
}
AGGREGATOR = {
    "hidden_dim": 16,
    "num_layers": 1,
    "num_heads": 2,
    "window_size": 3,
    "guidance_proj_dims": (4, 4),
    "decoder_dims": (16, 8),
    "pad_len": 8,
    "max_classes": None,
}
NAMES = ("sky", "red car", "tree, plant", "road")
QV = ("q", "v")


def build(**options):
    torch.manual_seed(0)
    config = {
        "type": "CATSeg",
        "image_encoder": {"type": "CLIPViT", "arch": ARCH, "readout": "catseg", "trainable": QV},
        "text_encoder": {"type": "OpenCLIPTextEncoder", "arch": ARCH, "trainable": QV},
        "decode_head": {"type": "CATSegHead", "guidance_dims": (8, 4), "aggregator": AGGREGATOR},
        "vocabulary": list(NAMES),
        "clip_size": (48, 48),
        "guidance_indices": (0, 1),
        "test_cfg": {"mode": "whole"},
    }
    model = MODELS.build({**config, **options})
    take_as_meant(model)
    return model


def sample(height, width, classes=4, **meta):
    torch.manual_seed(height + width)
    labels = torch.randint(0, classes, (1, height, width))
    labels[:, -3:] = 255
    out = SegDataSample(metainfo=meta)
    out.gt_sem_seg = PixelData(data=labels)
    return out


@pytest.mark.parametrize("encoder", ["CLIPViT", "DeCLIPViT"])
def test_one_training_step_reaches_q_and_v_of_both_encoders_only(encoder):
    image_encoder = {"type": encoder, "arch": ARCH, "trainable": QV}
    if encoder == "CLIPViT":
        image_encoder["readout"] = "catseg"
    model = build(image_encoder=image_encoder).train()
    inputs = torch.randn(2, 3, 40, 56)
    losses = model(inputs, [sample(40, 56), sample(40, 56)], mode="loss")
    assert list(losses) == ["decode.loss_bce"]
    losses["decode.loss_bce"].backward()
    for name, parameter in model.named_parameters():
        in_encoder = name.startswith(("image_encoder", "text_encoder"))
        assert (parameter.grad is not None) == parameter.requires_grad, name
        if in_encoder:
            is_qv = name.endswith(("q_proj_weight", "v_proj_weight"))
            # The released readout uses only values of the last block.
            unread = encoder == "CLIPViT" and "resblocks.2.attn.q_proj_weight" in name
            assert parameter.requires_grad == (is_qv and not unread), name
        if parameter.requires_grad and not name.endswith("attn.k.bias"):
            assert parameter.grad.any(), f"{name} has a zero gradient"


def test_an_optimiser_step_moves_nothing_that_is_frozen():
    model = build().train()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
    model(torch.randn(1, 3, 48, 48), [sample(48, 48)], mode="loss")["decode.loss_bce"].backward()
    optimizer.step()
    for name, parameter in model.named_parameters():
        assert torch.equal(before[name], parameter) == (not parameter.requires_grad), name


@pytest.mark.parametrize("pad_len", [2, 8])
def test_ddp_finds_no_unused_parameter(pad_len):
    """DDP stops in the second iteration if a parameter got no gradient in the first."""
    head = {"type": "CATSegHead", "guidance_dims": (8, 4)}
    head["aggregator"] = {**AGGREGATOR, "pad_len": pad_len}
    model = build(decode_head=head).train()
    with group_of_one():
        wrapped = MMDistributedDataParallel(model)
        for _ in range(2):
            losses = wrapped(torch.randn(1, 3, 48, 48), [sample(48, 48)], mode="loss")
            losses["decode.loss_bce"].backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


def test_the_loss_is_that_of_upsampled_logits():
    model = build(vocabulary=list(NAMES)).eval()
    data = sample(40, 56)
    inputs = torch.randn(1, 3, 40, 56)
    with torch.no_grad():
        logits = F.interpolate(model(inputs, mode="tensor"), size=(40, 56), mode="bilinear")
        value = model(inputs, [data], mode="loss")["decode.loss_bce"]
    labels = data.gt_sem_seg.data
    target = torch.stack([labels[0] == c for c in range(4)])[None].float()
    torch.testing.assert_close(value, F.binary_cross_entropy_with_logits(logits, target))


@pytest.mark.parametrize("mode", ["whole", "slide", "slide_with_global"])
def test_predicts_label_maps_at_photo_size_for_images_of_several_sizes(mode):
    settings = {"mode": mode, "size": (64, 64), "crop_size": (40, 40), "stride": (24, 24)}
    model = build(test_cfg={**settings, "window_batch_size": 3}).eval()
    images = [torch.randn(3, 40, 56), torch.randn(3, 70, 33)]
    samples = [sample(40, 56, ori_shape=(81, 113)), sample(70, 33)]
    results = model(images, samples, mode="predict")
    assert [tuple(r.pred_sem_seg.shape) for r in results] == [(81, 113), (70, 33)]
    assert all("seg_logits" not in r for r in results)
    # Streaming over chunks of classes, and encoding in other batches, change nothing.
    model.test_cfg = {**settings, "window_batch_size": 50, "return_probs": True}
    for image, data, result in zip(images, samples, results, strict=True):
        alone = model([image], [data.clone()], mode="predict")[0]
        assert alone.seg_logits.data.shape[0] == len(NAMES)
        assert (alone.seg_logits.data >= 0).all()
        assert (alone.seg_logits.data <= 1).all()
        agreement = (alone.pred_sem_seg.data == result.pred_sem_seg.data).double().mean()
        assert agreement > 0.999  # ties by rounding


@pytest.mark.parametrize("max_classes", [None, 2])
def test_labels_do_not_depend_on_the_budgets_of_memory(max_classes):
    head = {"type": "CATSegHead", "guidance_dims": (8, 4)}
    settings = {
        "mode": "slide_with_global",
        "size": (64, 64),
        "crop_size": (40, 40),
        "stride": (24, 24),
    }
    image = torch.randn(3, 40, 56, dtype=torch.float64, generator=torch.manual_seed(0))
    results = []
    for budget in (float("inf"), 1e-9):
        head["aggregator"] = {**AGGREGATOR, "max_classes": max_classes, "chunk_mb": budget}
        model = build(decode_head=head, test_cfg={**settings, "chunk_mb": budget}).double().eval()
        results.append(model([image], [sample(40, 56, ori_shape=(81, 113))], mode="predict")[0])
    assert torch.equal(*(result.pred_sem_seg.data for result in results))
    assert results[0].pred_sem_seg.data.unique().numel() > 1


def test_window_scores_are_in_full_precision_under_autocast():
    """Ties of half-precision logits would show as steps in the labels."""
    model = build(test_cfg={"mode": "slide", "size": 64, "crop_size": 40, "stride": 24}).eval()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        (scores,) = model.window_scores([torch.randn(3, 40, 56)])
    assert scores.maps.dtype == torch.float32


def test_padding_of_the_batch_does_not_influence_the_result():
    model = build().eval()
    image = torch.randn(1, 3, 40, 40)
    alone = model(image, [SegDataSample()], mode="predict")[0]
    padded = F.pad(image, (0, 16, 0, 8), value=3.0)
    meta = {"img_padding_size": (0, 16, 0, 8), "ori_shape": (40, 40)}
    result = model(padded, [SegDataSample(metainfo=meta)], mode="predict")[0]
    assert torch.equal(result.pred_sem_seg.data, alone.pred_sem_seg.data)


def test_normalising_before_the_resize_equals_the_released_order():
    photo = 255 * torch.rand(2, 3, 50, 37, dtype=torch.float64)
    mean = torch.tensor([122.771, 116.746, 104.094], dtype=torch.float64).view(3, 1, 1)
    std = torch.tensor([68.501, 66.632, 70.323], dtype=torch.float64).view(3, 1, 1)

    def resized(x):
        return F.interpolate(x, size=(48, 48), mode="bilinear", align_corners=False)

    torch.testing.assert_close(resized((photo - mean) / std), (resized(photo) - mean) / std)


# Golden S: the published sliding protocol.
CLIP_SIZE = (384, 384)
PUBLISHED = CATSegTestSettings.from_cfg({"mode": "slide_with_global"})


def test_golden_windows_cover_one_two_or_four_times():
    windows = slide_windows(PUBLISHED.size, PUBLISHED.crop_size, PUBLISHED.stride)
    assert windows.starts == ((0, 0), (0, 256), (256, 0), (256, 256))
    counts = coverage(windows, torch.device("cpu"), torch.float32)
    levels, pixels = counts.unique(return_counts=True)
    assert levels.tolist() == [1, 2, 4]
    assert pixels.tolist() == [262_144, 131_072, 16_384]
    assert counts.sum() == 589_824
    row = counts[0].tolist()
    assert row == [1] * 256 + [2] * 128 + [1] * 256


def test_golden_constant_logits_become_their_sigmoid():
    views = views_of(torch.zeros(3, 480, 650), PUBLISHED, CLIP_SIZE)
    assert [tuple(p.shape) for p in views.pictures] == [(3, 640, 640), (3, 384, 384)]
    assert [(len(x), x.crop) for x in views.layouts] == [(4, (384, 384)), (1, (384, 384))]
    scores = views.scores([torch.full((n, 2, 96, 96), 0.7) for n in (4, 1)])
    probabilities = full_size_scores(scores, (480, 650), torch.sigmoid)
    expected = torch.sigmoid(torch.full((2, 480, 650), 0.7))
    torch.testing.assert_close(probabilities, expected, atol=1e-6, rtol=0)


def test_golden_a_linear_field_reproduces_itself():
    """A field linear in x, read by every view at its own resolution, comes out again."""
    field = torch.linspace(-2, 2, 640)  # at the 640 px canvas
    image = field.expand(3, 640, 640)
    views = views_of(image, PUBLISHED, CLIP_SIZE)
    logits = [
        F.interpolate(cut(p, x)[:, :1], size=(96, 96), mode="bilinear", antialias=True)
        for p, x in zip(views.pictures, views.layouts, strict=True)
    ]
    result = full_size_scores(views.scores(logits), (640, 640), activation=lambda x: x)
    # Resizing bends the field at the borders of the views: leave 8 px around each of them.
    inside = torch.ones(640, dtype=torch.bool)
    for border in (0, 256, 384, 640):
        inside[max(border - 8, 0) : border + 8] = False
    torch.testing.assert_close(result[0, 320, inside], field[inside], atol=2e-3, rtol=0)


def test_the_vocabulary_can_change_at_run_time():
    model = build().eval()
    image = torch.randn(1, 3, 48, 48)
    first = model(image, mode="tensor")
    assert first.shape[1] == 4
    model.set_vocabulary(["road", "sky"])
    second = model(image, mode="tensor")
    assert second.shape[1] == 2
    assert model.num_classes == 2
    model.set_vocabulary(list(NAMES))
    torch.testing.assert_close(model(image, mode="tensor"), first)


def test_only_the_first_of_several_names_is_used():
    model = build()
    assert model.vocabulary.class_names == ("sky", "red car", "tree", "road")
    model.set_vocabulary([("fir", "spruce"), "bag", "bag"])  # a shared name is a tie, no error
    assert model.vocabulary.class_names == ("fir", "bag", "bag")
    assert model.vocabulary.prompts()[0] == ("A photo of a fir in the scene",)


def test_names_of_two_classes_may_coincide_wherever_they_come_from(tmp_path):
    file = tmp_path / "classes.txt"
    file.write_text("door\ndouble door, door\nbag\nbag, handbag\n")
    model = build()
    for vocabulary in (str(file), {"file": file}):
        model.set_vocabulary(vocabulary)
        assert model.vocabulary.class_names == ("door", "double door", "bag", "bag")
    model.set_vocabulary({"names": ["bag", "bag"]})
    assert model.num_classes == 2


def test_cached_embeddings_follow_the_weights():
    model = build()
    training = model.train().class_embeddings()
    assert training.requires_grad
    cached = model.eval().class_embeddings()
    assert not cached.requires_grad
    torch.testing.assert_close(training.detach(), cached)
    with torch.no_grad():
        for parameter in model.text_encoder.parameters():
            parameter.mul_(1.5)
    assert not torch.allclose(model.class_embeddings(), cached)


def test_a_model_that_follows_its_data_waits_for_the_names():
    model = build(vocabulary="dataset")
    assert model.follow_dataset
    assert model.vocabulary is None
    with pytest.raises(ValueError, match="does not know its classes"):
        model(torch.randn(1, 3, 48, 48), mode="tensor")
    model.set_vocabulary(NAMES)
    assert model(torch.randn(1, 3, 48, 48), mode="tensor").shape == (1, 4, 24, 24)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clip_size": (50, 48)}, "clip_size"),
        ({"clip_size": (4, 4)}, "clip_size"),
        ({"test_cfg": {"mode": "slid"}}, "mode"),
        ({"test_cfg": {"mode": "whole", "stirde": (1, 1)}}, "stirde"),
        ({"test_cfg": {"chunk_mb": 0}}, "chunk_mb"),
        ({"test_cfg": {"chunk_mb": None}}, "chunk_mb"),
        ({"test_cfg": {"window_batch_size": 0}}, "window_batch_size"),
        ({"test_cfg": {"window_batch_size": 2.5}}, "window_batch_size"),
        ({"test_cfg": {"val_mode": "sliding"}}, "val_mode"),
        ({"test_cfg": {"return_probs": "yes"}}, "return_probs"),
        ({"test_cfg": {"window_padding": "floor"}}, "unknown keys.*window_padding"),
        ({"test_cfg": {"mode": "slide", "crop_size": 12, "stride": 13}}, "stride"),
        ({"test_cfg": {"size": (1, 2, 3)}}, r"test_cfg\.size"),
        ({"train_cfg": {"size": 1}}, "no train_cfg"),
        ({"guidance_indices": (0,)}, "guidance_indices"),
        ({"guidance_indices": (0, 9)}, "guidance_indices"),
        ({"guidance_indices": (1, 0)}, "shallowest first"),
        ({"decode_head": {"type": "CATSegHead", "embed_dim": 7}}, "embed_dim"),
        (
            {"text_encoder": {"type": "OpenCLIPTextEncoder", "arch": {**ARCH, "embed_dim": 8}}},
            "arch",
        ),
    ],
)
def test_bad_settings_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_more_labels_than_classes_is_an_error():
    model = build()
    data = sample(48, 48)
    data.gt_sem_seg.data[0, 0, 0] = 6
    data.set_metainfo({"seg_map_path": "labels/0001.png"})
    with pytest.raises(ValueError, match=r"labels/0001\.png has 6; with 4 classes"):
        model(torch.randn(1, 3, 48, 48), [data], mode="loss")


@pytest.mark.parametrize(("saved", "loaded"), [(QV, ()), ((), QV)])
def test_checkpoints_of_frozen_and_of_tuned_encoders_load_into_each_other(saved, loaded):
    """A frozen encoder holds q, k and v as one tensor, a tuned one as three."""

    def model(trainable):
        encoder = {"arch": ARCH, "trainable": trainable}
        return build(
            image_encoder={"type": "CLIPViT", "readout": "catseg", **encoder},
            text_encoder={"type": "OpenCLIPTextEncoder", **encoder},
        )

    source, target = model(saved).eval(), model(loaded).eval()
    with torch.no_grad():
        for parameter in source.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    load_state_dict(target, source.state_dict(), strict=True)  # mmengine's
    image = torch.randn(1, 3, 48, 48)
    with torch.no_grad():
        torch.testing.assert_close(target(image, mode="tensor"), source(image, mode="tensor"))


def test_a_stock_loss_gets_logits_at_label_size():
    stock = {"type": "mmseg.CrossEntropyLoss", "use_sigmoid": True, "loss_weight": 1.0}
    head = {"type": "CATSegHead", "guidance_dims": (8, 4), "aggregator": AGGREGATOR}
    model = build(decode_head={**head, "loss": stock}).train()
    losses = model(torch.randn(1, 3, 40, 56), [sample(40, 56)], mode="loss")
    assert losses["decode.loss_ce"].isfinite()

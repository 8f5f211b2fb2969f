"""Tokens of windows are put together before the head, and mixed over the whole image."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from mmclipdis.clip.towers.blocks import view_of
from mmclipdis.clip.towers.stitched import last_values
from mmclipdis.models.segmentation.open_vocab_segmentor import OpenVocabSegmentor
from mmclipdis.models.segmentation.stitching import in_patches
from mmclipdis.models.segmentation.token_stitching import whole_multiple
from mmclipdis.models.segmentation.windows import NO_PADDING, slide_windows, stitch
from tests.faults.endings import raises
from tests.models.segmentation import fakes  # noqa: F401  (registers a backbone)
from tests.tiny import tiny_arch

SLIDE: dict[str, Any] = dict(mode="slide", crop_size=(48, 48), stride=(32, 32))
AFFINITY: dict[str, Any] = dict(shift=1.2, scale=3.0, keep="positive")


@MODELS.register_module()
class Turn(nn.Module):
    """A token mixer that turns the map by a grid of its own; it knows the pixels that it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.seen: list[Tensor] = []

    def forward(self, pixels: Tensor, tokens: Tensor) -> Tensor:
        """The tokens upside down, columns doubled."""
        self.seen.append(pixels)
        return self.weight * tokens.flip(2).repeat_interleave(2, dim=3)


def segmentor(
    affinity: dict[str, Any] | None = None, patch: int = 16, mixer: Any = None, **test_cfg: Any
) -> Any:
    """A tiny CLIP with random weights, guided by the vision model of ShapeScenes, in float64."""
    torch.manual_seed(0)
    readout = dict(attention="affinity", affinity={**AFFINITY, **(affinity or {})})
    vfm = dict(
        type="TimmVFM", model="shapes-vfm", init_cfg=dict(type="Pretrained", checkpoint="shapes")
    )
    arch = tiny_arch(patch_size=patch)
    model = OpenVocabSegmentor(
        backbone=dict(type="CLIPViT", arch=arch, readout=readout, vfm=vfm, init_cfg=None),
        decode_head=dict(
            type="CosineSegHead", embeddings=torch.randn(5, 32), vocabulary=list("abcde")
        ),
        test_cfg=dict(return_probs=True, **test_cfg),
        token_mixer=mixer,
    )
    model.init_weights()
    torch.manual_seed(0)
    for parameter in model.backbone.tower.parameters():
        parameter.data = torch.randn_like(parameter) * 0.2
    return model.double().eval()


def photo(height: int, width: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(1, 3, height // 8, width // 8, generator=generator, dtype=torch.float64)
    return F.interpolate(coarse, size=(height, width), mode="bilinear")[0]


def probabilities(model: Any, image: Tensor, size: tuple[int, int] | None = None) -> Tensor:
    samples = None if size is None else [SegDataSample(metainfo=dict(ori_shape=size))]
    return model.predict(image[None], samples)[0].seg_logits.data


@pytest.fixture(scope="module")
def model() -> Any:
    return segmentor(stitch="tokens", **SLIDE)


def test_one_window_equals_scores() -> None:
    """Whole patches, and images that are padded around."""
    models = [segmentor(stitch=stitch, mode="whole") for stitch in ("tokens", "scores")]
    for size in ((48, 80), (44, 80), (40, 30)):
        for out in (size, (31, 53)):
            tokens, scores = (probabilities(model, photo(*size), out) for model in models)
            torch.testing.assert_close(tokens, scores)
            assert tokens.shape == (5, *out)


def test_equals_the_steps_one_by_one(model: Any) -> None:
    """Cosines less the mean of all windows, values at the grid of the vision model, merged, mean.

    Written with whole matrices, of windows one by one.
    """
    image = photo(64, 112)
    layout = slide_windows((64, 112), (48, 48), (32, 32))
    assert len(layout) == 6
    backbone, tower = model.backbone, model.backbone.tower
    units, values = [], []
    for rows, columns in layout.slices():
        window = image[None, :, rows, columns]
        tokens = backbone.vfm(backbone.vfm.from_clip(window))
        units.append(F.normalize(tokens.flatten(2)[0].T, dim=-1))  # (36, C)
        value = F.interpolate(last_values(tower, window), size=(6, 6), mode="bilinear")
        values.append(value.flatten(2)[0].T)
    similar = torch.stack([unit @ unit.T for unit in units])
    logits = 3.0 * (similar - 1.2 * similar.mean())
    logits[logits < 0] = -torch.inf
    logits.diagonal(dim1=1, dim2=2).copy_(3.0 * (1 - 1.2 * similar.mean()))
    mixed = logits.softmax(-1) @ torch.stack(values)
    merged = view_of(tower.blocks[-1]).merge(mixed).transpose(1, 2).reshape(6, -1, 6, 6)
    in_patches = slide_windows((8, 14), (6, 6), (4, 4))
    canvas = stitch(merged, in_patches).flatten(1).T
    joint = tower.to_joint(canvas[None])[0].T.reshape(1, -1, 8, 14)
    (scores,) = model.window_scores([image])
    torch.testing.assert_close(
        scores.maps, model.decode_head.normalized(model.decode_head((joint,)))
    )
    assert scores.is_whole
    # the mean of each window alone is another
    alone = torch.stack([s.mean() for s in similar])
    assert (alone - similar.mean()).abs().max() > 0.01


def test_images_and_batches_do_not_see_each_other(model: Any) -> None:
    images = [photo(64, 112, 1), photo(48, 80, 2), photo(64, 112, 3)]
    together = model.window_scores(images)
    one_by_one = segmentor(stitch="tokens", window_batch_size=1, **SLIDE)
    for image, scores in zip(images, together, strict=True):
        (alone,) = one_by_one.window_scores([image])
        torch.testing.assert_close(scores.maps, alone.maps)


def test_masks_are_cut_with_the_windows() -> None:
    """One window: as with scores. Two that do not overlap: each as if it were an image."""
    image, masks = photo(32, 64), torch.randint(0, 4, (32, 64), generator=torch.Generator())
    scoped = dict(shift=0.0, scale=4.0, keep="all", scope="masks", merge=0.2)
    stitched = segmentor(scoped, stitch="tokens", mode="slide", crop_size=32, stride=32)
    scores = segmentor(scoped, mode="slide", crop_size=32, stride=32)
    for part in (slice(0, 32), slice(32, 64)):
        both = [m.window_scores([image[..., part]], [masks[:, part]]) for m in (stitched, scores)]
        torch.testing.assert_close(*[found[0].maps for found in both])
    whole, windows = (m.window_scores([image], [masks])[0].maps for m in (stitched, scores))
    assert (whole.shape[-1], windows.shape[-1]) == (8, 4)
    raises("masks=dict", stitched.window_scores, [image])


def test_a_grid_that_is_no_multiple_of_that_of_clip_becomes_one() -> None:
    assert whole_multiple((21, 21), (24, 24)) == (24, 24)
    assert whole_multiple((42, 21), (21, 21)) == (42, 21)
    assert whole_multiple((3, 64), (24, 21)) == (24, 63)
    fine = segmentor(patch=4, stitch="tokens", mode="slide", crop_size=32, stride=16)
    (scores,) = fine.window_scores([photo(32, 64)])
    assert scores.maps.shape[-2:] == (8, 16)  # 4 x 4 tokens a window of 8 x 8 patches


def test_windows_lie_where_they_are_on_a_grid_of_broken_pixels() -> None:
    """63 tokens of a window of 336 pixels: 5.33 pixels each."""
    layout = slide_windows((336, 560), (336, 336), (224, 224))
    placed = in_patches(layout, NO_PADDING, (63, 63))
    assert (placed.size, placed.starts) == ((63, 105), ((0, 0), (0, 42)))


def test_a_mixer_sees_the_whole_image_once_and_stays_out_of_checkpoints(model: Any) -> None:
    image = photo(44, 112)
    mixed = segmentor(mixer=dict(type="Turn"), stitch="tokens", **SLIDE)
    plain, turned = (m.window_scores([image])[0].maps for m in (model, mixed))
    torch.testing.assert_close(turned, plain.flip(2).repeat_interleave(2, dim=3))
    assert [tuple(seen.shape) for seen in mixed.token_mixer.seen] == [(1, 3, 48, 112)]
    torch.testing.assert_close(mixed.token_mixer.seen[0][:, :, 2:-2], image[None])
    assert not any(p.requires_grad for p in mixed.token_mixer.parameters())
    assert not [key for key in mixed.state_dict() if key.startswith("token_mixer")]
    mixed.load_state_dict(mixed.state_dict(), strict=True)
    # mmseg's other ways go through it, too
    whole = segmentor(mixer=dict(type="Turn"), stitch="tokens", mode="whole")
    (scores,) = whole.window_scores([image[:, :32]])
    torch.testing.assert_close(
        whole.decode_head.normalized(whole(image[None, :, :32], mode="tensor")), scores.maps
    )


def test_what_cannot_be_stitched_ends_in_a_line(model: Any) -> None:
    def build(**changes: Any) -> None:
        backbone = dict(type="CLIPViT", arch=tiny_arch(), readout="clearclip", init_cfg=None)
        head = dict(type="CosineSegHead", embeddings=torch.eye(32)[:2], vocabulary=["a", "b"])
        OpenVocabSegmentor(**{**dict(backbone=backbone, decode_head=head), **changes})

    raises("stitch='tokens'.*readout='proxyclip'", build, test_cfg=dict(stitch="tokens"))
    branched = dict(type="CLIPViT", arch=tiny_arch(layers=5), readout="corrclip", init_cfg=None)
    branched["vfm"] = dict(type="TimmVFM", model="shapes-vfm", init_cfg=None)
    line = "stitch='tokens'.*without branches"
    raises(line, build, backbone=branched, test_cfg=dict(stitch="tokens"))
    surgery = dict(type="CosineSegHead", embeddings=torch.eye(32)[:2], vocabulary=["a", "b"])
    surgery["score_norm"], guided = "surgery", dict(branched, readout="proxyclip")
    line = "surgery.*stitch='values'.*leave stitch out, set redundant='empty'"
    raises(line, build, backbone=guided, decode_head=surgery, test_cfg=dict(stitch="values"))
    raises("token_mixer=Turn.*stitch='tokens'", build, token_mixer=dict(type="Turn"))
    for wrong in ("SAMMatrix", dict(type="PatchMeanBackbone"), len):
        raises("token_mixer must be", build, token_mixer=wrong, test_cfg=dict(stitch="tokens"))
    narrow = segmentor(stitch="tokens", mode="slide", crop_size=40, stride=24)
    raises("crop_size .40, 40. .*multiples of 16 x 16", narrow.window_scores, [photo(48, 80)])
    floor = segmentor(stitch="tokens", mode="whole", window_padding="floor")
    raises("44 x 80 pixels .*16 x 16.*symmetric", floor.window_scores, [photo(44, 80)])

"""Values of windows put together before the head: golden values, and what must not change."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from mmseg.structures import SegDataSample
from torch import Tensor

import mmclipdis  # noqa: F401  (registers the modules)
from mmclipdis.clip.towers.affinity import Guide, mix
from mmclipdis.clip.towers.readout_fields import Affinity
from mmclipdis.models.segmentation import OpenVocabSegmentor
from mmclipdis.models.segmentation.encoding import encode_each, encode_windows
from mmclipdis.models.segmentation.stitching import Canvases, in_patches, stitched_maps
from mmclipdis.models.segmentation.windows import NO_PADDING, Windows, slide_windows, stitch
from mmclipdis.utils.peak_memory import peak_mb
from tests.faults.endings import raises
from tests.models.segmentation.fakes import head_cfg
from tests.tiny import tiny_arch

GOLDEN = dict(rtol=0, atol=6e-7)
SHARP = Affinity(scale=4.0)


def as_map(rows: list[list[float]], grid: tuple[int, int]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64).T.unflatten(1, grid)


# --- golden values -----------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "start"), [(12, 4), (14, 6)])
def test_golden_windows_meet_on_the_grid_of_patches(width: int, start: int) -> None:
    windows = Windows((8, width), (8, 8), ((0, 0), (0, start)))
    maps = torch.tensor([[[[1.0, 2], [3, 4]]], [[[5, 6], [7, 8]]]])
    got = stitch(maps, in_patches(windows, NO_PADDING, (2, 2)))
    assert torch.equal(got, torch.tensor([[[1, 3.5, 6], [3, 5.5, 8]]]))


class TwoWindows:
    """A backbone whose windows have the values, and whose photo has the tokens, of the example."""

    pad_multiple = (4, 4)
    f = as_map([[1, 0], [1, 1], [0, 1]], (1, 3))
    windows = (as_map([[1, 0], [2, 0]], (1, 2)), as_map([[4, 2], [0, 1]], (1, 2)))

    def _which(self, images: Tensor) -> list[int]:
        return [int(image[0, 0, 0]) for image in images]  # a pixel says the column it lies in

    def values(self, images: Tensor) -> Tensor:
        return torch.stack([self.windows[which] for which in self._which(images)])

    def guide_tokens(self, images: Tensor) -> Tensor:
        return torch.stack([self.f[:, :, which : which + 2] for which in self._which(images)])

    def mixed_values(self, values: Tensor, guide: Guide) -> Tensor:
        self.stitched = values
        return mix(SHARP, guide, values).mT.unflatten(2, guide.grid)


def test_golden_values_under_one_affinity_of_the_image() -> None:
    backbone = TwoWindows()
    image = torch.arange(3.0).repeat_interleave(4).expand(3, 4, 12)
    layout = slide_windows((4, 12), (4, 8), (4, 4))
    (got,) = stitched_maps(backbone, [image], [layout], 16, [NO_PADDING])
    wanted = as_map([[1, 0], [3, 1], [0, 1]], (1, 3))
    torch.testing.assert_close(backbone.stitched[0], wanted, **GOLDEN)
    expected = as_map([[1.452827, 0.247098], [2.043440, 0.808688], [0.713715, 0.986210]], (1, 3))
    torch.testing.assert_close(got[0], expected, **GOLDEN)
    # with unit vectors as values the output is the matrix itself
    matrix = mix(SHARP, Guide(TwoWindows.f[None]), torch.eye(3).double()[None, :, None])
    rows = [[0.752902, 0.233309, 0.013790], [0.191312, 0.617376, 0.191312]]
    wanted = torch.tensor([*rows, rows[0][::-1]], dtype=torch.float64)
    torch.testing.assert_close(matrix[0], wanted, **GOLDEN)


def test_golden_values_of_an_affinity_a_window_differ() -> None:
    tokens = torch.stack([TwoWindows.f[:, :, i : i + 2] for i in (0, 1)])
    out = mix(SHARP, Guide(tokens), torch.stack(TwoWindows.windows)).mT.unflatten(2, (1, 2))
    got = stitch(out, Windows((1, 3), (1, 2), ((0, 0), (0, 1))))
    expected = as_map([[1.236571, 0], [2.408573, 0.881715], [0.946283, 1.236571]], (1, 3))
    torch.testing.assert_close(got, expected, **GOLDEN)


def test_patches_of_no_whole_number_of_pixels_lie_where_their_window_does() -> None:
    """SAM squeezes every window to its own size: 64 rows for 336 pixels."""
    windows = slide_windows((448, 597), (336, 336), (112, 112))
    found = in_patches(windows, NO_PADDING, (64, 64))
    assert [start for start in found.starts if start[0] == 0] == [(0, 0), (0, 21), (0, 42), (0, 49)]
    assert found.size == (64 + 21, 64 + 49) and found.crop == (64, 64)


# --- whole models ------------------------------------------------------------------------------

VFM = dict(
    type="TimmVFM",
    model="dino-B-8",
    model_kwargs=dict(depth=2, embed_dim=24, num_heads=2),
)


def segmentor(readout: Any = "proxyclip", vfm: Any = VFM, **test_cfg: Any) -> OpenVocabSegmentor:
    torch.manual_seed(0)
    backbone = dict(type="CLIPViT", arch=tiny_arch(width=32, layers=2), readout=readout, vfm=vfm)
    head = dict(type="CosineSegHead", embeddings=torch.randn(4, 32), vocabulary=list("abcd"))
    model = OpenVocabSegmentor(backbone, head, test_cfg=dict(return_probs=True, **test_cfg))
    return model.double().eval()


def probabilities(model: OpenVocabSegmentor, image: Tensor) -> Tensor:
    size = (image.shape[-2] + 3, image.shape[-1] - 5)
    found = model.predict(image[None], [SegDataSample(metainfo=dict(ori_shape=size))])
    data: Tensor = found[0].seg_logits.data
    return data


def photo(height: int, width: int) -> Tensor:
    generator = torch.manual_seed(1)
    return torch.randn(3, height, width, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize(
    ("size", "test_cfg"),
    [
        ((64, 96), dict(mode="whole")),
        ((40, 96), dict(mode="whole")),
        ((40, 70), dict(mode="slide", crop_size=128, stride=64)),
    ],
    ids=str,
)
def test_one_window_stitched_equals_its_scores(size: Any, test_cfg: dict[str, Any]) -> None:
    results = [
        probabilities(segmentor(**test_cfg, stitch=stitch), photo(*size))
        for stitch in ("scores", "values")
    ]
    torch.testing.assert_close(*results, rtol=0, atol=1e-12)


def test_windows_that_do_not_look_at_each_other_equal_their_own_maps() -> None:
    """Tokens of two windows at right angles: the matrix of the image is that of each window."""
    model = segmentor(readout=dict(attention="affinity", affinity=dict(scale=1e4)))
    backbone: Any = model.backbone
    image = photo(32, 64)
    image[0, :, :32], image[0, :, 32:] = 1.0, 0.0

    def tokens(images: Tensor) -> Tensor:
        # on CLIP's own grid: V that is resized to a finer one would be mixed across the seam
        red = F.avg_pool2d(images[:, :1], 16).round()
        return torch.cat([red, 1 - red], dim=1)

    backbone.guide_tokens = tokens
    windows = slide_windows((32, 64), (32, 32), (32, 32))
    (whole,) = stitched_maps(backbone, [image], [windows], 16, [NO_PADDING])
    parts = [backbone(image[None, :, :, x : x + 32])[0] for x in (0, 32)]
    torch.testing.assert_close(whole, torch.cat(parts, dim=3), rtol=0, atol=1e-10)


def test_images_of_several_sizes_equal_each_alone() -> None:
    model = segmentor(mode="slide", crop_size=32, stride=16, stitch="values", window_batch_size=3)
    images = [photo(48, 80), photo(32, 56)]
    together = model.predict(images)
    for image, result in zip(images, together, strict=True):
        (alone,) = model.predict([image])
        torch.testing.assert_close(alone.seg_logits.data, result.seg_logits.data)
    scores = segmentor(mode="slide", crop_size=32, stride=16)
    one = [m.predict(images[:1])[0].seg_logits.data for m in (scores, model)]
    assert (one[0] - one[1]).abs().max() > 1e-3


# --- faults ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "readout",
    ["vanilla", "naclip", dict(blocks=2), dict(attention="affinity", affinity={}, ffn=True)],
    ids=str,
)
def test_a_readout_that_needs_its_windows_is_refused(readout: Any) -> None:
    vfm = VFM if "affinity" in readout else None
    raises("stitch='values' needs .*'proxyclip'.*leave stitch out", segmentor, readout, vfm,
           mode="whole", stitch="values")  # fmt: skip


def test_another_backbone_is_refused() -> None:
    backbone = dict(type="PatchMeanBackbone")
    raises("that of PatchMeanBackbone works window by window", OpenVocabSegmentor, backbone,
           head_cfg(), test_cfg=dict(mode="whole", stitch="values"))  # fmt: skip


@pytest.mark.parametrize(
    ("crop", "padding"), [(40, "symmetric"), (40, "floor"), ((32, 24), "floor")], ids=str
)
def test_windows_of_no_whole_patches_are_refused(crop: Any, padding: str) -> None:
    model = segmentor(
        mode="slide", crop_size=crop, stride=16, stitch="values", window_padding=padding
    )
    raises(
        "no whole number of patches.*multiples of 16 x 16 pixels", model.predict, [photo(64, 64)]
    )


def test_there_are_two_ways_to_stitch() -> None:
    raises("stitch must be one of .*'scores', 'values'", segmentor, mode="whole", stitch="token")


def test_a_window_that_shares_no_grid_with_the_vision_model_is_refused() -> None:
    vfm = dict(VFM, model="dinov2-B")
    model = segmentor(vfm=vfm, mode="slide", crop_size=128, stride=32, window_padding="floor")
    raises(
        r"window of 128 x 128 px is no whole number of patches of CLIP and of 'dinov2-B'"
        ": choose sides that are multiples of 112 x 112 px",
        model.predict,
        [photo(128, 128)],
    )
    padded = segmentor(vfm=vfm, mode="slide", crop_size=64, stride=32)
    assert padded.predict([photo(64, 64)])[0].pred_sem_seg.shape == (64, 64)


def test_memory_does_not_grow_with_the_number_of_windows() -> None:
    """Beside the batch there is one map of the image, not those of all windows."""
    layouts = [slide_windows((64, 64), (32, 32), stride) for stride in (32, 4)]

    def put_together(layout: Windows) -> Tensor:
        on_grid = Canvases([layout], [NO_PADDING])
        encode_each([photo], [layout], lambda batch: 2 * batch, on_grid.add, 2)
        return on_grid.pop(0)

    photo = torch.randn(100, 64, 64)
    few, many = (peak_mb(lambda layout=layout: put_together(layout)) for layout in layouts)
    assert (len(layouts[0]), len(layouts[1])) == (4, 81) and many < 1.05 * few
    torch.testing.assert_close(put_together(layouts[1])[0], 2 * photo)


def test_maps_that_are_kept_are_in_memory_once() -> None:
    photo, layout = torch.randn(100, 64, 64), slide_windows((64, 64), (32, 32), 4)

    def keep() -> None:
        encode_windows([photo], [layout], lambda batch: 2 * batch, 2)

    kept, batch = len(layout) * 100 * 32**2 * 4e-6, 2 * 100 * 32**2 * 4e-6
    assert peak_mb(keep) < kept + 4 * batch

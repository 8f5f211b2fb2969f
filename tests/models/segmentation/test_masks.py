"""Masks reach the windows and the encoder with the pixels that they belong to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.registry import MODELS
from mmseg.structures import SegDataSample
from PIL import Image
from torch import Tensor, nn

from mmclipdis.clip.towers.regions import OUTSIDE, resize_nearest
from mmclipdis.engine.data_check import check_masks
from mmclipdis.models import MaskFolder, OpenVocabSegmentor
from mmclipdis.models.segmentation.encoding import encode_windows
from mmclipdis.models.segmentation.masks import build_masks, mask_maps
from mmclipdis.models.segmentation.windows import slide_windows, symmetric_padding
from tests.models.segmentation.catseg.test_segmentor import build as make_catseg
from tests.models.segmentation.fakes import PatchMeanBackbone, head_cfg

MEAN, STD = [100.0, 110.0, 120.0], [50.0, 60.0, 70.0]


@MODELS.register_module()
class ScopedBackbone(PatchMeanBackbone):
    """The first colour of each patch becomes the number of the mask of its first pixel."""

    needs_masks = True

    def __init__(self, patch: int = 4) -> None:
        super().__init__(patch)
        self.seen: list[Tensor] = []

    def forward(self, images: Tensor, masks: Tensor | None = None) -> tuple[Tensor, ...]:
        """As the base; keeps the masks."""
        if masks is None:
            raise ValueError("no masks")
        assert masks.shape == (len(images), *images.shape[-2:])
        assert masks.dtype == torch.int64
        self.seen.append(masks)
        (maps,) = super().forward(images)
        step = self.patch_size[0]
        return (torch.cat([masks[:, None, ::step, ::step].to(maps), maps[:, 1:]], dim=1),)


def segmentor(masks: Any, kind: str = "ScopedBackbone", **test_cfg: Any) -> Any:
    return OpenVocabSegmentor(
        backbone={"type": kind},
        decode_head=head_cfg(),
        data_preprocessor={"type": "SegDataPreProcessor", "mean": MEAN, "std": STD},
        test_cfg=test_cfg or None,
        masks=masks,
    ).eval()


def numbers(height: int, width: int) -> np.ndarray:
    """A map in which every pixel tells its place."""
    return np.arange(height * width).reshape(height, width)


def sample(**meta: Any) -> SegDataSample:
    return SegDataSample(metainfo=meta)


def test_windows_of_masks_lie_where_those_of_images_do() -> None:
    sizes = [(11, 14), (9, 14), (12, 12)]
    images = [torch.randn(3, *size) for size in sizes]
    masks = [torch.from_numpy(numbers(*size)) for size in sizes]
    images = [torch.cat([image, mask[None]]) for image, mask in zip(images, masks, strict=True)]
    layouts = [slide_windows(size, (10, 10), (4, 4)) for size in sizes]
    paddings = [symmetric_padding(layout.crop, (4, 4)) for layout in layouts]
    batches = []

    def encode(batch: Tensor, regions: Tensor) -> Tensor:
        batches.append(len(batch))
        inside = regions != OUTSIDE
        assert torch.equal(batch[:, 3].long(), regions.where(inside, 0))
        height = 9 if not inside[:, -2].any() else 10  # of nine rows one above and two below
        assert inside[:, 1 : 1 + height, 1:11].all()
        assert inside.sum() == 10 * height * len(batch)
        return batch

    found = encode_windows(images, layouts, encode, 3, paddings, masks)
    alone = encode_windows(images, layouts, lambda batch: batch, 3, paddings)
    assert all(torch.equal(a, b) for a, b in zip(found, alone, strict=True))
    assert max(batches) == 3
    assert sum(batches) == sum(map(len, layouts))


def test_a_map_is_resized_to_the_image_and_then_cut() -> None:
    model = segmentor(lambda photo: numbers(20, 28) // 9, mode="slide", crop_size=8, stride=8)
    image = torch.zeros(3, 10, 14)
    model.predict([image], [sample(ori_shape=(20, 28))])
    small = resize_nearest(torch.from_numpy(numbers(20, 28) // 9), (10, 14))
    expected = [small[y : y + 8, x : x + 8] for y in (0, 2) for x in (0, 6)]
    assert torch.equal(torch.cat(model.backbone.seen), torch.stack(expected))


def test_a_function_gets_the_photo_as_it_was_before_it_was_normalised() -> None:
    photos: list[np.ndarray] = []

    def function(photo: np.ndarray) -> Tensor:
        photos.append(photo)
        return torch.from_numpy(photo[..., 0] > 99)

    model = segmentor(function)
    photo = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    bgr = torch.from_numpy(photo[..., ::-1].copy()).permute(2, 0, 1)
    model.data_preprocessor = MODELS.build(
        {
            **{"type": "mmseg.SegDataPreProcessor", "mean": MEAN, "std": STD},
            **{"bgr_to_rgb": True, "test_cfg": {"size_divisor": 10}},
        }
    )
    meta = {"ori_shape": (12, 16), "img_shape": (12, 16)}
    (result,) = model.test_step({"inputs": [bgr], "data_samples": [sample(**meta)]})
    assert np.array_equal(photos[0], photo)
    assert torch.equal(model.backbone.seen[0][0], torch.from_numpy(photo[..., 0] > 99).long())
    assert result.pred_sem_seg.data.shape == (1, 12, 16)


@pytest.mark.parametrize(("direction", "axes"), [("horizontal", (-1,)), ("diagonal", (-1, -2))])
def test_masks_are_flipped_with_the_image(direction: str, axes: Any, tmp_path: Path) -> None:
    """Whether they come from a file or from the photo."""
    photo = np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    np.save(tmp_path / "a.npy", photo[..., 0].astype(np.int16))
    normal = (torch.from_numpy(photo).permute(2, 0, 1) - torch.tensor(MEAN).view(3, 1, 1)) / (
        torch.tensor(STD).view(3, 1, 1)
    )
    meta = {"ori_shape": (8, 12), "img_path": "x/a.jpg"}
    for source in (MaskFolder(tmp_path), lambda photo: photo[..., 0]):
        model = segmentor(source)
        flips = {"flip": True, "flip_direction": direction}
        (plain,) = model.predict([normal], [sample(**meta)])
        (other,) = model.predict([normal.flip(axes)], [sample(**meta, **flips)])
        one, two = model.backbone.seen
        assert torch.equal(one.flip(axes), two)
        assert torch.equal(one[0], torch.from_numpy(photo[..., 0]).long())
        assert torch.equal(plain.pred_sem_seg.data, other.pred_sem_seg.data)


def test_photos_of_a_batch_have_their_own_masks(tmp_path: Path) -> None:
    for number, name in enumerate("ab"):
        np.savez(tmp_path / f"{name}.npz", instance_mask=np.full((8, 8), number, np.uint16))
    model = segmentor({"type": "MaskFolder", "root": str(tmp_path)})
    metas = [sample(ori_shape=(8, 8), img_path=f"/data/{name}.jpg") for name in "bab"]
    model.predict(torch.zeros(3, 3, 8, 8), metas)
    assert model.backbone.seen[0][:, 0, 0].tolist() == [1, 0, 1]


def test_masks_that_nothing_reads_are_not_made_and_said_to_be() -> None:
    def function(photo: np.ndarray) -> None:
        raise AssertionError

    model = segmentor(function, "PatchMeanBackbone")
    with pytest.warns(UserWarning, match="has masks, and nothing of it reads them"):
        model.predict(torch.zeros(1, 3, 8, 8))
    with pytest.warns(UserWarning, match="CATSeg has masks"):
        make_catseg(masks=function).eval().predict([torch.zeros(3, 40, 56)])


def test_masks_of_the_views_of_catseg(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []
    model = make_catseg(masks=lambda photo: numbers(*photo.shape[:2])).eval()
    model.test_cfg = dict(mode="slide_with_global", size=64, crop_size=32, stride=32)
    encoder, dense = model.image_encoder, model.image_encoder.dense

    def scoped(images: Tensor, *, masks: Tensor, **options: Any) -> Any:
        seen.append(masks)
        return dense(images, **options)

    monkeypatch.setattr(type(encoder), "needs_masks", True)
    encoder.dense = scoped
    model.predict([torch.zeros(3, 40, 56)])
    whole = resize_nearest(torch.from_numpy(numbers(40, 56)), (64, 64))
    parts = [whole[y : y + 32, x : x + 32] for y in (0, 32) for x in (0, 32)]
    parts.append(resize_nearest(torch.from_numpy(numbers(40, 56)), (32, 32)))
    clip = model.clip_size
    expected = torch.stack([resize_nearest(part, clip) for part in parts])
    assert torch.equal(torch.cat(seen), expected)


FILES: dict[str, Any] = {
    "npz": ("a.npz", lambda path, m: np.savez_compressed(path, other=m[:1], instance_mask=m)),
    "npy": ("a.npy", lambda path, m: np.save(path, m)),
    "big endian": ("a.npy", lambda path, m: np.save(path, m.astype(">i4"))),
    "fortran": ("a.npy", lambda path, m: np.save(path, np.asfortranarray(m))),
    "png": ("a.png", lambda path, m: Image.fromarray((m % 256).astype(np.uint8)).save(path)),
    "16 bits": ("a.png", lambda path, m: Image.fromarray(m.astype(np.uint16)).save(path)),
}


@pytest.mark.parametrize("case", FILES)
def test_files_of_masks(case: str, tmp_path: Path) -> None:
    name, write = FILES[case]
    map_ = numbers(6, 8) * (5 if case == "png" else 190)
    write(tmp_path / name, map_)
    meta = {"img_path": "photos/a.jpg", "ori_shape": (6, 8)}
    (found,) = mask_maps(MaskFolder(str(tmp_path)), [torch.zeros(3, 6, 8)], [meta], None)
    assert torch.equal(found, torch.from_numpy(map_))
    assert found.dtype == torch.int64


def test_a_palette_gives_its_indices_and_a_suffix_names_the_file(tmp_path: Path) -> None:
    picture = Image.fromarray(np.eye(6, dtype=np.uint8) * 3, "L").convert("P")
    picture.putdata(list((np.eye(6, dtype=np.uint8) * 3).ravel()))
    picture.save(tmp_path / "a.b_masks.png")
    np.save(tmp_path / "a.b.npy", np.zeros((6, 6), int))
    meta = {"img_path": "a.b.jpg", "ori_shape": (6, 6)}
    folder = {"type": "MaskFolder", "root": tmp_path, "suffix": "_masks.png"}
    (found,) = mask_maps(folder, [torch.zeros(3, 6, 6)], [meta], None)
    assert torch.equal(found, 3 * torch.eye(6, dtype=torch.int64))


def test_photos_of_one_name_in_two_folders(tmp_path: Path) -> None:
    for folder, number in (("", 0), ("b", 1)):
        (tmp_path / folder).mkdir(exist_ok=True)
        np.save(tmp_path / folder / "1.npy", np.full((2, 2), number))
    source, images = MaskFolder(tmp_path), [torch.zeros(3, 2, 2)] * 3
    paths = [{"img_path": f"{name}1.jpg"} for name in ("a/", "x/b/", "")]
    maps = mask_maps(source, images, paths, None)
    assert [int(map_.unique()) for map_ in maps] == [0, 1, 0]
    check_masks(source, [paths[0], paths[0], paths[1]])
    with pytest.raises(ValueError, match="1.npy would be that of a/1.jpg and of c/1.jpg: put the"):
        check_masks(source, [paths[0], {"img_path": "c/1.jpg"}])


def test_large_numbers_are_made_small_in_their_order() -> None:
    """10,000 and above are the numbers of merged regions, and of the padding."""
    for map_ in (numbers(6, 8) * 70_001 - 5, torch.from_numpy(numbers(6, 8)) + OUTSIDE):
        (found,) = mask_maps(lambda photo, m=map_: m, [torch.zeros(3, 6, 8)], [{}], None)
        assert torch.equal(found, torch.from_numpy(numbers(6, 8)))
    big = np.array([[2**64 - 1, 0], [2**63, 5]], np.uint64)
    (found,) = mask_maps(lambda photo: big, [torch.zeros(3, 2, 2)], [{}], None)
    assert found.tolist() == [[3, 0], [2, 1]]


class Net(nn.Module):
    """A model that makes masks."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))

    def forward(self, photo: np.ndarray) -> Tensor:
        """All of the photo in mask 7."""
        return torch.full(photo.shape[:2], 7)


def test_a_module_that_makes_masks_is_no_part_of_the_model() -> None:
    model, plain = segmentor(Net()), segmentor(None)
    assert model.state_dict().keys() == plain.state_dict().keys()
    model.predict(torch.zeros(1, 3, 8, 8))
    assert model.backbone.seen[0].unique().tolist() == [7]


def first_colour(photo: np.ndarray) -> np.ndarray:
    """What a config names."""
    return photo[..., 0]


def test_a_config_names_a_function() -> None:
    function = f"{__name__}:first_colour"
    source = build_masks({"type": "MaskFunction", "function": function})
    assert np.array_equal(source(np.eye(3, dtype=np.uint8)[..., None]), np.eye(3))


def test_a_source_may_be_set_later() -> None:
    model = segmentor(None)
    model.masks = {"type": "MaskFunction", "function": first_colour}
    model.predict(torch.zeros(1, 3, 8, 8))
    assert model.backbone.seen[0].unique().tolist() == [100]

"""Branches of windows that are put together: golden values, and a naive OV-Stitcher in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import mmclipdis  # noqa: F401  (registers the modules)
from mmclipdis.clip.towers import attention, stitched
from mmclipdis.clip.towers.attention import finish_block
from mmclipdis.clip.towers.blocks import view_of
from mmclipdis.clip.towers.build import build_image_tower
from mmclipdis.clip.towers.last_block import LastBlockParts
from mmclipdis.clip.towers.stitched import image_block
from mmclipdis.models.segmentation import OpenVocabSegmentor
from mmclipdis.models.segmentation.stitching import check_stitching, stitched_maps
from mmclipdis.models.segmentation.windows import NO_PADDING, Windows, slide_windows
from tests.clip.towers.naive import naive_block, naive_matrix, naive_merged, softmax
from tests.faults.endings import raises
from tests.tiny import tiny_arch, tiny_eva_arch

VFM = dict(type="TimmVFM", model="dino-B-8", model_kwargs=dict(depth=2, embed_dim=24, num_heads=2))
READOUT = dict(
    attention="affinity",
    affinity=dict(scale=4.0, scope="masks", merge=0.15),
    branches=dict(spatial=0.7, semantic=0.4, blocks=(0, 2)),
)
ARCH = tiny_arch(width=32, layers=4)


def segmentor(readout: Any = READOUT, arch: Any = ARCH, vfm: Any = None, **test_cfg: Any) -> Any:
    torch.manual_seed(0)
    backbone = dict(type="CLIPViT", arch=arch, readout=readout, vfm={**VFM, **(vfm or {})})
    embeddings = torch.randn(4, arch["embed_dim"])
    head = dict(type="CosineSegHead", embeddings=embeddings, vocabulary=list("abcd"))
    test_cfg = {"mode": "slide", "crop_size": 32, "stride": 16, "stitch": "values", **test_cfg}
    model = OpenVocabSegmentor(backbone, head, test_cfg=dict(return_probs=True, **test_cfg))
    for parameter in model.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    return model.double().eval()


def photo(height: int, width: int) -> Tensor:
    generator = torch.manual_seed(1)
    return torch.randn(3, height, width, dtype=torch.float64, generator=generator)


def mask(height: int, width: int) -> Tensor:
    """No mask in the upper left; four masks, one of a single window."""
    found = torch.zeros(height, width, dtype=torch.int64)
    found[height // 2 :, : width // 2] = 3
    found[:, width // 2 :] = 1
    found[: height // 3, width // 2 :] = 7
    found[2 * height // 3 :, 4 * width // 5 :] = 2
    return found


# --- golden values -----------------------------------------------------------------------------


class FourWide(attention.BlockView):
    """Two heads of width 2 without norms, projections, or feed-forward; q, k and v are given."""

    heads, projection_prefix = 2, ""
    qkv: dict[str, Tensor]

    def __init__(self) -> None:
        pass

    def ordinary(self, x: Tensor) -> Tensor:
        raise AssertionError

    def norm(self, x: Tensor) -> Tensor:
        return x

    rotate = merge = norm

    def project(self, normed: Tensor, parts: Any) -> dict[str, Tensor]:
        return {part: self.qkv[part] for part in parts}

    def feed_forward(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x)


def test_golden_attention_over_the_full_width(monkeypatch: pytest.MonkeyPatch) -> None:
    """O4."""
    view = FourWide()
    rows = dict(
        q=[[1, 0, 0, 1], [0, 1, 1, 0]],
        k=[[1, 1, 0, 0], [0, 2, 0, 1]],
        v=[[1, 0, 2, 0], [0, 1, 0, 2]],
    )
    view.qkv = {name: torch.tensor([value], dtype=torch.float64) for name, value in rows.items()}
    for module in (attention, stitched):
        monkeypatch.setattr(module, "view_of", lambda block, rope=None: view)
    zero = torch.zeros(1, 2, 4, dtype=torch.float64)
    got = image_block(torch.nn.Identity(), zero, zero)[0]
    expected = [[0.5, 0.5, 1, 1], [0.330238, 0.669762, 0.660477, 1.339523]]
    wanted = torch.tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(got, wanted, rtol=0, atol=6e-7)


# --- a naive reference -------------------------------------------------------------------------


def together(maps: list[Tensor], starts: list[tuple[int, int]], patch: int) -> Tensor:
    """Maps (K, h, w) of windows as one, (K, H, W): sums and counts, patch by patch."""
    corners = [(y // patch, x // patch) for y, x in starts]
    count, h, w = maps[0].shape
    size = max(y for y, _ in corners) + h, max(x for _, x in corners) + w
    total, seen = torch.zeros(count, *size, dtype=torch.float64), torch.zeros(size)
    for part, (y, x) in zip(maps, corners, strict=True):
        total[:, y : y + h, x : x + w] += part
        seen[y : y + h, x : x + w] += 1
    return total / seen


def nearest(labels: Tensor, size: tuple[int, int]) -> Tensor:
    rows, columns = (
        [i * old // new for i in range(new)] for old, new in zip(labels.shape, size, strict=True)
    )
    return labels[rows][:, columns]


def as_rows(part: Tensor) -> Tensor:
    return part.flatten(1).T


def naive_image(backbone: Any, image: Tensor, windows: Windows, masks: Tensor) -> Tensor:
    """The dense map (E, gh, gw); every q, k, v is put together by itself."""
    tower, vfm, readout = backbone.tower, backbone.vfm, backbone.readout
    branches, crops = readout.branches, []
    for y, x in windows.starts:
        crops.append((slice(y, y + windows.crop[0]), slice(x, x + windows.crop[1])))
    found = [vfm.last_block_parts(vfm.from_clip(image[None, :, r, c])) for r, c in crops]
    names = ("input", "q", "k", "v")
    parts = [[getattr(part, name)[0] for part in found] for name in names]
    tokens = vfm.finish_last_block(
        LastBlockParts(*(together(maps, list(windows.starts), 8)[None] for maps in parts))
    )[0]
    gh, gw = tokens.shape[-2:]
    unit = F.normalize(as_rows(tokens), dim=-1)
    labels = naive_merged(unit, nearest(masks, (gh, gw)).flatten().tolist(), readout.affinity.merge)
    at_pixels = nearest(torch.tensor(labels).view(gh, gw), image.shape[-2:])
    collected: dict[Any, list[Tensor]] = {}

    def collect(key: Any, rows: Tensor, grid: tuple[int, int]) -> None:
        collected.setdefault(key, []).append(rows.T.reshape(-1, *grid))

    for r, c in crops:
        crop = image[None, :, r, c]
        grid = tower.grid_of(crop)
        vfm_grid = (crop.shape[-2] // 8, crop.shape[-1] // 8)
        regions = nearest(at_pixels[r, c], grid)
        flat = regions.flatten().tolist()
        x = tower.embed(crop)[0]
        copies = dict.fromkeys(flat, x[0])
        for index, block in enumerate(tower.blocks):
            projected = block.ln_1(x) @ block.attn.in_proj_weight.T + block.attn.in_proj_bias
            for name, part in zip("qkv", projected.chunk(3, dim=-1), strict=True):
                collect((index, name), part[1:], grid)
            collect((index, "x"), x[1:], grid)
            inside = {n: [0, *(i + 1 for i, m in enumerate(flat) if m == n)] for n in copies}
            copies = {n: naive_block(block, x, copies[n], inside[n]) for n in copies}
            x = torch.stack([naive_block(block, x, token, range(len(x))) for token in x])
        owners = nearest(torch.arange(len(flat)).view(grid), vfm_grid).flatten().tolist()
        collect("semantic", torch.stack([copies[flat[i]] for i in owners]), vfm_grid)
    starts = list(windows.starts)
    semantic = as_rows(together(collected.pop("semantic"), starts, 8))
    put = {key: together(maps, starts, 16) for key, maps in collected.items()}
    grid = put[0, "x"].shape[-2:]
    outputs = []
    for index in branches.blocks:
        q, k, v, x = (as_rows(put[index, name]) for name in "qkvx")
        scale = (tower.width // tower.heads) ** -0.5
        mixed = torch.stack([softmax(scale * k @ query) @ v for query in q])
        block = tower.blocks[index]
        y = x + block.attn.out_proj(mixed)
        outputs.append(y + block.mlp(block.ln_2(y)))
    last = tower.blocks[-1]
    matrix = naive_matrix(unit, labels, readout.affinity)

    def weighed(values: Tensor) -> Tensor:
        on_grid = F.interpolate(values[None], (gh, gw), mode="bilinear")[0]
        return last.attn.out_proj(matrix @ as_rows(on_grid))

    value = last.ln_1(sum(outputs) / len(outputs)) @ last.attn.in_proj_weight.chunk(3)[2].T
    value = (value + last.attn.in_proj_bias.chunk(3)[2]).T.reshape(-1, *grid)
    norm = tower.visual.ln_post
    total = norm(weighed(put[len(tower.blocks) - 1, "v"])) + branches.spatial * norm(weighed(value))
    total = total + branches.semantic * norm(semantic)
    return (total @ tower.visual.proj).T.reshape(-1, gh, gw)


def test_an_image_equals_a_naive_one() -> None:
    """Windows that overlap, some of which begin inside a patch, and masks that are merged."""
    model = segmentor()
    image, masks = photo(43, 70), mask(43, 70)
    windows = slide_windows((43, 70), (32, 32), (16, 16))
    assert windows.starts[-1] == (11, 38)
    arguments = model.backbone, [image], [windows], 3, [NO_PADDING], [masks]
    with torch.no_grad():
        (got,) = stitched_maps(*arguments)
        expected = naive_image(model.backbone, image, windows, masks)
    assert got.shape[-2:] == (5, 8)
    torch.testing.assert_close(got[0], expected, rtol=0, atol=1e-10)


# --- properties --------------------------------------------------------------------------------


def dense(model: Any, images: list[Tensor], masks: list[Tensor] | None) -> list[Tensor]:
    settings = model._settings()
    layouts = [settings.windows((image.shape[-2], image.shape[-1])) for image in images]
    paddings = [settings.padding(layout.crop, (16, 16)) for layout in layouts]
    with torch.no_grad():
        return stitched_maps(model.backbone, images, layouts, 3, paddings, masks)


def test_images_of_a_batch_equal_each_alone() -> None:
    """M7, through the segmentor; in each image other windows and regions."""
    model = segmentor(window_batch_size=3)
    images = [(128 + 30 * photo(*size)).clamp(0, 255) for size in ((48, 80), (32, 56))]
    model.masks = lambda found: np.asarray(mask(*found.shape[:2]))
    both = model.predict(images)
    for image, result in zip(images, both, strict=True):
        (alone,) = model.predict([image])
        torch.testing.assert_close(alone.seg_logits.data, result.seg_logits.data)


@pytest.mark.parametrize("spatial", [0, 0.7])
def test_one_window_equals_corrclip_but_for_the_spatial_branch(spatial: float) -> None:
    """O5, with tokens that are no other for being put together."""
    readout = {**READOUT, "branches": dict(spatial=spatial, semantic=0.4)}
    maps = []
    for stitch in ("values", "scores"):
        model = segmentor(readout, vfm=dict(feature="q+k"), mode="whole", stitch=stitch)
        maps.append(model.window_scores([photo(48, 64)], [mask(48, 64)])[0].maps)
    difference = (maps[0] - maps[1]).abs().max()
    assert difference < 1e-12 if spatial == 0 else difference > 1e-3


def test_padding_of_a_small_image_is_in_no_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    model = segmentor(mode="whole")
    seen: list[Tensor] = []
    original = model.backbone.window_parts

    def spy(images: Tensor, regions: Tensor) -> Tensor:
        seen.append(regions)
        return original(images, regions)

    monkeypatch.setattr(model.backbone, "window_parts", spy)
    image, masks = photo(41, 64), mask(41, 64)
    (found,) = dense(model, [image], [masks])
    assert found.shape == (1, 32, 6, 8) and found.isfinite().all()
    (regions,) = seen[0]
    assert regions.shape == (48, 64)
    assert regions[:3].eq(0).all() and regions[-4:].eq(0).all()
    # what is masked in the photo has a number of its own, not that of the padding
    assert regions[3:-4, 40:].ne(0).all() and regions.ne(10_000).all()


def test_minus_one_may_stand_for_no_mask() -> None:
    """Also beside padding, and beside a single mask, which keeps its number."""
    model, image = segmentor(mode="whole"), photo(41, 64)
    for masks in (mask(41, 64), mask(41, 64).clamp(max=1)):
        torch.testing.assert_close(*(dense(model, [image], [masks - k])[0] for k in (0, 1)))


def test_padding_counts_as_pixels_where_nothing_is_semantic() -> None:
    model = segmentor({**READOUT, "branches": dict(semantic=0)}, mode="whole")
    image, masks = photo(41, 64), mask(41, 64)
    around = (0, 0, 3, 4)
    padded = F.pad(image, around), F.pad(masks, around, value=10_000)
    got, expected = dense(model, [image], [masks]), dense(model, [padded[0]], [padded[1]])
    torch.testing.assert_close(got, expected)


def test_an_eva_tower_is_stitched_too() -> None:
    arch = tiny_eva_arch(img_size=64, patch_size=16, depth=4)
    model = segmentor(arch=arch)
    images, masks = [photo(48, 80), photo(32, 48)], [mask(48, 80), mask(32, 48)]
    found = dense(model, images, masks)
    assert [tuple(part.shape) for part in found] == [(1, 8, 6, 10), (1, 8, 4, 6)]
    for image, labels, result in zip(images, masks, found, strict=True):
        torch.testing.assert_close(dense(model, [image], [labels])[0], result)


def test_rotary_positions_are_those_of_the_image() -> None:
    """With one head the full width is the ordinary attention: of the patches, without CLS."""
    torch.manual_seed(0)
    tower = build_image_tower(tiny_eva_arch(img_size=64, patch_size=16, num_heads=1)).double()
    block, rope = tower.blocks[0], tower.rope(photo(48, 80)[None])
    x = torch.randn(1, 16, 32, dtype=torch.float64)
    view = view_of(block, rope)
    parts = {name: part[:, None] for name, part in view.project(view.norm(x), "qkv").items()}
    query, key = (view.rotate(parts[name])[:, :, 1:] for name in "qk")
    out = (query @ key.mT * 32**-0.5).softmax(dim=-1) @ parts["v"][:, :, 1:]
    expected = finish_block(block, x[:, 1:], view.merge(out[:, 0]), residual="token", ffn=True)
    got = image_block(block, x[:, 1:], view.norm(x)[:, 1:], rope)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)


def test_autocast_stays_near_full_precision() -> None:
    model = segmentor().float()
    images, masks = [photo(48, 80).float()], [mask(48, 80)]
    exact = dense(model, images, masks)[0]
    with torch.autocast("cpu", torch.bfloat16):
        near = dense(model, images, masks)[0].float()
    assert F.cosine_similarity(near, exact, dim=1).min() > 0.99


def test_the_last_block_of_the_vision_model_sees_the_whole_image() -> None:
    """Of a map; other features are put together as they are."""
    image, layout = photo(32, 64), slide_windows((32, 64), (32, 32), (32, 32))
    changed = image.clone()
    changed[:, :, 48:] += 1.0  # the second window alone
    for feature, sees in (("map", True), ("q+k", False)):
        backbone = segmentor(vfm=dict(feature=feature)).backbone
        assert backbone.stitches_last_block == sees
        guides: list[Tensor] = []

        def keep(parts: Tensor, semantic: Any, guide: Any, guides: list[Tensor] = guides) -> Tensor:
            guides.append(guide.tokens)
            return parts[:, :1]

        backbone.read_stitched = keep
        for pixels in (image, changed):
            stitched_maps(backbone, [pixels], [layout], 2, [NO_PADDING], [mask(32, 64)])
        same = torch.equal(guides[0][..., :4], guides[1][..., :4])
        assert same != sees


# --- faults ------------------------------------------------------------------------------------


def test_a_vision_model_whose_last_block_cannot_be_stitched_is_refused() -> None:
    vfm = dict(model="eva02_tiny_patch14_224", model_kwargs=dict(depth=2))
    raises("plain ViT of timm|timm's plain ViT", segmentor, vfm=vfm)


def test_no_masks_are_refused() -> None:
    model = segmentor()
    raises("needs the masks of each photo", model.predict, [photo(32, 32)])
    line = "scope='masks' needs the masks of the photo"
    raises(line, dense, model, [photo(32, 32)], None)


def test_other_terms_beside_the_branches_are_refused() -> None:
    raises("by an affinity alone", segmentor, {**READOUT, "attention": ("affinity", "kk")})


def test_branches_are_stitched_by_their_values_only() -> None:
    line = "stitch='tokens' needs .*'proxyclip', without branches"
    raises(line, check_stitching, segmentor().backbone, None, "tokens")

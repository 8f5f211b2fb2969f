"""SAM mixes the tokens of an image, at its own size, part by part, with weights of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mmclipdis.clip.towers.sam_matrix import sam_mixed
from mmclipdis.models.sam_matrix import SAMMatrix
from tests.faults.endings import raises
from tests.models.segmentation.test_token_stitching import SLIDE, photo, segmentor

SMALL: dict[str, Any] = dict(
    img_size=128, embed_dim=24, depth=2, num_heads=3, window_size=3, global_attn_indexes=(1,)
)


def build(**options: Any) -> Any:
    mixer = SAMMatrix(model_kwargs=SMALL, init_cfg=None, **options)
    generator = torch.Generator().manual_seed(0)
    for parameter in mixer.parameters():
        parameter.normal_(0, 0.4, generator=generator)
    return mixer.double()


def by_hand(mixer: Any, pixels: Tensor, tokens: Tensor) -> Tensor:
    """One image that is resized already; its pixels and tokens of the same part of the square."""
    padded = F.pad(mixer.vfm.from_clip(pixels), (0, 128 - pixels.shape[-1], 0, 0))
    padded = F.pad(padded, (0, 0, 0, 128 - pixels.shape[-2]))
    parts = tuple(part[0] for part in mixer.vfm.last_projections(padded))
    return sam_mixed(mixer.vfm.model.blocks[-1], parts, tokens[0], mixer.kappa, mixer.refine_neg)[
        None
    ]


def test_the_long_side_is_that_of_sam_and_padding_is_cut_off() -> None:
    mixer, image, tokens = build(), photo(48, 64)[None], torch.randn(1, 5, 3, 4).double()
    found = mixer(image, tokens)
    assert found.shape == (1, 5, 6, 8)
    resized = F.interpolate(image, size=(96, 128), mode="bilinear", antialias=True)
    on_grid = F.interpolate(tokens, size=(6, 8), mode="bilinear")
    torch.testing.assert_close(found, by_hand(mixer, resized, on_grid))
    tall = mixer(photo(64, 24)[None], tokens)
    assert tall.shape == (1, 5, 8, 3)
    assert mixer(photo(16, 400)[None], tokens).shape == (1, 5, 1, 8)


def test_halves_are_seen_one_by_one() -> None:
    mixer, image, tokens = build(splits=(1, 2)), photo(64, 128)[None], torch.randn(1, 5, 8, 16)
    tokens = tokens.double()
    found = mixer(image, tokens)
    assert found.shape == (1, 5, 8, 16)
    one = build()
    left, right = one(image[..., :64], tokens[..., :8]), one(image[..., 64:], tokens[..., 8:])
    torch.testing.assert_close(found, torch.cat([left, right], dim=-1))
    other = image.clone()
    other[..., 64:] = 0
    torch.testing.assert_close(mixer(other, tokens)[..., :8], left)
    assert mixer(photo(64, 136)[..., :131][None], tokens).shape[-1] % 2 == 0


def test_each_row_is_a_mean() -> None:
    """The same token everywhere stays what it is, and a batch is its images one by one."""
    mixer = build(kappa=3.0, refine_neg=False)
    images = torch.stack([photo(64, 64, 1), photo(64, 64, 2)])
    same = torch.randn(1, 5, 1, 1).double().expand(2, 5, 4, 4)
    torch.testing.assert_close(mixer(images, same), same[..., :1, :1].expand(2, 5, 8, 8))
    tokens = torch.randn(2, 5, 4, 4).double().requires_grad_()
    both = mixer(images, tokens)
    torch.testing.assert_close(both[1:], mixer(images[1:], tokens[1:]))
    both.sum().backward()
    assert tokens.grad is not None
    assert not any(parameter.requires_grad for parameter in mixer.parameters())


def test_it_loads_its_own_file_and_says_when_there_is_none(tmp_path: Path) -> None:
    """Before the first image, too; a half with the precision of the model."""
    torch.save(build().vfm.model.float().state_dict(), tmp_path / "sam.pth")
    source = dict(type="Pretrained", checkpoint=str(tmp_path / "sam.pth"))
    image, tokens = photo(64, 64)[None].float(), torch.randn(1, 5, 4, 4)
    half = SAMMatrix(model_kwargs=SMALL, init_cfg=source, precision="bfloat16")
    loaded = SAMMatrix(model_kwargs=SMALL, init_cfg=source)
    assert loaded(image, tokens).shape == half(image, tokens).shape
    torch.testing.assert_close(loaded(image, tokens), build().float()(image, tokens))
    assert half(image, tokens).dtype == torch.float32
    assert build().half()(image.half(), tokens.half()).isfinite().all()  # as a whole model is
    raises("random", SAMMatrix(model_kwargs=SMALL, init_cfg=None), image, tokens)


def test_trident_is_a_config() -> None:
    """Affinity a window, tokens stitched, SAM, head: step by step the same."""
    config = dict(type="SAMMatrix", model_kwargs=SMALL, kappa=1.2)
    model, plain = (segmentor(mixer=m, stitch="tokens", **SLIDE) for m in (config, None))
    for parameter in model.token_mixer.parameters():
        parameter.data.normal_(0, 0.4)
    image = photo(64, 112)
    seen: list[Tensor] = []
    plain.backbone.joint_map = lambda tokens: seen.append(tokens) or tokens[:, :32]
    plain.window_scores([image])
    (scores,) = model.window_scores([image])
    joint = model.backbone.joint_map(model.token_mixer(image[None], seen[0]))
    wanted = model.decode_head.normalized(model.decode_head((joint,)))
    torch.testing.assert_close(scores.maps, wanted)
    assert scores.maps.shape[-2:] == (5, 8)
    labels = model.predict(image[None])[0].pred_sem_seg.data
    assert labels.shape == (1, 64, 112)
    assert not [key for key in model.state_dict() if "token_mixer" in key]


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (dict(kappa=-0.1), "kappa must be a number from 0 on, got -0.1"),
        (dict(kappa=None), "kappa"),
        (dict(refine_neg=0), "refine_neg"),
        (dict(splits=2), r"splits .*\(1, 2\)"),
        (dict(splits=(0, 1)), "splits"),
        (dict(model="shapes-vfm", model_kwargs={}), "'shapes-vfm' is a VisionTransformer"),
        (dict(model_kwargs=dict(SMALL, global_attn_indexes=())), "global_attn_indexes"),
    ],
    ids=str,
)
def test_what_it_cannot_be_ends_in_a_line(options: dict[str, Any], line: str) -> None:
    raises(line, SAMMatrix, **{"model_kwargs": SMALL, "init_cfg": None, **options})


def test_an_image_with_less_than_a_pixel_a_part_ends_in_a_line() -> None:
    many = build(splits=(1, 20))
    raises("16 x 16 px cannot be split", many, photo(16, 16)[None], torch.zeros(1, 5, 1, 1))

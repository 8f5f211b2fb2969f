"""Rotary positions of PE and DINOv3 (encoders spec 2.4, 7). The file takes about 1 s."""

from __future__ import annotations

import torch
from timm.layers import RotaryEmbeddingCat, RotaryEmbeddingDinoV3

from mmclipdis.clip.towers.rotary import counted_table, rotary_of, rotary_table

PRINTED = dict(rtol=0, atol=1e-6)


def test_golden_angles_of_pe() -> None:
    """Columns first, then rows, both from 1; every frequency twice."""
    sine, cosine = counted_table((2, 2), 8).chunk(2, dim=1)
    angles = torch.tensor(
        [
            [1, 1, 0.01, 0.01, 1, 1, 0.01, 0.01],
            [2, 2, 0.02, 0.02, 1, 1, 0.01, 0.01],
            [1, 1, 0.01, 0.01, 2, 2, 0.02, 0.02],
            [2, 2, 0.02, 0.02, 2, 2, 0.02, 0.02],
        ]
    )
    torch.testing.assert_close(sine, angles.sin(), **PRINTED)
    torch.testing.assert_close(cosine, angles.cos(), **PRINTED)


def test_pe_counts_on_where_the_grid_is_larger() -> None:
    rope = RotaryEmbeddingCat(
        8, in_pixels=False, ref_feat_shape=[3, 3], grid_offset=1.0, grid_indexing="xy"
    )
    table = rotary_of(rope, (5, 4))
    assert torch.equal(table, counted_table((5, 4), 8))
    rows = table.view(5, 4, 16)[:, :, 4]  # sine of the first frequency of rows
    torch.testing.assert_close(rows[4], torch.tensor(5.0).sin().expand(4), **PRINTED)


def test_at_the_native_grid_pe_is_that_of_timm() -> None:
    rope = RotaryEmbeddingCat(
        8, in_pixels=False, ref_feat_shape=[4, 4], grid_offset=1.0, grid_indexing="xy"
    )
    torch.testing.assert_close(rotary_of(rope, (4, 4)), rope.get_embed(shape=[4, 4]), **PRINTED)


def test_eva_spans_its_native_grid() -> None:
    rope = RotaryEmbeddingCat(8, in_pixels=False, ref_feat_shape=[4, 4])
    assert torch.equal(rotary_of(rope, (2, 3)), rotary_table((2, 3), 8, (4, 4)))


def test_dinov3_is_that_of_timm_at_any_grid() -> None:
    rope = RotaryEmbeddingDinoV3(16)
    for grid in ((3, 5), (1, 4), (7, 2), (37, 64)):
        assert torch.equal(rotary_of(rope, grid), rope.get_embed(shape=list(grid)))


def test_golden_angles_of_dinov3() -> None:
    """Rows, then columns, from -1 to 1, the whole twice."""
    sine, cosine = rotary_of(RotaryEmbeddingDinoV3(8), (2, 3)).chunk(2, dim=1)
    rows = torch.tensor([[-3.141593, -0.314159], [3.141593, 0.314159]])
    columns = torch.tensor([[-4.188790, -0.418879], [0, 0], [4.188790, 0.418879]])
    first = torch.cat(
        [rows[:, None].expand(2, 3, 2), columns[None].expand(2, 3, 2)], dim=-1
    ).flatten(0, 1)
    angles = torch.cat([first, first], dim=1)
    torch.testing.assert_close(sine, angles.sin(), **PRINTED)
    torch.testing.assert_close(cosine, angles.cos(), **PRINTED)

"""Position rules: golden 3 x 3 values (training_free spec 1.5) and when they apply."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from mmclipdis.clip.towers.positions import POSITION_RULES, resample_positions
from mmclipdis.clip.towers.readout import READOUTS

# rule: first row and centre of the map [[0, 1], [2, 3]] resampled to 3 x 3
GOLDEN = {
    "legacy": ([-0.270110, 0.283653, 0.886563], 1.391179),
    "size": ([-0.260417, 0.326389, 0.913194], 1.5),
    "antialias": ([-0.197368, 0.368421, 0.934211], 1.5),
}


def table_2x2() -> torch.Tensor:
    return torch.tensor([[7.0], [0.0], [1.0], [2.0], [3.0]], dtype=torch.float64)


@pytest.mark.parametrize("rule", sorted(GOLDEN))
def test_golden_values_of_2x2_to_3x3(rule):
    out = resample_positions(table_2x2(), (2, 2), (3, 3), rule)[:, 0]
    row, centre = GOLDEN[rule]
    torch.testing.assert_close(out[1:4], torch.tensor(row).double(), rtol=0, atol=1e-6)
    assert math.isclose(out[5], centre, abs_tol=1e-6)
    assert out[0] == 7.0  # the CLS row never changes


def test_legacy_samples_at_the_given_factor():
    native, size = 14, 28
    generator = torch.manual_seed(0)
    table = torch.randn(1, 3, native, native, dtype=torch.float64, generator=generator)
    source = (torch.arange(size) + 0.5).double() * native / (size + 0.1) - 0.5
    grid = (2 * source + 1) / native - 1  # grid_sample's coordinates, align_corners=False
    points = torch.stack(torch.meshgrid(grid, grid, indexing="xy"), dim=-1)[None]
    expected = F.grid_sample(table, points, mode="bicubic", padding_mode="border")
    flat = torch.cat([torch.zeros(1, 3).double(), table[0].flatten(1).T])
    got = resample_positions(flat, (native, native), (size, size), "legacy")[1:]
    # border padding of grid_sample clamps coordinates, interpolate clamps taps: compare inside
    inner = got.T.reshape(3, size, size)[:, 4:-4, 4:-4]
    torch.testing.assert_close(inner, expected[0, :, 4:-4, 4:-4], rtol=0, atol=6e-6)


@pytest.mark.parametrize("rule", sorted(POSITION_RULES))
def test_the_native_grid_returns_the_parameter_itself(rule):
    table = torch.randn(17, 8)
    assert resample_positions(table, (4, 4), (4, 4), rule) is table


@pytest.mark.parametrize("rule", sorted(POSITION_RULES))
def test_equal_token_count_but_other_grid_is_resampled(rule):
    table = torch.randn(17, 8)
    out = resample_positions(table, (4, 4), (2, 8), rule)
    assert out.shape == table.shape
    assert (out[1:] - table[1:]).abs().max() > 0.1


def test_the_parameter_survives_forwards_at_several_sizes(tower):
    before = tower.visual.positional_embedding.detach().clone()
    for height, width in ((64, 64), (32, 128), (96, 48), (70, 100)):
        images = torch.randn(1, 3, height, width, dtype=torch.float64)
        features = tower.forward_dense(images, READOUTS["clearclip"])
        assert features.map.shape == (1, 32, height // 16, width // 16)
    assert torch.equal(tower.visual.positional_embedding, before)


def test_wrong_rule_and_wrong_table_are_clear_errors(tower):
    with pytest.raises(ValueError, match="unknown position rule 'cubic'; known: legacy, size"):
        resample_positions(table_2x2(), (2, 2), (3, 3), "cubic")
    with pytest.raises(ValueError, match="5 rows, expected 1 \\+ 3 x 3"):
        resample_positions(table_2x2(), (3, 3), (4, 4), "size")
    with pytest.raises(ValueError, match="smaller than one patch of 16 x 16"):
        tower.forward_dense(torch.zeros(1, 3, 8, 64).double(), READOUTS["vanilla"])


def test_naflex_wants_whole_patches(tower):
    tower.positions = "bilinear_antialias"
    images = torch.zeros(1, 3, 70, 96).double()
    line = "70 x 96 px is no whole patches of 16 x 16 px.*to 64 x 96 px"
    with pytest.raises(ValueError, match=line):
        tower.forward_dense(images, READOUTS["vanilla"])
    tower.forward_dense(images[:, :, :64], READOUTS["vanilla"])


@pytest.mark.parametrize("rule", sorted(POSITION_RULES))
def test_a_native_grid_that_is_not_square_keeps_rows_and_columns_apart(rule):
    """What is constant along an axis stays so, and the other axis is resampled by itself."""
    rows = torch.tensor([0.0, 1.0, 5.0], dtype=torch.float64)
    cls = torch.zeros(1, 1).double()
    table = torch.cat([cls, rows.repeat_interleave(2)[:, None]])  # 3 x 2, constant in a row
    out = resample_positions(table, (3, 2), (6, 4), rule)[1:, 0].view(6, 4)
    torch.testing.assert_close(out, out[:, :1].expand(6, 4))
    square = torch.cat([cls, rows.repeat_interleave(3)[:, None]])
    want = resample_positions(square, (3, 3), (6, 6), rule)[1:, 0].view(6, 6)[:, 0]
    torch.testing.assert_close(out[:, 0], want)


@pytest.mark.parametrize("rule", sorted(POSITION_RULES))
@pytest.mark.parametrize("height", [1, 3, 9])
def test_one_column_of_patches_is_one_row_of_the_turned_table(rule, height):
    table = torch.randn(1 + 5 * 4, 3, dtype=torch.float64, generator=torch.manual_seed(0))
    turned = torch.cat([table[:1], table[1:].view(5, 4, 3).transpose(0, 1).reshape(20, 3)])
    column = resample_positions(table, (5, 4), (height, 1), rule)
    row = resample_positions(turned, (4, 5), (1, height), rule)
    torch.testing.assert_close(column, row)


def test_golden_bilinear_with_antialias():
    """SigLIP 2 NaFlex; plain bilinear is 2.5, 4.5, 10.5, 12.5 (encoders spec 2.4)."""
    table = torch.arange(16.0)[:, None]
    found = resample_positions(table, (4, 4), (2, 2), "bilinear_antialias", prefix=0)
    wanted = torch.tensor([3.571429, 5.142857, 9.857143, 11.428571])
    torch.testing.assert_close(found[:, 0], wanted, rtol=0, atol=2e-6)
    plain = resample_positions(table, (4, 4), (2, 2), "bilinear", prefix=0)
    assert plain[:, 0].tolist() == [2.5, 4.5, 10.5, 12.5]

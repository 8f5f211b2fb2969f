"""The first tensor that is not finite is found, whatever its type, and finite ones never are."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from mmclipdis.engine import write_checkpoint
from mmclipdis.utils.finite import constant_infinities, first_nonfinite, named_tensors

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("place", [0, 70_000])
@pytest.mark.parametrize("mixed", [False, True])
def test_one_broken_value_is_found(
    value: float, dtype: torch.dtype, place: int, mixed: bool
) -> None:
    broken = torch.ones(70_001, dtype=dtype)
    broken[place] = value
    entries = [("a", torch.ones(3)), ("b.c", broken), ("d", broken)]
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        assert first_nonfinite(entries) == "b.c (1 of 70001 values)"


@pytest.mark.parametrize(
    "value",
    [
        torch.full((1000,), 6e4, dtype=torch.float16),  # their sum is no float16
        torch.full((9,), 3e38),
        torch.full((9,), 1e300, dtype=torch.float64),
        torch.ones(0),
        torch.tensor([2**62, -5]),
        torch.ones(2, 3).to_sparse(),
        torch.ones(4).to(torch.float8_e4m3fn),
        torch.empty(5, device="meta"),
    ],
    ids=["half", "large", "double", "empty", "integers", "sparse", "8-bit", "meta"],
)
def test_what_is_finite_is_not_taken_for_broken(value: Tensor) -> None:
    assert first_nonfinite([("a", value), ("b", torch.ones(2))]) is None


def test_broken_values_of_sparse_and_complex_tensors_are_found() -> None:
    assert first_nonfinite([("s", torch.tensor([0.0, NAN]).to_sparse())]) is not None
    assert first_nonfinite([("c", torch.tensor([complex(0, INF)]))]) is not None


def test_tensors_are_named_by_their_place() -> None:
    content = {"a": [torch.ones(1), {"b": torch.ones(2)}], "c": "text", 3: (torch.ones(3),)}
    assert [name for name, _ in named_tensors(content)] == ["a.0", "a.1.b", "3.0"]


def test_masks_are_infinite_by_design_and_weights_are_not() -> None:
    model = nn.Module()
    model.register_buffer("mask", torch.tensor([0.0, -INF]))
    model.register_buffer("broken", torch.tensor([NAN, -INF]))
    model.register_parameter("weight", nn.Parameter(torch.tensor([INF])))
    assert constant_infinities(model) == {"mask"}


def test_a_checkpoint_with_nan_is_not_written_and_the_old_one_stays(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    write_checkpoint(path, {"model": {"w": torch.ones(2)}})
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"last.pt' is not written: optimiser.0 \(1 of 1 values\)"):
        write_checkpoint(path, {"model": {}, "optimiser": [torch.tensor(NAN)]})
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["last.pt"]

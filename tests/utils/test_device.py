"""Devices are looked for before anything is moved to one. Takes no time."""

from __future__ import annotations

import pytest
import torch

from mmclipdis.utils.device import usable_device


def test_names_and_devices_are_taken() -> None:
    assert usable_device("cpu") == usable_device(torch.device("cpu")) == torch.device("cpu")
    assert usable_device() == torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("name", ["gpu", "cpu:x", "0", 3.5])
def test_a_name_of_no_device_comes_with_right_ones(name: object) -> None:
    with pytest.raises(ValueError, match=f"there is no device {name!r}; name one as 'cpu', 'cuda'"):
        usable_device(name)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["cuda:99", "xpu", "xla"])
def test_a_device_that_is_not_there_is_told(name: str) -> None:
    with pytest.raises(
        ValueError, match=rf"device '{name}' cannot be used here \(PyTorch sees \d+"
    ):
        usable_device(name)

"""Plain data survives a round trip; objects are refused by name."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer

from mmclipdis.engine.plain import (
    pack_message_hub,
    to_plain,
    unpack_message_hub,
    without_odd_values,
)


def test_values_become_built_in_types_and_torch_reads_them_back(tmp_path: Path) -> None:
    value = {
        "array": np.arange(6).reshape(2, 3),
        "number": np.float32(1.5),
        "flag": np.bool_(True),
        "path": PurePosixPath("a/b"),
        "config": ConfigDict(a=[1, (2, "x")]),
        "ordered": OrderedDict(k=None),
        "set": {1, 2},
    }
    plain = to_plain(value)
    torch.save(plain, tmp_path / "plain.pth")
    back = torch.load(tmp_path / "plain.pth", weights_only=True)
    assert torch.equal(back.pop("array"), torch.arange(6).reshape(2, 3))
    assert back == {
        "number": 1.5,
        "flag": True,
        "path": "a/b",
        "config": {"a": [1, (2, "x")]},
        "ordered": {"k": None},
        "set": {1, 2},
    }
    assert type(back["config"]) is dict and back["flag"] is True


def test_objects_are_refused_by_name() -> None:
    with pytest.raises(TypeError, match=r"meta\.deep\[1\] is a builtins\.object"):
        to_plain({"deep": [1, object()]}, "meta")


def test_odd_values_are_left_out() -> None:
    assert without_odd_values({"good": 1, "odd": object()}, "meta") == {"good": 1}


def test_message_hub_round_trip() -> None:
    state = {
        "log_scalars": {"loss": HistoryBuffer([1.0, 2.0], [1, 3], 50)},
        "runtime_info": {"iter": 7, "odd": object()},
        "resumed_keys": {"loss": True, "iter": True, "odd": True},
    }
    back = unpack_message_hub(pack_message_hub(state))
    log, count = back["log_scalars"]["loss"].data
    assert log.tolist() == [1.0, 2.0] and count.tolist() == [1, 3]
    assert back["log_scalars"]["loss"].max_length == 50
    assert back["runtime_info"] == {"iter": 7}
    assert back["resumed_keys"] == {"loss": True, "iter": True}

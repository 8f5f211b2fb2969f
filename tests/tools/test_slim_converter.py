"""A checkpoint of a training becomes a file that ships; wrong names are one line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mmclipdis.engine.checkpoint_io import read_checkpoint
from tests.faults.endings import ends_in
from tools.model_converters.slim import main


def test_a_checkpoint_loses_its_optimiser_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = {"state_dict": {"a.weight": torch.eye(3)}, "meta": {}, "optimizer": {"x": 1}}
    torch.save(content, tmp_path / "a.pth")
    main([str(tmp_path / "a.pth"), str(tmp_path / "a.safetensors")])
    assert "a.safetensors: " in capsys.readouterr().out
    read = read_checkpoint(tmp_path / "a.safetensors")
    assert read.keys() == {"state_dict", "meta"}
    assert torch.equal(read["state_dict"]["a.weight"], torch.eye(3))
    words = [tmp_path / "a.pth", tmp_path / "a.safetensors"]
    ends_in("exists and is left as it is", main, words, capsys)
    ends_in(r"the form that ships is \.safetensors", main, [words[0], tmp_path / "b.pth"], capsys)
    torch.save({"a": 1}, tmp_path / "c.pth")
    ends_in("holds no state_dict", main, [tmp_path / "c.pth", tmp_path / "c.safetensors"], capsys)

"""The form that ships: nothing that ships already, and whole for whoever reads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.runner.checkpoint import _load_checkpoint
from safetensors.torch import load_file, save_file

from mmclipdis.clip.weights.tags import PACKAGED
from mmclipdis.engine.checkpoint_io import read_checkpoint
from mmclipdis.engine.slim_checkpoint import write_slim

TINY = PACKAGED["shapes-tiny", "shapes"]


def checkpoint(**changed: torch.Tensor) -> dict[str, Any]:
    tower = {k: v.float() for k, v in load_file(TINY).items() if k.startswith("visual.")}
    state = {f"backbone.tower.{name}": value for name, value in tower.items()}
    state |= {"head.weight": torch.full((4, 4), 0.1), "head.bias": torch.full((4,), 0.1)}
    meta = {"dataset_meta": {"classes": ("kite", "plum")}, "cfg": "model = 1"}
    return {"state_dict": state | changed, "meta": meta, "optimizer": {"big": torch.zeros(9)}}


def test_a_file_that_ships_is_small_and_read_whole(tmp_path: Path) -> None:
    given = checkpoint()
    path = write_slim(tmp_path / "a.safetensors", given, "a test")
    assert {*load_file(path)} == {"head.weight", "head.bias"}
    for read in (read_checkpoint(path), _load_checkpoint(str(path))):  # ours, mmengine's
        assert read["meta"] == {"dataset_meta": {"classes": ("kite", "plum")}}
        assert read["state_dict"].keys() == given["state_dict"].keys()
        for name, value in given["state_dict"].items():
            found = read["state_dict"][name]
            assert found.dtype == value.dtype
            exact = name != "head.weight"  # a matrix, in float16
            torch.testing.assert_close(found, value, atol=0 if exact else 1e-4, rtol=0)


def test_a_tower_that_was_trained_is_kept(tmp_path: Path) -> None:
    given = checkpoint()
    name = "backbone.tower.visual.ln_post.bias"
    given["state_dict"][name] = given["state_dict"][name] + 1
    path = write_slim(tmp_path / "a.safetensors", given, "a test")
    assert name in load_file(path)
    torch.testing.assert_close(
        read_checkpoint(path)["state_dict"][name], given["state_dict"][name], atol=0, rtol=0
    )


def test_a_value_beyond_float16_is_refused(tmp_path: Path) -> None:
    given = checkpoint(**{"head.weight": torch.full((4, 4), 1e6)})
    with pytest.raises(ValueError, match=r"head\.weight"):
        write_slim(tmp_path / "a.safetensors", given, "a test")
    assert not (tmp_path / "a.safetensors").exists()


@pytest.mark.parametrize(
    "packaged",
    ['{"backbone.": ["ViT-B-16", "openai"]}', '["a"]', "{", '{"backbone.": 3}'],
)
def test_a_header_that_names_what_does_not_ship_is_one_line(tmp_path: Path, packaged: str) -> None:
    state = {"head.bias": torch.zeros(2)}
    save_file(state, tmp_path / "a.safetensors", metadata={"packaged": packaged})
    with pytest.raises(ValueError, match=r"a\.safetensors' says of itself what this version"):
        read_checkpoint(tmp_path / "a.safetensors")


def test_other_files_are_read_as_they_are(tmp_path: Path) -> None:
    state = {"head.bias": torch.zeros(2, dtype=torch.float16)}
    save_file(state, tmp_path / "a.safetensors", metadata={"format": json.dumps("pt")})
    read = read_checkpoint(tmp_path / "a.safetensors")
    assert read["meta"] == {} and read["state_dict"]["head.bias"].dtype == torch.float16

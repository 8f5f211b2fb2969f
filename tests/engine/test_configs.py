"""Configs are Python or JSON; YAML runs no code, whoever reads it."""

from __future__ import annotations

import json
from pathlib import Path

import mmengine
import pytest
from mmengine.config import Config

from mmclipdis.engine.configs import read_config_file

HOSTILE = "model: !!python/object/apply:os.mkdir ['{}']\n"


@pytest.mark.parametrize("suffix", [".yaml", ".yml", ".YAML"])
def test_yaml_is_refused_by_name(tmp_path: Path, suffix: str):
    path = tmp_path / f"config{suffix}"
    path.write_text(HOSTILE.format(tmp_path / "made"))
    with pytest.raises(ValueError, match=rf"config{suffix}' is YAML.*write it as a \.py file"):
        read_config_file(path)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("kind", ["py", "json"])
def test_yaml_below_a_config_is_refused_with_both_names(tmp_path: Path, depth: int, kind: str):
    (tmp_path / "base.yml").write_text(HOSTILE.format(tmp_path / "made"))
    base = "base.yml"
    for level in range(depth):
        name = f"level{level}.{kind}"
        text = f"_base_ = [{base!r}]\n" if kind == "py" else json.dumps({"_base_": base})
        (tmp_path / name).write_text(text)
        base = name
    with pytest.raises(ValueError, match=rf"base\.yml' \(_base_ of .*level0\.{kind}'\) is YAML"):
        read_config_file(tmp_path / base)
    assert not (tmp_path / "made").exists()


def test_stock_mmengine_builds_no_objects_from_yaml(tmp_path: Path):
    path = tmp_path / "config.yaml"
    path.write_text(HOSTILE.format(tmp_path / "made"))
    for read in (Config.fromfile, mmengine.load):
        with pytest.raises(
            ValueError, match="not read as plain data: could not determine a constr"
        ):
            read(str(path))
    assert not (tmp_path / "made").exists()


def test_plain_yaml_stays_data(tmp_path: Path):
    content = {"a": [1, 2.5, None, "x"], "b": {"c": True}}
    mmengine.dump(content, tmp_path / "data.yaml")
    assert mmengine.load(tmp_path / "data.yaml") == content


def test_python_and_json_are_read_with_their_bases(tmp_path: Path):
    (tmp_path / "base.json").write_text('{"a": 1}')
    (tmp_path / "config.py").write_text("_base_ = 'base.json'\nb = 2\n")
    config = read_config_file(tmp_path / "config.py")
    assert (config.a, config.b) == (1, 2)

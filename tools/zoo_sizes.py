#!/usr/bin/env python
"""Count the parameters of the models that the metafiles list, and write them there.

    python tools/zoo_sizes.py           # prints what differs
    python tools/zoo_sizes.py --write   # puts it into configs/*/metafile.yml

Text towers count, and so do frozen parts. Models are built without storage for their weights, one
for all configs that differ in data and words alone; projectors that a config reads from a file are
left out.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from mmengine.config import ConfigDict
from mmengine.registry import MODELS, DefaultScope

import mmclipdis  # noqa: F401  (registers the modules)
from mmclipdis.apis.cli import run
from mmclipdis.engine.configs import read_config_file
from mmclipdis.utils.places import ROOT
from mmclipdis.utils.whole_files import write_text

#: Settings that constructors read files or look at words for, and that models do without.
LEFT_OUT = ("projector", "region_prompt", "segments", "vocabulary", "background", "prob_thd")
#: Settings that no parameter depends on.
IDLE = (*LEFT_OUT, "templates", "test_cfg", "train_cfg", "init_cfg")


def main(arguments: Sequence[str] | None = None) -> None:
    """Count; print or write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="change the metafiles")
    parser.add_argument("--folder", nargs="*", help="of configs, for some of them only")
    args = parser.parse_args(arguments)
    counted: dict[str, int] = {}
    for file in sorted((ROOT / "configs").glob("*/metafile.yml")):
        if args.folder and file.parent.name not in args.folder:
            continue
        entries = yaml.safe_load(file.read_text("utf-8"))["Models"]
        found = {entry["Name"]: parameters(ROOT / entry["Config"], counted) for entry in entries}
        for entry in entries:
            kept = entry["Metadata"].get("Parameters")
            if kept != found[entry["Name"]]:
                print(f"{entry['Name']}: {found[entry['Name']]:,}, the metafile has {kept}")
        if args.write:
            write_text(file, with_sizes(file.read_text("utf-8"), found))


def parameters(path: Path, counted: dict[str, int]) -> int:
    """How many numbers the model of a config has.

    Args:
        path: Of the config.
        counted: What was counted, by the settings that matter; new ones are added.
    """
    config = read_config_file(path)
    key = repr(_without(config.model.to_dict(), IDLE))
    if key not in counted:
        scope = config.get("default_scope", "mmengine")
        settings = ConfigDict(_without(config.model.to_dict(), LEFT_OUT))
        with DefaultScope.overwrite_default_scope(scope), torch.device("meta"):
            model = MODELS.build(settings)
        counted[key] = sum(parameter.numel() for parameter in model.parameters())
    return counted[key]


def with_sizes(text: str, found: dict[str, int]) -> str:
    """A metafile with the numbers of its models, by name."""
    name, lines = "", []
    for line in text.splitlines(keepends=True):
        if match := re.match(r'- Name: "?([^"\n]+)"?$', line):
            name = match[1]
        if re.match(r"    Parameters: ", line):
            continue
        lines.append(line)
        if line.startswith("    Encoder: ") and name in found:
            lines.append(f"    Parameters: {found[name]}\n")
    return "".join(lines)


def _without(node: Any, keys: Sequence[str]) -> Any:
    """Settings without what is found under these keys, at any depth."""
    if isinstance(node, dict):
        return {key: _without(value, keys) for key, value in node.items() if key not in keys}
    return [_without(value, keys) for value in node] if isinstance(node, (list, tuple)) else node


if __name__ == "__main__":
    run(main, None)

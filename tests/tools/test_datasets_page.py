"""docs/datasets.md covers the data sets of the configs and names what exists."""

from __future__ import annotations

import os
import re

from tests.paths import ROOT

REPO = ROOT
PAGE = (REPO / "docs/datasets.md").read_text(encoding="utf-8")
CONFIGS = REPO / "configs/_base_/datasets"


def data_roots() -> set[str]:
    """Folders that the base configs of data sets read, without the generated world."""
    text = "".join(path.read_text(encoding="utf-8") for path in CONFIGS.glob("*.py"))
    roots = {os.path.normpath(root) for root in re.findall(r'data_root ?= ?"(.+?)"', text)}
    return roots - {"data/shapes"}


def test_each_data_root_is_on_the_page() -> None:
    roots = data_roots()
    assert {"data/ade20k_full", "data/coco14", "data/cityscapes"} <= roots
    assert [root for root in sorted(roots) if f"{root}/" not in PAGE] == []


def test_each_checked_folder_is_read_by_a_config() -> None:
    checked = re.findall(r"(?m)^(?:find -L|wc -l(?: <)?) (data/\S+)", PAGE)
    assert len(checked) > 15
    roots = tuple(f"{root}/" for root in data_roots())
    assert [path for path in checked if not path.startswith(roots)] == []


def test_tools_and_pages_exist() -> None:
    named = re.findall(r"tools/[\w/]+\.\w+", PAGE)
    assert {"tools/dataset_converters/pascal_context.py"} <= set(named)
    assert [name for name in named if not (REPO / name).is_file()] == []
    linked = re.findall(r"\]\((\w+\.md)\)", PAGE)
    assert [name for name in linked if not (REPO / "docs" / name).is_file()] == []
    converters = {path.name for path in (REPO / "tools/dataset_converters").glob("*.py")}
    assert [name for name in sorted(converters - {"shapes.py"}) if name not in PAGE] == []

"""Metafiles: each config has an entry, and what it says is published stands in the config, too."""

from __future__ import annotations

import ast
import functools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.paths import ROOT

CONFIGS = ROOT / "configs"
#: Folders without models of their own: parts of configs, and templates for other people's data.
PARTS = {CONFIGS / "_base_", CONFIGS / "own_data"}
FOLDERS = sorted({path.parent for path in CONFIGS.glob("*/*.py")} - PARTS)
MEASURED_HERE = ("camvid", "shapes")
#: What stands in a result; ``Variant``: of an option, of other weights, or by other people.
RESULT = {"Task", "Dataset", "Metrics", "Source", "Others", "Variant"}
#: Numbers of a config's comment that are no results.
SETTINGS = re.compile(
    r"arXiv \d+\.\d+|weights? (of the context loss )?\d\.\d+|; 0\.1:|times \d\.\d+|"
    r"\(0\.25: the base\)|probability of 0\.85|ClearCLIP's own 0\.5|beta of 0\.6 to 0\.8|"
    r"at least 84\.5"
)
NUMBER = re.compile(r"(?<![\w.-])\d+\.\d+(?![\w.]*\w)")


@functools.cache
def metafile(folder: Path) -> dict[str, Any]:
    return yaml.safe_load((folder / "metafile.yml").read_text("utf-8"))


def entries(folder: Path) -> list[dict[str, Any]]:
    return metafile(folder)["Models"]


def everything() -> Iterator[tuple[Path, dict[str, Any]]]:
    for folder in FOLDERS:
        yield from ((folder, entry) for entry in entries(folder))


def published(entry: dict[str, Any], variants: bool = False) -> set[float]:
    """Numbers of the config as it stands, or of its variants: options, weights, other people."""
    found: set[float] = set()
    for result in entry.get("Results", ()):
        if ("Variant" in result) == variants:
            found |= {*result["Metrics"].values(), *result.get("Others", {}).values()}
    return found


def stated(config: Path) -> set[float]:
    """The results that the comment at the head of a config states."""
    lines = config.read_text("utf-8").splitlines()
    comment = " ".join(line.lstrip("# ") for line in lines if line.startswith("#"))
    return {float(text) for text in NUMBER.findall(SETTINGS.sub("", comment))}


@functools.cache
def default_scope(config: Path) -> str | None:
    """As mmengine finds it, along ``_base_``, without the time that reading all configs takes."""
    body = ast.parse(config.read_text("utf-8")).body
    values = {ast.unparse(n.targets[0]): n.value for n in body if isinstance(n, ast.Assign)}
    if "default_scope" in values:
        return str(ast.literal_eval(values["default_scope"]))
    base = ast.literal_eval(values["_base_"]) if "_base_" in values else []
    files = [base] if isinstance(base, str) else base
    scopes = [default_scope((config.parent / file).resolve()) for file in files]
    return next((scope for scope in scopes if scope is not None), None)


def test_a_model_is_listed_in_the_scope_of_its_config() -> None:
    """Inferencers of mmseg and mmdet offer the models of theirs (``mmclipdis/compat/hub.py``)."""
    for _, entry in everything():
        assert entry["Metadata"]["Scope"] == default_scope(ROOT / entry["Config"]), entry["Name"]


def test_the_index_imports_every_metafile() -> None:
    index = yaml.safe_load((ROOT / "model-index.yml").read_text("utf-8"))
    assert index["Import"] == [f"configs/{folder.name}/metafile.yml" for folder in FOLDERS]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_each_config_has_one_entry_of_a_collection(folder: Path) -> None:
    data = metafile(folder)
    configs = sorted(str(path.relative_to(ROOT)) for path in folder.rglob("*.py"))
    assert sorted(entry["Config"] for entry in data["Models"]) == configs
    collections = {collection["Name"]: collection for collection in data["Collections"]}
    for entry in data["Models"]:
        assert entry["In Collection"] in collections
        assert {"Encoder", "Training Data", "Pretrained Weights", "Results From"} <= set(
            entry["Metadata"]
        )
        for result in entry.get("Results", ()):
            assert result["Task"] and result["Dataset"] and result["Metrics"] and result["Source"]
            assert set(result) <= RESULT, (entry["Name"], set(result) - RESULT)
    for collection in collections.values():
        assert (ROOT / collection["Metadata"]["Page"]).is_file()
        assert all("; " in weights for weights in collection["Metadata"]["Weights"])  # the licence


def test_names_are_unique_and_end_as_their_file() -> None:
    names = [entry["Name"] for _, entry in everything()]
    assert len(names) == len(set(names))
    assert all(e["Name"].endswith(Path(e["Config"]).stem) for _, e in everything())


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_what_is_published_is_what_the_config_says(folder: Path) -> None:
    if folder.name in MEASURED_HERE:
        return
    for entry in entries(folder):
        said = stated(ROOT / entry["Config"])
        assert published(entry) <= said, (entry["Name"], published(entry) - said)
        known = published(entry) | published(entry, variants=True)
        assert said <= known, (entry["Name"], said - known)


def test_results_are_of_a_paper_or_of_a_table_that_was_measured_here() -> None:
    for folder, entry in everything():
        for result in entry.get("Results", ()):
            table = re.match(r"(results/\w+\.json), row ([^;]+)", result["Source"])
            assert (table is not None) == (folder.name == "shapes"), entry["Name"]
            if table is None:
                continue
            rows = json.loads((ROOT / table[1]).read_text())["rows"]
            row = next(row["metrics"] for row in rows if row["name"] == table[2])
            for name, value in result["Metrics"].items():
                kept = row[name]["mean"] if isinstance(row[name], dict) else row[name]
                assert value == kept, (entry["Name"], name)


def test_what_has_no_result_says_so() -> None:
    for folder, entry in everything():
        silent = entry["Metadata"]["Results From"]
        if "Results" in entry:
            assert ("measured here" in silent) == (folder.name == "shapes")
        else:
            assert re.search("nobody published one|without a number|not kept", silent), entry

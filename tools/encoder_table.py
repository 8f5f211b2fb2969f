#!/usr/bin/env python
"""Survey the CLIP archs that have weights: what of each is read, and what is said of the rest.

    python tools/encoder_table.py           # prints what differs from results/encoders.json
    python tools/encoder_table.py --write   # writes it; then `make tables` for docs/encoders.md

Every tag of open_clip, the weights inside the package and the archs that open_clip lacks. Towers
are built without storage for their weights (PyTorch's ``meta`` device), nothing is downloaded, and
it takes a minute or two.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip import pretrained

from mmclipdis.apis.cli import run
from mmclipdis.clip.text.encoder import build_text_tower
from mmclipdis.clip.towers.build import build_image_tower, build_text_transformer
from mmclipdis.clip.towers.readout import READOUTS, AnyReadout
from mmclipdis.clip.towers.resnet import build_resnet_tower, check_pool_readout
from mmclipdis.clip.towers.stage_trunks import has_stages
from mmclipdis.clip.towers.stages import build_stage_tower, check_stage_readout
from mmclipdis.clip.weights.activation_mark import check_activation
from mmclipdis.clip.weights.loading import has_quick_gelu, is_resnet, model_config
from mmclipdis.clip.weights.statistics import statistics_of
from mmclipdis.clip.weights.tags import MODEL_CONFIGS, tags_of
from mmclipdis.engine.results import read_results, write_results
from mmclipdis.utils.places import ROOT
from mmclipdis.utils.statistics import CLIP, HALF, IMAGENET, NONE

RESULTS = ROOT / "results/encoders.json"

#: Names of statistics, as the page explains them.
STATISTICS = ((CLIP, "CLIP"), (HALF, "0.5 / 0.5"), (NONE, "0 / 1"), (IMAGENET, "ImageNet"))

#: Part of a tokenizer's name -> whose it is; the first that fits counts.
TOKENIZERS = (
    ("SigLIP2", "SigLIP 2's (Gemma)"),
    ("SigLIP-i18n", "SigLIP i18n's (mC4)"),
    ("SigLIP", "SigLIP's (T5, C4)"),
    ("tips", "TIPS'"),
)

#: (start of the arch, start of the tag) -> licence of the weights. Those of timm's model cards, of
#: SigLIP, PE, MobileCLIP, DFN and MetaCLIP as in encoders spec 3; the first that fits counts.
LICENCES = (
    ("shapes-", "", "Apache-2.0"),
    ("MobileCLIP", "", "apple-amlr (research only)"),
    ("PE-Core", "", "Apache-2.0"),
    ("ViTamin", "", "MIT"),
    ("EVA", "", "MIT"),
    ("TIPS", "", "Apache-2.0 or CC-BY"),
    ("dinotxt-v2", "", "Apache-2.0"),
    ("dinotxt-v3", "", "DINOv3 licence"),
    ("", "metaclip", "CC-BY-NC-4.0"),
    ("", "dfn", "apple-ascl"),
    ("ViT", "webli", "Apache-2.0"),
    ("RN", "openai", "MIT"),
    ("convnext", "laion", "Apache-2.0"),
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Survey; print or write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="change results/encoders.json")
    parser.add_argument("--archs", nargs="*", help="some of them only, which are printed")
    args = parser.parse_args(arguments)
    rows = [row_of(arch) for arch in args.archs or archs()]
    if args.archs:
        print(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    table = [summary(rows), *grouped(rows)]
    if args.write:
        write_results(RESULTS, table)
    else:
        print_changes(table, RESULTS)


def archs() -> list[str]:
    """Archs with weights, those of the package first, each family together."""
    ours = sorted(path.stem for path in MODEL_CONFIGS.glob("*.json"))
    known = [arch for arch in open_clip.list_models() if arch not in ours and tags_of(arch)]
    return ours + sorted(known, key=str.lower)


def row_of(arch: str) -> dict[str, Any]:
    """What is read of an arch: texts by the columns of the table."""
    tags, (kind, readouts) = tags_of(arch), image_side(arch)
    fit = [tag for tag in tags if fits_activation(arch, tag)]
    metrics: dict[str, Any] = {
        "tags": f"{len(fit)} of {len(tags)}",
        "image": kind,
        "readouts": readouts,
        "text": text_side(arch),
        "mean / std": " or ".join(statistics(arch, fit)),
        "tokenizer": tokenizer(arch),
        "licence": licences(arch, fit),
    }
    return {"name": arch, "metrics": metrics}


def grouped(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Archs of which the same is read as one row, whose tags are those of all."""
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in rows:
        same = tuple(value for name, value in row["metrics"].items() if name != "tags")
        groups.setdefault(same, []).append(row)
    table = []
    for group in groups.values():
        counts = [row["metrics"]["tags"].split(" of ") for row in group]
        fit, all_tags = (sum(int(count[i]) for count in counts) for i in (0, 1))
        metrics = {**group[0]["metrics"], "tags": f"{fit} of {all_tags}" if all_tags else "-"}
        table.append({"name": ", ".join(row["name"] for row in group), "metrics": metrics})
    return table


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """How many tags of open_clip are read, on each side and on both."""
    counts = {
        row["name"]: len(pretrained.list_pretrained_tags_by_model(row["name"])) for row in rows
    }
    sides = {row["name"]: (row["metrics"]["image"], row["metrics"]["text"]) for row in rows}
    image = {name for name, side in sides.items() if side[0].startswith("CLIP")}
    text = {name for name, side in sides.items() if side[1].startswith("yes")}
    parts = {"image_tags": image, "text_tags": text, "both_tags": image & text}
    found = {part: sum(counts[name] for name in names) for part, names in parts.items()}
    return {"name": "all tags", "metrics": {"open_clip_tags": sum(counts.values()), **found}}


def image_side(arch: str) -> tuple[str, str]:
    """Backbone and readouts of an arch; the message and ``-`` where it is not read."""
    try:
        with torch.device("meta"):
            if is_resnet(arch):
                build_resnet_tower(arch)
                return "CLIPResNet", readouts_of(check_pool_readout)
            if has_stages(arch):
                build_stage_tower(arch)
                return "CLIPConvNet", readouts_of(check_stage_readout)
            tower = build_image_tower(arch)
        return "CLIPViT", readouts_of(tower.check_readout)
    except ValueError as error:
        return message(arch, error), "-"


def readouts_of(check: Any) -> str:
    """The names that ``check`` takes: all, all but some, or some."""
    refused = [name for name, readout in READOUTS.items() if not accepts(check, readout)]
    if not refused:
        return "all"
    if len(refused) > len(READOUTS) / 2:
        return ", ".join(name for name in READOUTS if name not in refused)
    return f"all but {', '.join(refused)}"


def accepts(check: Any, readout: AnyReadout) -> bool:
    """Whether a check lets a readout pass."""
    try:
        check(readout)
    except ValueError:
        return False
    return True


def text_side(arch: str) -> str:
    """Whether texts are read: yes, yes with a file of the tokenizer, or the message."""
    try:
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            build_text_tower(arch)
        return "yes"
    except ValueError as error:
        if "tokenizer=PATH" not in str(error):
            return message(arch, error)
    with torch.device("meta"):
        build_text_transformer(arch)
    return "yes, with its tokenizer"


def message(arch: str, error: ValueError) -> str:
    """What an error says, without the arch and the remedy."""
    text = str(error).split(";")[0].split(": ")[0]
    return text.removeprefix("the arch ").removeprefix(f"arch {arch!r} ").replace("|", "/")


def fits_activation(arch: str, tag: str) -> bool:
    """Whether weights have the activation of the arch: ``-quickgelu`` is part of its name."""
    if not pretrained.is_pretrained_cfg(arch, tag):
        return True
    quick = bool(pretrained.get_pretrained_cfg(arch, tag).get("quick_gelu", False))
    try:
        check_activation(quick, has_quick_gelu(arch), arch, tag)
    except ValueError:
        return False
    return True


def tokenizer(arch: str) -> str:
    """Whose tokenizer an arch has: CLIP's, a family's, or one of Hugging Face by its name."""
    name = model_config(arch)["text_cfg"].get("hf_tokenizer_name") or "CLIP's"
    return next((text for part, text in TOKENIZERS if part in name), str(name))


def statistics(arch: str, tags: Sequence[str]) -> list[str]:
    """Names of the mean and std of the weights of an arch."""
    names = dict(STATISTICS)
    found = [statistics_of(arch, tag) for tag in tags] or [statistics_of(arch)]
    return list(dict.fromkeys(names.get(one, "its own") for one in found))


def licences(arch: str, tags: Sequence[str]) -> str:
    """Licences of the weights of an arch, as far as they are known."""
    found = []
    for tag in tags or [""]:
        known = (
            text for start, of, text in LICENCES if arch.startswith(start) and tag.startswith(of)
        )
        found.append(next(known, "see its card"))
    return ", ".join(dict.fromkeys(found))


def print_changes(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Print the rows that a file of results has not, or has otherwise."""
    old = (
        {row["name"]: row["metrics"] for row in read_results(path)["rows"]}
        if path.is_file()
        else {}
    )
    for row in rows:
        for metric, value in row["metrics"].items():
            kept = old.get(row["name"], {}).get(metric)
            if kept != value:
                print(f"{row['name']}: {metric}: {value}, the results have {kept}")
    for name in old.keys() - {row["name"] for row in rows}:
        print(f"{name}: has no weights any more")


if __name__ == "__main__":
    run(main, None)

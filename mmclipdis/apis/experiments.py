"""Experiments of several trainings and tests: each a command that a user could type, run once."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmclipdis.apis.run import find_checkpoint, test
from mmclipdis.engine.results import ROOT, write_results
from mmclipdis.utils.downloading import sha256_of
from mmclipdis.utils.whole_files import write_text

Metrics = dict[str, float]


def make_parser(doc: str, name: str, length: str | None = "iters") -> argparse.ArgumentParser:
    """Command line with the options of every experiment: data, work folder, seeds, length, write.

    Args:
        doc: Docstring of the tool.
        name: Of its work folder and of its table in results/.
        length: What its trainings count, ``"iters"`` or ``"epochs"``; None if it trains nothing,
            and so has no seeds.
    """
    parser = argparse.ArgumentParser(
        description=doc.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("data/shapes"), help="generated world")
    parser.add_argument("--work-dir", type=Path, default=Path("work_dirs") / name)
    if length is not None:
        parser.add_argument(
            "--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the training"
        )
        parser.add_argument(
            f"--{length}", type=int, help="of every training; the config's by default"
        )
    parser.add_argument("--write", action="store_true", help=f"write results/{name}.json")
    return parser


def config_file(name: str) -> str:
    """Path of a config of configs/shapes."""
    return str(ROOT / "configs" / "shapes" / f"{name}.py")


def train(
    config: str, folder: Path, options: Sequence[str], seed: int, flags: Sequence[str] = ()
) -> None:
    """Run ``tools/train.py`` on a config of configs/shapes, unless it has been done.

    A training counts as done if the same words were said before and the config file is the same; a
    change of its bases or of the code is not noticed.

    Args:
        config: Name of the config.
        folder: Work folder of this training alone.
        options: For ``--cfg-options``.
        seed: Of the training.
        flags: Other words of the command line.
    """
    options = [*options, f"randomness.seed={seed}"]
    words = [config_file(config), "--work-dir", str(folder), *flags, "--cfg-options", *options]
    done = folder / "done.json"
    if _read(done) == request_of(words):
        return
    command("tools/train.py", *words)
    write_text(done, json.dumps(request_of(words)))


def evaluate(config: str, folder: Path, options: Sequence[str], checkpoint: str = "") -> Metrics:
    """What ``tools/test.py`` measures, kept; measured again for other words or files."""
    words = [config_file(config), *([checkpoint] if checkpoint else []), "--work-dir", str(folder)]
    words += ["--cfg-options", *options]
    kept = folder / "metrics.json"
    before = _read(kept) or {}
    if before.get("request") == request_of(words):
        found: Metrics = before["metrics"]
        return found
    print("$ python tools/test.py", *words, flush=True)
    metrics = {n: float(v) for n, v in test([*words, "log_level=ERROR"]).items()}
    write_text(kept, json.dumps({"request": request_of(words), "metrics": metrics}))
    print("  ", metrics, flush=True)
    return metrics


def request_of(words: Sequence[str]) -> dict[str, Any]:
    """The words of a command, and what the files among them (config, checkpoint) hold."""
    paths = [Path(word.rpartition("=")[2]) for word in words]
    files = {str(p): sha256_of(p) for p in paths if p.is_file()}
    return {"words": list(words), "files": files}


def _read(path: Path) -> Any:
    return json.loads(path.read_text()) if path.exists() else None


def roots(data: Path, *loaders: str) -> list[str]:
    """Options that name the data of these loaders (``train``, ``val``, ``test``)."""
    return [f"{loader}_dataloader.dataset.data_root={data}" for loader in loaders]


def boxes(data: Path, loader: str) -> list[str]:
    """Options that name the boxes of validation or test (``val``, ``test``)."""
    ann_file = data / "annotations" / "instances_val.json"
    return [*roots(data, loader), f"{loader}_evaluator.ann_file={ann_file}"]


def declip_student(folder: Path, data: Path, iters: int | None, seed: int) -> str:
    """DeCLIP's student of a seed in ``folder``, trained as tools/shapes_declip.py does.

    Returns:
        Its checkpoint.
    """
    folder = folder / f"DeCLIP_{seed}"
    train("declip_distill", folder, [*roots(data, "train", "val"), *length(iters)], seed)
    return find_checkpoint(str(folder))


def length(iters: int | None) -> list[str]:
    """Options for a training of so many iterations; None: of the config's."""
    if iters is None:
        return []
    return [f"train_cfg.max_iters={iters}", f"train_cfg.val_interval={iters}"]


def report(
    rows: Mapping[str, Sequence[Metrics]],
    seeds: Sequence[int],
    out: Path | None,
    digits: int = 2,
    others: Mapping[str, Any] | None = None,
) -> None:
    """Print the table of the runs of each row, and write it to ``out`` unless that is None.

    ``others`` are rows of another table, which stand below.
    """
    table = {name: spread(runs, digits) for name, runs in rows.items()} | dict(others or {})
    print(json.dumps(table, indent=2))
    if out is not None:
        found = [dict(name=name, metrics=metrics) for name, metrics in table.items()]
        write_results(out, found, seeds=seeds)


def command(script: str, *words: object) -> None:
    """Run a tool of this repository in a process of its own; stop if it fails."""
    line = [sys.executable, str(ROOT / script), *map(str, words)]
    print("$ python", script, *words, flush=True)
    quiet = {**os.environ, "PYTHONWARNINGS": "ignore::UserWarning"}  # the mm libraries' own
    if subprocess.run(line, env=quiet, check=False).returncode:
        sys.exit(f"{script} failed; its message is above")


def spread(runs: Sequence[Metrics], digits: int = 2) -> dict[str, Any]:
    """Mean and standard deviation (of the sample) of each metric; a single run as it is."""
    table: dict[str, Any] = {}
    for name in runs[0]:
        values = [metrics[name] for metrics in runs]
        if len(values) == 1:
            table[name] = round(values[0], digits)
        else:
            mean, std = statistics.mean(values), statistics.stdev(values)
            table[name] = {"mean": round(mean, digits), "std": round(std, digits)}
    return table

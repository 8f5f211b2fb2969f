"""Rows of experiments: trained and tested by commands that a user could type, each run once."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmclipdis.apis import experiments
from mmclipdis.apis.claims.measures import MEASURES
from mmclipdis.apis.claims.sheet import Claim, Experiment, Sheet, Step
from mmclipdis.apis.claims.verdict import Measured
from mmclipdis.apis.experiments import Metrics
from mmclipdis.apis.run import find_checkpoint
from mmclipdis.engine.results import read_results
from mmclipdis.utils.places import ROOT

#: A run in results/claims.json.
RUN = "{experiment} | {row} | seed {seed}"

Table = Mapping[str, Mapping[str, Measured]]


@dataclass(frozen=True)
class Places:
    """Folders: of the pictures of the standard world, the others beside it, and of the runs."""

    data: Path
    work: Path

    def world(self, name: str) -> Path:
        """Folder of a world's pictures."""
        return self.data if name == "shapes" else self.data.with_name(f"{self.data.name}_{name}")

    def run(self, experiment: Experiment, row: str, seed: int) -> Path:
        """Work folder of a run; one for all seeds of a row that depends on none."""
        name = re.sub(r"[^A-Za-z0-9.]+", "_", row)
        alone = experiment.rows[row].untrained
        return self.work / experiment.name / (name if alone else f"{name}_{seed}")


def measure(
    experiment: Experiment, row: str, seed: int, places: Places, worlds: Mapping[str, Sequence[str]]
) -> Metrics:
    """Draw the pictures, train and test one row with one seed, as far as that is not done."""
    world = experiment.world(seed)
    data, folder = places.world(world), places.run(experiment, row, seed)
    _draw(data, tuple(worlds[world]))
    own = experiment.rows[row]
    checkpoint = "" if own.untrained else _train(experiment, own.trained_as or row, seed, places)
    found: Metrics = {}
    for number, test in enumerate(own.tests or experiment.tests):
        step = _tested(experiment, test, own.step)
        metrics = _test(step, folder / f"test_{number}", data, checkpoint)
        found |= {ours: metrics[theirs] for ours, theirs in step.metrics.items()}
    return found


def _train(experiment: Experiment, row: str, seed: int, places: Places) -> str:
    """The checkpoint of a row, trained if it is not there; none where nothing is trained."""
    if experiment.train is None:
        return ""
    data, folder = places.world(experiment.world(seed)), places.run(experiment, row, seed)
    train = _over(experiment.train, experiment.rows[row].step)
    options = [*train.options, *experiments.roots(data, "train", "val")]
    flags = [flag.replace("{work}", str(places.work / experiment.name)) for flag in train.flags]
    experiments.train(str(train.config), folder, options, seed, flags)
    return find_checkpoint(str(folder))


@functools.cache
def _draw(data: Path, words: tuple[str, ...]) -> None:
    """Draw a world, unless it is there; asked once a process, since asking takes seconds."""
    experiments.command("tools/dataset_converters/shapes.py", data, *words)


def _over(base: Step, row: Step) -> Step:
    """A training with the row's config, options and flags on top."""
    options, flags = (*base.options, *row.options), (*base.flags, *row.flags)
    return Step(row.config or base.config, options, flags, base.metrics)


def _tested(experiment: Experiment, test: Step, row: Step) -> Step:
    """A test; without a config of its own that of the training, or the row's, with its options."""
    if test.config is not None:
        return test
    trained = experiment.train.config if experiment.train is not None else None
    return Step(row.config or trained, (*test.options, *row.options), (), test.metrics)


def _test(step: Step, folder: Path, data: Path, checkpoint: str) -> Metrics:
    """What one test gives."""
    if step.config is not None and step.config in MEASURES:
        return MEASURES[step.config](folder, data, checkpoint, step.options)
    named = [option.replace("{checkpoint}", checkpoint) for option in step.options]
    options = [*named, *experiments.roots(data, "test")]
    word = "" if named != list(step.options) else checkpoint  # an option names it, or a word
    return experiments.evaluate(str(step.config), folder, options, word)


def kept_runs(path: Path, experiment: Experiment) -> Table:
    """The runs of an experiment that ``results/claims.json`` has; empty without the file."""
    if not path.is_file():
        return {}
    runs: dict[str, dict[str, dict[int, float]]] = {}
    for entry in read_results(path)["rows"]:
        name, _, rest = entry["name"].partition(" | ")
        row, _, seed = rest.rpartition(" | seed ")
        if name == experiment.name and row in experiment.rows:
            for metric, value in entry["metrics"].items():
                runs.setdefault(row, {}).setdefault(metric, {})[int(seed)] = float(value)
    return {
        row: {metric: Measured.of_runs(values) for metric, values in metrics.items()}
        for row, metrics in runs.items()
    }


def commits_of(path: Path, experiment: Experiment) -> tuple[str, ...]:
    """The commits at which its runs in ``results/claims.json`` were measured, each once."""
    if not path.is_file():
        return ()
    table = read_results(path)
    entries = [e for e in table["rows"] if e["name"].startswith(f"{experiment.name} | ")]
    return tuple(dict.fromkeys(entry.get("commit", table["commit"]) for entry in entries))


def table_of(file: str) -> Table:
    """The rows of a results file that another tool wrote."""
    found: dict[str, dict[str, Measured]] = {}
    for entry in read_results(ROOT / file)["rows"]:
        metrics = {n: _measured(value) for n, value in entry["metrics"].items()}
        found[entry["name"]] = {name: m for name, m in metrics.items() if m is not None}
    return found


def _measured(value: Any) -> Measured | None:
    if isinstance(value, Mapping):
        return Measured({}, value["mean"], value["std"])
    return None if isinstance(value, str) else Measured({}, float(value), None)


def rows_of(claim: Claim, sheet: Sheet, path: Path) -> Table:
    """What is measured of a claim.

    Raises:
        ValueError: a results file lacks a row or metric that the claim names.
    """
    if claim.experiment is not None:
        return kept_runs(path, sheet.experiments[claim.experiment])
    if claim.results is None:
        return {}
    table = table_of(claim.results)
    for row in claim.rows:
        for metric in claim.metrics:
            if metric not in table.get(row, {}):
                raise ValueError(
                    f"claim {claim.name}: {claim.results} has no {metric} of a row {row!r}; "
                    "correct Orders, or measure it"
                )
    return table

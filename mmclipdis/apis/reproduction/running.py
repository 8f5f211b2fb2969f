"""The cells of a table, each by ``tools/test.py``, after ``tools/train.py`` where it trains."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmclipdis.apis.experiments import request_of
from mmclipdis.apis.reproduction.cell_config import (
    entry_config,
    info_of,
    late_options,
    measured_by,
)
from mmclipdis.apis.reproduction.cells import Cell, Training
from mmclipdis.apis.reproduction.kept import DONE, Result, code_state, keep, kept, last, read_done
from mmclipdis.apis.reproduction.miniature import as_python
from mmclipdis.apis.reproduction.needs import Needs
from mmclipdis.apis.reproduction.places import Places
from mmclipdis.apis.reproduction.processes import Pool
from mmclipdis.apis.run import find_checkpoint
from mmclipdis.apis.zoo.on_disk import look_for_weights, put_weights, weight_sources
from mmclipdis.engine.checkpoint_files import newest_checkpoint
from mmclipdis.utils.whole_files import make_folder, write_text

#: Makes a config's miniature: config, folder, whether it trains -> the file of the new config.
Shrink = Callable[[Config, Path, bool], Path]


@dataclass(frozen=True)
class Outcome:
    """What became of a cell.

    Attributes:
        cell: the cell.
        result: what was measured; None: nothing was.
        problem: why nothing was, in a line; empty where it was not asked for.
    """

    cell: Cell
    result: Result | None = None
    problem: str = ""


@dataclass
class Runner:
    """Runs cells, keeps what they measured, and goes on where an earlier run ended.

    Attributes:
        places: where data, weights and the work folder are.
        pool: which starts the tools.
        again: measure cells again that another commit measured.
        shrink: makes miniatures of configs; None: the tables are measured as they are.
        say: takes a line for the user.
    """

    places: Places
    pool: Pool
    again: bool = False
    shrink: Shrink | None = None
    say: Callable[[str], None] = print
    _trained: dict[Training, str] = field(default_factory=dict)
    _untrained: dict[Training, str] = field(default_factory=dict)
    #: What could not be downloaded, so that it is not tried for every cell.
    _not_fetched: dict[tuple[str, ...], str] = field(default_factory=dict)
    #: mmengine reads configs through files of one name, and a download is for all.
    _preparing: threading.Lock = field(default_factory=threading.Lock)

    def run(self, cells: Sequence[Cell], needs: Mapping[str, Needs]) -> list[Outcome]:
        """Train what has to be trained, then test; a cell that fails does not stop the others.

        Args:
            cells: What is to be measured, all that they need being there.
            needs: By the name of the cell.
        """
        tasks = {cell.training: cell for cell in cells if needs[cell.name].trains and cell.training}
        trainings = [training for training in tasks if training is not None]
        with closing(self.pool.each(self._train, trainings)) as trained:
            for number, (training, problem) in enumerate(trained, 1):
                done = problem or "trained"
                self.say(f"training {number}/{len(trainings)} {training.model}: {done}")
        outcomes: dict[str, Outcome] = {}
        prepared = [(cell, needs[cell.name]) for cell in cells]
        with closing(self.pool.each(self._test, prepared)) as tested:
            for number, (task, outcome) in enumerate(tested, 1):
                outcomes[task[0].name] = outcome
                self.say(f"{number}/{len(cells)} {summary(outcome)}")
        return [outcomes[cell.name] for cell in cells]

    def folder(self, cell: Cell) -> Path:
        """The work folder of a cell."""
        return self.places.work / cell.table / file_name(cell.row) / file_name(cell.column)

    def measured_before(self, cell: Cell) -> Result | None:
        """What an earlier run measured of a cell, whatever its options were; None: nothing."""
        return last(self.folder(cell))

    def _train(self, training: Training) -> str:
        """Train unless that was done; returns what went wrong, or nothing."""
        folder = self._training_folder(training)
        try:
            problem = self._trained_in(folder, training)
            if not problem:
                self._trained[training] = find_checkpoint(str(folder / "run"))
        except (OSError, ValueError, RuntimeError) as error:
            problem = " ".join(str(error).split())
        if problem:
            self._untrained[training] = problem
        return problem

    def _trained_in(self, folder: Path, training: Training) -> str:
        with self._preparing:
            config = entry_config(training.model, training.options, self.places)
            path = self._write(config, folder, training.model, trains=True)
        words = [str(path), "--work-dir", str(folder / "run")]
        request = request_of([*words, *_weight_files(config)])
        done = read_done(folder) or {}
        if done.get("request") != request:
            shutil.rmtree(folder / "run", ignore_errors=True)  # of another training
            write_text(folder / DONE, json.dumps({"request": request, "finished": False}))
        elif done.get("finished"):
            return ""
        if newest_checkpoint(str(folder / "run")) is not None:
            words.append("--resume")
        log = folder / "log.txt"
        problem = self.pool.run("train", words, log)
        if problem is not None:
            return f"{problem} ({log})"
        write_text(folder / DONE, json.dumps({"request": request, "finished": True}))
        return ""

    def _test(self, task: tuple[Cell, Needs]) -> Outcome:
        cell, needs = task
        try:
            return self._tested(cell, needs)
        except (OSError, ValueError, RuntimeError) as error:
            return Outcome(cell, problem=" ".join(str(error).split()))

    def _tested(self, cell: Cell, needs: Needs) -> Outcome:
        if cell.training in self._untrained:
            return Outcome(cell, problem=f"not trained: {self._untrained[cell.training]}")
        checkpoint = needs.checkpoint
        if cell.training is not None and checkpoint is None:
            checkpoint = self._trained[cell.training]
        folder = self.folder(cell)
        with self._preparing:
            config = entry_config(cell.model, cell.options, self.places)
            measured_by(config, folder / "measured.json")
            path = self._write(config, folder, cell.model)
        words = [str(path), "--work-dir", str(folder / "run")]
        if checkpoint is not None and (cell.checkpoint or cell.training is None):
            words.insert(1, checkpoint)
        if late := late_options(cell.options, checkpoint or ""):
            words += ["--cfg-options", *late]
        request = request_of([*words, *_weight_files(config)])
        found = kept(folder, request)
        if found is not None and not (self.again and found.commit != code_state()):
            return Outcome(cell, found)
        return self._measured(cell, folder, words, request)

    def _measured(
        self, cell: Cell, folder: Path, words: list[str], request: dict[str, Any]
    ) -> Outcome:
        measured, log = folder / "measured.json", folder / "log.txt"
        measured.unlink(missing_ok=True)
        problem = self.pool.run("test", words, log)
        if problem is None and not measured.is_file():
            problem = "the test ended without a metric"
        if problem is not None:
            return Outcome(cell, problem=f"{problem} ({log})")
        return Outcome(cell, keep(folder, request, json.loads(measured.read_text("utf-8"))))

    def _write(self, config: Config, folder: Path, model: str, trains: bool = False) -> Path:
        """The config as a file, with the weights that it names, or its miniature."""
        make_folder(folder)
        if self.shrink is None:
            self._fetch(config, model)
        # miniatures lie in one folder, and need names of their own
        name = (
            model if self.shrink is None else file_name(str(folder.relative_to(self.places.work)))
        )
        path = folder / f"{name}.py"
        write_text(path, as_python(config, f"{info_of(model).config}, as it is measured here"))
        if self.shrink is None:
            return path
        named = Config(config.to_dict(), filename=str(path))
        return self.shrink(named, self.places.work / "world", trains)

    def _fetch(self, config: Config, model: str) -> None:
        """Name the weights that are here, and download what has an address.

        Raises:
            FileNotFoundError, ValueError: as :func:`put_weights`; the same for the next cell.
        """
        info = info_of(model)
        look_for_weights(config, info, model, self.places.weights)
        needed = tuple(str(owner[key]) for owner, key, _ in weight_sources(config.model))
        if needed in self._not_fetched:
            raise FileNotFoundError(self._not_fetched[needed])
        try:
            put_weights(config, info, model)
        except (FileNotFoundError, ValueError) as error:
            self._not_fetched[needed] = str(error)
            raise

    def _training_folder(self, training: Training) -> Path:
        """Of a training, which several tables may have in common."""
        key = hashlib.sha256("\n".join(training.options).encode()).hexdigest()[:8]
        return self.places.work / "trainings" / f"{training.model}-{key}"


def summary(outcome: Outcome) -> str:
    """What became of a cell, in a line."""
    if outcome.result is None:
        return f"{outcome.cell.name}: {outcome.problem or 'not run'}"
    metrics = ", ".join(f"{name} {value:.2f}" for name, value in outcome.result.metrics.items())
    return f"{outcome.cell.name}: {metrics} ({outcome.result.seconds:.3f} s an image)"


def file_name(title: str) -> str:
    """A title as the name of a folder."""
    return re.sub(r"[^\w.+-]+", "-", title).strip("-.") or "cell"


def _weight_files(config: Config) -> list[str]:
    """Weights of a config that are files, which a result depends on."""
    found = {str(owner[key]) for owner, key, _ in weight_sources(config.get("model") or {})}
    return sorted(one for one in found if Path(one).is_file())

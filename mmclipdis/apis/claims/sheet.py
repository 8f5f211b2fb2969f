"""``configs/shapes/claims.yml``: the claims, what is measured for them, and by which orders.

``Papers`` has a line on each. ``Worlds`` says how pictures are drawn (options of
``tools/dataset_converters/shapes.py``). ``Experiments`` are rows that are trained and tested::

    - Name: dclip
      Worlds: [shapes]               # one: seeds are those of the training; several: a seed each
      Train: {Config: dclip, Options: [...], Flags: [...]}   # left out: nothing is trained
      Tests:
      - Config: dclip_segment        # left out: that of the training, with the options of the row
        Options: ["model.decode_head.projector={checkpoint}"]
        Metrics: {mIoU: mIoU}        # our name -> that of tools/test.py
      Rows:
        ASL: {Options: [model.mfi=None], Config: ...}   # over those of Train
        CLIP: {Untrained: true, Tests: [...]}           # tests of its own
        segments: {Trained As: ASL, Tests: [...]}       # the training of another row

``{checkpoint}`` in the options of a test is the trained file, ``{work}`` in flags the folder of the
experiment; a config of a test may be a measure of :mod:`mmclipdis.apis.claims.measures`.
``Claims``::

    - Name: dclip/losses
      Paper: DCLIP (arXiv 2502.02977 v4)
      Claim: a sentence
      Published: [{Row: ASL, Model: dclip_rn101_coco14, Dataset: COCO 2014, Metric: mAP}]
      Experiment: dclip              # or Results: results/shapes_declip.json
      Orders: ["mAP: ASL > focal > BCE"]
      Show: [mIoU]                   # metrics that stand in the table besides
      Unseen: a reason               # in place of Experiment, Results and Orders
      Note: what was tried, what the world has to do with it

Published numbers stand in the metafiles; ``Variant`` and ``Source`` of ``Published`` say which.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from mmclipdis.apis.claims.verdict import pairs_of
from mmclipdis.apis.reproduction.published import result_of, select
from mmclipdis.apis.zoo.sources import LOADER
from mmclipdis.utils.places import ROOT

SHEET = ROOT / "configs" / "shapes" / "claims.yml"


@dataclass(frozen=True)
class Step:
    """A training or a test: config of configs/shapes, options and flags of its command line."""

    config: str | None = None
    options: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    metrics: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """A row: config and options over those of the experiment, perhaps tests of its own.

    ``untrained`` is a row of an experiment of trainings without one, the same for every seed;
    ``trained_as`` names the row whose training it tests in its own way.
    """

    step: Step
    tests: tuple[Step, ...] = ()
    untrained: bool = False
    trained_as: str | None = None


@dataclass(frozen=True)
class Experiment:
    """Rows that are measured alike.

    Attributes:
        name, about: what it is called, and what is done to which pictures.
        worlds: of the pictures; several stand for the seeds where nothing is trained.
        train: what is trained first; None: nothing.
        tests: each with the metrics it gives.
        rows: by name; config and options go over those of ``train`` and of tests without config.
    """

    name: str
    about: str
    worlds: tuple[str, ...]
    train: Step | None
    tests: tuple[Step, ...]
    rows: Mapping[str, Row]

    def world(self, seed: int) -> str:
        """The world of a seed."""
        return self.worlds[seed] if len(self.worlds) > 1 else self.worlds[0]

    def has(self, seed: int) -> bool:
        """Whether there is such a seed: any, unless worlds are counted."""
        return len(self.worlds) == 1 or 0 <= seed < len(self.worlds)


@dataclass(frozen=True)
class Quote:
    """A published number, with the row of ours that it belongs to."""

    row: str
    what: str
    value: float
    source: str


@dataclass(frozen=True)
class Claim:
    """A sentence of a paper; see the module."""

    name: str
    paper: str
    text: str
    published: tuple[Quote, ...]
    orders: tuple[str, ...] = ()
    shown: tuple[str, ...] = ()
    experiment: str | None = None
    results: str | None = None
    unseen: str = ""
    note: str = ""

    @property
    def rows(self) -> tuple[str, ...]:
        """The rows that its orders name, each once."""
        names = [n for order in self.orders for pair in pairs_of(order)[1] for n in pair]
        return tuple(dict.fromkeys(names))

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics that its orders name, each once."""
        return tuple(dict.fromkeys(pairs_of(order)[0] for order in self.orders))


@dataclass(frozen=True)
class Sheet:
    """All claims, experiments, worlds (how they are drawn) and papers (a line on each), by name."""

    claims: Mapping[str, Claim]
    experiments: Mapping[str, Experiment]
    worlds: Mapping[str, tuple[str, ...]]
    papers: Mapping[str, str]


@functools.cache
def sheet() -> Sheet:
    """The claims of this package."""
    return read_sheet(SHEET)


def read_sheet(file: Path) -> Sheet:
    """Read and check a file of claims.

    Raises:
        ValueError: naming the file, the claim or experiment, and what is wrong with it.
    """
    content = yaml.load(file.read_text(encoding="utf-8"), LOADER)
    _keys(content, {"Papers", "Worlds", "Experiments", "Claims"}, set(), file.name)
    worlds = {name: tuple(map(str, words)) for name, words in content["Worlds"].items()}
    experiments = _named([_experiment(e, worlds) for e in content["Experiments"]])
    claims = _named([_claim(c, experiments) for c in content["Claims"]])
    for claim in claims.values():
        _known(claim.paper, content["Papers"], f"claim {claim.name}: paper")
    return Sheet(claims, experiments, worlds, content["Papers"])


def _experiment(raw: Mapping[str, Any], worlds: Mapping[str, Any]) -> Experiment:
    where = f"experiment {raw.get('Name')}"
    _keys(raw, {"Name", "About", "Worlds", "Tests", "Rows"}, {"Train"}, where)
    for world in raw["Worlds"]:
        _known(world, worlds, f"{where}: world")
    train = _step(raw["Train"], f"{where}: Train") if "Train" in raw else None
    if train is not None and (train.config is None or len(raw["Worlds"]) > 1):
        raise ValueError(f"{where}: a training needs a Config and exactly one of Worlds")
    tests = _tests(raw["Tests"], where)
    rows = {name: _row(row, f"{where}: {name}") for name, row in raw["Rows"].items()}
    for name, row in rows.items():
        if row.trained_as is not None:
            _known(row.trained_as, rows, f"{where}: {name}: row")
    return Experiment(raw["Name"], raw["About"], tuple(raw["Worlds"]), train, tests, rows)


def _row(raw: Mapping[str, Any], where: str) -> Row:
    own = {"Tests", "Untrained", "Trained As"}
    _keys(raw, set(), {"Config", "Options", "Flags", *own}, where)
    step = _step({key: raw[key] for key in raw if key not in own}, where)
    tests = _tests(raw.get("Tests", ()), where)
    return Row(step, tests, bool(raw.get("Untrained", False)), raw.get("Trained As"))


def _tests(raw: Iterable[Mapping[str, Any]], where: str) -> tuple[Step, ...]:
    return tuple(_step(test, f"{where}: Tests") for test in raw)


def _step(raw: Mapping[str, Any], where: str) -> Step:
    _keys(raw, set(), {"Config", "Options", "Flags", "Metrics"}, where)
    options, flags = (tuple(map(str, raw.get(key, ()))) for key in ("Options", "Flags"))
    return Step(raw.get("Config"), options, flags, raw.get("Metrics", {}))


def _claim(raw: Mapping[str, Any], experiments: Mapping[str, Experiment]) -> Claim:
    where = f"claim {raw.get('Name')}"
    ways = {"Experiment", "Results", "Unseen"}
    _keys(raw, {"Name", "Paper", "Claim", "Published"}, {"Orders", "Show", "Note", *ways}, where)
    if len(ways & set(raw)) != 1 or ("Unseen" in raw) == ("Orders" in raw):
        raise ValueError(
            f"{where}: say Experiment or Results with Orders, or Unseen with the reason"
        )
    claim = Claim(
        name=raw["Name"],
        paper=raw["Paper"],
        text=" ".join(raw["Claim"].split()),
        published=tuple(quote for one in raw["Published"] for quote in _quotes(one, where)),
        orders=tuple(raw.get("Orders", ())),
        shown=tuple(raw.get("Show", ())),
        experiment=raw.get("Experiment"),
        results=raw.get("Results"),
        unseen=" ".join(raw.get("Unseen", "").split()),
        note=" ".join(raw.get("Note", "").split()),
    )
    if claim.experiment is not None:
        rows = _known(claim.experiment, experiments, f"{where}: experiment").rows
        for row in claim.rows:
            _known(row, rows, f"{where}: row of experiment {claim.experiment}")
    return claim


def _quotes(raw: Mapping[str, Any], where: str) -> list[Quote]:
    """The numbers of one entry of ``Published``: of a data set, or of a list of them."""
    _keys(raw, {"Row", "Model", "Dataset", "Metric"}, {"Variant", "Source"}, where)
    listed = raw["Dataset"] if isinstance(raw["Dataset"], list) else [raw["Dataset"]]
    found = []
    for dataset in listed:
        models = select(raw["Model"], where)
        metric, variant = raw["Metric"], raw.get("Variant")
        answer = result_of(models, dataset, [metric], variant, raw.get("Source"), where)
        if answer is None:
            asked = f"{raw['Model']}, {dataset}, {metric}, Variant {variant}"
            raise ValueError(f"{where}: no metafile has a result of {asked}")
        what = f"{metric} {dataset}"
        found.append(Quote(raw["Row"], what, answer.metrics[metric], answer.sources[metric]))
    return found


def _keys(raw: Any, needed: set[str], others: set[str], where: str) -> None:
    """Refuse what is no mapping, lacks a key or has an unknown one."""
    if not isinstance(raw, Mapping):
        raise ValueError(f"{where}: expected keys and values, got {raw!r}")
    if missing := sorted(needed - set(raw)):
        raise ValueError(f"{where}: lacks {missing[0]}")
    if unknown := sorted(set(raw) - needed - others):
        raise ValueError(f"{where}: unknown key {unknown[0]}; known: {sorted(needed | others)}")


def _known(name: str, names: Mapping[str, Any], what: str) -> Any:
    """What ``names`` has under ``name``.

    Raises:
        ValueError: nothing; with the names that are near.
    """
    if name not in names:
        near = difflib.get_close_matches(name, list(names), n=2, cutoff=0.5) or list(names)
        raise ValueError(f"{what} {name!r} is unknown; there is {', '.join(near)}")
    return names[name]


def _named(items: Iterable[Any]) -> dict[str, Any]:
    """By name, each once."""
    found: dict[str, Any] = {}
    for item in items:
        if item.name in found:
            raise ValueError(f"two entries of claims.yml are called {item.name}; rename one")
        found[item.name] = item
    return found

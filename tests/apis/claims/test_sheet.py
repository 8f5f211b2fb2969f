"""Claims are read with published numbers from the metafiles; a mistake is one line. A second."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from mmclipdis.apis.claims.measures import MEASURES
from mmclipdis.apis.claims.sheet import Sheet, read_sheet, sheet
from tests.paths import ROOT

CONTENT: dict[str, Any] = {
    "Papers": {"A paper": "what it claims"},
    "Worlds": {"shapes": [], "other": ["--seed", 2]},
    "Experiments": [
        {
            "Name": "toy",
            "About": "what is done",
            "Worlds": ["shapes"],
            "Train": {"Config": "dclip", "Options": ["a=1"]},
            "Tests": [{"Metrics": {"mAP": "mAP"}}],
            "Rows": {"A": {}, "B": {"Options": ["b=2"]}},
        }
    ],
    "Claims": [
        {
            "Name": "toy/one",
            "Paper": "A paper",
            "Claim": "A beats\nB.",
            "Published": [
                {
                    "Row": "A",
                    "Model": "dclip_rn101_coco14",
                    "Dataset": "COCO 2014",
                    "Metric": "mAP",
                    "Variant": "BCE in place of ASL",
                }
            ],
            "Experiment": "toy",
            "Orders": ["mAP: A > B"],
        }
    ],
}


def read(
    tmp_path: Path, experiment: dict[str, Any] | None = None, claim: dict[str, Any] | None = None
) -> Sheet:
    """The content above with other entries; None takes an entry away."""
    content = {**CONTENT}
    for key, changes in (("Experiments", experiment), ("Claims", claim)):
        changed = {**CONTENT[key][0], **(changes or {})}
        content[key] = [{name: value for name, value in changed.items() if value is not None}]
    path = tmp_path / "claims.yml"
    path.write_text(yaml.safe_dump(content))
    return read_sheet(path)


def test_a_claim_has_its_number_and_source_from_the_metafiles(tmp_path: Path) -> None:
    (claim,) = read(tmp_path).claims.values()
    assert claim.text == "A beats B."
    assert (claim.rows, claim.metrics) == (("A", "B"), ("mAP",))
    (quote,) = claim.published
    assert (quote.row, quote.what, quote.value) == ("A", "mAP COCO 2014", 81.2)
    assert quote.source.startswith("DCLIP")


def test_several_data_sets_are_several_numbers(tmp_path: Path) -> None:
    two = ["ADE20K", "PASCAL Context 59"]
    quote = {"Row": "A", "Model": "clearclip_vitb16_*", "Dataset": two, "Metric": "mIoU"}
    (claim,) = read(tmp_path, claim={"Published": [quote]}).claims.values()
    assert [q.value for q in claim.published] == [16.7, 35.9]


def test_seeds_are_trainings_or_worlds(tmp_path: Path) -> None:
    trained = read(tmp_path).experiments["toy"]
    assert [trained.world(seed) for seed in (0, 7)] == ["shapes", "shapes"]
    drawn = read(tmp_path, {"Train": None, "Worlds": ["shapes", "other"]}).experiments["toy"]
    assert [drawn.world(seed) for seed in (0, 1)] == ["shapes", "other"]
    assert [drawn.has(seed) for seed in (0, 1, 2)] == [True, True, False]


@pytest.mark.parametrize(
    ("experiment", "claim", "message"),
    [
        ({"Worlds": ["shpes"]}, None, "experiment toy: world 'shpes' is unknown; there is shapes"),
        ({"Worlds": ["shapes", "other"]}, None, "experiment toy: a training needs a Config and ex"),
        ({"Train": {}}, None, "experiment toy: a training needs a Config"),
        ({"Rows": {"A": {"Option": []}}}, None, "experiment toy: A: unknown key Option; known"),
        ({"Rows": {"A": {"Trained As": "C"}}}, None, "experiment toy: A: row 'C' is unknown"),
        ({"About": None}, None, "experiment toy: lacks About"),
        (None, {"Experiment": "tiy"}, "claim toy/one: experiment 'tiy' is unknown; there is toy"),
        (None, {"Orders": ["mAP: A > C"]}, "claim toy/one: row of experiment toy 'C' is unknown"),
        (None, {"Orders": ["A > B"]}, "'A > B' is no order of rows"),
        (None, {"Unseen": "why"}, "claim toy/one: say Experiment or Results with Orders, or Uns"),
        (None, {"Experiment": None}, "claim toy/one: say Experiment or Results with Orders"),
        (None, {"Orders": None}, "claim toy/one: say Experiment or Results with Orders"),
        (None, {"Paper": "A papr"}, "claim toy/one: paper 'A papr' is unknown; there is A paper"),
        (None, {"Because": "why"}, "claim toy/one: unknown key Because"),
        (None, {"Published": ["81.2"]}, "claim toy/one: expected keys and values, got '81.2'"),
    ],
)
def test_a_mistake_is_named(
    tmp_path: Path, experiment: dict[str, Any] | None, claim: dict[str, Any] | None, message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        read(tmp_path, experiment, claim)
    assert "\n" not in str(error.value)


def test_a_number_that_nobody_published_is_named(tmp_path: Path) -> None:
    quote = {**CONTENT["Claims"][0]["Published"][0], "Variant": "hinge loss"}
    with pytest.raises(ValueError, match="no metafile has a result of dclip_rn101_coco14, COCO 20"):
        read(tmp_path, claim={"Published": [quote]})


def test_own_claims_name_configs_that_exist() -> None:
    own = sheet()
    steps = [step for e in own.experiments.values() for step in (*e.tests, *_row_steps(e))]
    steps += [e.train for e in own.experiments.values() if e.train]
    configs = {step.config for step in steps if step.config} - set(MEASURES)
    assert configs and not [
        name for name in configs if not (ROOT / "configs/shapes" / f"{name}.py").is_file()
    ]


def test_own_experiments_are_used_and_give_what_is_asked_of_them() -> None:
    own = sheet()
    asked = {claim.experiment for claim in own.claims.values() if claim.experiment}
    assert asked == set(own.experiments)
    for claim in own.claims.values():
        if claim.experiment is None:
            continue
        experiment = own.experiments[claim.experiment]
        for row in claim.rows:
            tests = experiment.rows[row].tests or experiment.tests
            given = {name for test in tests for name in test.metrics}
            asked = {m for m in claim.metrics if _names(claim.orders, m, row)}
            assert asked <= given, (claim.name, row)


def _row_steps(experiment: Any) -> list[Any]:
    return [s for row in experiment.rows.values() for s in (row.step, *row.tests)]


def _names(orders: tuple[str, ...], metric: str, row: str) -> bool:
    """Whether an order of the metric has the row."""
    return any(order.startswith(f"{metric}: ") and row in order for order in orders)

"""Images of rare classes are drawn more often, as their repeat factors say, and again exactly."""

from __future__ import annotations

import math
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.dataset import ClassBalancedDataset
from mmengine.registry import DATA_SAMPLERS, DATASETS

from mmclipdis.datasets import RepeatFactorSampler
from mmclipdis.datasets.detection import repeat_factor_sampler as module
from mmclipdis.datasets.detection.repeat_factor_sampler import repeat_factors
from tests.engine.test_exact_resume import assert_equal_runs
from tests.engine.toy import ToyDataset, toy_config, train


class Boxes:
    """A data set that knows its classes and nothing else."""

    def __init__(self, classes: list[list[int]]) -> None:
        self.classes = classes

    def __len__(self) -> int:
        return len(self.classes)

    def get_cat_ids(self, index: int) -> list[int]:
        return self.classes[index]


@DATASETS.register_module()
class ToyBoxes(ToyDataset):
    """One class in the first image, another in the rest."""

    def get_cat_ids(self, index: int) -> list[int]:
        return [int(index > 0)]


def world(images: int = 50) -> list[list[int]]:
    drawn = random.Random(0)
    return [
        [int(4 * drawn.random() ** 3) for _ in range(drawn.randint(0, 3))] for _ in range(images)
    ]


@pytest.fixture
def as_rank(monkeypatch: pytest.MonkeyPatch) -> Any:
    def become(rank: int, of: int) -> None:
        monkeypatch.setattr(module, "get_dist_info", lambda: (rank, of))

    return become


def test_golden_weights() -> None:
    rare = [[0, 1]] + [[0]] * 9_999  # class 1 in 1e-4 of the images
    assert repeat_factors(rare, 1e-3)[:2].tolist() == pytest.approx([3.1623, 1.0], abs=5e-5)
    hundredth = [[0, 1]] + [[0]] * 99
    assert repeat_factors(hundredth, 1.0)[:2].tolist() == pytest.approx([10.0, 1.0])
    assert repeat_factors(hundredth, 1e-3)[:2].tolist() == [1.0, 1.0]


def naive(classes: list[list[int]], threshold: float) -> list[float]:
    found = []
    for image in classes:
        weight = 1.0
        for label in image:
            share = sum(label in other for other in classes) / len(classes)
            weight = max(weight, math.sqrt(threshold / share))
        found.append(weight)
    return found


@pytest.mark.parametrize("threshold", [0.2, 0.3, 1.0])
def test_weights_are_those_of_loops_and_of_mmengine(threshold: float) -> None:
    classes = world()
    found = repeat_factors(classes, threshold).tolist()
    assert found == pytest.approx(naive(classes, threshold))
    balanced = object.__new__(ClassBalancedDataset)
    balanced.dataset = Boxes(classes)
    assert found == pytest.approx(balanced._get_repeat_factors(balanced.dataset, threshold))
    assert max(found) > 1


def test_images_are_drawn_as_often_as_they_weigh() -> None:
    classes = [[0, 1]] + [[0]] * 99
    sampler = RepeatFactorSampler(Boxes(classes), threshold=1.0, seed=0)
    drawn: Counter[int] = Counter()
    for epoch in range(200):
        sampler.set_epoch(epoch)
        one = list(sampler)
        assert len(one) == len(sampler) == 100
        drawn.update(one)
    expected = 20_000 * 10 / 109
    assert abs(drawn[0] - expected) < 4 * math.sqrt(expected)
    others = [drawn[i] for i in range(1, 100)]
    assert abs(sum(others) / 99 - 20_000 / 109) < 3
    assert min(others) > 100


def test_epochs_differ_and_repeat_with_the_seed() -> None:
    one, same, other = (RepeatFactorSampler(Boxes(world()), seed=seed) for seed in (1, 1, 2))
    first = list(one)
    assert list(one) == first == list(same)
    assert list(other) != first
    one.set_epoch(1)
    assert list(one) != first
    before = torch.get_rng_state()
    list(one)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("ranks", [2, 3])
def test_each_process_draws_from_a_fixed_part(as_rank: Any, ranks: int) -> None:
    parts: list[set[int]] = []
    lengths = set()
    for rank in range(ranks):
        as_rank(rank, ranks)
        sampler = RepeatFactorSampler(Boxes(world(50)), threshold=1.0, seed=5)
        seen: set[int] = set()
        for epoch in range(80):
            sampler.set_epoch(epoch)
            seen |= set(sampler)
        assert seen == set(range(rank, 50, ranks))
        lengths.add(len(list(sampler)))
        parts.append(seen)
    assert set.union(*parts) == set(range(50)) and sum(map(len, parts)) == 50
    assert lengths == {math.ceil(50 / ranks)}, "an epoch is equally long everywhere"


def test_weights_are_of_all_images_not_of_those_of_a_process(as_rank: Any) -> None:
    classes = world()
    whole = RepeatFactorSampler(Boxes(classes), threshold=1.0).weights
    as_rank(1, 2)
    assert torch.equal(RepeatFactorSampler(Boxes(classes), threshold=1.0).weights, whole[1::2])


@pytest.mark.parametrize("loop", ["iterations", "epochs"])
def test_a_resumed_run_draws_the_same_images(tmp_path: Path, loop: str) -> None:
    changes: dict[str, Any] = {
        "train_dataloader.dataset.type": "ToyBoxes",
        "train_dataloader.sampler": {
            "_delete_": True,
            "type": "RepeatFactorSampler",
            "threshold": 1.0,
        },
    }
    name = "iter_10.pth"
    if loop == "epochs":
        name = "epoch_2.pth"
        changes |= {
            "train_cfg": {"type": "ExactEpochBasedTrainLoop", "max_epochs": 4, "val_interval": 2},
            "param_scheduler": [],
            "default_hooks": {"checkpoint": {"type": "ExactCheckpointHook", "interval": 2}},
        }
    whole = train(toy_config(tmp_path / "whole", **changes))
    start = str(tmp_path / "whole" / name)
    resumed = train(toy_config(tmp_path / "resumed", **changes, load_from=start, resume=True))
    assert_equal_runs(whole, resumed)


def test_joined_and_wrapped_data_sets() -> None:
    class Joined:
        datasets = [Boxes([[0]] * 3), Boxes([[1], [0]])]
        __len__ = lambda self: 5  # noqa: E731

    class Wrapped:
        dataset = Joined()
        __len__ = lambda self: 5  # noqa: E731

    expected = repeat_factors([[0]] * 3 + [[1], [0]], 1.0)
    for dataset in (Joined(), Wrapped()):
        assert torch.equal(RepeatFactorSampler(dataset, threshold=1.0).weights, expected)


def test_from_a_config_by_its_name() -> None:
    config = {"type": "RepeatFactorSampler", "threshold": 1.0}
    sampler = DATA_SAMPLERS.build(config, default_args={"dataset": Boxes(world()), "seed": 3})
    assert isinstance(sampler, RepeatFactorSampler)

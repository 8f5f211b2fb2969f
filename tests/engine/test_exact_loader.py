"""The n-th batch depends on the seed and on n alone."""

from __future__ import annotations

import itertools
import pickle
import random
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.dataset import DefaultSampler, InfiniteSampler
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset

from mmclipdis.engine.exact_loader import PositionedBatches, SeededDataset, exact_data_loader
from mmclipdis.engine.loops import SkippableBatches


class Noisy(Dataset):
    metainfo = {"classes": ("a",)}

    def __init__(self, length: int = 7) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> list[float]:
        return [float(index), random.random(), float(np.random.rand()), float(torch.rand(()))]


def loader(seed: int = 0, rank: int = 0, endless: bool = True, **options: Any) -> Any:
    data = Noisy()
    sampler = InfiniteSampler(data, seed=1) if endless else DefaultSampler(data, seed=1)
    options = {"batch_size": 2, **options}
    base = DataLoader(data, sampler=sampler, collate_fn=list, **options)
    return exact_data_loader(base, seed, rank, endless)


def take(count: int, source: Any) -> list[Any]:
    return list(itertools.islice(iter(source), count))


def test_skipped_batches_are_the_same_batches() -> None:
    whole, later = loader(), loader()
    later.skip = 6
    parts = take(10, later)
    assert parts[:6] == [None] * 6
    assert parts[6:] == take(10, whole)[6:]


def test_batches_are_skipped_one_by_one_or_at_once() -> None:
    whole, later = loader(), loader()
    later.skip = 6
    batches = SkippableBatches(iter(later))
    assert next(batches) is None  # mmengine 0.10.7
    batches.skip_iter(5)  # its fork
    assert take(4, batches) == take(10, whole)[6:]
    batches.close()
    assert list(batches) == []


def test_generators_of_the_main_process_are_left_alone() -> None:
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    expected = random.random(), np.random.rand(), float(torch.rand(()))
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    take(3, loader())
    assert (random.random(), np.random.rand(), float(torch.rand(()))) == expected


def test_samples_differ_by_seed_rank_and_position() -> None:
    one, seed, rank = take(4, loader()), take(4, loader(seed=1)), take(4, loader(rank=1))
    drawn = [tuple(sample[1:]) for run in (one, seed, rank) for batch in run for sample in batch]
    assert len(set(drawn)) == len(drawn)


def test_finite_samplers_are_shuffled_anew_in_each_pass() -> None:
    data = Noisy(6)
    base = DataLoader(data, 3, sampler=DefaultSampler(data, seed=1), collate_fn=list)
    passes = take(6, exact_data_loader(base, 0, 0, True))
    orders = [[sample[0] for batch in passes[i : i + 2] for sample in batch] for i in (0, 2, 4)]
    assert all(sorted(order) == [0, 1, 2, 3, 4, 5] for order in orders)
    assert len({tuple(order) for order in orders}) == 3


def test_epochs_number_their_batches_through() -> None:
    exact = loader(endless=False)
    first = list(exact)
    exact.batches.first_position = len(exact)
    second = list(exact)
    assert [len(batch) for batch in first] == [2, 2, 2, 1]
    assert first != second


def test_wrapped_data_set_can_be_read_and_changed() -> None:
    exact = loader()
    assert exact.dataset.metainfo == {"classes": ("a",)}
    exact.dataset.pipeline = "new"
    assert exact.dataset.wrapped.pipeline == "new"
    assert len(exact.dataset) == 7 and exact.batch_size == 2
    copy = pickle.loads(pickle.dumps(exact.dataset))
    assert isinstance(copy, SeededDataset) and copy[(0, 0, 3)] == exact.dataset[(0, 0, 3)]


def test_a_subset_that_gives_batches_at_once_is_read_one_by_one() -> None:
    base = DataLoader(Subset(Noisy(), [5, 3, 1]), batch_size=2, collate_fn=list)
    batches = list(exact_data_loader(base, 0, 0, endless=False))
    assert [[sample[0] for sample in batch] for batch in batches] == [[5.0, 3.0], [1.0]]


def test_an_exact_loader_stays_itself() -> None:
    exact = loader()
    assert exact_data_loader(exact, 5, 0, True) is exact


def test_too_little_data_for_one_batch_is_an_error() -> None:
    with pytest.raises(ValueError, match="lower batch_size or set drop_last=False"):
        next(iter(PositionedBatches(EmptyBatches(), endless=True)))


class EmptyBatches:
    sampler = None

    def __iter__(self) -> Any:
        return iter(())


def test_iterable_data_sets_are_refused() -> None:
    class Stream(IterableDataset):
        def __iter__(self) -> Any:
            return iter(range(3))

    with pytest.raises(TypeError, match="map-style data set.*Stream"):
        exact_data_loader(DataLoader(Stream()), 0, 0, True)

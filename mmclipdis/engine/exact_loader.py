"""A data loader whose n-th batch depends on the seed and on n alone.

Stock loaders draw augmentations from generators that carry their state from batch to batch, in
workers that a resumed run starts afresh. Here each sample is drawn after seeding the generators
from (seed, rank, position in the run, place in the batch). A resumed run therefore sees the batches
of the uninterrupted one, and can skip the first n without loading them.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

from mmclipdis.engine.random_state import preserved_random_state, seed_cpu_generators

Key = tuple[int, int, Any]  # position of the batch, place in the batch, index into the data set


class SeededDataset(Dataset):
    """Seeds the generators before each sample; everything else is the wrapped data set's."""

    def __init__(self, dataset: Dataset, seed: int, rank: int) -> None:
        self.__dict__.update(wrapped=dataset, seed=seed, rank=rank)

    def __getitem__(self, key: Key) -> Any:
        position, place, index = key
        if get_worker_info() is not None:
            seed_cpu_generators(self.seed, self.rank, position, place)
            return self.wrapped[index]
        with preserved_random_state():  # the main process has the model's generators
            seed_cpu_generators(self.seed, self.rank, position, place)
            return self.wrapped[index]

    def __len__(self) -> int:
        return len(self.wrapped)

    def __getattr__(self, name: str) -> Any:
        # "wrapped": while unpickling in a spawned worker. "__getitems__": a Subset's knows no keys.
        if name in ("wrapped", "__getitems__"):
            raise AttributeError(name)
        return getattr(self.wrapped, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.wrapped, name, value)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


class PositionedBatches:
    """A batch sampler that numbers its batches, can start at the n-th, and need not end.

    Attributes:
        start: number of the first batch that is yielded.
        first_position: number of the first batch of this pass over the data (0 when endless).
    """

    def __init__(self, batches: Any, endless: bool) -> None:
        self.batches = batches
        self.endless = endless
        self.start = 0
        self.first_position = 0

    @property
    def sampler(self) -> Any:
        """The sampler inside, on which mmengine's hooks call ``set_epoch``."""
        return self.batches.sampler

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[Key]]:
        position, epoch = self.first_position, 0
        while True:
            before = position
            for batch in self.batches:
                if position >= self.start:
                    yield [(position, place, index) for place, index in enumerate(batch)]
                position += 1
            if not self.endless:
                return
            if position == before:
                raise ValueError(
                    "the data set gives no batch: it has fewer images than one batch and "
                    "drop_last=True; lower batch_size or set drop_last=False."
                )
            epoch += 1
            if hasattr(self.sampler, "set_epoch"):
                self.sampler.set_epoch(epoch)


class ExactDataLoader(DataLoader):
    """A :class:`DataLoader` made from another one, with seeded samples and a known position.

    Iterating starts no worker before the first batch is asked for. With ``skip`` set, the first
    ``skip`` items are None and cost nothing: mmengine's loop asks for them to get to its place.
    """

    def __init__(self, loader: DataLoader, seed: int, rank: int, endless: bool) -> None:
        generator = torch.Generator()
        generator.manual_seed(seed)  # or else starting an epoch draws from the model's generator
        self.batches = PositionedBatches(loader.batch_sampler, endless)
        super().__init__(
            SeededDataset(loader.dataset, seed, rank),
            batch_sampler=self.batches,
            num_workers=loader.num_workers,
            collate_fn=loader.collate_fn,
            pin_memory=loader.pin_memory,
            timeout=loader.timeout,
            worker_init_fn=loader.worker_init_fn,
            multiprocessing_context=loader.multiprocessing_context,
            generator=generator,
            prefetch_factor=loader.prefetch_factor,
            persistent_workers=loader.persistent_workers and not endless,  # nothing to come back to
        )
        self.__dict__["batch_size"] = loader.batch_size  # mmengine scales rates by it
        self.skip = 0

    def __iter__(self) -> Generator[Any, None, None]:  # type: ignore[override]
        for _ in range(self.skip):
            yield None
        self.batches.start = self.skip
        yield from super().__iter__()

    def stop_workers(self) -> None:
        """End persistent workers now; garbage collection would wait five seconds for each."""
        self._iterator = None


def exact_data_loader(loader: DataLoader, seed: int, rank: int, endless: bool) -> ExactDataLoader:
    """Make a loader exact.

    Args:
        loader: a loader over a map-style data set; nothing may have been read from it.
        seed: seed of the run.
        rank: rank of this process; ranks draw different augmentations.
        endless: True for iteration-based loops, which never see the end of the data.

    Returns:
        The exact loader, or ``loader`` itself when it is exact already.

    Raises:
        TypeError: the data set is iterable-style and has no positions.
    """
    if isinstance(loader, ExactDataLoader):
        return loader
    if isinstance(loader.dataset, IterableDataset) or loader.batch_sampler is None:
        raise TypeError(
            "exact resume needs a map-style data set with a batch sampler, got "
            f"{type(loader.dataset).__name__}; use mmengine's own train loop for this data set."
        )
    return ExactDataLoader(loader, seed, rank, endless)

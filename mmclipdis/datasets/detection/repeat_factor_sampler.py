"""Images of rare classes more often: repeat factors as weights of a draw with replacement."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from mmengine.dataset import RepeatDataset
from mmengine.dist import get_dist_info, sync_random_seed
from mmengine.registry import DATA_SAMPLERS
from torch import Tensor
from torch.utils.data import Sampler


def repeat_factors(classes: Sequence[Sequence[int]], threshold: float) -> Tensor:
    """Weight of each image: ``max_c max(1, sqrt(threshold / f_c))`` over the classes c in it.

    Args:
        classes: Of the boxes of each image; repeated ones count once.
        threshold: Share of images below which a class is rare.

    Returns:
        Weights (n,) float64; 1 for an image without boxes.

    Source: LVIS (CVPR 2019). mmengine's ``ClassBalancedDataset`` rounds them up to whole numbers of
    repetitions, which makes an epoch longer.
    """
    sets = [set(image) for image in classes]
    images = Counter(label for image in sets for label in image)
    factor = {
        label: max(1.0, math.sqrt(threshold * len(sets) / count)) for label, count in images.items()
    }
    weights = [max((factor[label] for label in image), default=1.0) for image in sets]
    return torch.tensor(weights, dtype=torch.float64)


def _classes(dataset: Any) -> list[list[int]]:
    """Classes in each image, of a data set that joins or wraps others too."""
    if hasattr(dataset, "get_cat_ids"):
        return [dataset.get_cat_ids(index) for index in range(len(dataset))]
    if hasattr(dataset, "datasets"):  # ConcatDataset
        return [classes for part in dataset.datasets for classes in _classes(part)]
    if isinstance(dataset, RepeatDataset):
        return _classes(dataset.dataset) * dataset.times
    if hasattr(dataset, "dataset") and len(dataset.dataset) == len(dataset):  # MultiImageMixDataset
        return _classes(dataset.dataset)
    raise TypeError(
        "RepeatFactorSampler asks the data set which classes an image has, and "
        f"{type(dataset).__name__} has no get_cat_ids; take one of boxes, or DefaultSampler"
    )


@DATA_SAMPLERS.register_module()
class RepeatFactorSampler(Sampler):
    """Draws images with replacement, those with rare classes more often.

    An epoch is as long as without. Each process draws from a fixed part of the images, every
    ``world_size``-th one; what it draws depends on seed, epoch and rank alone, so a resumed run
    goes on exactly.

    Args:
        dataset: With ``get_cat_ids``, as mmdet's data sets of boxes have, or one that joins such.
        threshold: Share of images below which a class is rare: 0.001 in LVIS. OV-DQUO's reference
            code multiplies it away by mistake and draws with 1.0, with which every class is rare:
            ``threshold=1.0`` does the same.
        seed: Of the draws; the run's if it is not given.

    In a config that takes the place of another sampler's options: ``sampler=dict(_delete_=True,
    type='RepeatFactorSampler')``.

    Raises:
        ValueError: ``threshold`` is not above 0, or there are fewer images than processes.
        TypeError: the data set does not say what classes its images have.

    Source: OV-DQUO (AAAI 2025), its schedule on OV-LVIS.
    """

    def __init__(self, dataset: Any, threshold: float = 0.001, seed: int | None = None) -> None:
        number = isinstance(threshold, (int, float)) and not isinstance(threshold, bool)
        if not number or not 0 < threshold < math.inf:
            raise ValueError(
                "RepeatFactorSampler: threshold is a share of images above 0 (0.001 in LVIS), got "
                f"{threshold!r}"
            )
        classes = _classes(dataset)
        self.rank, self.world_size = get_dist_info()
        if len(dataset) < self.world_size:
            raise ValueError(
                f"RepeatFactorSampler: {len(dataset):,} images are fewer than the "
                f"{self.world_size:,} processes"
            )
        self.dataset = dataset  # batch samplers look into it, as mmdet's by aspect ratio
        self.seed = sync_random_seed() if seed is None else seed
        self.epoch = 0
        self.num_samples = math.ceil(len(dataset) / self.world_size)
        self.weights = repeat_factors(classes, threshold)[self.rank :: self.world_size]

    def __iter__(self) -> Iterator[int]:
        """Indices of the images of one epoch of this process."""
        generator = torch.Generator()
        generator.manual_seed(self.seed + self.epoch * self.world_size + self.rank)
        drawn = torch.multinomial(
            self.weights, self.num_samples, replacement=True, generator=generator
        )
        return iter((self.rank + self.world_size * drawn).tolist())

    def __len__(self) -> int:
        """Images of an epoch of this process."""
        return self.num_samples

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch is drawn next."""
        self.epoch = epoch

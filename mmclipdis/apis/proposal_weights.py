"""The two-density estimate of how surely a proposal holds a thing, on a detector's frozen CLIP."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.ops import clip_boxes_to_image

from mmclipdis.apis.proposal_source import Detector, batches_of, known_boxes
from mmclipdis.datasets.detection.foreground_density import LevelDensities, fit_densities
from mmclipdis.datasets.detection.proposals import random_ground
from mmclipdis.models.detection.reconstruction import (
    Moments,
    Reconstruction,
    best_reconstruction,
)

#: Boxes of ground looked for in an image that has no known ones.
_GROUND = 5


@dataclass(frozen=True)
class Weigher:
    """An auto-encoder of the dense map, and the densities of its errors."""

    reconstruction: Reconstruction
    densities: LevelDensities

    def weights(self, features: Tensor, boxes: Tensor) -> NDArray[np.float64]:
        """Weights (n,) in 0..1 of boxes (n, 4; px) whose middles have these features (n, D)."""
        return self.densities.weights(self.reconstruction.errors(features).numpy(), areas(boxes))


def areas(boxes: Tensor) -> NDArray[np.float64]:
    """Areas (n,) of boxes (n, 4)."""
    sides: NDArray[np.float64] = (boxes[:, 2:] - boxes[:, :2]).double().numpy()
    return sides.prod(1)


def fit_weigher(
    detector: Detector,
    dataset: Any,
    most: int,
    explained: float,
    seed: int,
    batch_size: int,
    workers: int,
) -> Weigher:
    """Fit auto-encoder and densities to some images, and say how far things and ground differ.

    Things are the known boxes; ground are as many random boxes of the sizes of things that touch
    none of them.

    Args:
        detector: With a dense map.
        dataset: Of :func:`~mmclipdis.apis.proposal_source.training_data`.
        most: Images that are looked at.
        explained: Of the auto-encoder.
        seed: Chooses the images, and places of ground.
        batch_size: Images at a time.
        workers: That load them.

    Raises:
        ValueError: as :func:`best_reconstruction` and :func:`fit_densities`.
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(dataset), generator=generator)[:most].sort().values.tolist()
    things = {index: _things(dataset.get_data_info(index)) for index in order}
    sides = torch.cat([boxes[:, 2:] - boxes[:, :2] for boxes in things.values()])
    moments: Moments | None = None
    found: dict[str, list[tuple[Tensor, Tensor]]] = {"things": [], "ground": []}
    for indices, data in batches_of(dataset, order, batch_size, workers, title="fit"):
        _, dense, samples = detector.look(data, propose=False)
        assert dense is not None  # the detector was asked for one
        cells = detector.cells(dense, samples)
        moments = moments or Moments(cells.shape[1])
        moments.add(cells)
        infos = [dataset.get_data_info(index) for index in indices]
        ground = [
            random_ground(
                sides,
                known_boxes(info),
                (info["height"], info["width"]),
                len(things[index]) or _GROUND,
                generator,
            )
            for index, info in zip(indices, infos, strict=True)
            if len(sides)
        ]
        kinds = {"things": [things[index] for index in indices], "ground": ground}
        for kind, boxes in kinds.items():
            if sum(map(len, boxes)):
                found[kind].append((detector.centres(dense, boxes, samples), torch.cat(boxes)))
    assert moments is not None  # a data set has an image
    reconstruction = best_reconstruction(moments, explained)
    kinds_of = {kind: _errors(reconstruction, parts) for kind, parts in found.items()}
    densities = fit_densities(kinds_of["things"], kinds_of["ground"])
    _say(kinds_of, len(order), densities)
    return Weigher(reconstruction, densities)


def _things(info: Any) -> Tensor:
    """Known boxes of one thing each, inside of the image."""
    single = {"instances": [box for box in info["instances"] if not box["ignore_flag"]]}
    boxes = clip_boxes_to_image(known_boxes(single), (info["height"], info["width"]))
    return boxes[(boxes[:, 2:] - boxes[:, :2]).amin(1) >= 1]


def _errors(
    reconstruction: Reconstruction, parts: list[tuple[Tensor, Tensor]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Errors and areas of boxes, of which there are features and corners, batch by batch."""
    features = [part[0].cpu() for part in parts] or [torch.zeros(0, len(reconstruction.mean))]
    boxes = [part[1] for part in parts] or [torch.zeros(0, 4)]
    errors: NDArray[np.float64] = reconstruction.errors(torch.cat(features)).numpy()
    return errors, areas(torch.cat(boxes))


def _say(kinds: Any, images: int, densities: LevelDensities) -> None:
    """How far the errors of things and ground are apart."""
    things, ground = (np.sort(kinds[kind][0]) for kind in ("things", "ground"))
    larger = np.searchsorted(ground, things).mean() / len(ground)
    print(
        f"densities: {len(things):,} things with a mean error of {things.mean():.2f} and "
        f"{len(ground):,} boxes of ground with {ground.mean():.2f} in {images:,} images; the error "
        f"of a thing is the larger one in {larger:.0%} of all pairs; levels of area with densities "
        f"of their own: {', '.join(map(str, sorted(densities.levels))) or 'none'}"
    )

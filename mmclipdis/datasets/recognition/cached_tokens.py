"""A training set whose images have been replaced by their frozen features.

The pipeline of a data set is taken apart: all transforms but the last work on the image, the last
packs the sample. The first part runs once an image, when its features are computed; what it adds
beside the image (sizes, mostly) is kept with them. The last part runs for every sample, on the
labels of the moment.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmengine.registry import DATASETS
from mmengine.structures import BaseDataElement
from torch import Tensor
from torch.utils.data import Dataset

from mmclipdis.datasets.recognition.token_store import TokenStore
from mmclipdis.engine.random_state import preserved_random_state, seed_cpu_generators

#: What a packing transform gets in place of the image; ``TokenImages`` checks that it may.
_NO_IMAGE = np.zeros((1, 1, 3), np.uint8)
_REMEDY = (
    "features can be kept only of views that are the same in every epoch. Give the training data "
    "a pipeline without it, as configs/dclip/dclip_rn101_coco14_cached.py does: "
    "train_dataloader = dict(dataset=dict(pipeline=...))"
)


@DATASETS.register_module()
class CachedTokens(Dataset):
    """``dataset`` with tokens (L, D), float32, as the ``inputs`` of its samples.

    Everything else of a sample is what ``dataset`` gives, its labels included: they are read from
    ``dataset`` each time, and the packing transform at the end of its pipeline is run on them.

    Args:
        dataset: a data set with ``get_data_info`` and ``pipeline``, or mmengine's
            ``ConcatDataset``, ``RepeatDataset`` or ``ClassBalancedDataset`` of such; or its config.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = DATASETS.build(dataset) if isinstance(dataset, dict) else dataset
        self._store: TokenStore | None = None
        self._parts: list[Any] = []
        self._starts: list[int] = []

    @property
    def metainfo(self) -> dict[str, Any]:
        """That of the data set inside (class names)."""
        return self.dataset.metainfo  # type: ignore[no-any-return]

    def full_init(self) -> None:
        """Read the annotations, if that was put off."""
        self.dataset.full_init()

    def get_data_info(self, idx: int) -> dict[str, Any]:
        """The annotations of a sample."""
        return self.dataset.get_data_info(idx)  # type: ignore[no-any-return]

    def attach(self, store: TokenStore) -> None:
        """Take the tokens from here; the rows are those of :class:`TokenImages`.

        Raises:
            ValueError: they are tokens of another number of images.
        """
        self._parts = data_sets_inside(self.dataset)
        ends = np.cumsum([len(part) for part in self._parts]).tolist()
        if len(store) != ends[-1]:
            raise ValueError(f"{store.folder} has {len(store)} images, the data set {ends[-1]}.")
        self._starts = [0, *ends[:-1]]
        self._store = store

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, idx: int) -> dict[str, Any]:
        """The sample: ``inputs`` (L, D) and whatever the packing transform adds.

        Raises:
            RuntimeError: no features have been computed.
        """
        if self._store is None:
            raise RuntimeError(
                "CachedTokens has no features yet: train with tools/train.py --cache-features DIR."
            )
        part, index = locate(self.dataset, idx)
        place = next(i for i, other in enumerate(self._parts) if other is part)
        tokens, facts = self._store[self._starts[place] + index]
        return pack(part, {**part.get_data_info(index), **facts}, tokens)


class TokenImages(Dataset):
    """The images whose features are to be computed: each once, whatever wrappers repeat it.

    A sample is that of the pipeline, and under ``facts`` what the transforms before the last added
    to the annotations beside the image.

    Args:
        dataset: as for :class:`CachedTokens`, built.

    Raises:
        TypeError: a data set of another kind.
    """

    def __init__(self, dataset: Any) -> None:
        self.parts = data_sets_inside(dataset)
        self.ends = np.cumsum([len(part) for part in self.parts]).tolist()
        self.shape: tuple[int, ...] | None = None  # of the images, once one is known

    def __len__(self) -> int:
        return int(self.ends[-1])

    def path(self, row: int) -> str:
        """File of an image.

        Raises:
            ValueError: the data set does not say.
        """
        part, index = self._locate(row)
        info = part.get_data_info(index)
        if not isinstance(info.get("img_path"), str):
            raise ValueError(f"{type(part).__name__} has no img_path for image {index}.")
        return str(info["img_path"])

    def __getitem__(self, row: int) -> dict[str, Any]:
        """The sample of an image with its ``facts``.

        Raises:
            ValueError: the image cannot be read, has another size than the first one, or the
                pipeline cannot be run ahead of the training.
        """
        part, index = self._locate(row)
        results = self._image(part, index, self.path(row))
        facts = _facts(part.get_data_info(index), results)
        sample = part.pipeline.transforms[-1](results)
        if not isinstance(sample, dict) or not isinstance(sample.get("inputs"), Tensor):
            raise ValueError(
                f"the last transform must pack the image as 'inputs', and "
                f"{_name(part.pipeline.transforms[-1])} does not."
            )
        if self.shape is not None and tuple(sample["inputs"].shape) != self.shape:
            raise ValueError(
                f"image {self.path(row)} is {tuple(sample['inputs'].shape)} and the first one is "
                f"{self.shape}: features can be kept only of images of one size; resize with "
                "keep_ratio=False."
            )
        return {**sample, "facts": facts}

    def check(self, images: int = 3) -> None:
        """Try the first images of every data set; remembers the size of the first.

        Raises:
            ValueError: a view is not the same twice, or the packing needs the image.
        """
        start = 0
        for part, end in zip(self.parts, self.ends):
            for row in range(start, min(start + images, end)):
                with preserved_random_state():
                    samples = []
                    for seed in range(2):
                        seed_cpu_generators(seed, row)
                        samples.append(self[row])
                facts = samples[0].pop("facts")
                if not torch.equal(samples[0]["inputs"], samples[1]["inputs"]):
                    names = ", ".join(map(_name, part.pipeline.transforms[:-1]))
                    raise ValueError(f"one of {names} gives another image each time; {_REMEDY}.")
                info = part.get_data_info(row - start)
                blind = pack(part, {**info, **facts}, samples[0]["inputs"])
                if _plain(blind) != _plain(samples[0]):
                    raise ValueError(
                        f"{_name(part.pipeline.transforms[-1])}, the last transform, reads the "
                        "image for more than the inputs; features cannot be kept with it."
                    )
                self.shape = self.shape or tuple(samples[0]["inputs"].shape)
            start = end

    def _locate(self, row: int) -> tuple[Any, int]:
        place = int(np.searchsorted(self.ends, row, side="right"))
        return self.parts[place], row - (self.ends[place - 1] if place else 0)

    def _image(self, part: Any, index: int, path: str) -> dict[str, Any]:
        """Run the transforms before the last."""
        results = part.get_data_info(index)
        for transform in part.pipeline.transforms[:-1]:
            before = _generators()
            try:
                results = transform(results)
            except Exception as error:
                reason = f"{type(error).__name__}: {error}"
                raise ValueError(f"image {path} cannot be used ({reason}).") from error
            if results is None:
                raise ValueError(f"image {path} cannot be used: {_name(transform)} gave None.")
            if _generators() != before:
                raise ValueError(f"{_name(transform)} draws random numbers; {_REMEDY}.")
        return results  # type: ignore[no-any-return]


def data_sets_inside(dataset: Any) -> list[Any]:
    """The data sets that have a pipeline, inside mmengine's wrappers.

    Raises:
        TypeError: there is a wrapper or a data set of another kind.
    """
    if hasattr(dataset, "_get_ori_dataset_idx"):
        inside = dataset.datasets if hasattr(dataset, "datasets") else [dataset.dataset]
        return [part for other in inside for part in data_sets_inside(other)]
    transforms = getattr(getattr(dataset, "pipeline", None), "transforms", None)
    if not transforms or not hasattr(dataset, "get_data_info"):
        raise TypeError(
            f"features cannot be kept for {type(dataset).__name__}: it has no get_data_info, or no "
            "pipeline that ends with packing."
        )
    return [dataset]


def locate(dataset: Any, idx: int) -> tuple[Any, int]:
    """The data set inside wrappers that sample ``idx`` comes from, and its number there."""
    while hasattr(dataset, "_get_ori_dataset_idx"):
        place = dataset._get_ori_dataset_idx(idx)
        if hasattr(dataset, "datasets"):
            dataset, idx = dataset.datasets[place[0]], place[1]
        else:
            dataset, idx = dataset.dataset, place
    return dataset, int(idx)


def pack(part: Any, results: dict[str, Any], inputs: Tensor) -> dict[str, Any]:
    """The sample that the last transform of ``part`` makes, with other ``inputs``."""
    sample = part.pipeline.transforms[-1]({**results, "img": _NO_IMAGE})
    return {**sample, "inputs": inputs}


def _facts(info: dict[str, Any], results: dict[str, Any]) -> dict[str, Any]:
    """What the transforms added to, or changed in, the annotations, without the image.

    Raises:
        ValueError: that is a label, or nothing that is simply numbers and texts.
    """
    facts = {
        key: value
        for key, value in results.items()
        if key != "img" and (key not in info or _plain(info[key]) != _plain(value))
    }
    labels = [key for key in facts if key.startswith("gt_")]
    if labels:
        raise ValueError(
            f"a transform before the last one sets {labels[0]!r}; labels must come from the data "
            "set or from the packing transform, so that they can change without the features."
        )
    return {key: _simple(key, value) for key, value in facts.items()}


def _simple(key: str, value: Any) -> Any:
    """``value`` made of Python's own numbers and texts."""
    if isinstance(value, (tuple, list)):
        return type(value)(_simple(key, item) for item in value)
    if isinstance(value, np.generic):
        return value.item()
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise ValueError(
        f"a transform before the last one sets {key!r} to a {type(value).__name__}; only numbers "
        "and texts can be kept with features."
    )


def _plain(value: Any) -> Any:
    """``value`` in a form that ``==`` compares as a whole."""
    if isinstance(value, (np.ndarray, Tensor)):
        array = np.asarray(value)
        return str(array.dtype), array.shape, array.tobytes()
    if isinstance(value, BaseDataElement):
        return {key: _plain(item) for key, item in value.all_items()}
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return type(value), [_plain(item) for item in value]
    return value


def _generators() -> Any:
    """States of the generators that transforms draw from, to be compared."""
    numpy = [_plain(part) for part in np.random.get_state()]
    return random.getstate(), numpy, _plain(torch.get_rng_state())


def _name(transform: Any) -> str:
    return getattr(transform, "__name__", type(transform).__name__)

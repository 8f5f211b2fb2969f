"""The way of a photo through a model: read, prepared, searched, drawn; in batches, as they come."""

from __future__ import annotations

import os
import re
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.infer import BaseInferencer
from mmengine.registry import DefaultScope

from mmclipdis.apis.inferencers.asked import Asked
from mmclipdis.apis.inferencers.photos import Failure, Loaded, Source
from mmclipdis.apis.inferencers.turn import Turn
from mmclipdis.apis.results.base import Result
from mmclipdis.utils.whole_files import make_folder

#: Precision -> type of autocast; None is none.
PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Ready:
    """A photo that is read and prepared, and what it is searched for."""

    loaded: Loaded
    inputs: Mapping[str, Any]
    asked: Asked
    name: str


class PhotoSearch(BaseInferencer):
    """The stages of mmengine's ``BaseInferencer`` for one photo after the other.

    ``preprocess`` reads and prepares a batch, ``forward`` asks the model, ``postprocess`` makes the
    results, ``visualize`` writes pictures of them. Nothing is kept of a batch that is done.
    """

    model: Any
    config: Config | None
    device: torch.device
    precision: str
    #: Threads that share the model, and the words that it was given last, take turns.
    turn: Turn
    pipeline: Compose
    collate_fn: Callable[..., Any]
    #: What a pipeline is, where there is none.
    usual_pipeline: ClassVar[Sequence[Mapping[str, Any]]]

    def preprocess(self, inputs: Any, batch_size: int = 1, **kwargs: Any) -> Iterator[Any]:
        """Batches of prepared photos; of ``(source, asked)`` pairs, or failures among them."""
        pairs, full = iter(inputs), True
        while full:
            batch: list[Ready | Failure] = []
            try:
                for source, asked in islice(pairs, batch_size):
                    batch.append(self._prepare(source, asked, **kwargs))
            except Exception:  # whatever a generator raises: the photos before it are not lost
                if batch:
                    yield batch
                raise
            full = len(batch) == batch_size
            if batch:
                yield batch

    @torch.no_grad()
    def forward(self, inputs: Any, **kwargs: Any) -> list[Any]:
        """Data samples with predictions of a batch of prepared photos, all for the same words."""
        with DefaultScope.overwrite_default_scope(self.scope), self._cast():
            samples: list[Any] = self.model.test_step(self.collate_fn(inputs))
        return samples

    def visualize(
        self,
        inputs: Any,
        preds: Any = None,
        show: bool = False,
        out_dir: str | Path = ".",
        first: int = 0,
        **kwargs: Any,
    ) -> list[Path]:
        """Write pictures of results into a folder, numbered from ``first``; return their paths."""
        return [
            result.save(Path(out_dir) / f"{number:04d}_{result.title}.png")
            for number, result in enumerate(inputs, first)
        ]

    def postprocess(
        self,
        preds: Any,
        visualization: Any = None,
        return_datasample: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Results of ``(ready photo, data sample)`` pairs."""
        return [self._result(ready, sample) for ready, sample in preds]

    @abstractmethod
    def _result(self, ready: Ready, sample: Any) -> Result:
        """The result of a photo."""

    @abstractmethod
    def _use(self, asked: Asked) -> None:
        """Have the model search for ``asked``."""

    def _release(self) -> None:
        """Take from the model what belongs to a call alone."""

    def _takes_mixed_sizes(self) -> bool:
        """Whether photos of several sizes go into one batch and give what they give alone."""
        return False

    def _first_step(self, results: dict[str, Any]) -> dict[str, Any]:
        """What a loader does, for a photo that is read already."""
        shape = results["img"].shape[:2]
        return {**results, "img_shape": shape, "ori_shape": shape}

    def _init_pipeline(self, cfg: Any) -> Compose:
        """The given test pipeline, or the config's, without its loaders."""
        if cfg is None:
            dataset = (self.config or {}).get("test_dataloader") or {}
            dataset = dataset.get("dataset") or {}
            while "dataset" in dataset or "datasets" in dataset:  # a wrapper
                dataset = dataset.get("dataset") or dataset["datasets"][0]
            cfg = dataset.get("pipeline", self.usual_pipeline)
        steps = [dict(step) for step in cfg if "Load" not in str(step["type"])]
        return Compose([self._first_step, *steps])

    def _cast(self) -> AbstractContextManager[Any]:
        """PyTorch's autocast, or nothing in fp32."""
        dtype = PRECISIONS[self.precision]
        return nullcontext() if dtype is None else torch.autocast(self.device.type, dtype=dtype)

    def _stream(
        self,
        pairs: Iterator[tuple[Source, Asked]],
        batch_size: int,
        yields: bool,
    ) -> Iterator[Any]:
        for batch in self.preprocess(pairs, batch_size, yields=yields):
            for part in self._alike(batch):
                yield from self._search(part, yields)

    def _prepare(self, source: Source, asked: Asked, yields: bool = False) -> Ready | Failure:
        try:
            loaded = source.load()
            # mm's steps take BGR
            given = {"img": loaded.photo[..., ::-1].copy(), "img_path": source.name}
            with DefaultScope.overwrite_default_scope(self.scope):
                return Ready(loaded, self._prepared(given), asked, source.name)
        except (OSError, ValueError) as error:
            if not yields:
                raise
            return Failure(source.name, _one_line(error))

    def _prepared(self, given: dict[str, Any]) -> Any:
        """What the pipeline makes of a photo.

        Raises:
            ValueError: as its steps; also where OpenCV refuses.
        """
        try:
            return self.pipeline(given)
        except cv2.error as error:
            height, width = given["img"].shape[:2]
            raise ValueError(
                f"{given['img_path']}: the pipeline of the model cannot take a photo of {width} x "
                f"{height} pixels; give another one"
            ) from error

    def _alike(self, batch: Sequence[Ready | Failure]) -> Iterator[list[Any]]:
        """Parts of a batch, in order, that the model takes at once."""
        part: list[Any] = []
        for item in batch:
            if part and not self._goes_with(part[-1], item):
                yield part
                part = []
            part.append(item)
        if part:
            yield part

    def _goes_with(self, one: Ready | Failure, other: Ready | Failure) -> bool:
        if isinstance(one, Failure) or isinstance(other, Failure):
            return False
        if one.asked is not other.asked:
            return False
        shapes = one.inputs["inputs"].shape, other.inputs["inputs"].shape
        return self._takes_mixed_sizes() or shapes[0] == shapes[1]

    def _search(self, part: Sequence[Ready | Failure], yields: bool) -> Iterator[Any]:
        if isinstance(part[0], Failure):
            yield from part
            return
        ready: list[Any] = list(part)
        results: list[Any] | None = None
        with self.turn:
            self._use(ready[0].asked)  # words that cannot be used are the fault of no photo
            try:
                samples = self.forward([item.inputs for item in ready])
                results = self.postprocess(list(zip(ready, samples, strict=True)))
            except ValueError as error:
                if not yields:
                    raise
                if len(ready) == 1:
                    results = [Failure(ready[0].name, _one_line(error))]
            finally:
                self._release()
        if results is None:  # which of them it is, each alone will tell
            for item in ready:
                yield from self._search([item], yields)
        else:
            yield from results

    def _batch_of(self, photo: np.ndarray, name: str) -> Any:
        """What the model's own steps get of one photo: normalised ``inputs`` and its sample."""
        given = {"img": photo[..., ::-1].copy(), "img_path": name}
        with DefaultScope.overwrite_default_scope(self.scope):
            batch = self.collate_fn([self._prepared(given)])
        return self.model.data_preprocessor(batch, False)


def first_number(folder: Path) -> int:
    """One more than the largest number at the start of a picture's name in a folder.

    Raises:
        OSError: the folder cannot be made or written.
    """
    problem = f"results cannot be written into {str(folder)!r}"
    remedy = "give a folder that you may write to as out_dir"
    try:
        make_folder(folder)
    except NotADirectoryError:  # which says what stands there
        raise
    except OSError as error:
        raise OSError(f"{problem} ({error.strerror}); {remedy}") from error
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"{problem} (no permission); {remedy}")
    found = [re.match(r"(\d{4,})_.*\.png", path.name) for path in folder.glob("*.png")]
    return max((int(match[1]) + 1 for match in found if match), default=0)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__

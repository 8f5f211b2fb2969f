"""What names a segmentor predicts by: those of its data, of its config, or of a sample's text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from mmseg.registry import DATASETS
from mmseg.structures import SegDataSample
from mmseg.utils import dataset_aliases, get_classes
from torch import Tensor

from mmclipdis.models.asked_names import AskedNames, by_asked_names
from mmclipdis.models.named_classes import NamedClasses
from mmclipdis.utils.names import name_list

#: Normalised images (B, 3, H, W), or a list of (3, H, W).
Images = Tensor | Sequence[Tensor]


class NamedSegmentor(NamedClasses):
    """Mixin: predictions by names that are known at last, and that each sample carries.

    While a model that follows its data set knows no names, a prediction takes them from the test
    data set of its ``cfg``, which mm tools write on the model. A sample with a ``text`` is
    predicted by the names that it asks for (:mod:`mmclipdis.models.asked_names`), others by the
    model's. Each result has its names as ``label_names``: label i is called ``label_names[i]``.
    """

    def use_metainfo(self, metainfo: Mapping[str, Any]) -> None:
        """As ``NamedClasses``; names that mmseg made up for want of any are put aside."""
        if self.named_part is not None and _is_guess(metainfo):
            self.__dict__["_dataset_meta"], self.__dict__["_guess"] = {}, dict(metainfo)
        else:
            super().use_metainfo(metainfo)

    def write_names(self) -> None:
        """As ``NamedClasses``, in the colours of the config's data set if none are known."""
        if self.label_names() is not None and "palette" not in self._meta():
            found = config_metainfo(getattr(self, "cfg", None)) or {}
            if len(found.get("palette", ())) == len(self.label_names() or ()):
                self._meta()["palette"] = found["palette"]
        super().write_names()

    def take_names(self) -> None:
        """Look for names, if there are none yet, in the config or, without one, in the guess."""
        part = self.named_part
        if part is None or part.vocabulary is not None or not part.follow_dataset:
            return
        config = getattr(self, "cfg", None)
        found = self.__dict__.get("_guess") if config is None else config_metainfo(config)
        if found:
            self.__dict__["_dataset_meta"] = dict(found)
            super().use_metainfo(found)
            self.write_names()

    def predict_by_names(
        self,
        predict: Callable[[Any, Any], list[SegDataSample]],
        inputs: Images,
        data_samples: Sequence[SegDataSample] | None,
    ) -> list[SegDataSample]:
        """Let ``predict(inputs, data_samples)`` see images of the same names at a time.

        Raises:
            ValueError: names that cannot be read or asked for; and as ``predict``.
        """
        self.take_names()
        groups = by_asked_names(data_samples or ())
        results: list[Any] = [None] * len(inputs)
        for asked, places in groups or [(None, list(range(len(inputs))))]:
            images, samples = inputs, data_samples
            if len(groups) > 1 and data_samples is not None:
                images = _some(inputs, places)
                samples = [data_samples[place] for place in places]
            with self.asking(asked):
                found = predict(images, samples)
                names = self.label_names()
            for place, sample in zip(places, found, strict=True):
                if names is not None:
                    sample.set_data({"label_names": list(names)})
                results[place] = sample
        return results

    def label_names(self) -> tuple[str, ...] | None:
        """The names in use: label i is called by the i-th. None without a vocabulary."""
        vocabulary = getattr(self.named_part, "vocabulary", None)
        return None if vocabulary is None else vocabulary.class_names

    @contextmanager
    def asking(self, names: AskedNames | None) -> Iterator[None]:
        """Use other names inside the block, and then those from before; None changes nothing.

        Raises:
            ValueError: the model has fixed classes; and as ``set_vocabulary``.
        """
        if names is None:
            yield
            return
        part = self.named_part
        if part is None:
            raise ValueError(
                f"text={[synonyms[0] for synonyms in names][:5]} asks for names, but the classes "
                f"of {type(self).__name__} are fixed: leave the text out"
            )
        known = part.vocabulary
        if getattr(part, "has_ready_embeddings", False) and known and known.names != names:
            raise ValueError(
                f"text={[synonyms[0] for synonyms in names][:5]} asks for names, but "
                f"{type(part).__name__} has ready embeddings of {known.class_names[:3]} and others "
                "only: give it a text_encoder, or leave the text out"
            )
        kept = {name: getattr(part, name) for name in part.state_of_names}
        try:
            part.set_vocabulary(names)
            yield
        finally:
            for name, value in kept.items():
                setattr(part, name, value)


def config_metainfo(config: Any) -> dict[str, Any] | None:
    """Classes, and palette if there is one, of the test data set of a config; None if it has none.

    Raises:
        ValueError: its ``metainfo['classes']`` is no list of names.
    """
    dataset = (config or {}).get("test_dataloader", {}).get("dataset", {})
    while "dataset" in dataset:  # a wrapper, such as RepeatDataset
        dataset = dataset["dataset"]
    own = dataset.get("metainfo") or {}
    found = DATASETS.get(dataset["type"]) if isinstance(dataset.get("type"), str) else None
    theirs = getattr(found, "METAINFO", {})
    if own.get("classes"):
        where = "metainfo['classes'] of the config's data set"
        classes: Any = name_list(own["classes"], where, twice=True)
    else:
        classes = theirs.get("classes")
    if not classes:
        return None
    metainfo: dict[str, Any] = {"classes": tuple(classes)}
    colours = dict(zip(theirs.get("classes", ()), theirs.get("palette") or ()))
    if own.get("palette"):
        metainfo["palette"] = list(own["palette"])
    elif all(name in colours for name in classes):
        metainfo["palette"] = [colours[name] for name in classes]
    return metainfo


def _is_guess(metainfo: Mapping[str, Any]) -> bool:
    """Whether mmseg made the names up: a list, where data sets and checkpoints have a tuple."""
    classes = metainfo.get("classes")
    return isinstance(classes, list) and any(
        classes == get_classes(name) for name in dataset_aliases
    )


def _some(inputs: Images, places: Sequence[int]) -> Images:
    return inputs[places] if isinstance(inputs, Tensor) else [inputs[place] for place in places]

"""What detectors of any vocabulary share: where their classes come from, and who names results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from mmengine.structures import InstanceData

from mmclipdis.engine.random_weights import redraw, watch_weights
from mmclipdis.models.asked_names import AskedNames
from mmclipdis.models.class_text import WithClassText, check_same_clip
from mmclipdis.models.detection.names import (
    colours_for,
    config_metainfo,
    is_guess,
    warn_of_other_names,
)
from mmclipdis.models.named_classes import NamedClasses


class OpenVocabDetector(NamedClasses, WithClassText):
    """Mixin of a detector whose :attr:`class_text` is a head ``WithDetectorText``.

    Unless the config chooses a vocabulary, the classes are those of the data in use
    (``VocabularyHook``) or of the ``dataset_meta`` that mmdet's tools take from a checkpoint, and
    so is which of them are novel. A data sample with a ``text`` is searched for what that names
    (``DetInferencer(...)(photo, texts='kite . red apple')``): classes that are not known to have
    had boxes in training count as novel. Results carry ``label_names``.
    """

    backbone: Any
    children: Any
    #: Of a test pipeline (:mod:`mmclipdis.engine.moved_pixels`).
    undoes = ()
    _guessed = False  # whether the names are those that mmdet takes where there are none

    def _check_parts(self) -> None:
        """What a constructor ends with; from here on random weights are remembered.

        Raises:
            ValueError: image and text of different CLIPs, or a backbone without dense map.
        """
        if not getattr(self.backbone, "dense_map", True):
            raise ValueError(
                f"{type(self).__name__} reads CLIP's dense map: leave dense_map=True on the "
                "backbone"
            )
        encoder = getattr(self.backbone, "encoder", None)
        check_same_clip(getattr(encoder, "arch", None), self.class_text.text.encoder)
        for part in self.children():
            watch_weights(part, must_train=True)  # but for CLIP, which is frozen

    def init_weights(self) -> None:
        """As in mmengine; what is drawn here is still random."""
        super().init_weights()  # type: ignore[misc]
        redraw(self)  # type: ignore[arg-type]

    def use_metainfo(self, metainfo: Mapping[str, Any]) -> None:
        """Take classes, and which are novel, from a ``dataset_meta`` (``NamedClasses``).

        A chosen vocabulary stays; which classes were base ones in training is learned all the same.

        Raises:
            ValueError: as ``set_vocabulary`` and ``DetectorText.learn_base``.
        """
        flags = self.learn_base(metainfo)
        super().use_metainfo(metainfo)
        if not self.follow_dataset:
            warn_of_other_names(self.vocabulary, metainfo)
            return
        if flags is not None:
            self.set_novel(flags)
        self._guessed = is_guess(metainfo)

    def learn_base(self, metainfo: Mapping[str, Any]) -> tuple[bool, ...] | None:
        """Learn which classes had boxes in training; see ``DetectorText.learn_base``."""
        flags: tuple[bool, ...] | None = self.class_text.text.learn_base(metainfo)
        return flags

    def set_vocabulary(self, vocabulary: Any, novel_classes: Sequence[str] | None = None) -> None:
        """Change the classes of the live model; see ``DetectorText.set_vocabulary``."""
        self.class_text.set_vocabulary(vocabulary, novel_classes)
        self._guessed = False
        self.write_names()

    def set_novel(self, novel: Sequence[bool] | None) -> None:
        """Say which classes are novel; see ``DetectorText.set_novel``."""
        self.class_text.set_novel(novel)

    def take_names(self) -> None:
        """Take the names of the test data of ``cfg``, which mmdet's tools write, if there are none.

        mmdet says that a model without any has COCO's classes; those of ``cfg`` are better.
        """
        if self.follow_dataset and (self._guessed or self.vocabulary is None):
            self._guessed = False
            found = config_metainfo(getattr(self, "cfg", None))
            if found is not None:
                self.use_metainfo(found)

    def know_names(self, metainfo: Mapping[str, Any], config: Any = None) -> None:
        """Take the names of a checkpoint's ``dataset_meta``, or else those of the test data.

        Args:
            metainfo: The ``dataset_meta``; empty without one.
            config: What the model was built of, if it does not know it (:meth:`take_names`).
        """
        if metainfo.get("classes"):
            self.dataset_meta = metainfo
        else:
            self.cfg = getattr(self, "cfg", None) or config
            self.take_names()

    def _searching(self, names: AskedNames | None) -> AbstractContextManager[None]:
        mine = None if self.vocabulary is None else self.vocabulary.names
        if names is None or names == mine:  # a data set that gives its classes as text
            return nullcontext()
        asked: AbstractContextManager[None] = self.class_text.asked(names)
        return asked

    def _name(self, found: Sequence[InstanceData]) -> None:
        """Give detections their names; pictures have a colour for each of these."""
        names = self.vocabulary.class_names if self.vocabulary is not None else ()
        for instances in found:
            instances.label_names = [names[label] for label in instances.labels.tolist()]
        colours_for(self._meta(), len(names))

"""One truth about class names: a model's vocabulary, and the ``dataset_meta`` that mm tools use."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

import numpy as np

from mmclipdis.utils.names import name_list
from mmclipdis.visualization import class_palette

#: Palettes of mmdet that have a colour for each class of one data set, and for no more.
_OF_ONE_DATA_SET = ("coco", "voc", "citys")


class NamedClasses:
    """Mixin of a model: the names that it uses are those that tools write and read on it.

    The inferencers of mmseg and mmdet write the ``dataset_meta`` of a checkpoint on the model and
    draw with what they read there. A model that follows its data set takes these names, each time
    they are written; one whose vocabulary was chosen keeps it, and what is read names that. The
    dict that is read is always the same one, since visualizers keep it: names that change
    are written into it.
    """

    @property
    def named_part(self) -> Any:
        """The part with ``vocabulary``, ``follow_dataset`` and ``set_vocabulary``; or None."""
        return self

    @property
    def dataset_meta(self) -> dict[str, Any]:
        """``classes`` in use and their ``palette`` (RGB), and what else was written; or empty."""
        if self.named_part is None and "_dataset_meta" not in self.__dict__:
            raise AttributeError(f"nothing has set the dataset_meta of {type(self).__name__}")
        self.write_names()
        return self._meta()

    @dataset_meta.setter
    def dataset_meta(self, metainfo: Mapping[str, Any] | None) -> None:
        """Take the names of a checkpoint or of a data set, see :meth:`use_metainfo`."""
        known = {key: _plain(value) for key, value in (metainfo or {}).items()}
        self.__dict__["_dataset_meta"] = known  # a dict of its own: METAINFO belongs to its class
        self.use_metainfo(known)
        self.write_names()

    def use_metainfo(self, metainfo: Mapping[str, Any]) -> None:
        """Take ``metainfo['classes']``, if there are any and the classes are those of the data.

        Raises:
            ValueError: they are no list of names; and as ``set_vocabulary``.
        """
        part = self.named_part
        classes = metainfo.get("classes")
        if part is not None and part.follow_dataset and classes is not None and len(classes):
            part.set_vocabulary(name_list(classes, "dataset_meta['classes']", twice=True))

    def write_names(self) -> None:
        """Write the names in use into :attr:`dataset_meta`; call it when they have changed."""
        vocabulary = getattr(self.named_part, "vocabulary", None)
        if vocabulary is not None:
            write_names_into(self._meta(), vocabulary.class_names)

    def _meta(self) -> dict[str, Any]:
        meta: dict[str, Any] = self.__dict__.setdefault("_dataset_meta", {})
        return meta


def _plain(value: Any) -> Any:
    return tuple(value.tolist()) if isinstance(value, np.ndarray) else value


def write_names_into(meta: MutableMapping[str, Any], names: Sequence[str]) -> None:
    """Make ``names`` the classes of a ``dataset_meta``, and its palette as long as they are."""
    changed = tuple(meta.get("classes") or ()) != tuple(names)
    if changed:
        meta["classes"] = tuple(names)
    palette = meta.get("palette")
    if palette is None:
        meta["palette"] = [tuple(colour) for colour in class_palette(len(names))]
    elif isinstance(palette, str):
        meta["palette"] = "random" if changed and palette in _OF_ONE_DATA_SET else palette
    elif len(palette) != len(names) and all(isinstance(c, Sequence) for c in palette):
        more = [tuple(colour) for colour in class_palette(len(names))]
        meta["palette"] = [*palette[: len(names)], *more[len(palette) :]]

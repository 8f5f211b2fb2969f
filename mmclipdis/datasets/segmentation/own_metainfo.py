"""mmseg's analysis tools read the classes of a data set where those of its config are not."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from mmseg.datasets import BaseSegDataset


def with_own_metainfo(init: Callable[..., None]) -> Callable[..., None]:
    """``BaseSegDataset.__init__``, after which ``METAINFO`` of the object is what the config says.

    ``browse_dataset.py`` and ``confusion_matrix.py`` read ``dataset.METAINFO``, the class's own:
    empty where the classes come from ``metainfo``, and in another order than the labels where it
    names some of them.
    """

    @functools.wraps(init)
    def initialised(self: Any, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        self.METAINFO = self.metainfo

    initialised.has_own_metainfo = True  # type: ignore[attr-defined]
    return initialised


def install_own_metainfo() -> None:
    """Put it in the place of mmseg's, once."""
    if not getattr(BaseSegDataset.__init__, "has_own_metainfo", False):
        BaseSegDataset.__init__ = with_own_metainfo(BaseSegDataset.__init__)

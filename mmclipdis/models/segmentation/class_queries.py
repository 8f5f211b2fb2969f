"""Which names a head asks for: those of all classes, or of all but the background."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmclipdis.clip.text.vocabulary import Vocabulary
from mmclipdis.clip.weights.arch_mark import check_arch
from mmclipdis.models.projectors import Projectors, load_projectors
from mmclipdis.models.text_encoder import dense_channels

#: The background has names of its own, or is what is left where no class is probable enough.
BACKGROUNDS = ("query", "threshold")


@dataclass(frozen=True)
class ClassQueries:
    """The names that are compared with an image, and the classes that they stand for.

    Attributes:
        vocabulary: Of the Q names that are asked for.
        classes: Class of every query, int64 (Q,), ascending, among those of the whole vocabulary.
    """

    vocabulary: Vocabulary
    classes: Tensor

    @classmethod
    def of(cls, vocabulary: Vocabulary, without: int | None = None) -> ClassQueries:
        """All names of a vocabulary, but those of class ``without``.

        Raises:
            ValueError: if nothing is left.
        """
        classes = torch.tensor(vocabulary.query_to_class, dtype=torch.long)
        if without is None:
            return cls(vocabulary, classes)
        names = vocabulary.names[:without] + vocabulary.names[without + 1 :]
        if not names:
            raise ValueError("background='threshold' leaves no class to ask for: name others, too")
        asked = replace(vocabulary, names=names, background_index=None)
        return cls(asked, classes[classes != without])


def check_background(background: str, prob_thd: float) -> str:
    """``background``, if it is a policy and the threshold belongs to it.

    Raises:
        ValueError: otherwise.
    """
    if background not in BACKGROUNDS:
        raise ValueError(f"background must be one of {', '.join(BACKGROUNDS)}, got {background!r}")
    if background == "threshold" and prob_thd <= 0:
        raise ValueError(
            "background='threshold' is what has a probability below prob_thd: set prob_thd, such "
            "as 0.85"
        )
    return background


def build_projector(
    projector: str | Path | Projectors | None,
    text_encoder: Any,
    embeddings: Tensor | None,
    any_arch: bool,
) -> Projectors | None:
    """The projectors of a head, of the CLIP that its text is of.

    Args:
        projector: A file (:func:`~mmclipdis.models.projectors.load_projectors`), or the module.
        text_encoder: Has ``embed_dim`` and ``arch``; or None with ready ``embeddings`` (Q, D).
        embeddings: See above.
        any_arch: Take the projectors of any CLIP of this width.

    Raises:
        FileNotFoundError, ValueError: as ``load_projectors``; the module is held to the same.
    """
    if projector is None:
        return None
    if isinstance(projector, Mapping):
        raise ValueError("projector is a file that a DCLIP run wrote, or the Projectors themselves")
    width: Any = dense_channels(text_encoder) if embeddings is None else embeddings.shape[1]
    arch = getattr(text_encoder, "arch", None)
    if not isinstance(projector, Projectors):
        return load_projectors(projector, width, arch, any_arch)
    if projector.in_dim != width:
        raise ValueError(
            f"the text embeddings have {width} channels, the projectors take {projector.in_dim}"
        )
    if not any_arch:
        check_arch(projector.arch, arch, "the head's projector")
    return projector

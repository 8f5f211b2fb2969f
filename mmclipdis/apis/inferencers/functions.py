"""One photo, some words, one line: the inferencers as functions."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any, TypeAlias

from mmengine.config import Config
from torch import nn

from mmclipdis.apis.inferencers.base import OpenVocabInferencer
from mmclipdis.apis.inferencers.photos import is_single


def search(
    kind: type[OpenVocabInferencer], sources: Any, words: Any, model: Any, options: dict[str, Any]
) -> Any:
    """What :func:`segment`, :func:`detect` and :func:`tag` do.

    Of ``options`` those that the inferencer's constructor knows build it, and the others are of the
    call. An inferencer by name stays in memory, one of each task, for the next call.

    Returns:
        The result of one photo; a list for a folder, pattern, video, list or generator.

    Raises:
        ValueError: ``options`` of a constructor for an inferencer that is built already.
    """
    known = _of_constructor(kind)
    building = {key: options.pop(key) for key in [*options] if key in known}
    if isinstance(model, OpenVocabInferencer):
        if building:
            raise ValueError(f"the inferencer is built already: it takes no {sorted(building)}")
        if not isinstance(model, kind):
            raise ValueError(
                f"model is an {type(model).__name__}, and an {kind.__name__} is asked for"
            )
        inferencer = model
    else:
        inferencer = _inferencer(kind, model, building)
        inferencer.reset_words()
    results = inferencer(sources, words, **options)
    return results[0] if is_single(sources) else results


def _of_constructor(kind: type[OpenVocabInferencer]) -> set[str]:
    kinds = (part for part in kind.__mro__ if issubclass(part, OpenVocabInferencer))
    named = {
        name
        for part in kinds
        for name, parameter in inspect.signature(part.__init__).parameters.items()
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    }
    return named - {"self", "model"}


def _inferencer(
    kind: type[OpenVocabInferencer], model: Any, building: dict[str, Any]
) -> OpenVocabInferencer:
    plain = (str, int, float, bool, type(None))
    by_name = isinstance(model, (str, Path, type(None)))
    if not by_name or not all(isinstance(value, plain) for value in building.values()):
        return kind(model, **building)
    files = (
        _stamp(value) for value in (model, building.get("weights"), building.get("checkpoint"))
    )
    return _kept(kind, model, building, (model, building, tuple(files)))


def _stamp(file: Any) -> float | None:
    """When a file was changed: a training may have written another one meanwhile."""
    path = None if file is None else Path(file)
    return path.stat().st_mtime if path is not None and path.is_file() else None


def _kept(kind: type[OpenVocabInferencer], model: Any, building: dict[str, Any], key: Any) -> Any:
    """The inferencer of the last call, if it was called the same; one of each task is kept."""
    held = _KEPT.get(kind)
    if held is None or held[0] != key:
        _KEPT.pop(kind, None)
        del held  # before another takes its place in memory
        held = _KEPT[kind] = key, kind(model, **building)
    return held[1]  # and not what another thread has put there meanwhile


#: By the class, what it was called with, and the inferencer.
_KEPT: dict[type[OpenVocabInferencer], tuple[Any, OpenVocabInferencer]] = {}
#: What a function takes for its model.
Model: TypeAlias = str | Path | Config | nn.Module | OpenVocabInferencer | None


def segment(photo: Any, words: Any = None, model: Model = None, **kwargs: Any) -> Any:
    """Segment a photo by words; see :class:`~mmclipdis.apis.OpenVocabSegInferencer`.

    Args:
        photo: A file, an address, an RGB array or a Pillow image; for several photos (a folder, a
            pattern, a video, a list) the result is a list.
        words: What to look for: a list, or a text such as ``'grass, sand, apple; plum'`` (three
            words, the third with the synonym ``plum``); None for the model's own classes.
        model: What the inferencer takes, or an inferencer; None for the tiny model that comes with
            the package.
        kwargs: Others of the inferencer and of its call, such as ``device``, ``background``.

    Returns:
        A :class:`~mmclipdis.apis.results.Segmentation`.

    Raises:
        FileNotFoundError, ValueError: as the inferencer; or arguments of its constructor for one
            that is built already.
    """
    from mmclipdis.apis.inferencers.segment import OpenVocabSegInferencer

    words = kwargs.pop("names", words)
    return search(OpenVocabSegInferencer, photo, words, model, kwargs)


def detect(photo: Any, words: Any = None, model: Model = None, **kwargs: Any) -> Any:
    """Detect things in a photo by words; see :class:`~mmclipdis.apis.OpenVocabDetInferencer`.

    Args, errors: those of :func:`segment`.

    Returns:
        A :class:`~mmclipdis.apis.results.Detections`.
    """
    from mmclipdis.apis.inferencers.detect import OpenVocabDetInferencer

    return search(OpenVocabDetInferencer, photo, words, model, kwargs)


def tag(photo: Any, words: Any = None, model: Model = None, **kwargs: Any) -> Any:
    """Say which words a photo shows; see :class:`~mmclipdis.apis.OpenVocabTagger`.

    Args, errors: those of :func:`segment`.

    Returns:
        A :class:`~mmclipdis.apis.results.Tags`.
    """
    from mmclipdis.apis.inferencers.tag import OpenVocabTagger

    return search(OpenVocabTagger, photo, words, model, kwargs)

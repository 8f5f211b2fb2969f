"""Which models a page offers, by the names that the zoo knows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmclipdis.apis.zoo import ModelInfo, find, models
from mmclipdis.apis.zoo.listing import DEFAULTS, ENTRANCES, near


def offered_models(
    model: str | None = None, allowed: Sequence[str] | None = None
) -> dict[str, list[ModelInfo]]:
    """Task -> the models that the page offers, those that need no download first.

    Raises:
        ValueError: a name that the zoo has not, or of a model that takes no photos and words.
    """
    if allowed is None:
        named = [info for info in models() if (info.short or info.default) and is_at_hand(info)]
    else:
        named = [info for name in dict.fromkeys(allowed) for info in infos_of(name)]
    if model is not None and info_of(model) not in named:
        named.insert(0, info_of(model))
    if not named:
        raise ValueError("no models: name at least one that the page may offer")
    offered = {task: [info for info in named if info.task == task] for task in ENTRANCES}
    return {
        task: sorted(infos, key=lambda info: (not info.default, not info.offline))
        for task, infos in offered.items()
        if infos
    }


def info_of(name: str) -> ModelInfo:
    """The model of a name; of one that several tasks know, the packaged model of a task first."""
    return sorted(infos_of(name), key=lambda info: not info.default)[0]


def infos_of(name: str) -> list[ModelInfo]:
    """The models of a name, one for each task that knows it.

    Raises:
        ValueError: there is none, or it takes no photos and words.
    """
    found = [find(name, task) for task in ENTRANCES]
    infos = [info for info, task in zip(found, ENTRANCES) if info is not None and info.task == task]
    if infos:
        return infos
    if found[0] is not None:
        raise ValueError(
            f"the model {name!r} neither segments, detects nor tags photos; take another, such as "
            f"{DEFAULTS['segment']!r}"
        )
    close = near(name)
    hint = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
    raise ValueError(
        f"there is no model {name!r}; {hint}The page takes names of the zoo, which "
        "`mmclipdis models` lists"
    )


def is_at_hand(info: ModelInfo) -> bool:
    """Whether nobody has to fetch, convert or train anything first: weights are here, or come."""
    from mmclipdis.apis.zoo.on_disk import find_checkpoint
    from mmclipdis.apis.zoo.sources import cache_folder

    if info.trained and find_checkpoint(info, None, info.name, needed=False) is None:
        return False
    return all(
        one.kind == "tag"
        or one.url
        or Path(one.where).is_file()
        or (cache_folder() / one.name).is_file()
        for one in info.downloads
        if not (one.kind == "trained" and info.trained)  # the checkpoint itself
    )


def label(info: ModelInfo) -> str:
    """What the list calls a model."""
    return f"{info.name} ({'tiny, for the examples' if info.offline else 'needs a download'})"

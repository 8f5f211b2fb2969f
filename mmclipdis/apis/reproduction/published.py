"""Published numbers of the metafiles: those that a cell of a table is compared with."""

from __future__ import annotations

import difflib
import fnmatch
import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmclipdis.apis.zoo.listing import entries


@dataclass(frozen=True)
class Published:
    """What an entry of the metafiles says of a data set: numbers and where each stands."""

    model: str
    metrics: Mapping[str, float]
    sources: Mapping[str, str]


@functools.cache
def _entries() -> dict[str, tuple[str, dict[str, Any]]]:
    return entries()


def select(models: str | Sequence[str], where: str) -> list[str]:
    """Names of the entries that a pattern or a list of patterns names.

    Raises:
        ValueError: one of them names no entry.
    """
    found: dict[str, None] = {}
    for pattern in [models] if isinstance(models, str) else models:
        names = [name for name in _entries() if fnmatch.fnmatchcase(name, pattern)]
        if not names:
            near = difflib.get_close_matches(pattern, _entries(), n=2, cutoff=0.6)
            hint = f"; did you mean {' or '.join(near)}?" if near else ""
            raise ValueError(f"{where}: no metafile has an entry {pattern!r}{hint}")
        found |= dict.fromkeys(names)
    return list(found)


def result_of(
    models: Iterable[str],
    dataset: str,
    metrics: Iterable[str],
    variant: str | None,
    source: str | None,
    where: str,
) -> Published | None:
    """The published numbers of a row on a data set; None: nobody published one.

    Args:
        models: Entries to look through.
        dataset: ``Dataset`` of the result.
        metrics: Those that are wanted; the others are left out.
        variant: ``Variant`` of the result; None: of the config as it stands.
        source: How its ``Source`` begins; None: any.
        where: For messages.

    Raises:
        ValueError: two results answer, or one has no source.
    """
    found: list[Published] = []
    for model in models:
        file, entry = _entries()[model]
        for result in entry.get("Results", ()):
            numbers = {m: float(result["Metrics"][m]) for m in metrics if m in result["Metrics"]}
            if result["Dataset"] != dataset or result.get("Variant") != variant or not numbers:
                continue
            if not result.get("Source"):
                raise ValueError(
                    f"{file}: {model}: the result of {dataset} has no Source; say where the number "
                    "is published"
                )
            if source is None or result["Source"].startswith(source):
                found.append(Published(model, numbers, dict.fromkeys(numbers, result["Source"])))
    if not found:
        return None
    _check_one(found, dataset, where)
    return Published(
        found[0].model,
        {metric: value for one in found for metric, value in one.metrics.items()},
        {metric: text for one in found for metric, text in one.sources.items()},
    )


def _check_one(found: Sequence[Published], dataset: str, where: str) -> None:
    """Refuse two answers: of two entries, or the same metric twice.

    Raises:
        ValueError: naming both.
    """
    names = [metric for one in found for metric in one.metrics]
    if len({one.model for one in found}) == 1 and len(names) == len(set(names)):
        return
    answers = [f"{one.model} ({'; '.join(dict.fromkeys(one.sources.values()))})" for one in found]
    raise ValueError(
        f"{where}: {dataset} has {len(found)} results, {' and '.join(answers[:3])}; narrow Models, "
        "Variant or Source"
    )

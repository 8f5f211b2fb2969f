"""What is known of the metrics of a run before its first iteration.

A metric may have annotations of its own (mmdet's COCO and LVIS metrics read a json), and hooks
name one of the numbers that metrics give.
"""

from __future__ import annotations

import difflib
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mmengine.logging import print_log

from mmclipdis.engine.data_check import some
from mmclipdis.utils.coco_boxes import check_coco

#: Numbers of mmseg's IoUMetric beside aAcc.
_OF_SEGMENTATION = {
    "mIoU": ("mIoU", "mAcc"),
    "mDice": ("mDice", "mAcc"),
    "mFscore": ("mFscore", "mPrecision", "mRecall"),
}
#: Options of hooks that name a file to read.
_READ = ("checkpoint", "ckpt", "load_from")
_ITEMS = ("mAP", "mAP_50", "mAP_75", "mAP_s", "mAP_m", "mAP_l")
_RECALLS = ("AR@100", "AR@300", "AR@1000", "AR_s@1000", "AR_m@1000", "AR_l@1000")
#: Numbers of mmdet's metrics that the options do not choose.
_OF_DETECTION = {
    "CocoMetric": (),
    "OVCocoMetric": ("base_ap", "novel_ap", "base_ap50", "novel_ap50"),
}


def check_evaluator(evaluator: Any, datasets: Sequence[Any]) -> None:
    """Compare the annotations that metrics have read with the data, and complete them.

    Raises:
        ValueError: A metric's json lacks images or classes of the data set: it is another one's.
    """
    for metric in getattr(evaluator, "metrics", ()):
        api = getattr(metric, "_coco_api", None) or getattr(metric, "_lvis_api", None)
        content = getattr(api, "dataset", None)
        if not isinstance(content, dict):
            continue
        name = f"the annotations (ann_file) of {type(metric).__name__}"
        findings = check_coco(content, name, _folder(datasets))
        if findings.filled:  # ids among it, by which annotations are found
            getattr(api, "createIndex", getattr(api, "_create_index", lambda: None))()
        dropped = findings.dropped_line()
        if dropped:
            print_log(
                f"{name}: boxes {dropped}; the metric counts them as missed",
                logger="current",
                level=logging.WARNING,
            )
        for dataset in datasets:
            _compare(content, dataset, name)
        if type(metric).__name__ == "OVCocoMetric":
            _find_groups(metric, content, name)


def _find_groups(metric: Any, content: Mapping[str, Any], name: str) -> None:
    """Find the categories of base and novel classes, as mmdet's metric does at its first use.

    By itself it takes a group without classes for all of them, so that ``novel_ap`` of no novel
    class is the mean of everything; now it is -1.

    Raises:
        ValueError: The ids of the categories do not ascend, so that the metric would take classes
            of one group for those of the other.
    """
    meta = metric.dataset_meta or {}
    if metric.cat_ids is not None or "base_classes" not in meta or "novel_classes" not in meta:
        return
    listed = {category["id"]: category["name"] for category in content["categories"]}
    ids = [i for i, known in listed.items() if known in meta["classes"]]
    if ids != sorted(ids):
        raise ValueError(
            f"{name}: the ids of the categories do not ascend ({some(ids, 4)}), and OVCocoMetric "
            "would mix up base and novel classes; sort the categories of the json by id"
        )
    metric.cat_ids = ids
    metric.base_cat_ids = [i for i in ids if listed[i] in meta["base_classes"]]
    metric.novel_cat_ids = [i for i in ids if listed[i] in meta["novel_classes"]]


def _folder(datasets: Sequence[Any]) -> str | None:
    """Where the photos of the data lie; their heads tell sizes that a json does not have."""
    prefixes = (getattr(dataset, "data_prefix", None) or {} for dataset in datasets)
    return next((prefix["img"] for prefix in prefixes if prefix.get("img")), None)


def _compare(content: dict[str, Any], dataset: Any, name: str) -> None:
    if not hasattr(dataset, "get_data_info"):
        return
    ours = [dataset.get_data_info(place).get("img_id") for place in range(len(dataset))]
    owner = f"{type(dataset).__name__} ({getattr(dataset, 'ann_file', '')!r})"
    _check_within(ours, (image["id"] for image in content["images"]), "images", owner, name)
    classes = (getattr(dataset, "metainfo", None) or {}).get("classes") or ()
    listed = (category["name"] for category in content["categories"])
    _check_within(classes, listed, "classes", owner, name)
    more = len(content["images"]) - len(set(ours))
    if more:
        print_log(
            f"{name} have {more:,} images that {owner} has not: their boxes count as missed",
            logger="current",
            level=logging.WARNING,
        )


def _check_within(
    ours: Iterable[Any], theirs: Iterable[Any], what: str, owner: str, name: str
) -> None:
    known, ours = set(theirs), list(ours)
    lacking = [one for one in ours if one not in known]
    if lacking:
        raise ValueError(
            f"{name} lack {len(lacking):,} of the {len(ours):,} {what} of {owner}: "
            f"{some(lacking, 3)}; the evaluator must read the json of its data set: set the "
            "evaluator's ann_file"
        )


def metric_names(metric: Any) -> set[str] | None:
    """Names of all numbers that a metric gives; None if that is not known."""
    kind = type(metric).__name__
    if hasattr(metric, "metric_names"):
        names = set(metric.metric_names())
    elif kind == "IoUMetric":
        names = {"aAcc", *(n for m in metric.metrics for n in _OF_SEGMENTATION.get(m, (m,)))}
    elif kind in _OF_DETECTION and not metric.classwise:
        items = metric.metric_items
        names = set(_OF_DETECTION[kind])
        for chosen in metric.metrics:
            if chosen == "proposal_fast":
                names |= {f"AR@{number}" for number in metric.proposal_nums}
            elif chosen == "proposal":
                names |= set(items or _RECALLS)
            else:
                names |= {f"{chosen}_{item}" for item in items or _ITEMS}
    else:
        return None
    prefix = getattr(metric, "prefix", None)
    return {f"{prefix}/{name}" for name in names} if prefix else names


def check_monitored(runner: Any) -> None:
    """Check that ``save_best`` of the checkpoint hook, and the like, name numbers that there are.

    Raises:
        ValueError: A hook waits for a number that no metric of the validation gives.
    """
    loop = getattr(runner, "_val_loop", None)
    metrics = getattr(getattr(loop, "evaluator", None), "metrics", None)
    if not metrics:
        return
    names: set[str] = set()
    for metric in metrics:
        found = metric_names(metric)
        if found is None:
            return
        names |= found
    schedulers = getattr(runner, "param_schedulers", None) or ()
    if isinstance(schedulers, Mapping):
        schedulers = [one for several in schedulers.values() for one in several]
    watching = [one for one in schedulers if getattr(one, "need_val_args", False)]
    for hook in [*runner.hooks, *watching]:
        best = getattr(hook, "save_best", None)
        wanted = getattr(hook, "key_indicators", None) if best else None
        asked = [*(wanted or ()), *filter(None, [getattr(hook, "monitor", None)])]
        for name in asked:
            if isinstance(name, str) and name != "auto" and name not in names:
                option = "save_best" if best else "monitor"
                close = difflib.get_close_matches(name, sorted(names), n=2, cutoff=0.4)
                close = close or [n for n in sorted(names) if n.lower() == name.lower()]
                hint = f"did you mean {close[0]!r}? " if close else ""
                raise ValueError(
                    f"{type(hook).__name__}: {option}={name!r} is no number of the validation; "
                    f"{hint}There are {some(sorted(names), 12)}"
                )


def check_hook_files(config: Mapping[str, Any]) -> None:
    """Check that the files that hooks of a config read are there.

    Raises:
        FileNotFoundError: One is not; names the hook and the option.
    """
    hooks = [*(config.get("custom_hooks") or ()), *(config.get("default_hooks") or {}).values()]
    for hook in hooks:
        for key, value in hook.items() if isinstance(hook, Mapping) else ():
            names_file = key in _READ or key.endswith(("_file", "_checkpoint"))
            written = key.startswith(("out", "save", "dump"))
            if not names_file or written or not isinstance(value, str) or "://" in value:
                continue
            if value and not os.path.exists(value):
                raise FileNotFoundError(f"{hook.get('type')}: {key}={value!r} does not exist")

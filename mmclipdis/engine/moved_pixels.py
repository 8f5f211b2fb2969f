"""Steps of a test pipeline that move pixels: undone by the model, or refused before the run."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from mmengine.model import is_model_wrapper

#: Classes of steps after which a pixel is elsewhere or gone, and their subclasses.
_MOVING = re.compile(
    "Crop|Rot(at|Flip)|Flip|Affine|Shear|Translat|Mosaic|Mix[Uu]p|CutMix|RandomShift|Perspective"
    "|Elastic|Erasing|Cut[Oo]ut|CopyPaste|InstaBoost|^Expand$|GeomTransform|^Albu|^AutoAugment"
    "|^RandAugment|^TrivialAugment|^AugMix|^RandomDepthMix"
)
#: What is undone for the results of a pipeline that ends so, whatever the model; none of the steps
#: is looked at in other pipelines: a picture is recognised wherever its things are.
_UNDONE = {"PackSegInputs": ("flip",), "PackDetInputs": ("pad",), "PackRegions": ()}


def check_loops(runner: Any) -> None:
    """Check the pipelines that a runner validates and tests with, those of joined data sets, too.

    Raises:
        ValueError: see :func:`check_test_pipeline`.
    """
    model: Any = getattr(runner, "model", None)
    model = model.module if is_model_wrapper(model) else model
    for name in ("val", "test"):
        loader = getattr(getattr(runner, f"_{name}_loop", None), "dataloader", None)
        for dataset in _with_pipelines(getattr(loader, "dataset", None)):
            steps = getattr(dataset.pipeline, "transforms", ())
            check_test_pipeline(steps, model, f"{name}_dataloader ({type(dataset).__name__})")


def check_test_pipeline(steps: Sequence[Any], model: Any, where: str) -> None:
    """Refuse steps that move pixels and that nothing undoes: results would lie elsewhere.

    Resizing is undone by every model. Padding is by those with ``undoes`` ``"pad"`` (and boxes do
    not care for it), a flip by segmentors: label maps have to be loaded after both, or they are
    padded and flipped, and results are not. ``TestTimeAug`` undoes its own flips.

    Args:
        steps: The transforms, built.
        model: Its parts may say in ``undoes`` what they undo, of ``"pad"`` and ``"flip"``.
        where: What the pipeline is of.

    Raises:
        ValueError: naming the step and what to do.
    """
    flat = list(_flatten(steps))
    ends = [name for step, _ in flat for name in _names(step) if name in _UNDONE]
    if not ends:
        return
    said = [part.undoes for part in model.modules() if hasattr(part, "undoes")]
    undone = set(said[0] if said else _UNDONE[ends[-1]])
    loaded = False
    for step, augmented in flat:
        loaded = loaded or any("LoadAnnotations" in name for name in _names(step))
        # Views load their labels one after the other, each after its own flip.
        allowed = (undone | {"flip"}, False) if augmented else (undone, loaded)
        problem = _problem(step, *allowed)
        if problem:
            raise ValueError(f"the pipeline of {where}: {type(step).__name__} {problem}")


def _problem(step: Any, undone: Collection[str], loaded: bool) -> str | None:
    """What is wrong with a step, if anything is; ``loaded``: label maps or boxes are there."""
    names = _names(step)
    if getattr(step, "prob", None) == 0:
        return None
    behind = (
        "stands behind LoadAnnotations, so that labels are changed by it and results are not; put "
        "LoadAnnotations after it"
    )
    if "Pad" in names:
        if "pad" not in undone:
            return (
                "adds pixels that this model takes for a part of the photo; leave it out: the "
                "data_preprocessor pads where a model needs it"
            )
        if getattr(step, "padding_mode", "constant") != "constant":
            return (
                f"with padding_mode={step.padding_mode!r} cannot be told from the photo, and is "
                "not undone; pad with a constant, or leave it out"
            )
        return behind if loaded and "flip" in undone else None
    ours = type(step).__module__.startswith("mmclipdis.")  # these know what they do
    if ours or not any(_MOVING.search(name) for name in names):
        return None
    if "RandomFlip" in names and "flip" in undone:
        return behind if loaded else None
    return (
        "moves pixels, and nothing moves the results back; a test pipeline has no such step: leave "
        "it out"
    )


def _names(step: Any) -> list[str]:
    """Names of a step's class and of those it derives from."""
    return [kind.__name__ for kind in type(step).__mro__]


def _flatten(steps: Sequence[Any], augmented: bool = False) -> Iterator[tuple[Any, bool]]:
    """Steps, also those inside others, and whether they are views that are merged."""
    for step in steps:
        inside = getattr(step, "transforms", None) or getattr(step, "subroutines", None)
        if isinstance(inside, (list, tuple)):
            views = augmented or any("TestTimeAug" in name for name in _names(step))
            yield from _flatten(inside, views)
        elif callable(inside) and not isinstance(inside, type):
            yield from _flatten([inside], augmented)
        yield step, augmented


def _with_pipelines(dataset: Any) -> Iterator[Any]:
    """A data set with a pipeline; of a wrapper those inside."""
    if dataset is None:
        return
    if hasattr(getattr(dataset, "pipeline", None), "transforms"):
        yield dataset
    inside = [dataset.dataset] if hasattr(dataset, "dataset") else []
    for part in (*inside, *getattr(dataset, "datasets", ())):
        yield from _with_pipelines(part)

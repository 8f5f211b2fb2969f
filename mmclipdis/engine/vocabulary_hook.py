"""Tells the model which classes the data have, whenever a loop over other data starts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS

from mmclipdis.clip.text.vocabulary import novel_flags
from mmclipdis.engine.data_check_hook import DataCheckHook
from mmclipdis.utils.names import name_list

T = TypeVar("T", bound=tuple)


@HOOKS.register_module()
class VocabularyHook(DataCheckHook):
    """Gives a model that follows its data set the class names of the data it is about to see.

    Before training, validation and testing the hook reads ``metainfo['classes']`` of the loop's
    data set. A part of the model with ``set_vocabulary`` and ``follow_dataset=True`` gets these
    names; after a validation in the middle of training it gets the names of the training data
    back. A vocabulary that the user chose is left alone, but must have as many classes as the data
    have: labels beyond it could not be learned, and predictions beyond the data not be scored.
    Its names are free, but those of the data in another order are a mistake: a label is a place
    in that order.
    A model without vocabulary is left alone, and so is, in training, a part of it that says
    ``used_in_training = False``.
    Before all, the data themselves are looked at, see :class:`DataCheckHook`.
    A part with ``use_metainfo`` (:class:`~mmclipdis.models.named_classes.NamedClasses`) reads its
    names itself, as it does where mm tools write a checkpoint's ``dataset_meta`` on it. A part with
    ``set_novel`` (an open-vocabulary detector) is also told which of the classes
    ``metainfo['novel_classes']`` lists, for each class a bool, or None where there is no list (with
    a chosen vocabulary it is then told nothing), and one with ``learn_base`` what a checkpoint that
    is loaded says of that.

    Raises:
        ValueError: if the data set names no classes (and the model follows it), if joined data
            sets name different ones, if a novel class is no class, if the number of classes
            differs, if a chosen vocabulary has the same names in another order, or if the labels
            of a COCO data set do not count the classes since its json lacks some.
    """

    priority = "VERY_HIGH"  # other hooks and the loops may already use the vocabulary

    def __init__(self) -> None:
        super().__init__()
        self._train_classes: tuple[str, ...] | None = None
        self._train_novel: tuple[bool, ...] | None = None

    def after_load_checkpoint(self, runner: Any, checkpoint: Mapping[str, Any]) -> None:
        """Tell a detector which classes had boxes in the training of the checkpoint."""
        metainfo = (checkpoint.get("meta") or {}).get("dataset_meta")
        for part in _parts_with_vocabulary(runner.model):
            if isinstance(metainfo, Mapping) and hasattr(part, "learn_base"):
                part.learn_base({str(key).lower(): value for key, value in metainfo.items()})

    def before_train(self, runner: Any) -> None:
        """Set the classes of the training data."""
        self._train_classes = self._apply(runner, runner.train_dataloader, training=True)
        if self._train_classes is not None:
            self._train_novel = find_novel(runner.train_dataloader.dataset)

    def before_val(self, runner: Any) -> None:
        """Set the classes of the validation data."""
        self._apply(runner, runner.val_dataloader)

    def after_val(self, runner: Any) -> None:
        """Go back to the classes of the training data, if training goes on."""
        if self._train_classes is not None:
            _set_classes(
                _parts_with_vocabulary(runner.model), self._train_classes, self._train_novel
            )

    def after_train(self, runner: Any) -> None:
        """Training is over: a later validation has nothing to go back to."""
        self._train_classes = None

    def before_test(self, runner: Any) -> None:
        """Set the classes of the test data."""
        self._apply(runner, runner.test_dataloader)

    @staticmethod
    def _apply(runner: Any, dataloader: Any, training: bool = False) -> tuple[str, ...] | None:
        dataset = dataloader.dataset
        parts = list(_parts_with_vocabulary(runner.model))
        if training:  # distillation knows no classes; its validation does
            parts = [part for part in parts if getattr(part, "used_in_training", True)]
        if not parts:
            return None
        classes = find_classes(dataset)
        _check_numbering(dataset)
        for part in parts:
            if part.follow_dataset:
                if classes is None:
                    raise ValueError(
                        f"the model follows its data set, but {type(dataset).__name__} names no "
                        "classes: set metainfo=dict(classes=...) on the data set or vocabulary=... "
                        "on the model"
                    )
            elif classes is not None and part.vocabulary.num_classes != len(classes):
                raise ValueError(
                    f"the vocabulary of {type(part).__name__} has {part.vocabulary.num_classes} "
                    f"classes, but {type(dataset).__name__} labels {len(classes)}: give the model "
                    "one vocabulary entry for every class (synonyms belong to one entry), or "
                    "vocabulary='dataset'"
                )
            elif classes is not None:
                _check_order(part, dataset, classes)
        if classes is not None:
            _set_classes(parts, classes, find_novel(dataset))
        return classes


def find_classes(dataset: Any) -> tuple[str, ...] | None:
    """Class names of a data set, also inside wrappers and joined data sets.

    Raises:
        ValueError: if joined data sets name different classes.
    """

    def problem(names: list[tuple[str, ...] | None]) -> str:
        sizes = ", ".join("none" if n is None else str(len(n)) for n in names)
        return (
            f"different classes ({sizes} classes); map them to common ones with "
            "metainfo=dict(classes=...)"
        )

    return _common(dataset, _classes, problem)


def _classes(metainfo: Mapping[str, Any], owner: str) -> tuple[str, ...]:
    # two lines of ADE20K-847 may share a name; its data set warns of that
    return name_list(metainfo["classes"], f"metainfo['classes'] of {owner}", twice=True)


def _common(
    dataset: Any,
    read: Callable[[Mapping[str, Any], str], T | None],
    problem: Callable[[list[T | None]], str],
) -> T | None:
    """What ``read(metainfo, name)`` says of the data set that names classes, inside any wrappers.

    None if none does. Joined data sets must agree, or an error says their ``problem(answers)``.
    """
    metainfo = getattr(dataset, "metainfo", None) or {}
    if metainfo.get("classes") is not None:
        return read(metainfo, type(dataset).__name__)
    if hasattr(dataset, "dataset"):
        return _common(dataset.dataset, read, problem)
    answers = [_common(part, read, problem) for part in getattr(dataset, "datasets", ())]
    if len(set(answers)) > 1:
        raise ValueError(f"{type(dataset).__name__} joins data sets with {problem(answers)}")
    return answers[0] if answers else None


def _check_numbering(dataset: Any) -> None:
    """Refuse mmdet's ``CocoDataset`` with a json of fewer categories than there are classes.

    It numbers the categories of the json, so that a label is no place among the classes any more.

    Raises:
        ValueError: naming the data set.
    """
    inside = [dataset.dataset] if hasattr(dataset, "dataset") else []
    for part in (*inside, *getattr(dataset, "datasets", ())):
        _check_numbering(part)
    numbered = getattr(dataset, "cat2label", None)
    if numbered is None or getattr(dataset, "labels_by_name", False):
        return
    classes = find_classes(dataset) or ()
    if len(numbered) < len(classes):
        raise ValueError(
            f"{type(dataset).__name__}: {dataset.ann_file!r} lists {len(numbered)} of the "
            f"{len(classes)} classes, and this data set numbers what the json lists, so that "
            "labels and classes do not fit; take OVCocoDataset, which goes by name, or a json that "
            "lists all"
        )


def _check_order(part: Any, dataset: Any, classes: tuple[str, ...]) -> None:
    """Refuse the names of the data set in another order; case, ``_`` and blanks do not count.

    Raises:
        ValueError: naming the first class that is in another place.
    """
    names = part.vocabulary.class_names
    ours, theirs = ([_folded(name) for name in some] for some in (names, classes))
    if ours == theirs or sorted(ours) != sorted(theirs):
        return
    place = next(i for i, (one, other) in enumerate(zip(ours, theirs)) if one != other)
    raise ValueError(
        f"the vocabulary of {type(part).__name__} has the classes of {type(dataset).__name__} in "
        f"another order: class {place} is {names[place]!r}, but the data label {classes[place]!r} "
        "so; put the vocabulary in the order of the data set's classes, or take "
        "vocabulary='dataset'"
    )


def _folded(name: str) -> str:
    return " ".join(name.lower().replace("_", " ").split())


def find_novel(dataset: Any) -> tuple[bool, ...] | None:
    """For every class of a data set whether its ``metainfo['novel_classes']`` lists it.

    None where there is no such list. Looks inside wrappers and joined data sets, too.

    Raises:
        ValueError: if it lists what is no class, or joined data sets differ.
    """
    remedy = "different novel classes; set the same metainfo=dict(novel_classes=...) on all of them"
    return _common(dataset, _flags, lambda _: remedy)


def _flags(metainfo: Mapping[str, Any], where: str) -> tuple[bool, ...] | None:
    novel = metainfo.get("novel_classes")
    if novel is None:
        return None
    return novel_flags(_classes(metainfo, where), novel, f"metainfo['novel_classes'] of {where}")


def _set_classes(
    parts: Iterable[Any], classes: tuple[str, ...], novel: tuple[bool, ...] | None
) -> None:
    metainfo: dict[str, Any] = {"classes": classes}
    if novel is not None:
        metainfo["novel_classes"] = [name for name, flag in zip(classes, novel) if flag]
    for part in parts:
        if part.follow_dataset and hasattr(part, "use_metainfo"):
            part.use_metainfo(metainfo)
        elif part.follow_dataset:
            part.set_vocabulary(classes)
        # a chosen vocabulary may know its novel classes where the data do not
        if hasattr(part, "set_novel") and (part.follow_dataset or novel is not None):
            part.set_novel(novel)


def _parts_with_vocabulary(model: Any) -> Iterator[Any]:
    """The outermost modules that have a vocabulary: a segmentor, or a head in a stock segmentor."""
    module = model.module if is_model_wrapper(model) else model
    if hasattr(module, "set_vocabulary") and hasattr(module, "follow_dataset"):
        yield module
        return
    for child in module.children():
        yield from _parts_with_vocabulary(child)

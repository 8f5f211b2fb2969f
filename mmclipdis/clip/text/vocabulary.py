"""Class names as data: synonyms, prompt templates and the background, with a hash for caching."""

from __future__ import annotations

import hashlib
import html
import json
import unicodedata
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmclipdis.clip.text.names import read_class_file, read_names
from mmclipdis.clip.text.templates import TEMPLATES, Templates, TemplateSet, get_templates
from mmclipdis.utils.names import name_list

CLASS_FILES = Path(__file__).parent / "class_files"

#: Options of the class files in the package that are more than plain lists. SCLIP's COCO-Object
#: and ProxyCLIP's list "bed" both as a class and as a name of the background.
_BUNDLED_OPTIONS: dict[str, dict[str, Any]] = {
    "voc21": {"background_index": 0},
    "context60": {"background_index": 0},
    "coco_object": {"background_index": 0},
    "sclip_voc21": {"background_index": 0},
    "sclip_coco_object": {"background_index": 0, "allow_duplicates": True},
    "proxyclip_voc21": {"background_index": 0},
    "proxyclip_coco_object": {"background_index": 0, "allow_duplicates": True},
}

#: CorrCLIP's lists -> those that they are made of, with "people" for "person" and, for COCO-Object,
#: no bed in the background.
_CORRCLIP = {
    "corrclip_ade20k": "ade20k",
    "corrclip_cityscapes": "cityscapes",
    "corrclip_coco_object": "proxyclip_coco_object",
    "corrclip_coco_stuff164k": "coco_stuff164k",
    "corrclip_context59": "context59",
    "corrclip_context60": "context60",
    "corrclip_voc20": "voc20",
    "corrclip_voc21": "proxyclip_voc21",
}

#: Names that no class has but the background.
_BACKGROUND = frozenset({"background", "the background"})


@dataclass(frozen=True)
class Vocabulary:
    """The classes of a run. A *query* is one name of a class; a class has one or more.

    Args:
        names: For every class its synonyms. Runs of white space become one blank (the tokenizer
            does the same).
        templates: Prompts of a name (:mod:`mmclipdis.clip.text.templates`).
        background_index: Which class is the background; None if no class is, or one by its name
            (:attr:`background`).
        allow_duplicates: Accept, with a warning, a query that belongs to two classes. Their scores
            tie and the class that comes first wins, as in ADE20K-847.

    Raises:
        ValueError: for an empty vocabulary, class or name, a name twice in a class, a query in two
            classes, or a background that does not exist.
    """

    names: tuple[tuple[str, ...], ...]
    templates: TemplateSet = TEMPLATES["imagenet80"]
    background_index: int | None = None
    allow_duplicates: bool = field(default=False, compare=False)

    def __post_init__(self) -> None:
        if isinstance(self.names, (str, Path)):
            raise ValueError(f"names={self.names!r} is one string; give a list of class names")
        names = tuple(_clean_class(i, name) for i, name in enumerate(read_names(self.names)))
        if not names:
            raise ValueError("empty vocabulary: give at least one class name")
        index = self.background_index
        if index is not None and not 0 <= index < len(names):
            raise ValueError(f"background_index={index}, but the classes are 0..{len(names) - 1}")
        object.__setattr__(self, "names", names)
        object.__setattr__(self, "templates", get_templates(self.templates))
        self._check_duplicates()
        templates = self.templates
        if templates.more and not any(templates.has_more(query) for query in self.queries):
            warnings.warn(
                f"templates have sentences of {len(templates.more)} names, and none of them is a "
                f"class, such as {self.queries[0]!r}: all have the patterns only",
                stacklevel=3,
            )

    @classmethod
    def from_names(
        cls,
        names: Any,
        templates: Templates = "imagenet80",
        *,
        separator: str | None = None,
        first_only: bool = False,
        background_index: int | None = None,
        background_names: Sequence[str] = (),
        allow_duplicates: bool = False,
    ) -> Vocabulary:
        """Vocabulary from a list.

        Args:
            names: Class names, or lists of synonyms, or what else
                :func:`~mmclipdis.clip.text.names.read_names` reads, but for texts and files.
            templates: Name of a template set, or patterns.
            separator: Splits a string into synonyms (``', '``); None keeps strings whole.
            first_only: Keep the first synonym only (CAT-Seg's rule for names with ", ").
            background_index: See the class.
            background_names: Names that replace those of the background class (sky, wall, ...).
            allow_duplicates: See the class.

        Raises:
            ValueError: see the class.
        """
        if isinstance(names, (str, Path)):
            raise ValueError(f"names={names!r} is one string; give a list, or use from_file")
        classes = read_names(names, separator)
        if first_only:
            classes = [synonyms[:1] for synonyms in classes]
        if background_names:
            if background_index is None or not 0 <= background_index < len(classes):
                raise ValueError(
                    "background_names need the class that they name: background_index="
                    f"{background_index} is none of 0..{len(classes) - 1}"
                )
            classes[background_index] = list(name_list(background_names, "background_names"))
        return cls(
            tuple(tuple(synonyms) for synonyms in classes),
            templates=get_templates(templates),
            background_index=background_index,
            allow_duplicates=allow_duplicates,
        )

    @classmethod
    def from_file(
        cls,
        path: str | Path,
        templates: Templates = "imagenet80",
        *,
        separator: str | None = ",",
        **options: Any,
    ) -> Vocabulary:
        """Vocabulary from a text file: line i is class i, synonyms are separated.

        Args:
            path: UTF-8 text. Blank lines at the end do not count.
            templates: See the class.
            separator: Between synonyms: ``','`` (ClearCLIP, SCLIP, ADE20K-847) or ``';'``
                (ProxyCLIP, DeCLIP: commas stay in the name); None: one name a line.
            **options: Those of :meth:`from_names`.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it is empty, not text, or has a blank line or an empty synonym in the
                middle (with the line number); also as :meth:`from_names`.
        """
        classes = read_class_file(path, separator)
        try:
            return cls.from_names(classes, templates, **options)
        except ValueError as error:
            raise ValueError(
                f"class file {str(path)!r} (class i is line i + 1): {error}"
            ) from error

    @classmethod
    def bundled(cls, name: str, templates: Templates = "imagenet80", **options: Any) -> Vocabulary:
        """Vocabulary of a class file in the package, see :func:`bundled_names`.

        Raises:
            ValueError: for an unknown name, with the allowed ones.
        """
        if name not in bundled_names():
            raise ValueError(
                f"unknown class file {name!r}; the package has {', '.join(bundled_names())}"
            )
        source = _CORRCLIP.get(name, name)
        options = {**_BUNDLED_OPTIONS.get(source, {}), **options}
        if source == name:
            return cls.from_file(CLASS_FILES / f"{name}.txt", templates, **options)
        classes = read_class_file(CLASS_FILES / f"{source}.txt")
        return cls.from_names(_as_in_corrclip(classes), templates, **options)

    @property
    def num_classes(self) -> int:
        """Number of classes ``C``."""
        return len(self.names)

    @property
    def class_names(self) -> tuple[str, ...]:
        """First synonym of every class, length ``C``."""
        return tuple(synonyms[0] for synonyms in self.names)

    @property
    def queries(self) -> tuple[str, ...]:
        """All names in the order of the classes, length ``Q``."""
        return tuple(name for synonyms in self.names for name in synonyms)

    @property
    def query_to_class(self) -> tuple[int, ...]:
        """Class of every query, length ``Q``, ascending."""
        return tuple(i for i, synonyms in enumerate(self.names) for _ in synonyms)

    @property
    def background(self) -> int | None:
        """The class that is the background: the one said to be, or else one of that name.

        None if no class is; it is never a matter of the place in the list.
        """
        if self.background_index is not None:
            return self.background_index
        named = (i for i, names in enumerate(self.names) if _BACKGROUND & {*map(_folded, names)})
        return next(named, None)

    def prompts(self) -> tuple[tuple[str, ...], ...]:
        """The sentences of every query, ``Q`` tuples of one sentence a template."""
        return tuple(self.templates.render(query) for query in self.queries)

    def key(self) -> str:
        """Hash of names, templates and background; equal in every process."""
        content = json.dumps([self.names, self.templates.key(), self.background_index])
        return hashlib.sha256(content.encode()).hexdigest()

    def _check_duplicates(self) -> None:
        owner: dict[str, int] = {}
        shared: list[str] = []
        for index, name in zip(self.query_to_class, self.queries, strict=True):
            folded = _as_read(name)
            first = owner.setdefault(folded, index)
            if first != index:
                shared.append(f"{name!r} (classes {first} and {index})")
        if not shared:
            return
        more = f" and {len(shared) - 5} more" if len(shared) > 5 else ""
        text = f"the same name stands for two classes: {', '.join(shared[:5])}{more}"
        if not self.allow_duplicates:
            raise ValueError(
                f"{text}; leave one out or rename it, or set allow_duplicates=True in the "
                "vocabulary of a config (scores tie and the first class wins)"
            )
        warnings.warn(f"{text}; their scores tie and the first class wins", stacklevel=3)


def bundled_names() -> tuple[str, ...]:
    """Names of the class files in the package.

    ``voc20 voc21 context59 context60 coco_object coco_stuff164k cityscapes ade20k`` are ClearCLIP's
    (they differ from the data sets' own names: ship, table, blanks deleted); ``sclip_*`` are
    SCLIP's with its synonyms, ``proxyclip_*`` ProxyCLIP's with its words for the background. The
    other lists of both are word for word ClearCLIP's. ``corrclip_*`` are those of ProxyCLIP with
    "people" for "person". ``objects365`` are the data set's own names but for "hami melon", as
    F-ViT's transfer prompts them.
    """
    return tuple(sorted([*(path.stem for path in CLASS_FILES.glob("*.txt")), *_CORRCLIP]))


def _as_in_corrclip(classes: Sequence[Sequence[str]]) -> list[list[str]]:
    """CorrCLIP's names of the classes of another list (training_free_2 spec 4.5)."""
    stripped = [[name.strip() for name in names] for names in classes]
    words = {name for names in stripped[1:] for name in names}
    renamed = [["people" if name == "person" else name for name in names] for names in stripped]
    # what is a class of its own is no word for the background
    renamed[0] = [name for name in renamed[0] if len(renamed[0]) == 1 or name not in words]
    return renamed


def novel_flags(
    classes: Sequence[str], novel_classes: Sequence[str], where: str = "novel_classes"
) -> tuple[bool, ...]:
    """For each class whether it is novel: without labels in training.

    Args:
        classes: Names.
        novel_classes: Those that are novel.
        where: What lists them, for the message.

    Raises:
        ValueError: a novel class that is none of the classes.
    """
    classes = name_list(classes, "the list of classes", twice=True)
    novel_classes = name_list(novel_classes, where)
    unknown = sorted(set(novel_classes) - set(classes))
    if unknown:
        raise ValueError(
            f"{where} lists {unknown[:5]}, which are none of the {len(classes)} classes: spell "
            "them alike"
        )
    return tuple(name in set(novel_classes) for name in classes)


def _as_read(name: str) -> str:
    """A name as the tokenizer reads it, as far as two names that look different may be one.

    It lowers the case, turns ``&amp;`` into ``&``, and joins a letter and its accent.
    """
    return unicodedata.normalize("NFC", html.unescape(html.unescape(name))).lower().strip()


def _folded(name: str) -> str:
    return " ".join(name.lower().replace("_", " ").split())


def _clean_class(index: int, synonyms: Any) -> tuple[str, ...]:
    """Names of one class with single blanks; complains about what is no name."""
    synonyms = [synonyms] if isinstance(synonyms, str) else synonyms
    if not isinstance(synonyms, (list, tuple)) or not all(isinstance(n, str) for n in synonyms):
        raise ValueError(
            f"class {index} is {synonyms!r}; expected a name or a list of names (synonyms)"
        )
    for name in synonyms:
        if len(name.strip().splitlines()) > 1 or name.lstrip()[:1] == "[" or "]" in name[-1:]:
            raise ValueError(
                f"class {index}: {name!r} is no name (a line break, or a bracket); give every "
                "class a string of its own, or a list of synonyms"
            )
    clean = tuple(" ".join(name.split()) for name in synonyms)
    if not clean or not all(clean):
        raise ValueError(f"class {index} has an empty name: {synonyms!r}")
    if not all(any(unicodedata.category(c)[0] not in "CZ" for c in name) for name in clean):
        raise ValueError(f"class {index} has a name without a visible letter: {synonyms!r}")
    folded = [_as_read(name) for name in clean]
    twice = sorted({name for name in folded if folded.count(name) > 1})
    if twice:
        raise ValueError(f"class {index} has the same name twice: {', '.join(twice)}; remove one")
    return clean

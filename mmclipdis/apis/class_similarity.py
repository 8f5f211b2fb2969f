"""How alike the text features of classes are: a class list in, JSON and a picture out."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import mmclipdis.datasets  # noqa: F401  (registers the data sets that can be named)
from mmclipdis.clip.text.similarity import cosine_matrix, similarity_report
from mmclipdis.clip.text.templates import Templates, get_templates
from mmclipdis.clip.text.vocabulary import Vocabulary
from mmclipdis.models.projectors import load_projectors
from mmclipdis.models.text_encoder import OpenCLIPTextEncoder, build_vocabulary
from mmclipdis.utils.device import usable_device
from mmclipdis.utils.whole_files import refuse_existing, write_text
from mmclipdis.visualization.class_similarity import cluster_order, draw_class_similarity

#: Prompts without a final period, those of DCLIP.
POSITIVE, NEGATIVE = "a photo of a {}", "Not a photo of a {}"
TITLES = {"clip": "CLIP", "projected": "projected"}


def class_similarity(arguments: Sequence[str] | None = None) -> Path:
    """Measure and draw what the command line asks for; see ``tools/analysis_tools``.

    Returns:
        The folder with ``similarity.json`` and ``similarity.png``.
    """
    args = _parser().parse_args(arguments)
    templates = _templates(args.templates), _templates(args.negative_template)
    vocabulary = read_classes(args.classes, templates[0])
    folder = writable_folder(args.out)
    for name in ("similarity.json", "similarity.png"):
        refuse_existing(folder / name, args.overwrite)
    if args.top < 0:
        raise ValueError(f"--top {args.top}: expected 0 or more pairs")
    features = class_features(
        *(vocabulary, templates[1], *clip_of(args.arch, args.checkpoint)),
        *(args.projectors, args.device, args.tokenizer),
    )
    names = vocabulary.class_names
    matrices = {key: cosine_matrix(pos).cpu().numpy() for key, (pos, _) in features.items()}
    order = cluster_order(matrices["clip"]) if args.order == "cluster" else range(len(names))
    reports = {
        key: similarity_report(pos, names, args.top, neg) for key, (pos, neg) in features.items()
    }
    settings = _settings(args, vocabulary, templates[1], list(order))
    content = json.dumps({**reports, "settings": settings}, indent=2, ensure_ascii=False)
    write_text(folder / "similarity.json", content + "\n")
    titled = {TITLES[key]: matrix for key, matrix in matrices.items()}
    draw_class_similarity(titled, names, folder / "similarity.png", order, args.top)
    print(_summary(reports, folder))
    return folder


def read_classes(text: str, templates: Templates = POSITIVE) -> Vocabulary:
    """The classes that a user names, one name each: the first of several, ``_`` being a blank.

    Args:
        text: A data set (``ADE20KDataset``), a class file of the package (``voc20``), a COCO or
            LVIS ``.json`` (its categories by id), or what
            :func:`~mmclipdis.clip.text.names.read_names` reads: a file with a class a line, names
            with commas between them.
        templates: Prompts.

    Raises:
        FileNotFoundError: for a file that does not exist.
        ValueError: if it is none of these, or names fewer than two classes or one of them twice.
    """
    if not text.strip():
        raise ValueError("CLASSES is empty: name a data set, a file, or classes with commas")
    if Path(text).suffix.lower() == ".json":
        source: Any = _categories(Path(text))
    else:
        source = text
    vocabulary = build_vocabulary(source, templates, first_only=True)
    if vocabulary is None:  # what configs call "dataset": that of the run
        raise ValueError(f"{text!r} names no classes: give the name of a data set")
    names = tuple((name.replace("_", " "),) for name in vocabulary.class_names)
    vocabulary = dataclasses.replace(vocabulary, names=names)
    if vocabulary.num_classes < 2:
        raise ValueError(f"{text!r} has one class, at least two are needed to compare them")
    return vocabulary


def class_features(
    vocabulary: Vocabulary,
    negative: Templates,
    arch: str,
    checkpoint: str,
    projectors: str | None,
    device: str | None,
    tokenizer: str | None = None,
) -> dict[str, tuple[Tensor, Tensor]]:
    """Text features of all classes, with those of their negative prompts.

    Args:
        vocabulary: ``N`` classes with one name each, and their prompts.
        negative: Negative prompts.
        arch: open_clip name of CLIP.
        checkpoint: Its weights, a tag or a file.
        projectors: File of DCLIP's projectors; None for none.
        device: Where to compute, see :func:`mmclipdis.utils.device.usable_device`.
        tokenizer: File of the tokenizer, for a CLIP that has one of its own.

    Returns:
        ``clip``: two tensors ``(N, E)``, positive and negative, and with projectors ``projected``:
        two of ``(N, d')``.

    Raises:
        FileNotFoundError, ValueError: for weights that do not exist or do not fit, or a device
            that is not there.
    """
    place = usable_device(device)
    init_cfg = dict(type="Pretrained", checkpoint=checkpoint)
    encoder = OpenCLIPTextEncoder(arch, init_cfg=init_cfg, tokenizer=tokenizer)
    projection = None
    if projectors is not None:  # before the weights of CLIP are loaded: it may not fit
        projection = load_projectors(projectors, in_dim=encoder.embed_dim, arch=arch)
    encoder.init_weights()
    encoder.to(place).eval()
    prompts = vocabulary, dataclasses.replace(vocabulary, templates=get_templates(negative))
    positive, negated = (encoder.embed(sentences) for sentences in prompts)
    found = {"clip": (positive, negated)}
    if projection is not None:
        projection.to(place).eval()
        with torch.no_grad():
            found["projected"] = (projection.text(positive), projection.text(negated))
    return found


def _categories(path: Path) -> list[str]:
    """Names of the categories of a COCO or LVIS file, by ascending id."""
    if not path.is_file():
        raise FileNotFoundError(f"no file of categories at {str(path)!r}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        found = content["categories"] if isinstance(content, dict) else content
        ordered = sorted(found, key=lambda category: category["id"])
        return [str(category["name"]) for category in ordered]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{str(path)!r} has no categories as COCO and LVIS write them, each with id and name "
            f"({type(error).__name__}: {error})"
        ) from error


def _templates(values: Sequence[str]) -> Templates:
    """A name of a template set, or patterns."""
    return values[0] if len(values) == 1 else list(values)


def clip_of(arch: str | None, checkpoint: str | None) -> tuple[str, str]:
    """Arch and weights; the package's tiny CLIP where neither is given.

    Raises:
        ValueError: one is given without the other.
    """
    if arch is None and checkpoint is None:
        return "shapes-tiny", "shapes"
    if arch is None or checkpoint is None:
        given, other = (
            ("--arch", "--checkpoint") if checkpoint is None else ("--checkpoint", "--arch")
        )
        raise ValueError(f"{given} {arch or checkpoint} needs {other} as well")
    return arch, checkpoint


def writable_folder(folder: str) -> Path:
    """The folder ``--out``, made if it does not exist.

    Raises:
        ValueError: it cannot be made or written into.
    """
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"cannot make the folder --out {folder!r} ({error.strerror}); choose another one"
        ) from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise ValueError(f"cannot write into the folder --out {folder!r}; choose another one")
    return path


def _settings(
    args: argparse.Namespace, vocabulary: Vocabulary, negative: Templates, order: list[int]
) -> dict[str, Any]:
    arch, checkpoint = clip_of(args.arch, args.checkpoint)
    return {
        "classes": args.classes,
        "class_names": list(vocabulary.class_names),
        "arch": arch,
        "checkpoint": checkpoint,
        **({"tokenizer": args.tokenizer} if args.tokenizer else {}),
        "templates": list(vocabulary.templates.formats),
        "negative_templates": list(get_templates(negative).formats),
        "projectors": args.projectors,
        "order": order,
    }


def _summary(reports: Mapping[str, Mapping[str, Any]], folder: Path) -> str:
    lines = [f"{reports['clip']['num_classes']} classes"]
    for key, report in reports.items():
        line = f"{TITLES[key]}: mean cosine {report['mean_offdiag']:.3f}"
        line += f" ({report['min']:.3f} to {report['max']:.3f})"
        if report["top_pairs"]:
            pair = report["top_pairs"][0]
            line += f", most alike: {' and '.join(pair['names'])}"
        lines.append(line)
    return "\n".join([*lines, f"{folder / 'similarity.json'}, {folder / 'similarity.png'}"])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("classes", metavar="CLASSES", help="a data set (ADE20KDataset), a class file of the "
        "package (voc20), a text file, a COCO or LVIS json, or names with commas")  # fmt: skip
    add("--arch", help="open_clip name; default: the package's shapes-tiny")
    add("--checkpoint", help="its weights: a tag (openai) or a file")
    add("--tokenizer", metavar="FILE", help="its tokenizer.json, if it has another than CLIP's")
    add("--templates", nargs="+", default=[POSITIVE], help="name of a template set "
        f"(imagenet80), or prompts with {{}}; default: {POSITIVE!r}")  # fmt: skip
    add("--negative-template", nargs="+", default=[NEGATIVE],
        help=f"the same for the negative prompts; default: {NEGATIVE!r}")  # fmt: skip
    add("--projectors", metavar="FILE", help="checkpoint of DCLIP, or its projectors alone")
    add("--top", type=int, default=20, help="pairs to list; default: 20")
    add("--order", choices=["given", "cluster"], default="given",
        help="of the classes in the heat maps; cluster: similar ones side by side")  # fmt: skip
    add("--device", help="cpu, cuda, cuda:1, ...; a GPU if there is one")
    add("--out", default="work_dirs/class_similarity", help="folder to write into")
    add("--overwrite", action="store_true", help="replace what the folder holds of this tool")
    return parser

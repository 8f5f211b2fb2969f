"""A model and its words become one file, which is compared with the model before it is written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import torch
from torch import nn

from mmclipdis.clip.text.vocabulary import Vocabulary
from mmclipdis.export.capture import capture
from mmclipdis.export.check import check_file
from mmclipdis.export.files import FORMATS, file_of, runner_of
from mmclipdis.export.kinds import Exportable, Size, exportable
from mmclipdis.export.metadata import preprocessing
from mmclipdis.export.opened import Source, opened, use_words
from mmclipdis.utils.whole_files import make_folder, refuse_existing, whole_file
from mmclipdis.version import __version__

SUFFIXES = {"onnx": ".onnx", "torch": ".pt2"}


def export(
    config_or_name: Any,
    words: Any,
    out: str | Path,
    format: str = "onnx",
    checkpoint: str | Path | None = None,
    image_size: int | Sequence[int] | None = None,
    check: bool = True,
    cfg_options: Mapping[str, Any] | None = None,
    task: str | None = None,
) -> Path:
    """Write the image tower, a fixed table of text embeddings and the head of a model as one file.

    The file takes ``image``, normalised float32 (B, 3, H, W), and gives ``scores``, the
    probabilities of the classes: (B, C, H, W) of a segmentor, (B, C) of a tagger, with ``logits``
    (B, C) behind them. A detector's gives ``boxes`` (N, 4) in pixels before NMS, and their
    ``scores`` (N, C). It holds no text tower; :func:`~mmclipdis.export.metadata.load_metadata`
    tells its classes and how photos are prepared. What is left open of batch and size, and what a
    file does other than the model, is printed.

    Args:
        config_or_name: A config, its file, a name of the zoo, or a built model, which stays as it
            is.
        words: Names of the classes, as the inferencers take them; None for those of the model or of
            the config's data set.
        out: The file to write; one that is there is replaced.
        format: ``'onnx'``, or ``'torch'`` for a program of ``torch.export``.
        checkpoint: Trained weights, a file or URL; only with a config or a name.
        image_size: Side, or (height, width), in pixels of all images. None leaves it open.
        check: Whether to compare the file, as onnxruntime or PyTorch runs it, with the model.
        cfg_options: Settings that replace those of the config; only with a config or a name.
        task: ``'segment'``, ``'detect'`` or ``'tag'``, for a name that models of several have; the
            first of them without it.

    Returns:
        ``out``. Nothing is written if the file and the model differ.

    Raises:
        FileNotFoundError: no such config, checkpoint or weights.
        OSError: ``out`` cannot be written.
        ImportError: a package of ``mmclipdis[export]`` is missing.
        RuntimeError: weights that are random; or file and model differ.
        ValueError: bad words or options, or a model that cannot be exported; says why.
    """
    if format not in FORMATS:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}, got {format!r}")
    FORMATS[format].check_installed()
    size = _size(image_size)
    out = _checked_out(Path(out), format)
    source = opened(config_or_name, checkpoint, cfg_options, task)
    with _at_rest(source.model), use_words(source, words) as classes, torch.no_grad():
        found = exportable(source.model, size)
        _check_size(size, found)
        with found.settings():
            program = capture(found, size)
        metadata = _metadata(source, classes, found, size)
        data = file_of(format, program, found.outputs, metadata)
        for note in found.notes:
            print(f"note: {note}")
        parts = (_what_is_open(found, size), f"{classes.num_classes} classes", _size_of(data))
        print(f"{out.name}: {'; '.join(parts)}")
        if check:
            check_file(runner_of(format, data, found.outputs), found, size, format)
    with whole_file(out) as file:
        file.write(data)
    return out


def _metadata(
    source: Source, classes: Vocabulary, found: Exportable, size: Size | None
) -> dict[str, Any]:
    """What the file says of itself: see docs/export.md."""
    return {
        "mmclipdis": __version__,
        "config": source.name,
        "model": type(source.model).__name__,
        "task": found.task,
        "names": list(classes.class_names),
        "synonyms": [list(names) for names in classes.names],
        "templates": list(classes.templates.formats),
        **({"sentences": dict(classes.templates.more)} if classes.templates.more else {}),
        "outputs": list(found.outputs),
        "image_size": None if size is None else list(size),
        "multiple_of": list(found.step),
        "batch": None if found.batch else 1,
        "notes": list(found.notes),
        **preprocessing(source.model, source.config),
        **found.facts,
    }


def _checked_out(out: Path, format: str) -> Path:
    if out.suffix != SUFFIXES[format]:
        raise ValueError(
            f"out={str(out)!r}: a file of format {format!r} ends in {SUFFIXES[format]}; name it "
            f"{out.stem + SUFFIXES[format]!r}, or choose another format"
        )
    refuse_existing(out, overwrite=True)
    make_folder(out.parent)
    try:  # before minutes of work
        with TemporaryFile(dir=out.parent):
            pass
    except OSError as error:
        raise OSError(error.errno, f"cannot write: {error.strerror}", str(out)) from error
    return out


def _size(image_size: int | Sequence[int] | None) -> Size | None:
    if image_size is None:
        return None
    given: Any = image_size
    sides = tuple(given) if isinstance(given, Sequence) else (given, given)
    whole = [isinstance(side, int) and not isinstance(side, bool) and side > 0 for side in sides]
    if len(sides) != 2 or not all(whole):
        raise ValueError(
            f"image_size={image_size!r}: give one side, or height and width, in whole pixels"
        )
    return int(sides[0]), int(sides[1])


def _check_size(size: Size | None, found: Exportable) -> None:
    if size is not None and (size[0] < found.step[0] or size[1] < found.step[1]):
        raise ValueError(
            f"image_size={size} is smaller than a patch of {found.step} pixels: choose a larger one"
        )


@contextmanager
def _at_rest(model: nn.Module) -> Iterator[None]:
    """The model in eval mode inside the block, and each part as it was behind it."""
    modes = {part: part.training for part in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for part, training in modes.items():
            part.training = training


def _what_is_open(found: Exportable, size: Size | None) -> str:
    batch = "any number of images" if found.batch else "one image at a time"
    if size is not None:
        return f"{batch}, {size[0]} x {size[1]} pixels"
    if found.step == (1, 1):
        return f"{batch}, of any size"
    return f"{batch}, sides any multiple of {found.step[0]} x {found.step[1]} pixels"


def _size_of(data: bytes) -> str:
    return f"{len(data) / 1e6:.1f} MB"

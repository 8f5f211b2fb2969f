"""A check of label maps against the classes of a model, before a loss trips over them."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


def check_labels(
    labels: Tensor, num_classes: int, ignore_index: int, paths: Sequence[str | None]
) -> None:
    """Refuse labels that are no class: in a loss they are an index error, on a GPU its end.

    Args:
        labels: integers (B, H, W), one map an image.
        num_classes: C; labels are 0..C-1 or ``ignore_index``.
        ignore_index: the label without loss.
        paths: file of each label map (``seg_map_path`` of the data samples), None if not known.

    Raises:
        ValueError: naming the files, the labels found, the classes there are, and what to do.
    """
    wrong = ((labels < 0) | (labels >= num_classes)) & (labels != ignore_index)
    if not bool(wrong.any()):
        return
    found = []
    for path, label, bad in zip(paths, labels, wrong, strict=True):
        values = label[bad].unique().tolist()
        if values:
            more = f" and {len(values) - 5} more" if len(values) > 5 else ""
            found.append(f"{path or 'a label map'} has {', '.join(map(str, values[:5]))}{more}")
    more = f"; {len(found) - 3} more files" if len(found) > 3 else ""
    raise ValueError(
        f"labels that are no class: {'; '.join(found[:3])}{more}; with {num_classes} classes they "
        f"must be 0..{num_classes - 1} or {ignore_index} (ignored); name the classes of these "
        "files as vocabulary, or set the data set's reduce_zero_label (True if 0 means unlabelled)"
    )

"""Figures of matplotlib: in which files they can be written, and writing them whole."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from mmclipdis.utils.whole_files import whole_file


def check_picture_name(path: str | Path) -> Path:
    """``path``, or ValueError if its ending is of no format that can be written."""
    path = Path(path)
    supported = Figure().canvas.get_supported_filetypes()
    if path.suffix[1:].lower() not in supported:
        raise ValueError(f"cannot write {str(path)!r}: end it with one of {', '.join(supported)}")
    return path


def write_figure(figure: Figure, path: str | Path, dpi: int) -> None:
    """Write a figure in the format that the ending of ``path`` says, whole or not at all.

    Raises:
        ValueError: as :func:`check_picture_name`.
    """
    path = check_picture_name(path)
    with whole_file(path) as file:
        figure.savefig(file, dpi=dpi, format=path.suffix[1:].lower())

"""What converters share: nothing half written, nothing run from a pickle, broken files named."""

from __future__ import annotations

import io
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmclipdis.datasets.conversion.files import (
    lines_differ,
    read_picture,
    read_plain_pickle,
    write_labels,
    write_lines,
)


def test_an_exception_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels, lines = tmp_path / "new" / "map.png", tmp_path / "new" / "list.txt"

    def write(content: int) -> None:
        write_labels(labels, np.full((3, 3), content, np.uint8))
        write_lines(lines, [str(content)])

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    for there in ([], [lines, labels]):
        with monkeypatch.context() as patch:
            patch.setattr("mmclipdis.utils.whole_files.os.fsync", full)
            with pytest.raises(OSError, match=r"No space .*map\.png'"):
                write_labels(labels, np.zeros((3, 3), np.uint8))
            with pytest.raises(OSError, match=r"No space .*list\.txt'"):
                write_lines(lines, ["0"])
        assert sorted(labels.parent.iterdir()) == there
        if there:
            assert (np.asarray(Image.open(labels)) == 1).all()
            assert lines.read_text() == "1\n"
        write(1)


@pytest.mark.parametrize(("name", "dtype"), [("map.tif", np.uint16), ("map.png", np.uint8)])
def test_labels_come_back(tmp_path: Path, name: str, dtype: type) -> None:
    top = np.iinfo(dtype).max
    labels = np.random.default_rng(0).integers(0, top + 1, (7, 5)).astype(dtype)
    labels[0, :2] = 0, top
    write_labels(tmp_path / name, labels)
    back = np.asarray(Image.open(tmp_path / name))
    assert back.dtype == dtype
    assert (back == labels).all()


def test_lists_are_compared_by_line(tmp_path: Path) -> None:
    target = tmp_path / "list.txt"
    assert lines_differ(target, ["a", "b"], "")
    write_lines(target, ["a", "b"])
    assert not lines_differ(target, ["a", "b"], "")
    assert not lines_differ(target, ["b", "a"], "", ordered=False)
    with pytest.raises(FileExistsError, match=r"something else \(2 lines, to write 2\); remove it"):
        lines_differ(target, ["b", "a"], "remove it")
    assert lines_differ(target, ["b", "a"], "", overwrite=True)


def test_plain_pickles_come_back(tmp_path: Path) -> None:
    content = {"a": [1, 2.5, None, True, ("b", b"c")], "d": np.arange(6).reshape(2, 3)}
    path = tmp_path / "plain.pkl"
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        path.write_bytes(pickle.dumps(content, protocol=protocol))
        back = read_plain_pickle(path)
        assert back["a"] == content["a"]
        assert (back["d"] == content["d"]).all()


@pytest.mark.parametrize("called", [print, eval, np.load, io.open, getattr])
def test_pickles_that_call_something_are_refused(tmp_path: Path, capsys, called) -> None:
    class Call:
        def __reduce__(self) -> tuple:
            return called, ("1",)

    path = tmp_path / "evil.pkl"
    path.write_bytes(pickle.dumps([Call()]))
    with pytest.raises(ValueError, match=r"evil\.pkl is no pickle of plain data: it asks for"):
        read_plain_pickle(path)
    assert capsys.readouterr().out == ""


def test_broken_pictures_are_named(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    with pytest.raises(FileNotFoundError):
        read_picture(path)
    Image.fromarray(np.zeros((64, 64, 3), dtype=np.uint8)).save(path)
    for content in (path.read_bytes()[:-300], b"no photo", b""):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"cannot read .*photo\.jpg as an image"):
            read_picture(path)

"""The COCO-Object converter on a miniature of COCO-Stuff's raw maps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tools.dataset_converters.coco_object import label_table, main


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """One raw map a split, and a converted file of another tool that must not be read."""
    for split, values in (("train2017", [0, 1, 255]), ("val2017", [89, 91, 181])):
        folder = tmp_path / "annotations" / split
        folder.mkdir(parents=True)
        Image.fromarray(np.array([values], dtype=np.uint8)).save(folder / "000001.png")
        other = np.full((1, 3), 200, dtype=np.uint8)
        Image.fromarray(other).save(folder / "000001_labelTrainIds.png")
    return tmp_path


def read(root: Path, split: str) -> list[int]:
    path = root / "annotations" / split / "000001_instanceTrainIds.png"
    return np.asarray(Image.open(path))[0].tolist()


def test_golden_table() -> None:
    table = label_table()
    assert {i: int(table[i]) for i in (0, 89, 91, 181, 255)} == {
        0: 1,
        89: 80,
        91: 0,
        181: 0,
        255: 0,
    }
    foreground = [int(v) for v in table if 1 <= v <= 80]
    assert sorted(foreground) == list(range(1, 81))
    assert foreground == sorted(foreground)


@pytest.mark.parametrize("nproc", ["1", "2"])
def test_converts_both_splits(coco: Path, nproc: str) -> None:
    assert main([str(coco), "--allow-partial", "--nproc", nproc]) == 0
    assert read(coco, "train2017") == [1, 2, 0]
    assert read(coco, "val2017") == [80, 0, 0]
    names = sorted(path.name for path in (coco / "annotations" / "val2017").iterdir())
    assert names == ["000001.png", "000001_instanceTrainIds.png", "000001_labelTrainIds.png"]


def test_running_again_keeps_what_is_there(coco: Path, capsys: pytest.CaptureFixture) -> None:
    main([str(coco), "--allow-partial"])
    target = coco / "annotations" / "val2017" / "000001_instanceTrainIds.png"
    before = target.stat().st_mtime_ns
    assert main([str(coco), "--allow-partial"]) == 0
    assert target.stat().st_mtime_ns == before
    assert "2 converted before" in capsys.readouterr().out


def test_dry_run_writes_nothing(coco: Path, capsys: pytest.CaptureFixture) -> None:
    assert main([str(coco), "--allow-partial", "--dry-run"]) == 0
    assert "would write 2 maps" in capsys.readouterr().out
    assert not list(coco.rglob("*_instanceTrainIds.png"))


def test_wrong_number_of_maps_is_reported(coco: Path, capsys: pytest.CaptureFixture) -> None:
    assert main([str(coco)]) == 1
    assert "found 2 raw maps" in capsys.readouterr().err
    assert not list(coco.rglob("*_instanceTrainIds.png"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (np.array([[11]], dtype=np.uint8), "holds [11]"),
        (np.zeros((1, 1, 3), dtype=np.uint8), "single-channel"),
        (b"no image", "cannot read"),
    ],
)
def test_bad_maps_are_named(coco: Path, capsys, content, message: str) -> None:
    path = coco / "annotations" / "val2017" / "000001.png"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        Image.fromarray(content).save(path)
    assert main([str(coco), "--allow-partial"]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert "val2017/000001.png" in error
    assert not (path.parent / "000001_instanceTrainIds.png").exists()


def test_a_truncated_map_is_named_and_the_next_run_goes_on(coco: Path, capsys) -> None:
    path = coco / "annotations" / "val2017" / "000001.png"
    noise = np.random.default_rng(0).integers(0, 11, (64, 64), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert main([str(coco), "--allow-partial"]) == 1
    assert f"cannot read {path} as an image" in capsys.readouterr().err
    assert not [p for p in path.parent.iterdir() if "instanceTrainIds" in p.name]
    path.write_bytes(whole)
    assert main([str(coco), "--allow-partial"]) == 0
    target = path.with_name("000001_instanceTrainIds.png")
    assert (np.asarray(Image.open(target)) == noise + 1).all()


def test_a_map_that_cannot_be_written_is_one_line(coco: Path, capsys, monkeypatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    assert main([str(coco), "--allow-partial"]) == 1
    assert "error: no space is left on the disk while writing" in capsys.readouterr().err


def test_missing_folder_is_named(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main([str(tmp_path)]) == 1
    assert "annotations" in capsys.readouterr().err

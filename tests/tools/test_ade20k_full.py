"""The A-847 converter on a miniature of the raw release."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import IO

import cv2
import numpy as np
import pytest
from PIL import Image

from mmclipdis.clip.text.vocabulary import read_class_file
from mmclipdis.datasets.loading import LoadReadableImage
from mmclipdis.datasets.segmentation.ade20k_classes import (
    LIST_NAME,
    first_id,
    read_classes,
    read_object_names,
)
from mmclipdis.datasets.segmentation.label_maps import LoadReadableAnnotations
from mmclipdis.datasets.segmentation.large_vocabulary import ADE20K847Dataset
from tools.dataset_converters.ade20k_full import CLASSES, main

OBJECTS = 3_688
STREET = "images/ADE/validation/urban/street"
WALL, SKY, ADDING_MACHINE = 2978, 2420, 3148


def segments_of(ids: np.ndarray, instances: int = 7) -> np.ndarray:
    """Object ids (H, W) as the release stores them: red, green, and instances in blue."""
    red, green = ids // 256 * 10, ids % 256
    return np.stack([red, green, np.full_like(ids, instances)], axis=-1).astype(np.uint8)


def write_index(raw: Path, base: int = 1, protocol: int = 4, objects: int = OBJECTS) -> list[str]:
    names = [f"object {i}" for i in range(OBJECTS)]
    for name, i in read_classes(CLASSES):
        names[i - base] = name
    names = names[:objects]
    index = {
        "filename": ["ADE_val_00000001.jpg"],
        "folder": [f"ADE20K_2021_17_01/{STREET}"],
        "objectnames": names,
        "objectPresence": np.zeros((OBJECTS, 1), dtype=np.uint8),
    }
    (raw / "index_ade20k.pkl").write_bytes(pickle.dumps(index, protocol=protocol))
    return names


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Two validation photos, a training photo and a frame, with parts and single instances."""
    raw = tmp_path / "ADE20K_2021_17_01"
    small = np.array([[WALL, SKY, 0], [ADDING_MACHINE, 1, 312]])
    large = np.repeat(np.arange(1500), 520).reshape(1500, 520) + 2000
    rng = np.random.default_rng(0)
    for path, ids in (
        (raw / STREET / "ADE_val_00000001", small),
        (raw / "images/ADE/validation/work_place/office/ADE_val_00000002", large),
        (raw / STREET / "ADE_frame_00000003", small),
        (raw / "images/ADE/training/urban/street/ADE_train_00000001", small),
    ):
        (path / "x").parent.mkdir(parents=True)
        photo = rng.integers(0, 256, (*ids.shape, 3), dtype=np.uint8)
        Image.fromarray(photo).save(path.with_suffix(".jpg"), quality=95)
        Image.fromarray(segments_of(ids)).save(f"{path}_seg.png")
        Image.fromarray(segments_of(ids)).save(f"{path}_parts_1.png")
        Image.fromarray(ids.astype(bool)).save(path / f"instance_000_{path.name}.png")
        path.with_suffix(".json").write_text("{}")
    write_index(raw)
    return raw


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "data"


def convert(raw: Path, out: Path, *more: str) -> int:
    return main([str(raw), "--out", str(out), "--allow-partial", *more])


def files(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def labels(out: Path, number: int) -> np.ndarray:
    return np.asarray(Image.open(out / f"annotations/validation/ADE_val_{number:08}.tif"))


CONVERTED = [
    "annotations/validation/ADE_val_00000001.tif",
    "annotations/validation/ADE_val_00000002.tif",
    "classes.txt",
    "images/validation/ADE_val_00000001.jpg",
    "images/validation/ADE_val_00000002.jpg",
]


@pytest.mark.parametrize("nproc", ["1", "2"])
def test_values_and_sizes(raw: Path, out: Path, capsys, nproc: str) -> None:
    assert convert(raw, out, "--nproc", nproc) == 0
    assert files(out) == CONVERTED
    small = labels(out, 1)
    assert small.dtype == np.uint16
    assert small.tolist() == [[0, 2, 65535], [846, 65535, 1]]
    # 520 x 1500 -> 512 x 1476.9: id 2000 + y, read at floor(y * 1500 / 1477)
    large = labels(out, 2)
    assert large.shape == (1477, 512)
    table = {i: label for label, (_, i) in enumerate(read_classes(CLASSES))}
    rows = [2000 + int(y * 1500 / 1477) for y in range(1477)]
    assert large[:, 300].tolist() == [table.get(i, 65535) for i in rows]
    assert (large == large[:, :1]).all()
    unlisted = 1 + 520 * sum(i not in table for i in range(2000, 3500))
    assert f"{unlisted:,} pixels are of other objects" in capsys.readouterr().out


def test_photos_are_resized_linearly_and_encoded_again(raw: Path, out: Path) -> None:
    assert convert(raw, out) == 0
    source = raw / "images/ADE/validation/work_place/office/ADE_val_00000002.jpg"
    expected = cv2.resize(np.asarray(Image.open(source)), (512, 1477))
    Image.fromarray(expected).save(out / "expected.jpg")
    written = out / "images/validation/ADE_val_00000002.jpg"
    assert written.read_bytes() == (out / "expected.jpg").read_bytes()
    assert Image.open(out / "images/validation/ADE_val_00000001.jpg").size == (3, 2)


def test_class_file_is_in_label_order(raw: Path, out: Path) -> None:
    assert convert(raw, out) == 0
    names = [line[0] for line in read_class_file(out / "classes.txt", separator=None)]
    assert names == [name for name, _ in read_classes(CLASSES)]
    assert names[11] == "person, individual, someone, somebody, mortal, soul"


def test_the_shipped_list_has_the_published_peculiarities() -> None:
    names = [name for name, _ in read_classes(CLASSES)]
    first = [name.split(", ")[0] for name in names]
    assert len(names) == len(set(names)) == 847
    assert sum(", " in name for name in names) == 217
    assert len(first) - len(set(first)) == 10


def test_the_folder_above_will_do_and_again_nothing_is_done(raw: Path, out: Path, capsys) -> None:
    assert convert(raw.parent, out) == 0
    before = {name: (out / name).stat().st_mtime_ns for name in CONVERTED}
    capsys.readouterr()
    assert convert(raw.parent, out) == 0
    assert {name: (out / name).stat().st_mtime_ns for name in files(out)} == before
    assert "2 converted before\nwrote 0" in capsys.readouterr().out


def test_dry_run_writes_nothing(raw: Path, out: Path, capsys) -> None:
    assert convert(raw, out, "--dry-run") == 0
    assert "would write 2 photos" in capsys.readouterr().out
    assert not out.exists()


def test_another_number_of_photos_is_refused(raw: Path, out: Path, capsys) -> None:
    assert main([str(raw), "--out", str(out)]) == 1
    assert "found 2 validation photos, the release has 2,000" in capsys.readouterr().err
    assert not out.exists()


def test_the_published_number_of_photos_passes(raw: Path, out: Path, monkeypatch) -> None:
    monkeypatch.setattr("tools.dataset_converters.ade20k_full.EXPECTED_PHOTOS", 2)
    assert main([str(raw), "--out", str(out)]) == 0
    assert files(out) == CONVERTED


@pytest.mark.parametrize("kind", ["TIFF", "JPEG"])
def test_interruption_leaves_no_half_file(raw, out, capsys, monkeypatch, kind) -> None:
    save = Image.Image.save

    def interrupted(self: Image.Image, file: IO[bytes], format: str, **more: object) -> None:
        save(self, file, format=format, **more)
        if format == kind:
            file.truncate(20)
            raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        convert(raw, out)
    assert [name for name in files(out) if name != "classes.txt"] == (
        [] if kind == "TIFF" else CONVERTED[:1]
    )
    monkeypatch.undo()
    assert convert(raw, out) == 0
    assert files(out) == CONVERTED
    assert labels(out, 1).tolist() == [[0, 2, 65535], [846, 65535, 1]]


def test_ids_that_no_object_has_are_reported_and_ignored(raw: Path, out: Path, capsys) -> None:
    path = raw / STREET / "ADE_val_00000001_seg.png"
    Image.fromarray(segments_of(np.array([[WALL, 5000, 0], [0, OBJECTS, 0]]))).save(path)
    assert convert(raw, out) == 0
    assert f"{path} holds ids [5000], but the index has 3,688 objects" in capsys.readouterr().err
    assert labels(out, 1).tolist() == [[0, 65535, 65535], [65535] * 3]


def test_ids_above_a_shorter_index_are_ignored_even_if_listed(raw: Path, out: Path, capsys) -> None:
    write_index(raw, objects=ADDING_MACHINE - 1)
    assert convert(raw, out) == 0
    error = capsys.readouterr().err
    assert "adding machine, totalizer, totaliser' / None" in error
    assert f"ADE_val_00000001_seg.png holds ids [{ADDING_MACHINE}]" in error
    assert labels(out, 1).tolist() == [[0, 2, 65535], [65535, 65535, 1]]


def test_bad_files_are_named(raw: Path, out: Path, capsys) -> None:
    path = raw / STREET / "ADE_val_00000001_seg.png"
    whole = path.read_bytes()
    wrong_size = Image.fromarray(segments_of(np.zeros((3, 3), dtype=int)))
    one_channel = Image.fromarray(np.zeros((2, 3), dtype=np.uint8))
    path.write_bytes(whole[:-30])
    assert convert(raw, out) == 1
    assert f"error: cannot read {path} as an image" in capsys.readouterr().err
    for picture, message in ((wrong_size, "RGB of (3, 3)"), (one_channel, "is L of (3, 2)")):
        picture.save(path)
        assert convert(raw, out) == 1
        assert f"error: {path} is" in (error := capsys.readouterr().err)
        assert message in error
    path.unlink()
    assert convert(raw, out) == 1
    assert f"1 of 2 photos have no label map, the first of them {path}" in capsys.readouterr().err
    assert files(out) == ["classes.txt"]


def test_wrong_folders_are_named(tmp_path: Path, raw: Path, out: Path, capsys) -> None:
    assert convert(tmp_path / "nowhere", out) == 1
    assert f"error: no folder {tmp_path / 'nowhere/images/ADE'}" in capsys.readouterr().err
    (tmp_path / "empty/images/ADE/validation").mkdir(parents=True)
    assert convert(tmp_path / "empty", out) == 1
    assert "no photo ADE_val_*.jpg below" in capsys.readouterr().err
    twin = raw / "images/ADE/validation/ADE_val_00000001.jpg"
    twin.write_bytes(b"")
    assert convert(raw, out) == 1
    assert "one name, two photos" in capsys.readouterr().err


def test_other_classes_beside_converted_labels_are_refused(raw, out, capsys) -> None:
    out.mkdir()
    (out / "classes.txt").write_text("wall\n")
    assert convert(raw, out) == 1
    assert f"error: {str(out / 'classes.txt')!r} exists and is left" in capsys.readouterr().err
    assert files(out) == ["classes.txt"]


# The index


class Evil:
    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("evil"),))


def test_the_index_runs_no_code(raw: Path, out: Path, capsys, monkeypatch, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    index = raw / "index_ade20k.pkl"
    index.write_bytes(pickle.dumps({"objectnames": [Evil()]}))
    assert convert(raw, out) == 1
    error = capsys.readouterr().err
    assert f"error: {index} is no pickle of plain data: it asks for" in error
    assert "pass --no-index to go without" in error
    assert not (tmp_path / "evil").exists()
    index.write_bytes(b"\x80\x04broken")
    assert convert(raw, out) == 1
    assert f"error: {index} is no pickle" in capsys.readouterr().err
    assert convert(raw, out, "--no-index") == 0
    assert "names and ids are not checked" in capsys.readouterr().err


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_in_the_index_are_read_in_every_protocol(raw: Path, protocol: int) -> None:
    names = write_index(raw, protocol=protocol)
    assert read_object_names(raw / "index_ade20k.pkl") == names


def test_arrays_of_old_numpy_are_read(raw: Path) -> None:
    path = raw / "index_ade20k.pkl"
    path.write_bytes(
        pickle.dumps({"objectnames": np.array(["a", "b"], dtype=object)}, protocol=2).replace(
            b"numpy._core", b"numpy.core"
        )
    )
    assert read_object_names(path) == ["a", "b"]


def test_a_list_that_counts_from_zero_is_recognised(raw: Path, out: Path, tmp_path: Path) -> None:
    entries = [
        {"name": name, "id": i - 1, "trainId": label}
        for label, (name, i) in enumerate(read_classes(CLASSES))
    ]
    shifted = tmp_path / "shifted.json"
    shifted.write_text(json.dumps(entries))
    assert convert(raw, out, "--classes", str(shifted)) == 0
    assert labels(out, 1).tolist() == [[0, 2, 65535], [846, 65535, 1]]


def test_an_index_of_another_release_is_refused(raw: Path, out: Path, capsys) -> None:
    write_index(raw, base=5)
    assert convert(raw, out) == 1
    assert "agree on 0 of 847 names" in capsys.readouterr().err
    assert not out.exists()


def test_few_other_spellings_are_reported() -> None:
    classes = [(f"class {i}", i) for i in range(1, 21)]
    objects = [name.upper() for name, _ in classes]
    assert first_id(classes, objects) == (1, [])
    objects[4] = "klass"
    assert first_id(classes, objects) == (1, ["5: 'class 5' / 'klass'"])
    objects[5:8] = ["a", "b", "c"]
    with pytest.raises(ValueError, match="agree on 16 of 20 names"):
        first_id(classes, objects)


# The list of classes


def test_a_python_file_is_read_and_not_run(raw: Path, out: Path, tmp_path: Path, capsys) -> None:
    listed = tmp_path / "register_ade20k_full.py"
    listed.write_text(f"import nowhere\n{LIST_NAME} = {json.loads(CLASSES.read_text())!r}\n1 / 0\n")
    assert read_classes(listed) == read_classes(CLASSES)
    listed.write_text(f"{LIST_NAME} = list(range(847))\n")  # a call: not read
    assert convert(raw, out, "--classes", str(listed)) == 1
    assert f"error: {listed}: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda entries: entries.pop(), "has 846 classes"),
        (lambda entries: entries[3].update(trainId=4), "each trainId from 0 to 846 once"),
        (lambda entries: entries[3].update(id=WALL), r"ids must be unique.*\[2978\]"),
        (lambda entries: entries[3].update(id="7"), "an id and a trainId"),
        (lambda entries: entries[3].update(name=" "), "class 3 has an empty name"),
        (lambda entries: entries[3].pop("name"), "each class needs a name"),
    ],
)
def test_bad_lists_are_refused(tmp_path: Path, change, message: str) -> None:
    entries = json.loads(CLASSES.read_text())
    change(entries)
    path = tmp_path / "classes.json"
    path.write_text(json.dumps(entries))
    with pytest.raises(ValueError, match=message):
        read_classes(path)


def test_the_id_of_no_object_is_no_class(raw: Path, out: Path, tmp_path: Path, capsys) -> None:
    entries = json.loads(CLASSES.read_text())
    entries[3]["id"] = 0
    path = tmp_path / "classes.json"
    path.write_text(json.dumps(entries))
    assert convert(raw, out, "--classes", str(path)) == 1
    assert "id 0 means 'no object'" in capsys.readouterr().err
    assert not out.exists()


def test_the_data_set_reads_what_was_written(raw: Path, out: Path) -> None:
    assert convert(raw, out) == 0
    with pytest.warns(UserWarning, match="10 of 847 classes"):
        dataset = ADE20K847Dataset(
            data_root=str(out),
            data_prefix={"img_path": "images/validation", "seg_map_path": "annotations/validation"},
            pipeline=[LoadReadableImage(), LoadReadableAnnotations()],
        )
    assert len(dataset) == 2
    assert dataset[0]["gt_seg_map"].tolist() == [[0, 2, 65535], [846, 65535, 1]]
    assert dataset[1]["gt_seg_map"].shape == dataset[1]["img"].shape[:2] == (1477, 512)

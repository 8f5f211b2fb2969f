"""The converter of PC-59 and PC-459 on a miniature of PASCAL Context's raw files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
from mmseg.datasets import PascalContextDataset59
from PIL import Image
from pycocotools import mask as coco_mask
from scipy.io import savemat

from mmclipdis.datasets.conversion.detail_json import CONTEXT59_IDS, decode, paint
from mmclipdis.datasets.loading import LoadReadableImage
from mmclipdis.datasets.segmentation.label_maps import LoadReadableAnnotations
from mmclipdis.datasets.segmentation.large_vocabulary import PascalContext459Dataset
from tools.dataset_converters import pascal_context
from tools.dataset_converters.pascal_context import IGNORED, main

HEIGHT, WIDTH = 4, 6
TRAIN, VAL, VAL_TOO = "2008_000002", "2008_000003", "2010_000007"
AEROPLANE, BAG, SKY, WOOD, OTHER = 2, 9, 360, 458, 3


def runs(mask: np.ndarray, compressed: bool = True) -> dict[str, Any]:
    """A mask as the json holds it."""
    if compressed:
        coded = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
        return {"size": coded["size"], "counts": coded["counts"].decode()}
    flat = mask.ravel(order="F").astype(int)
    ends = [0, *(np.flatnonzero(np.diff(flat)) + 1).tolist(), flat.size]
    counts = np.diff(ends).tolist()
    return {"size": list(mask.shape), "counts": [0, *counts] if flat[0] else counts}


def rectangle(top: int, left: int, bottom: int, right: int) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[top:bottom, left:right] = True
    return mask


def annotations() -> dict[str, Any]:
    images = [
        {"file_name": f"{name}.jpg", "phase": phase, "image_id": i, "height": 4, "width": 6}
        for name, phase, i in (
            (TRAIN, "train", 20080000002),
            (VAL_TOO, "val", 20100000007),
            (VAL, "val", 20080000003),
        )
    ]
    polygon = [[2, 1, 6, 1, 6, 3, 2, 3]]  # pixels of rows 1 and 2, columns 2 to 5
    notes = [
        (20080000003, SKY, runs(rectangle(0, 0, 4, 6))),
        (20080000002, WOOD, runs(rectangle(0, 0, 4, 1), compressed=False)),
        (20080000003, AEROPLANE, polygon),
        (20080000003, BAG, runs(rectangle(2, 0, 4, 3), compressed=False)),
        (20080000003, OTHER, runs(rectangle(3, 5, 4, 6))),
        (20100000007, AEROPLANE, []),
    ]
    return {
        "info": {"description": "PASCAL in Detail"},
        "images": images,
        "annos_segmentation": [
            {"id": i, "image_id": image, "category_id": category, "segmentation": mask}
            for i, (image, category, mask) in enumerate(notes)
        ],
        "annos_boundary": [],
        "annos_occlusion": [],
        "categories": [
            {"category_id": i, "name": f"class {i}", "onlysemantic": 0}
            for i in (*CONTEXT59_IDS, OTHER)
        ],
    }


#: What the annotations of VAL come to.
PAINTED = [
    [47, 47, 47, 47, 47, 47],
    [47, 47, 1, 1, 1, 1],
    [2, 2, 2, 1, 1, 1],
    [2, 2, 2, 47, 47, 0],
]


def write_json(root: Path, content: Any) -> None:
    (root / "trainval_merged.json").write_text(json.dumps(content))


def label_names() -> list[str]:
    names = ["accordion", "aeroplane", *(f"thing{i}" for i in range(3, 460))]
    names[430] = "unknown"
    return names


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """VOC2010 with three photos, as unpacked."""
    root = tmp_path / "VOCdevkit" / "VOC2010"
    for folder in ("JPEGImages", "trainval", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in (TRAIN, VAL, VAL_TOO, "2007_999999"):
        photo = rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        Image.fromarray(photo).save(root / "JPEGImages" / f"{name}.jpg")
    write_json(root, annotations())
    for name, corner in ((TRAIN, 1), (VAL, 459), (VAL_TOO, 0)):
        labels = np.full((HEIGHT, WIDTH), 258, dtype=np.uint16)
        labels[0, 0], labels[3, 5] = corner, 1
        savemat(root / "trainval" / f"{name}.mat", {"LabelMap": labels})
    lines = [f"{i}: {name}\n" for i, name in enumerate(label_names(), start=1)]
    (root / "labels.txt").write_text("".join(lines))
    return root


def convert(root: Path, *more: str) -> int:
    return main([str(root), "--allow-partial", *more])


CONVERTED = [
    "ImageSets/SegmentationContext/train.txt",
    "ImageSets/SegmentationContext/val.txt",
    "ImageSets/SegmentationContext/val_459.txt",
    f"SegmentationClassContext/{TRAIN}.png",
    f"SegmentationClassContext/{VAL}.png",
    f"SegmentationClassContext/{VAL_TOO}.png",
    f"SegmentationClassContext459/{VAL}.tif",
    f"SegmentationClassContext459/{VAL_TOO}.tif",
    "SegmentationClassContext459/classes.txt",
]


def written(root: Path) -> list[str]:
    folders = ("ImageSets", "SegmentationClassContext", "SegmentationClassContext459")
    found = (p for folder in folders for p in (root / folder).rglob("*") if p.is_file())
    return sorted(str(p.relative_to(root)) for p in found)


def read(root: Path, file: str) -> np.ndarray:
    return np.asarray(Image.open(root / file))


@pytest.mark.parametrize("nproc", ["1", "2"])
def test_values(root: Path, capsys, nproc: str) -> None:
    assert convert(root, "--nproc", nproc) == 0
    assert written(root) == CONVERTED
    labels = read(root, f"SegmentationClassContext/{VAL}.png")
    assert labels.dtype == np.uint8
    assert labels.tolist() == PAINTED
    assert read(root, f"SegmentationClassContext/{TRAIN}.png").tolist() == [[59] + [0] * 5] * 4
    assert not read(root, f"SegmentationClassContext/{VAL_TOO}.png").any()
    full = np.full((HEIGHT, WIDTH), 257)
    full[0, 0], full[3, 5] = 458, 0
    labels = read(root, f"SegmentationClassContext459/{VAL}.tif")
    assert labels.dtype == np.uint16
    assert labels.tolist() == full.tolist()
    full[0, 0] = IGNORED
    assert read(root, f"SegmentationClassContext459/{VAL_TOO}.tif").tolist() == full.tolist()
    lists = root / "ImageSets/SegmentationContext"
    assert (lists / "train.txt").read_text() == f"{TRAIN}\n"
    assert (lists / "val.txt").read_text() == f"{VAL_TOO}\n{VAL}\n"
    assert (lists / "val_459.txt").read_text() == f"{VAL_TOO}\n{VAL}\n"
    classes = (root / "SegmentationClassContext459/classes.txt").read_text().splitlines()
    assert classes == label_names()
    said = capsys.readouterr().out
    assert f"PC-459: 1 pixels of 1 maps have no class, as in {root}/trainval/{VAL_TOO}.mat" in said
    assert "PC-59 val: 2 photos (published 5,105)" in said
    other = f"1 segments of 1 other categories have no label, first in {VAL} (category {OTHER})"
    assert f"PC-59: {other}" in said


def test_the_data_sets_read_what_was_written(root: Path) -> None:
    assert convert(root) == 0
    pipeline = [LoadReadableImage(), LoadReadableAnnotations()]
    lists = "ImageSets/SegmentationContext"
    small = PascalContextDataset59(
        data_root=str(root),
        data_prefix={"img_path": "JPEGImages", "seg_map_path": "SegmentationClassContext"},
        ann_file=f"{lists}/val.txt",
        pipeline=pipeline,
    )
    names = [small.metainfo["classes"][i] for i in (0, 1, 46)]
    assert names == ["aeroplane", "bag", "sky"]
    expected = [[255 if label == 0 else label - 1 for label in row] for row in PAINTED]
    assert small[1]["gt_seg_map"].tolist() == expected
    large = PascalContext459Dataset(
        data_root=str(root),
        data_prefix={"img_path": "JPEGImages", "seg_map_path": "SegmentationClassContext459"},
        ann_file=f"{lists}/val_459.txt",
        pipeline=pipeline,
    )
    assert large.metainfo["classes"] == tuple(label_names())
    assert large[0]["gt_seg_map"][0, :2].tolist() == [IGNORED, 257]


def test_one_benchmark_needs_only_its_files(root: Path, tmp_path: Path) -> None:
    (root / "labels.txt").rename(tmp_path / "names.txt")
    assert convert(root, "--benchmarks", "59") == 0
    assert written(root) == [CONVERTED[i] for i in (0, 1, 3, 4, 5)]
    (root / "trainval_merged.json").unlink()
    ids = tmp_path / "pascalcontext_val.txt"
    ids.write_text(f"{VAL}\n\n{VAL_TOO}\n")
    more = ["--ids", str(ids), "--labels", str(tmp_path / "names.txt")]
    assert convert(root, "--benchmarks", "459", *more) == 0
    assert written(root) == CONVERTED


def test_again_nothing_is_done(root: Path, capsys) -> None:
    assert convert(root) == 0
    before = {name: (root / name).stat().st_mtime_ns for name in CONVERTED}
    (root / CONVERTED[1]).write_text(f"{VAL}\n{VAL_TOO}\n")  # the same list in another order
    before[CONVERTED[1]] = (root / CONVERTED[1]).stat().st_mtime_ns
    capsys.readouterr()
    assert convert(root) == 0
    assert {name: (root / name).stat().st_mtime_ns for name in written(root)} == before
    said = capsys.readouterr().out
    assert "PC-59: 3 of 3 maps converted before\nPC-59: wrote 0 maps and 0 lists" in said
    assert convert(root, "--dry-run") == 0
    assert capsys.readouterr().out.count("nothing to do") == 2


def test_dry_run_writes_nothing(root: Path, capsys) -> None:
    assert convert(root, "--dry-run") == 0
    assert f"would write {root / CONVERTED[2]}" in capsys.readouterr().out
    assert written(root) == []


@pytest.mark.parametrize(
    ("benchmark", "message"), [("59", "PC-59 train has 1"), ("459", "PC-459 val has 2")]
)
def test_other_numbers_of_photos_are_refused(root: Path, capsys, benchmark, message) -> None:
    assert main([str(root), "--benchmarks", benchmark]) == 1
    assert f"error: {message} photos, published are" in capsys.readouterr().err
    assert written(root) == []


def test_published_numbers_of_photos_pass(root: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(pascal_context, "EXPECTED_59", {"train": 1, "val": 2})
    monkeypatch.setattr(pascal_context, "EXPECTED_459", 1)
    assert main([str(root)]) == 0  # the json has one more than the published list
    assert written(root) == CONVERTED
    assert "PC-459 val: 2 photos (published 1)" in capsys.readouterr().out
    ids = tmp_path / "ids.txt"
    ids.write_text(f"{VAL}\n{VAL_TOO}\n")
    assert main([str(root), "--ids", str(ids)]) == 1  # that list is as published, or not
    assert "PC-459 val has 2 photos" in capsys.readouterr().err


def test_photos_without_mat_are_counted(root: Path, tmp_path: Path, capsys) -> None:
    (root / "trainval" / f"{VAL}.mat").unlink()
    assert convert(root, "--benchmarks", "459") == 0
    assert f"1 of 2 photos have no .mat, such as {VAL}" in capsys.readouterr().out
    assert (root / CONVERTED[2]).read_text() == f"{VAL_TOO}\n"
    ids = tmp_path / "ids.txt"
    ids.write_text(f"{VAL}\n{VAL_TOO}\n")
    assert main([str(root), "--benchmarks", "459", "--ids", str(ids)]) == 1
    assert f"error: 1 of 2 photos have no .mat, such as {VAL}" in capsys.readouterr().err


def test_lists_with_other_content_are_not_overwritten(root: Path, capsys) -> None:
    path = root / CONVERTED[1]
    path.parent.mkdir()
    path.write_text("2008_000001\n")
    assert convert(root) == 1
    assert (
        f"error: {str(path)!r} exists and is left as it is: it holds something else"
        in capsys.readouterr().err
    )
    assert path.read_text() == "2008_000001\n"
    assert convert(root, "--overwrite") == 0
    assert path.read_text() == f"{VAL_TOO}\n{VAL}\n"


def test_interruption_leaves_no_half_file_and_no_list(root: Path, monkeypatch) -> None:
    save = Image.Image.save

    def interrupted(self: Image.Image, file: IO[bytes], format: str, **more: object) -> None:
        save(self, file, format=format, **more)
        file.truncate(20)
        raise KeyboardInterrupt

    for benchmark in ("59", "459"):
        with monkeypatch.context() as patch:
            patch.setattr(Image.Image, "save", interrupted)
            with pytest.raises(KeyboardInterrupt):
                convert(root, "--benchmarks", benchmark)
        assert written(root) == []
    assert convert(root) == 0
    assert read(root, f"SegmentationClassContext/{VAL}.png").tolist() == PAINTED


# Bad input


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("annos_segmentation"), "has no list of annos_segmentation"),
        (lambda c: c["categories"].pop(0), "lacks 1 of the 59 categories of PC-59, for example 2"),
        (lambda c: c["images"].append(dict(c["images"][0], image_id=1)), "lists a photo twice"),
        (lambda c: c["annos_segmentation"][2].update(image_id=77), "annotation 2 has image_id 77"),
        (lambda c: c["annos_segmentation"][2].pop("image_id"), "KeyError('image_id')"),
        (lambda c: c["annos_segmentation"].append("x"), "an entry is not as it should be"),
    ],
)
def test_bad_annotations_are_refused(root: Path, capsys, change, message: str) -> None:
    content = annotations()
    change(content)
    write_json(root, content)
    assert convert(root) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: {root / 'trainval_merged.json'}")
    assert message in error
    assert written(root) == []


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ({"size": [6, 4], "counts": [24]}, "its mask has size [6, 4], its photo [4, 6]"),
        ({"size": [4, 6], "counts": [20, 3]}, "its runs have 23 pixels, its photo 24"),
        ({"size": [4, 6]}, "neither a list nor text"),
        ({"size": [4, 6], "counts": "0`1"}, "Invalid RLE"),
        ([[1, 1, 3, 3]], "no list of polygons with three points"),
        ([1, 1, 3, 1, 3, 3], "no list of polygons"),
        (7, "its mask is a int"),
    ],
)
def test_bad_masks_name_photo_and_annotation(root: Path, capsys, mask, message: str) -> None:
    content = annotations()
    content["annos_segmentation"][2]["segmentation"] = mask
    write_json(root, content)
    assert convert(root) == 1
    error = capsys.readouterr().err
    assert f"error: {VAL}.jpg: annotation 2: " in error
    assert message in error
    assert f"SegmentationClassContext/{VAL}.png" not in written(root)


def test_bad_label_maps_are_named(root: Path, capsys) -> None:
    path = root / "trainval" / f"{VAL}.mat"
    for content, message in (
        ({"LabelMap": np.full((4, 6), 460, dtype=np.uint16)}, f"{path} holds labels [460]"),
        ({"LabelMap": np.ones((6, 4), dtype=np.uint16)}, f"{path} has size (6, 4), its photo"),
        ({"LabelMap": np.ones((4, 6))}, f"{path} has no LabelMap of unsigned integers"),
        ({"Labels": np.ones((4, 6))}, f"{path} has no LabelMap"),
    ):
        savemat(path, content)
        assert convert(root, "--benchmarks", "459") == 1
        assert f"error: {message}" in capsys.readouterr().err
    savemat(path, {"LabelMap": np.ones((4, 6), dtype=np.uint16)}, do_compression=True)
    for damaged in (path.read_bytes()[:-10], b"no mat", b""):
        path.write_bytes(damaged)
        assert convert(root, "--benchmarks", "459") == 1
        assert f"error: cannot read {path} as a .mat" in capsys.readouterr().err
    assert written(root) == [f"SegmentationClassContext459/{VAL_TOO}.tif"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: lines.pop(), "has 458 classes"),
        (lambda lines: lines.insert(0, "0: background"), "line 1 is '0: background'"),
        (lambda lines: lines.__setitem__(430, "431: umbrella"), "class 431 is 'umbrella'"),
        (lambda lines: lines.__setitem__(5, "6:"), "line 6 is '6:', expected '6: <name>'"),
    ],
)
def test_bad_names_are_refused(root: Path, capsys, change, message: str) -> None:
    path = root / "labels.txt"
    lines = path.read_text().splitlines()
    change(lines)
    path.write_text("\n".join(lines))
    assert convert(root) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: {path}")
    assert message in error
    assert written(root) == []


def test_missing_files_are_named(root: Path, tmp_path: Path, capsys) -> None:
    def error(*more: str) -> str:
        assert convert(root, *more) == 1
        return capsys.readouterr().err

    assert "--ids" in error("--benchmarks", "459", "--ids", str(tmp_path / "nothing.txt"))
    (tmp_path / "twice.txt").write_text("a\na.jpg\n")
    assert "lists 2 photos, 1 diff" in error(
        "--benchmarks", "459", "--ids", f"{tmp_path}/twice.txt"
    )
    photo = root / "JPEGImages" / f"{VAL_TOO}.jpg"
    photo.write_bytes(b"no photo")
    assert f"cannot read {photo} as an image" in error()
    photo.unlink()
    assert f"error: no photo {photo}" in error()
    (root / "trainval").rename(root / "mats")
    assert f"error: no folder {root / 'trainval'} of .mat files" in error()
    (root / "labels.txt").unlink()
    assert f"error: no list of classes {root / 'labels.txt'}" in error()
    (root / "trainval_merged.json").write_text('{"images": [')
    assert "is no json" in error()
    (root / "trainval_merged.json").unlink()
    assert f"error: no annotations {root / 'trainval_merged.json'}" in error()
    (root / "JPEGImages").rename(root / "photos")
    assert f"error: no folder {root / 'JPEGImages'}; give VOCdevkit/VOC2010" in error()


# Masks


def test_the_three_forms_of_a_mask_are_one() -> None:
    mask = rectangle(1, 2, 3, 6)
    polygon = [[2, 1, 6, 1, 6, 3, 2, 3]]
    for form in (runs(mask), runs(mask, compressed=False), polygon):
        assert (decode(form, HEIGHT, WIDTH) == mask).all()
    assert (decode([*polygon, [0, 0, 2, 0, 2, 1, 0, 1]], HEIGHT, WIDTH).sum()) == mask.sum() + 2


def test_later_segments_cover_earlier_ones() -> None:
    below, above = rectangle(0, 0, 4, 6), rectangle(0, 0, 2, 6)
    first = paint([(0, SKY, runs(below)), (1, BAG, runs(above))], HEIGHT, WIDTH)
    assert np.unique(first[:2]).tolist() == [2]
    assert (paint([(1, BAG, runs(above)), (0, SKY, runs(below))], HEIGHT, WIDTH) == 47).all()


def test_numbers_of_the_59_categories() -> None:
    assert len(set(CONTEXT59_IDS)) == 59
    assert sorted(CONTEXT59_IDS) == list(CONTEXT59_IDS)
    names = PascalContextDataset59.METAINFO["classes"]
    by_id = dict(zip(CONTEXT59_IDS, names, strict=True))
    # some lines of PASCAL Context's labels.txt
    assert {i: by_id[i] for i in (2, 59, 258, 360, 397, 458)} == {
        2: "aeroplane",
        59: "car",
        258: "motorbike",
        360: "sky",
        397: "table",
        458: "wood",
    }

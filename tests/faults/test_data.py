"""Faults of data sets: names, lists, label maps, photos; each ends before the first iteration."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from PIL import Image

import mmclipdis  # noqa: F401  (registers)
from mmclipdis.apis.inferencers.photos import read_photo
from mmclipdis.apis.preflight import check_data
from mmclipdis.apis.run import test as run_test
from mmclipdis.clip.text.vocabulary import Vocabulary, novel_flags
from mmclipdis.datasets import ShapeScenesDataset, VOCMultiLabelDataset
from mmclipdis.datasets.distillation.images import images_below
from mmclipdis.engine.label_check import look_at_labels
from mmclipdis.engine.metric_check import check_hook_files
from mmclipdis.evaluation import MultiLabelMetric, OpenVocabIoUMetric
from mmclipdis.models.detection.class_text import DetectorText
from mmclipdis.utils.names import check_metainfo
from tests.faults.endings import ends_in, raises
from tests.faults.tiny import masks, runner
from tests.paths import ROOT

Change = Callable[[Path, dict[str, Any]], None]


@pytest.fixture(autouse=True)
def mmseg_scope() -> None:
    init_default_scope("mmseg")


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is logged as a warning, by mmengine's loggers too, which do not propagate."""
    texts: list[str] = []
    emit = logging.Logger.handle

    def handle(self: logging.Logger, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING:
            texts.append(record.getMessage())
        emit(self, record)

    monkeypatch.setattr(logging.Logger, "handle", handle)
    return texts


# --- names -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metainfo", "line"),
    [
        pytest.param({"classes": ("thing")}, r"\['classes'\].* is the text 'thing', .*\('thing',\)",
                     id="classes_without_comma"),
        pytest.param({"classes": ("a", "b"), "novel_classes": ("b")},
                     r"\['novel_classes'\].* is the text 'b'", id="novel_without_comma"),
        pytest.param({"classes": ("a", "b"), "groups": {"base": ("a")}},
                     r"groups.*\['base'\] is the text 'a'", id="group_without_comma"),
        pytest.param({"classes": ("a", "b"), "groups": ("a", "b")}, "is a tuple.* give a dict",
                     id="groups_no_dict"),
        pytest.param({"classes": {"a", "b"}}, "is a set", id="classes_a_set"),
        pytest.param({"classes": {0: "a"}}, "is a dict", id="classes_a_dict"),
        pytest.param({"classes": ("a", 7)}, r"\[1\] is 7, a int", id="a_number_as_name"),
        pytest.param({"classes": ("a", " ")}, r"\[1\] is empty", id="an_empty_name"),
        pytest.param({"classes": ("a", "b"), "palette": [[0, 0, 0]]}, "1 colours for 2 classes",
                     id="palette_too_short"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("how", ["config", "dataset"])
def test_names_that_are_no_list(
    metainfo: dict[str, Any], line: str, how: str, tmp_path: Path
) -> None:
    if how == "config":  # of a stock data set, with our tools
        dataset = {**masks(tmp_path), "metainfo": metainfo}
        config = Config({"test_dataloader": {"dataset": dataset}})
        raises(line, check_data, config, ["test_dataloader"])
    else:
        raises(line, ShapeScenesDataset, metainfo=metainfo, lazy_init=True)


def test_one_text_as_classes_reaches_a_stock_runner(tmp_path: Path) -> None:
    dataset = {**masks(tmp_path), "metainfo": {"classes": "thing"}}
    for hook in ("DataCheckHook", "VocabularyHook"):
        raises("is the text 'thing'", runner(tmp_path, dataset, hook=hook).test)


def test_groups_and_classes_of_metrics(tmp_path: Path) -> None:
    raises(r"groups of the metric\['base'\] is the text 'cat'", OpenVocabIoUMetric,
           groups={"base": "cat"})  # fmt: skip
    metric = MultiLabelMetric(per_class=True)
    metric.dataset_meta = {"classes": "thing"}
    raises("is the text 'thing'", metric._names, 5)
    metric = OpenVocabIoUMetric()
    metric.dataset_meta = {"classes": "thing"}
    raises("is the text 'thing'", metric._class_names)


def test_recognition_classes_without_comma(tmp_path: Path) -> None:
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "ImageSets/Main/val.txt").write_text("a\n")
    raises("is the text 'dog'", VOCMultiLabelDataset, data_root=str(tmp_path), split="val",
           metainfo={"classes": ("dog")})  # fmt: skip


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (lambda: novel_flags(("a", "b"), "b"), "novel_classes is the text 'b'"),
        (lambda: novel_flags("ab", ("b",)), "the list of classes is the text 'ab'"),
        (
            lambda: Vocabulary.from_names(["a", "b"], background_index=0, background_names="sky"),
            "background_names is the text 'sky'",
        ),
        (
            lambda: DetectorText(None, text_embeddings="x.npy", embed_dim=4, words="sky"),
            "words beside the classes is the text",
        ),
    ],
)
def test_parts_of_models_that_take_names(call: Any, line: str) -> None:
    raises(line, call)


# --- lists and files ---------------------------------------------------------------------------


def three(folder: Path) -> dict[str, Any]:
    dataset = masks(folder, [[[0, 1], [1, 0]]] * 3)
    (folder / "val.txt").write_text("0\n1\n2\n")
    return {**dataset, "ann_file": "val.txt"}


def split(text: bytes) -> Change:
    return lambda folder, _: (folder / "val.txt").write_bytes(text) and None


LISTS = [
    pytest.param(split("0\n1\n".encode("utf-16")), "no UTF-8 text", id="utf16"),
    pytest.param(split(b"\xef\xbb\xbf0\n1\n2\n"), "byte order mark", id="bom"),
    pytest.param(split(b"0\n\n1\n2\n"), "line 2 is empty", id="empty_line"),
    pytest.param(split(b"0\n.\\1\n2\n"), r"line 2: '\.\\\\1' has backslashes", id="backslash"),
]


@pytest.mark.parametrize(("change", "line"), LISTS)
def test_lists_as_windows_writes_them_are_refused_for_mmseg(
    change: Change, line: str, tmp_path: Path
) -> None:
    dataset = three(tmp_path)
    change(tmp_path, dataset)
    config = Config({"test_dataloader": {"dataset": dataset}})
    raises(line, check_data, config, ["test_dataloader"])


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b"\xef\xbb\xbf0\r\n1  \r\n\r\n2\r\n\r\n", id="bom_crlf_blanks_empty_lines"),
        pytest.param(b".\\0\n1\n2", id="backslash"),
    ],
)
def test_lists_as_windows_writes_them_are_read_by_ours(text: bytes, tmp_path: Path) -> None:
    dataset = three(tmp_path)
    split(text)(tmp_path, dataset)
    options = {key: value for key, value in dataset.items() if key not in ("type", "metainfo")}
    read = ShapeScenesDataset(img_suffix=".jpg", seg_map_suffix=".png", **options)
    assert [Path(read[i]["data_samples"].img_path).name for i in range(3)] == [
        "0.jpg", "1.jpg", "2.jpg",
    ]  # fmt: skip


FILES = [
    pytest.param(split(b"0\n7\n8\n"), r"2 of 3 photos are not there; .*7.jpg', line 2 of .*val.txt",
                 id="names_without_photo"),
    pytest.param(split(b"photo\n0\n1\n"), "line 1 of .*first line is a header", id="header"),
    pytest.param(split(b"0.jpg\n1.jpg\n"), "list has names with their endings", id="endings"),
    pytest.param(split(b"0,train\n1,val\n"), "line 1: '0,train' has more than one column",
                 id="two_columns"),
    pytest.param(lambda folder, _: (folder / "ann/1.png").unlink(),
                 "1 of 3 label maps are not there; .*1.png', line 2 of", id="photo_without_label"),
    pytest.param(lambda folder, _: (folder / "img/1.jpg").rename(folder / "img/1.jpeg"),
                 "there is '1.jpeg': is the suffix '.jpg' right", id="other_suffix"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "line"), FILES)
def test_files_that_are_not_there(change: Change, line: str, tmp_path: Path) -> None:
    dataset = three(tmp_path)
    change(tmp_path, dataset)
    raises(line, runner(tmp_path, dataset).test)  # a stock data set, a stock runner
    options = {key: value for key, value in dataset.items() if key not in ("type", "metainfo")}
    raises(line, ShapeScenesDataset, img_suffix=".jpg", seg_map_suffix=".png", **options)


def test_photos_that_are_not_read_are_counted(tmp_path: Path, said: list[str]) -> None:
    dataset = masks(tmp_path, [[[0, 1], [1, 0]]] * 2)
    for name in ("a.JPG", "b.jpeg", "c.jpeg"):
        Image.new("RGB", (2, 2)).save(tmp_path / "img" / name, format="JPEG")
    (tmp_path / "ann/9.png").write_bytes((tmp_path / "ann/0.png").read_bytes())
    runner(tmp_path, dataset).test()
    assert any("3 pictures below" in text and "2 .jpeg, 1 .JPG" in text for text in said)
    assert any("1 label maps below" in text and "belong to no photo" in text for text in said)


def test_a_photo_listed_twice_is_counted(tmp_path: Path, said: list[str]) -> None:
    dataset = three(tmp_path)
    split(b"0\n1\n1\n")(tmp_path, dataset)
    runner(tmp_path, dataset).test()
    assert any("1 photos are listed more than once" in text for text in said)


# --- label maps --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("maps", "line"),
    [
        pytest.param([[[0, 255], [255, 0]]] * 2, "hold 0 and 255 only, .*'ignored', not 'car': "
                     "write the masks with 0 and 1", id="masks_0_255"),
        pytest.param([[[255, 255]]] * 2, "every pixel of all 2 label maps is 255, ignored",
                     id="all_ignored"),
        pytest.param([[[0, 1]], [[0, 7]]], r"1.png holds 7 \(1 px\), which are no class: with 2",
                     id="beyond_the_classes"),
        pytest.param([np.zeros((2, 2, 3))], r"0.png has \(2, 2, 3\) values.*coloured picture",
                     id="rgb_masks"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("train", [True, False])
@pytest.mark.slow
def test_labels_that_do_not_meet_the_classes(
    maps: list[Any], line: str, train: bool, tmp_path: Path
) -> None:
    raises(line, getattr(runner(tmp_path, masks(tmp_path, maps), train=train),
                         "train" if train else "test"))  # fmt: skip


@pytest.mark.parametrize("train", [True, False])
def test_a_class_that_no_label_holds_is_named(train: bool, tmp_path: Path, said: list[str]) -> None:
    dataset = masks(tmp_path, [[[0, 1], [1, 255]]] * 2)
    dataset["metainfo"] = {"classes": ("sky", "car", "dog")}
    run = runner(tmp_path, dataset, train=train)
    _ = run.train() if train else run.test()
    line = "1 of 3 classes are in none of the 2 label maps: dog (25.0 % of the pixels are ignored)"
    assert any(line in text for text in said)


def test_the_first_epoch_of_many_maps_names_classes_without_labels(
    tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(look_at_labels, "__defaults__", (1,))
    dataset = masks(tmp_path, [[[0, 0]] * 2, [[0, 1]] * 2, [[0, 255]] * 2])
    dataset["metainfo"] = {"classes": ("sky", "car", "dog")}
    runner(tmp_path, dataset, train=True, iters=5).train()
    told = [text for text in said if "first epoch" in text]
    assert len(told) == 1 and "1 of 3 classes" in told[0] and told[0].endswith("dog")
    runner(tmp_path, dataset).test()  # with mmseg's own metric
    told = [text for text in said if "they are in no mean" in text]
    assert len(told) == 1 and "1 of 3 classes" in told[0] and told[0].endswith("dog")


def test_the_metric_names_classes_without_labels(tmp_path: Path, said: list[str]) -> None:
    dataset = masks(tmp_path, [[[0, 0], [0, 0]]])
    dataset["metainfo"] = {"classes": ("sky", "car", "dog")}
    runner(tmp_path, dataset, evaluator={"type": "OpenVocabIoUMetric"}).test()
    told = [text for text in said if "in no label" in text]
    assert told == ["2 of 3 classes are in no label: car, dog; 2 of them are not in the mean"]


def test_an_evaluation_of_ignored_pixels_only_is_refused() -> None:
    metric = OpenVocabIoUMetric()
    metric.dataset_meta = {"classes": ("sky", "car")}
    data = {"data": torch.full((1, 2, 2), 255)}
    metric.process({}, [{"pred_sem_seg": {"data": data["data"] * 0}, "gt_sem_seg": data}])
    raises("every pixel of the 1 label maps is 255", metric.compute_metrics, metric.results)


# --- photos turned by EXIF ---------------------------------------------------------------------


def turned(path: Path, orientation: int = 6, size: tuple[int, int] = (4, 2)) -> None:
    picture = Image.fromarray(np.arange(size[0] * size[1] * 3, dtype=np.uint8).reshape(
        size[1], size[0], 3))  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture.save(path, exif=exif)


TURNED = r"0.jpg has 2 x 4 pixels as it is loaded .* has 4 x 2: its EXIF tag turns .*orientation 6"


@pytest.mark.parametrize("load", ["LoadImageFromFile", "LoadReadableImage"])
@pytest.mark.parametrize("labels", ["LoadAnnotations", "LoadReadableAnnotations"])
def test_a_photo_that_exif_turns_is_not_its_label_maps(
    load: str, labels: str, tmp_path: Path
) -> None:
    dataset = masks(tmp_path, [np.eye(2, 4)])
    turned(tmp_path / "img/0.jpg")
    dataset["pipeline"] = [{"type": load}, {"type": labels}, {"type": "PackSegInputs"}]
    raises(TURNED, runner(tmp_path, dataset, train=True).train)
    dataset["pipeline"][0]["color_type"] = "color_ignore_orientation"  # the remedy
    runner(tmp_path, dataset, train=True).train()


def test_every_photo_is_compared_when_it_is_loaded(tmp_path: Path) -> None:
    dataset = masks(tmp_path, [np.eye(2, 4)] * 8)
    turned(tmp_path / "img/7.jpg")  # the first ones are looked at before
    raises("7.jpg has 2 x 4 pixels .* has 4 x 2", runner(tmp_path, dataset).test)


def test_photos_that_keep_their_size_when_turned_are_counted(
    tmp_path: Path, said: list[str]
) -> None:
    dataset = masks(tmp_path, [np.eye(2, 4)] * 2)
    turned(tmp_path / "img/0.jpg", orientation=3)
    runner(tmp_path, dataset).test()
    assert any("1 of 2 photos looked at are turned or mirrored" in text for text in said)


def test_a_pillow_image_is_turned_as_its_file_is(tmp_path: Path) -> None:
    turned(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as picture:
        found = read_photo(picture)
    assert found.shape == (4, 2, 3)
    assert (found == read_photo(tmp_path / "a.png")).all()


# --- options that name a number ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("hook", "line"),
    [
        pytest.param({"type": "CheckpointHook", "save_best": "mIou"},
                     "save_best='mIou' is no number .*did you mean 'mIoU'", id="save_best"),
        pytest.param({"type": "EarlyStoppingHook", "monitor": "acc/top1"},
                     "monitor='acc/top1' is no number .*There are aAcc, mAcc, mIoU", id="monitor"),
    ],
)  # fmt: skip
def test_numbers_that_no_metric_gives(hook: dict[str, Any], line: str, tmp_path: Path) -> None:
    dataset = masks(tmp_path)
    run = runner(
        tmp_path,
        dataset,
        train=True,
        val_dataloader={"batch_size": 1, "num_workers": 0, "dataset": dict(dataset),
                        "sampler": {"type": "DefaultSampler", "shuffle": False}},
        val_cfg={"type": "ValLoop"},
        val_evaluator={"type": "IoUMetric", "iou_metrics": ["mIoU"]},
        default_hooks={"checkpoint": hook if hook["type"] == "CheckpointHook" else None},
        custom_hooks=[{"type": "DataCheckHook"}, *([hook] if "monitor" in hook else [])],
    )  # fmt: skip
    raises(line, run.train)


def test_a_hook_that_names_a_file_that_is_not_there() -> None:
    hooks = {"custom_hooks": [{"type": "TeacherHook", "checkpoint": "none.pth"}]}
    raises("TeacherHook: checkpoint='none.pth' does not exist", check_hook_files, hooks)
    check_hook_files({"custom_hooks": [{"type": "DumpHook", "out_file": "later.json"}]})


# --- by the tools ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "line"),
    [
        pytest.param({"metainfo.classes": "thing"}, "is the text 'thing'", id="classes"),
        pytest.param({"seg_map_suffix": ".png"}, "3 of 3 label maps are not there", id="labels"),
    ],
)
def test_the_tools_say_so_in_one_line(
    options: dict[str, str], line: str, sound_shapes: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    place = "test_dataloader.dataset"
    settings = {"data_root": str(sound_shapes), **options}
    words = [f"{place}.{key}={value}" for key, value in settings.items()]
    arguments = [ROOT / "configs/shapes/clearclip.py", "--work-dir", tmp_path, "--cfg-options"]
    ends_in(line, run_test, [*arguments, *words], capsys)


# --- sound data, and other faults of these kinds -----------------------------------------------


@pytest.mark.parametrize("kind", ["array", "generator", "bytes"])
def test_names_in_what_is_no_list(kind: str) -> None:
    names = {"array": np.array(["a", "b"]), "generator": (n for n in "ab"), "bytes": b"ab"}[kind]
    line = "letters would count" if kind == "bytes" else f"is a .*{kind}; give a list of names"
    raises(line, check_metainfo, {"classes": names}, "Data")


@pytest.mark.parametrize("name", ["._0.png", ".ipynb_checkpoints/0.png", "@eaDir/0.png"])
def test_what_systems_leave_in_folders_is_not_counted(
    name: str, tmp_path: Path, said: list[str]
) -> None:
    dataset = masks(tmp_path)
    for folder in ("img", "ann"):
        (tmp_path / folder / name).parent.mkdir(exist_ok=True)
        (tmp_path / folder / name).write_bytes(b"x")
    runner(tmp_path, dataset).test()
    assert not [text for text in said if "not read" in text or "belong to no" in text]
    assert [Path(path).name for path in images_below(str(tmp_path / "img"))] == ["0.jpg"]


def test_several_label_maps_of_one_photo_are_no_warning(tmp_path: Path, said: list[str]) -> None:
    dataset = masks(tmp_path)
    (tmp_path / "ann/0.png").rename(tmp_path / "ann/0_labelTrainIds.png")
    Image.new("L", (2, 2)).save(tmp_path / "ann/0_color.png")
    dataset["seg_map_suffix"] = "_labelTrainIds.png"
    runner(tmp_path, dataset).test()
    assert not [text for text in said if "belong to no" in text]


def test_a_rare_class_is_no_mask_of_0_and_255(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(look_at_labels, "__defaults__", (1,))
    dataset = masks(tmp_path, [[[0, 255], [0, 0]], [[0, 1], [0, 0]]])
    assert runner(tmp_path, dataset).test()["mIoU"] == 100


def test_one_class_and_255_is_refused(tmp_path: Path) -> None:
    dataset = masks(tmp_path, [[[0, 255], [0, 0]]])
    dataset["metainfo"] = {"classes": ("thing",)}
    raises("'thing', the only class, .* give the background", runner(tmp_path, dataset).test)


@pytest.mark.parametrize("kind", ["16", "1", "P"])
def test_bits_of_label_maps_for_mmsegs_loader(kind: str, tmp_path: Path) -> None:
    dataset = masks(tmp_path)
    values = np.array([[0, 257], [256, 0]], np.uint16)
    picture = Image.fromarray(values if kind == "16" else (values > 0).astype(np.uint8))
    if kind == "1":
        picture = picture.point(lambda value: 255 * value).convert("1")
    if kind == "P":
        picture.putpalette([9, 9, 9, 255, 0, 0])
    picture.save(tmp_path / "ann/0.png")
    if kind == "16":
        raises("labels up to 257 .* cuts them to 8 bits", runner(tmp_path, dataset).test)
    else:
        assert runner(tmp_path, dataset).test()["mIoU"] == 100


def test_the_remedy_for_turned_photos_is_no_warning(tmp_path: Path, said: list[str]) -> None:
    dataset = masks(tmp_path, [np.eye(4)])
    turned(tmp_path / "img/0.jpg", 3, (4, 4))
    load = {"type": "LoadImageFromFile", "color_type": "color_ignore_orientation"}
    dataset["pipeline"] = [load, *dataset["pipeline"][1:]]
    runner(tmp_path, dataset).test()
    assert not [text for text in said if "turned or mirrored" in text]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tif"])
def test_a_picture_of_any_kind_is_turned_as_its_file_is(
    ending: str, orientation: int, tmp_path: Path
) -> None:
    turned(tmp_path / f"a.{ending}", orientation, (12, 6))
    with Image.open(tmp_path / f"a.{ending}") as picture:
        found = read_photo(picture).astype(int)
    assert abs(found - read_photo(tmp_path / f"a.{ending}")).max() <= 3  # JPEG decoders round


def test_a_picture_of_16_bits_is_that_of_its_file(tmp_path: Path) -> None:
    values = np.arange(0, 65536, 1024, dtype=np.uint16).reshape(8, 8)
    Image.fromarray(values).save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as picture:
        found = read_photo(picture)
    assert (found == read_photo(tmp_path / "a.png")).all()
    assert (found[..., 0] == values >> 8).all()
    raises("float32 numbers", read_photo, Image.fromarray(values.astype(np.float32)))

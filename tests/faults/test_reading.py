"""Faults of files that are read: hostile, damaged, too large, or of somewhere else."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.runner import load_checkpoint
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from mmclipdis.apis.feature_maps import read_photo as read_drawn_photo
from mmclipdis.apis.inferencers.photos import read_photo
from mmclipdis.apis.inferencers.segment import OpenVocabSegInferencer
from mmclipdis.apis.preflight import check_data
from mmclipdis.apis.run import test as run_test
from mmclipdis.apis.run import train
from mmclipdis.clip.text.embeddings_file import read_embeddings
from mmclipdis.datasets.conversion.files import photo_size, read_picture
from mmclipdis.datasets.detection.coco import OVCocoDataset
from mmclipdis.datasets.distillation.images import DistillImageDataset
from mmclipdis.datasets.distillation.panoptic_regions import PanopticRegionsDataset
from mmclipdis.datasets.distillation.region_transforms import open_rgb
from mmclipdis.datasets.distillation.transforms import LoadPILImage
from mmclipdis.datasets.loading import LoadReadableImage
from mmclipdis.datasets.recognition.coco import CocoMultiLabelDataset
from mmclipdis.datasets.recognition.partial_labels import load_mask
from mmclipdis.datasets.recognition.voc import VOCMultiLabelDataset
from mmclipdis.datasets.segmentation.label_maps import LoadReadableAnnotations
from mmclipdis.datasets.segmentation.shapes import ShapeScenesDataset
from mmclipdis.engine.configs import Config
from mmclipdis.models import CLIPViT
from mmclipdis.models.projectors import Projectors, load_projectors
from mmclipdis.models.text_encoder import OpenCLIPTextEncoder
from mmclipdis.models.vfm import TimmVFM
from tests.clip.weights.archives import Box, NeverEnds, WritesFile, scripted, with_file
from tests.datasets.recognition.test_voc import write as write_voc
from tests.faults.endings import ends_in, raises
from tests.paths import ROOT
from tests.tiny import tiny_arch
from tests.utils.test_pictures import png_head

CONFIG = ROOT / "configs/shapes/clearclip.py"


class Harmful:
    """Pickles into a call."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch made_by_pickle",)


# Files that would run code. Each maker writes one; the line must be there, and the code not run.


def _pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps({"state_dict": Harmful()}))


def _torch_save(path: Path) -> None:
    torch.save({"state_dict": {"w": Harmful()}}, path)


def _setstate(path: Path) -> None:
    scripted(path, WritesFile("made_by_setstate"))
    Path("made_by_setstate").unlink(missing_ok=True)


def _endless(path: Path) -> None:
    scripted(path, NeverEnds())


def _data_pickle(path: Path) -> None:
    source = scripted(path.with_suffix(".sound"), Box({"w": torch.ones(2)}))
    with_file(source, path, "data.pkl", pickle.dumps(Harmful(), protocol=2))


def _constants_pickle(path: Path) -> None:
    source = scripted(path.with_suffix(".sound"), Box({"w": torch.ones(2)}))
    with_file(source, path, "constants.pkl", pickle.dumps(Harmful(), protocol=2))


HOSTILE = {
    "pickle": _pickle,
    "torch.save": _torch_save,
    "__setstate__": _setstate,
    "endless": _endless,
    "data.pkl": _data_pickle,
    "constants.pkl": _constants_pickle,
}


def _image_tower(path: Path) -> None:
    CLIPViT(tiny_arch(), init_cfg=dict(type="Pretrained", checkpoint=str(path))).init_weights()


def _text_tower(path: Path) -> None:
    init_cfg = dict(type="Pretrained", checkpoint=str(path))
    OpenCLIPTextEncoder(tiny_arch(), init_cfg=init_cfg).init_weights()


def _vfm(path: Path) -> None:
    TimmVFM("shapes-vfm", init_cfg=dict(type="Pretrained", checkpoint=str(path))).init_weights()


READERS: dict[str, Callable[[Path], object]] = {
    "load_checkpoint": lambda path: load_checkpoint(nn.Linear(2, 2), str(path)),
    "image tower": _image_tower,
    "text tower": _text_tower,
    "vision model": _vfm,
    "projectors": load_projectors,
    "embeddings": read_embeddings,
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", HOSTILE)
def test_weights_that_are_a_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, reader: str
) -> None:
    monkeypatch.chdir(tmp_path)
    HOSTILE[kind](tmp_path / "weights.pt")
    raises(r"weights\.pt'.*(run code|code to run)", READERS[reader], tmp_path / "weights.pt")
    assert not list(tmp_path.glob("made_by_*"))


@pytest.mark.parametrize("kind", ["torch.save", "__setstate__", "endless", "constants.pkl"])
def test_a_checkpoint_that_is_a_program(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], sound_shapes: Path, kind: str
) -> None:
    HOSTILE[kind](tmp_path / "epoch_1.pth")
    options = ["--cfg-options", f"test_dataloader.dataset.data_root={sound_shapes}"]
    words = [CONFIG, tmp_path / "epoch_1.pth", "--work-dir", tmp_path / "work", *options]
    ends_in(r"epoch_1\.pth' .*(run code|code to run)", run_test, words, capsys)


def test_a_checkpoint_of_a_server_that_is_not_there(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    sound_shapes: Path,
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    address = "http://127.0.0.1:9/epoch_1.pth"
    options = ["--cfg-options", f"test_dataloader.dataset.data_root={sound_shapes}"]
    words = [CONFIG, address, "--work-dir", tmp_path / "work", *options]
    line = f"cannot download checkpoint {address} .*refused.*give the file"
    ends_in(line, run_test, words, capsys)


@pytest.mark.parametrize("path", ["a.npy", "a.pt"])
def test_embeddings_that_are_a_program(tmp_path: Path, path: str) -> None:
    array = np.array([Harmful()], dtype=object)
    np.save(tmp_path / path, array) if path == "a.npy" else _pickle(tmp_path / path)
    raises(rf"{path}'.*(allow_pickle=False|can run code)", read_embeddings, tmp_path / path)


@pytest.mark.parametrize("address", ["pavi://a/b.pth", "petrel://a/b.pth", "s3://a/b.pth"])
def test_checkpoints_of_stores_that_are_not_there(address: str) -> None:
    raises(
        f"checkpoint '{address}': .*file and give its path",
        load_checkpoint,
        nn.Linear(2, 2),
        address,
    )


# Weights that are not finite.


def _clip(path: Path, name: str) -> None:
    torch.manual_seed(0)
    state = {**CLIPViT(tiny_arch()).tower.state_dict()}
    text = OpenCLIPTextEncoder(tiny_arch()).tower.text.state_dict()
    state.update({k: v for k, v in text.items() if k != "attn_mask"})
    state[name].view(-1)[3] = float("nan")
    torch.save(state, path)


@pytest.mark.parametrize(
    ("reader", "name"),
    [
        ("image tower", "visual.ln_post.weight"),
        ("text tower", "transformer.resblocks.1.ln_2.bias"),
        ("text tower", "visual.ln_post.weight"),
        ("load_checkpoint", "ln_final.weight"),
    ],
)
def test_clip_weights_that_are_not_finite(tmp_path: Path, reader: str, name: str) -> None:
    _clip(tmp_path / "clip.pt", name)
    line = rf"clip\.pt'?: {name} \(1 of \d+ values\) is NaN or infinite; .*fetch the file again"
    raises(line, READERS[reader], tmp_path / "clip.pt")


def test_projectors_that_are_not_finite(tmp_path: Path) -> None:
    state = Projectors(8, 6, 4).state_dict()
    state["image.weight"][0, 0] = float("nan")
    torch.save(state, tmp_path / "epoch_1.pth")
    line = r"epoch_1\.pth'?: image\.weight \(1 of 32 values\) is NaN or infinite"
    raises(line, load_projectors, tmp_path / "epoch_1.pth")


@pytest.mark.parametrize("reader", READERS)
def test_weights_that_unpack_to_more_than_they_are(tmp_path: Path, reader: str) -> None:
    path, bomb = tmp_path / "a.pt", tmp_path / "b.pt"
    torch.save({"w": torch.ones(2)}, path)
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as new:
        for info in old.infolist():
            large = info.filename.endswith("/data/0")
            new.writestr(info.filename, bytes(2**25) if large else old.read(info))
    raises(r"b\.pt' is not read: its data/0 is compressed and unpacks to", READERS[reader], bomb)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_weights_that_have_a_part_twice(tmp_path: Path, reader: str) -> None:
    torch.save({"w": torch.ones(2)}, tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "a.pt", "a") as archive:
        archive.writestr("a/data/0", bytes(8))
    raises(r"a\.pt' is not read: it has two parts named data/0", READERS[reader], tmp_path / "a.pt")


def test_arrays_that_promise_more_than_they_hold_or_are_several(tmp_path: Path) -> None:
    head = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 512), }"
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\x01\x00v\x00" + head.ljust(117) + b"\n")
    raises(r"a\.npy' is not.*(promises more|read all data)", read_embeddings, tmp_path / "a.npy")
    np.savez(tmp_path / "b.npz", a=np.ones((2, 3)), b=np.ones((2, 3)))
    raises(r"b\.npz' is not.*an \.npz of several", read_embeddings, tmp_path / "b.npz")
    np.save(tmp_path / "c.npy", np.eye(3, dtype=">f4"))  # of another kind of machine: sound
    assert torch.equal(read_embeddings(tmp_path / "c.npy"), torch.eye(3))


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("suffix", ["pt", "safetensors", "npy"])
@pytest.mark.parametrize("content", [b"", b"no weights", b"PK\x03\x04", b"\x80\x02."], ids=repr)
def test_weights_that_are_none(tmp_path: Path, suffix: str, reader: str, content: bytes) -> None:
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(content)
    raises(rf"a\.{suffix}' (is not a|is no|cannot be) read|is no checkpoint", READERS[reader], path)


def test_a_vision_model_that_is_not_finite(tmp_path: Path) -> None:
    state = TimmVFM("shapes-vfm").model.state_dict()
    state["norm.weight"][0] = float("inf")
    save_file(state, tmp_path / "vfm.safetensors")
    raises(
        r"norm\.weight \(1 of 128 values\) is NaN or infinite",
        _vfm,
        tmp_path / "vfm.safetensors",
    )


def test_embeddings_that_are_not_finite(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([[1.0, 0.0], [np.inf, 1.0]]))
    raises(r"a\.npy': row 1 is zero or not finite", read_embeddings, tmp_path / "a.npy")


# Configs that are data only by their looks.


@pytest.mark.parametrize("tool", [run_test, train])
@pytest.mark.parametrize("name", ["config.yaml", "config.yml"])
def test_a_config_in_yaml(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], tool: Any, name: str
) -> None:
    made = tmp_path / "made"
    (tmp_path / name).write_text(f"a: !!python/object/apply:os.mkdir ['{made}']\n")
    (tmp_path / "top.py").write_text(f"_base_ = ['{CONFIG}', '{name}']\n")
    words = ["none.pth"] if tool is run_test else []
    for config in (name, "top.py"):
        line = rf"config '.*{name}'.* is YAML, which is not read.*write it as a \.py file"
        ends_in(line, tool, [tmp_path / config, *words], capsys)
    assert not made.exists()


def test_a_config_in_yaml_from_python(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("model: {}\n")
    raises(r"a\.yaml' is YAML, which is not read", OpenVocabSegInferencer, tmp_path / "a.yaml")
    (tmp_path / "b.yaml").write_text("a: !!python/object/apply:os.getcwd []\n")
    raises("not read as plain data", Config.fromfile, str(tmp_path / "b.yaml"))


# Pictures of more pixels than the limit, which must not be decoded.

LOADERS: dict[str, Callable[[str], object]] = {
    "photo": lambda path: LoadReadableImage().transform({"img_path": path}),
    "photo by Pillow": lambda path: LoadReadableImage(imdecode_backend="pillow").transform(
        {"img_path": path}
    ),
    "label map": lambda path: LoadReadableAnnotations().transform(
        {"seg_map_path": path, "seg_fields": [], "reduce_zero_label": False}
    ),
    "panoptic png": lambda path: open_rgb(path, "panoptic PNG"),
    "converter": lambda path: read_picture(Path(path)),
    "converter's size": lambda path: photo_size(Path(path)),
    "segment()": read_photo,
    "segment(Pillow)": lambda path: read_photo(_opened(path)),
    "feature maps": read_drawn_photo,
}


def _opened(path: str) -> Image.Image:
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        return Image.open(path)
    finally:
        Image.MAX_IMAGE_PIXELS = limit


@pytest.mark.parametrize("loader", LOADERS)
def test_a_picture_of_too_many_pixels(tmp_path: Path, loader: str) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png_head(15000, 15000))
    name = "the photo" if "Pillow)" in loader else r"bomb\.png"
    raises(rf"{name} has 15000 x 15000 = 225,000,000 pixels, more than", LOADERS[loader], str(path))


def test_a_distillation_passes_over_a_picture_of_too_many_pixels(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png_head(15000, 15000))
    results = {"img_path": str(path)}
    assert LoadPILImage().transform(results) is None
    assert "bomb.png has 15000 x 15000 = 225,000,000 pixels" in results["unreadable"]


def test_a_run_meets_a_picture_of_too_many_pixels(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], sound_shapes: Path
) -> None:
    root = shutil.copytree(sound_shapes, tmp_path / "shapes")
    (root / "images/val/000000000001.png").write_bytes(png_head(20000, 10000))
    options = ["--cfg-options", f"test_dataloader.dataset.data_root={root}"]
    words = [CONFIG, "--work-dir", tmp_path / "work", *options]
    ends_in(r"000000000001\.png has 20000 x 10000 = 200,000,000 pix", run_test, words, capsys)


def test_a_run_with_mmcvs_own_loader_meets_a_picture_of_too_many_pixels(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], sound_shapes: Path
) -> None:
    root = shutil.copytree(sound_shapes, tmp_path / "shapes")
    (root / "images/val/000000000000.png").write_bytes(png_head(15000, 15000))
    steps = "[dict(type='LoadImageFromFile'), dict(type='PackSegInputs')]"
    path = tmp_path / "config.py"
    path.write_text(
        f"_base_ = {str(CONFIG)!r}\n"
        f"test_dataloader = dict(dataset=dict(data_root={str(root)!r}, pipeline={steps}))\n"
    )
    words = [path, "--work-dir", tmp_path / "work"]
    ends_in(r"000000000000\.png has 15000 x 15000 = 225,000,000 pix", run_test, words, capsys)


# Lists that name files outside the data set.


def _with_name(root: Path, name: str, ann_file: str, part: str = "images") -> dict[str, Any]:
    path = root / ann_file
    content = json.loads(path.read_text())
    content[part][1]["file_name"] = name
    path.write_text(json.dumps(content))
    return {"data_root": str(root), "ann_file": ann_file}


THINGS = Config.fromfile(ROOT / "configs/_base_/datasets/shapes_detection.py").metainfo.to_dict()
INSTANCES, PANOPTIC = "annotations/instances_val.json", "annotations/panoptic_val.json"
PHOTOS = {"img_path": "images/val"}
SEGMENTS = {**PHOTOS, "seg_map_path": "annotations/panoptic_val"}


def _detection(root: Path, name: str) -> None:
    known = _with_name(root, name, INSTANCES)
    OVCocoDataset(**known, data_prefix={"img": "images/val"}, metainfo=THINGS, test_mode=True)


def _multilabel(root: Path, name: str) -> None:
    CocoMultiLabelDataset(**_with_name(root, name, INSTANCES), data_prefix=PHOTOS)


def _distillation(root: Path, name: str) -> None:
    DistillImageDataset(**_with_name(root, name, INSTANCES), data_prefix=PHOTOS)


def _panoptic(root: Path, name: str) -> None:
    PanopticRegionsDataset(**_with_name(root, name, PANOPTIC), data_prefix=SEGMENTS)


def _panoptic_png(root: Path, name: str) -> None:
    known = _with_name(root, name, PANOPTIC, "annotations")
    PanopticRegionsDataset(**known, data_prefix=SEGMENTS)


def _segmentation(root: Path, name: str) -> None:
    (root / "list.txt").write_text(f"000000000000\n{name}\n")
    prefix = {"img_path": "images/val", "seg_map_path": "annotations/val"}
    ShapeScenesDataset(data_root=str(root), ann_file="list.txt", data_prefix=prefix)


def _voc(root: Path, name: str) -> None:
    split = write_voc(root / "voc") / "ImageSets/Main/trainval.txt"
    split.write_text(f"000005\n{name}\n")
    VOCMultiLabelDataset(data_root=str(root / "voc"), split="trainval")


def _stock(kind: str, root: Path, dataset: dict[str, Any]) -> None:
    config = {"type": kind, "data_root": str(root), **dataset}
    check_data(Config({"test_dataloader": {"dataset": config}}), ["test_dataloader"])


def _stock_detection(root: Path, name: str) -> None:
    known = _with_name(root, name, INSTANCES)
    _stock("mmdet.CocoDataset", root, {**known, "data_prefix": {"img": "images/val"}})


def _stock_segmentation(root: Path, name: str) -> None:
    (root / "list.txt").write_text(f"000000000000\n{name}\n")
    more = {"data_prefix": PHOTOS, "ann_file": "list.txt", "img_suffix": ".png"}
    _stock("mmseg.BaseSegDataset", root, more)


@pytest.mark.parametrize("name", ["../../../../etc/x", "/etc/x"])
@pytest.mark.parametrize(
    "build",
    [
        *(_detection, _multilabel, _distillation, _panoptic, _panoptic_png, _segmentation, _voc),
        *(_stock_detection, _stock_segmentation),
    ],
)
def test_a_list_that_leads_out_of_the_data_set(
    tmp_path: Path, sound_shapes: Path, build: Callable[[Path, str], None], name: str
) -> None:
    root = shutil.copytree(sound_shapes, tmp_path / "shapes")
    raises(rf"(json|txt)' names '.*{name}.*', which lies outside '.*shapes", build, root, name)


@pytest.mark.parametrize("content", [b"", b"no array", b"PK\x03\x04", b"\x80\x02]."], ids=repr)
def test_a_mask_of_known_labels_that_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "mask.npy").write_bytes(content)
    raises(r"mask\.npy is no \.npy file", load_mask, str(tmp_path / "mask.npy"), (2, 3))

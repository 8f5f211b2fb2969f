"""Faults that could cost what is good: a checkpoint, a file of the user's, a right number."""

from __future__ import annotations

import errno
import importlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement, InstanceData
from mmseg.structures import SegDataSample
from torch import nn

from mmclipdis.apis import cli
from mmclipdis.apis.class_similarity import class_similarity
from mmclipdis.apis.feature_maps import feature_maps
from mmclipdis.apis.run import train as run_train
from mmclipdis.datasets.detection.annotations import write_annotations
from mmclipdis.engine import write_checkpoint
from mmclipdis.engine.resumed_schedule import ResumedSchedule
from mmclipdis.engine.work_folder import LOCK
from mmclipdis.evaluation import OpenVocabIoUMetric
from mmclipdis.models.distillation.regions import predict_regions
from mmclipdis.shapes.coco import Settings, write_dataset
from mmclipdis.utils import whole_files
from tests.engine.toy import toy_config, train
from tests.faults.endings import ends_in, raises
from tests.models.segmentation.fakes import make_segmentor
from tests.paths import ROOT
from tests.tools.random_data import write_task

NAN = float("nan")


def tool(path: str) -> ModuleType:
    """A script of ``tools`` as a module."""
    return importlib.import_module("tools." + path.removesuffix(".py").replace("/", "."))


def every_iteration(work_dir: Path, **changes: Any) -> Any:
    changes = {"train_cfg.max_iters": 4, "train_cfg.val_interval": 100, **changes}
    return toy_config(work_dir, **{"default_hooks.checkpoint.interval": 1, **changes})


# --- NaN in a training ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hook", "guard"),
    [("ExactCheckpointHook", True), ("CheckpointHook", True), ("ExactCheckpointHook", False)],
    ids=["guard", "guard with mmengine's hook", "our hook alone"],
)
def test_a_gradient_becomes_nan(hook: str, guard: bool, tmp_path: Path) -> None:
    config = every_iteration(tmp_path, **{"default_hooks.checkpoint.type": hook})
    config.custom_hooks = [{"type": "NonFiniteGuard"}] if guard else []
    runner = Runner.from_cfg(config)
    runner.model.net[3].weight.register_hook(lambda g: g * NAN if runner.iter == 2 else g)
    line = "iteration 3: parameter net.0.weight .*last good checkpoint: .*iter_2.pth"
    raises(line if guard else "iteration 3' is not written: net.0.weight", runner.train)
    assert sorted(path.name for path in tmp_path.glob("*.pth")) == ["iter_1.pth", "iter_2.pth"]


def test_weights_are_written_that_are_not_finite(tmp_path: Path) -> None:
    state = {"state_dict": {"a": torch.ones(2), "b": torch.tensor([1.0, NAN])}}
    raises(
        r"w.pth' is not written: state_dict.b \(1 of 2", write_checkpoint, tmp_path / "w.pth", state
    )
    assert not list(tmp_path.iterdir())


# --- NaN in a test ----------------------------------------------------------------------------


def test_scores_of_a_segmentor_are_nan() -> None:
    model = make_segmentor().float()
    model.backbone.gain.data[0] = NAN
    samples = [SegDataSample(metainfo={"img_path": f"{i}.jpg", "ori_shape": (8, 8)}) for i in "ab"]
    line = r"the scores of a.jpg are NaN or infinite \(16 of 16 values\); check the weights"
    raises(line, model.predict, torch.rand(2, 3, 8, 8), samples)


def test_features_of_one_photo_are_nan() -> None:
    maps = torch.rand(2, 4, 2, 2)
    maps[1, 0, 0, 0] = NAN
    encoder = SimpleNamespace(dense=lambda image: SimpleNamespace(map=maps))
    samples = [BaseDataElement(metainfo={"img_path": f"{i}.jpg"}) for i in "ab"]
    for sample in samples:
        sample.gt_regions = InstanceData(labels=torch.zeros(1, dtype=torch.long))
    inputs = {"image": None, "boxes": torch.tensor([[float(i), 0, 0, 1, 1] for i in (0, 1)])}
    raises("the features of b.jpg are NaN", predict_regions, encoder, inputs, samples, torch.eye(4),
           ("rois",))  # fmt: skip


@pytest.mark.parametrize("part", ["roi_head.bbox_head", "rpn_head"])
def test_scores_of_a_detector_are_nan(part: str) -> None:
    from tests.models.detection.fvit import tiny

    model = tiny.build().eval()
    data = tiny.batch(model, False)
    layer = model.get_submodule(part)
    next(p for n, p in layer.named_parameters() if p.dim() > 1).data.fill_(NAN)
    if part == "rpn_head":
        from mmclipdis.models.detection.fvit.rpn_head import FViTRPNHead

        layer.__class__ = FViTRPNHead
    with torch.no_grad():
        raises("the (scores|proposals|boxes) of .* are NaN", model, **data, mode="predict")


# --- files that are there ---------------------------------------------------------------------


def shapes_folder(folder: Path) -> None:
    (folder / "images").mkdir()
    (folder / "images" / "mine.jpg").touch()
    write_dataset(folder, Settings(1, 1, 0), overwrite=True)


CONVERTERS: dict[str, Callable[[Path], Any]] = {
    "CAT-Seg": lambda old: tool("model_converters/catseg.py").convert(old, old),
    "InfoCLIP": lambda old: tool("model_converters/infoclip.py").convert(old, old),
    "EVA-CLIP": lambda old: tool("model_converters/eva_clip.py").convert(old, old),
    "F-ViT": lambda old: tool("model_converters/fvit.py").convert(None, old, old),
    "OV-DQUO": lambda old: tool("model_converters/ovdquo.py").convert(None, old, old),
    "text embeddings": lambda old: tool("model_converters/text_embeddings.py").run(
        old, "shapes-tiny", "shapes", None
    ),
    "annotations": lambda old: write_annotations(old, {"images": []}),
    "feature maps": lambda old: feature_maps([str(ROOT / "x.png"), "--out", str(old)]),
    "a checkpoint": lambda old: write_checkpoint(old, {}, overwrite=False),
}


@pytest.mark.parametrize("name", CONVERTERS)
def test_the_target_of_a_converter_exists(name: str, tmp_path: Path) -> None:
    old = tmp_path / "old.pth"
    old.write_bytes(b"precious")
    raises("old.pth' exists and is left as it is; name another file, or give --overwrite",
           CONVERTERS[name], old)  # fmt: skip
    assert old.read_bytes() == b"precious"


def test_a_report_exists(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "similarity.json").write_text("mine")
    ends_in("similarity.json' exists and is left", class_similarity,
            ["red circle,blue circle", "--out", tmp_path], capsys)  # fmt: skip


def test_shapes_are_drawn_over_somebody_elses_photos(tmp_path: Path) -> None:
    raises("holds images, which are not known to be ShapeScenes", shapes_folder, tmp_path)
    assert (tmp_path / "images" / "mine.jpg").exists()


def test_a_drawing_that_fails_leaves_the_old_data_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_dataset(tmp_path, Settings(1, 1, 0))
    before = sorted(path.name for path in tmp_path.rglob("*"))

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(whole_files.os, "fsync", full)
    raises("no space is left on the disk while writing '.*.png'", write_dataset, tmp_path,
           Settings(2, 1, 0), overwrite=True)  # fmt: skip
    after = {path.name for path in tmp_path.rglob("*") if ".shapes.part" not in str(path)}
    assert after == set(before)


# --- resuming ---------------------------------------------------------------------------------


def test_no_checkpoint_of_the_folder_can_be_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, work = write_task(tmp_path), tmp_path / "work"
    work.mkdir()
    for name in ("iter_2.pth", "iter_4.pth"):
        torch.save({"state_dict": {}}, work / name)
        (work / name).write_bytes((work / name).read_bytes()[:-40])
    (work / "last_checkpoint").write_text(str(work / "iter_4.pth"))
    arguments = [config, "--work-dir", work, "--resume"]
    ends_in("no checkpoint of .*iter_4.pth', .*iter_2.pth' is cut short or damaged",
            run_train, arguments, capsys)  # fmt: skip


@pytest.mark.parametrize("lacking", ["meta", "optimizer"])
def test_weights_alone_are_resumed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], lacking: str
) -> None:
    config, work = write_task(tmp_path), tmp_path / "work"
    run_train([str(config), "--work-dir", str(work)])
    content = torch.load(work / "iter_4.pth", weights_only=True)
    del content[lacking]
    torch.save(content, work / "iter_4.pth")
    line = rf"--resume: '.*iter_4\.pth' has no {lacking}.*set load_from=FILE without --resume"
    ends_in(line, run_train, [config, "--work-dir", work, "--resume"], capsys)


def test_two_runs_in_one_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    work = tmp_path / "work"
    work.mkdir()
    code = (
        "import fcntl, sys\n"
        f"with open({str(work / LOCK)!r}, 'a+') as file:\n"
        "    fcntl.lockf(file, fcntl.LOCK_EX)\n"
        "    print('process 7 on b, since noon,', file=file, flush=True)\n"
        "    print('ok', flush=True)\n"
        "    sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1) as other:
        assert other.stdout is not None and other.stdout.readline() == b"ok\n"
        arguments = [write_task(tmp_path), "--work-dir", work]
        line = "in use: process 7 on b, since noon, trains in it; .*another --work-dir"
        ends_in(line, run_train, arguments, capsys)
        assert [path.name for path in work.iterdir()] == [LOCK]  # the second has written nothing
        raises(line, train, toy_config(work))  # mmengine's Runner with our hook
        other.kill()
    assert run_train([str(word) for word in arguments]).iter == 4


def test_a_resume_has_nothing_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(every_iteration(tmp_path))
    before = (tmp_path / "iter_4.pth").stat().st_mtime_ns
    train(every_iteration(tmp_path, resume=True))
    said = capsys.readouterr().out
    assert "Nothing to train: the checkpoint is at iteration 4 of train_cfg.max_iters=4" in said
    assert (tmp_path / "iter_4.pth").stat().st_mtime_ns == before


def test_another_schedule_follows_a_metric() -> None:
    scheduler = SimpleNamespace(need_val_args=True, by_epoch=True, end=4)
    runner = SimpleNamespace(param_schedulers=[scheduler])
    raises("end 2 -> 4.*follows a metric, so that it cannot be computed anew", ResumedSchedule.of,
           runner, {"param_schedulers": [{"end": 2}]})  # fmt: skip


# --- outputs ----------------------------------------------------------------------------------


def test_label_maps_of_two_photos_have_one_name(tmp_path: Path) -> None:
    metric = OpenVocabIoUMetric(output_dir=str(tmp_path), format_only=True)
    metric.dataset_meta = {"classes": ("a", "b")}
    labels = {"data": torch.ones(1, 2, 2, dtype=torch.long)}

    def process(path: str) -> None:
        metric.process({}, [{"pred_sem_seg": labels, "img_path": path}])

    process("x/a.jpg")
    before = (tmp_path / "a.png").read_bytes()
    labels = {"data": torch.zeros(1, 2, 2, dtype=torch.long)}
    raises(
        "holds 'a.png' of 'x/a.jpg', which that of 'y/a.jpg' would overwrite", process, "y/a.jpg"
    )
    assert (tmp_path / "a.png").read_bytes() == before


# --- the machine ------------------------------------------------------------------------------


@pytest.mark.parametrize("hook", ["ExactCheckpointHook", "CheckpointHook"])
def test_the_disk_is_full_at_a_save(
    hook: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mmengine.fileio.backends import LocalBackend

    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    train(every_iteration(tmp_path, **{"train_cfg.max_iters": 2}))
    monkeypatch.setattr(whole_files.os, "fsync", full)
    monkeypatch.setattr(LocalBackend, "put", full)
    changes = {"default_hooks.checkpoint.type": hook, "default_hooks.checkpoint.max_keep_ckpts": 2}
    raises("no space is left on the disk", train, every_iteration(tmp_path, resume=True, **changes))
    names = {path.name for path in tmp_path.iterdir() if path.suffix in (".pth", ".tmp")}
    assert names == {"iter_1.pth", "iter_2.pth"} or hook == "CheckpointHook"


def test_a_file_is_where_the_work_folder_should_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_task(tmp_path / "task")
    (tmp_path / "runs").touch()
    arguments = [config, "--work-dir", tmp_path / "runs" / "a"]
    ends_in("a file stands where a folder is needed.*runs'", run_train, arguments, capsys)


def test_the_name_of_an_output_is_too_long(tmp_path: Path) -> None:
    raises(
        "is too long for a file; give a shorter",
        whole_files.write_bytes,
        tmp_path / ("x" * 300),
        b"",
    )


def test_a_config_needs_a_package_that_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_task(tmp_path / "task")
    text = config.read_text().replace('log_level = "WARNING"', "import no_such_package")
    config.write_text(text)
    ends_in("package 'no_such_package', which is not installed; run: pip install", run_train,
            [config, "--work-dir", tmp_path / "work"], capsys)  # fmt: skip


class Greedy(nn.Module):
    """Asks for more than any machine has."""

    def forward(self) -> torch.Tensor:
        return torch.empty(10**16)


def test_memory_runs_out() -> None:
    raises("out of memory of the machine .*lower batch_size", Greedy())
    assert cli.user_message(ValueError("x")) is None

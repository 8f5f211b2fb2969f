"""A stock mmseg model trains, resumes exactly, is tested, and trains on two processes."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from mmclipdis.apis.run import test as run_test
from mmclipdis.apis.run import train as run_train
from tests.paths import ROOT
from tests.ranks import launch
from tests.tools.random_data import write_task


def parameters(path: Path) -> Tensor:
    state = torch.load(path, weights_only=True)["state_dict"]
    return torch.cat([value.double().flatten() for value in state.values()])


def options(folder: Path, *more: str) -> list[str]:
    # mmengine keeps message hubs by name and second for the life of the process
    return [
        *("--work-dir", str(folder), "--cfg-options", f"experiment_name={folder.name}"),
        *more,
    ]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_task(tmp_path_factory.mktemp("task"))


@pytest.fixture(scope="module")
def trained(config: Path) -> Path:
    """Work folder of four iterations with validation."""
    folder = config.parent / "whole"
    runner = run_train([str(config), *options(folder)])
    assert type(runner.train_loop).__name__ == "ExactIterBasedTrainLoop"
    return folder


def test_a_stopped_run_resumes_exactly(config: Path, trained: Path) -> None:
    folder = config.parent / "parts"
    run_train([str(config), *options(folder, "train_cfg.max_iters=2")])
    assert not (folder / "iter_4.pth").exists()
    runner = run_train([str(config), "--resume", *options(folder, "experiment_name=again")])
    assert runner.iter == 4
    first, second = parameters(trained / "iter_4.pth"), parameters(folder / "iter_4.pth")
    assert float((first - second).abs().max()) == 0.0


def test_resume_takes_a_path_and_mmsegs_order_of_arguments(config: Path, trained: Path) -> None:
    folder = config.parent / "named"
    start = str(trained / "iter_2.pth")
    run_train([str(config), "--resume", start, *options(folder)])
    assert torch.equal(parameters(trained / "iter_4.pth"), parameters(folder / "iter_4.pth"))
    finished = run_train(["--resume", str(config), *options(folder, "experiment_name=once_more")])
    assert finished.iter == 4


def mean_iou(predicted: Path, labels: Path) -> float:
    """In percent, of label maps written to a folder, class by class."""
    pairs = [
        [
            cv2.imread(str(folder / f"{i}.png"), cv2.IMREAD_UNCHANGED)
            for folder in (predicted, labels)
        ]
        for i in range(6)
    ]
    found, true = np.stack([pair[0] for pair in pairs]), np.stack([pair[1] for pair in pairs])
    counts = [(((found == c) & (true == c)).sum(), ((found == c) | (true == c)).sum())
              for c in range(3)]  # fmt: skip
    return float(np.mean([100 * hit / union for hit, union in counts]))


@pytest.mark.parametrize("flags", [[], ["--tta"]])
def test_testing_a_checkpoint_gives_metrics_and_label_maps(
    config: Path, trained: Path, tmp_path: Path, flags: list[str]
) -> None:
    checkpoint = str(trained / "iter_4.pth")
    arguments = ["--out", str(tmp_path / "out"), "--show-dir", str(tmp_path / "painted"), *flags]
    more = ("default_hooks.visualization.interval=2",)
    metrics = run_test([str(config), checkpoint, *arguments, *options(tmp_path / "work", *more)])
    assert {path.name for path in (tmp_path / "out").iterdir()} == {f"{i}.png" for i in range(6)}
    expected = mean_iou(tmp_path / "out", config.parent / "labels")
    assert metrics["mIoU"] == pytest.approx(expected, abs=0.006)
    assert len(list((tmp_path / "painted").rglob("*.png"))) == 3  # every second of six


def test_photos_of_one_name_in_two_folders_are_both_written_and_painted(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_task(tmp_path / "task")
    for kind in ("images", "labels"):
        for number, path in enumerate(sorted((config.parent / kind).iterdir())):
            folder = path.parent / ("x" if number < 3 else "y")
            folder.mkdir(exist_ok=True)
            path.rename(folder / f"{number % 3}{path.suffix}")
    arguments = ["--out", str(tmp_path / "out"), "--show-dir", str(tmp_path / "painted")]
    more = ("default_hooks.visualization.interval=1", "log_level=INFO")
    checkpoint = str(trained / "iter_4.pth")
    run_test([str(config), checkpoint, *arguments, *options(tmp_path / "work", *more)])
    said = capsys.readouterr().out
    assert "label maps of 6 of 6 photos" in said and "painted 6 of 6 photos" in said
    expected = {f"{folder}/{i}.png" for folder in "xy" for i in range(3)}
    for folder in (tmp_path / "out", tmp_path / "painted"):
        assert {str(p.relative_to(folder)) for p in folder.rglob("*.*")} == expected


def test_a_checkpoint_with_other_classes_may_start_a_training_and_is_not_tested(
    config: Path, trained: Path
) -> None:
    checkpoint = str(trained / "iter_4.pth")
    more = ("model.decode_head.num_classes=5", "model.auxiliary_head.num_classes=5")
    with pytest.raises(ValueError, match=r"another shape \(decode_head\.conv_seg\.weight: \(3, 4"):
        run_test([str(config), checkpoint, *options(config.parent / "five", *more)])
    start = (*more, f"load_from={checkpoint}", "train_cfg.max_iters=1")
    with pytest.warns(UserWarning, match="4 entries have another shape"):
        run_train([str(config), *options(config.parent / "from_three", *start)])


def test_tta_gives_the_mirror_image_mirrored_labels(tmp_path: Path) -> None:
    """Through the tool, with the shipped tiny CLIP: no tta_pipeline, no checkpoint."""
    config = Config.fromfile(write_task(tmp_path))
    config.model = Config.fromfile(ROOT / "configs/_base_/models/shapes_training_free.py").model
    config.dump(tmp_path / "clip.py")
    labels = {}
    for name in ("plain", "tta", "mirrored"):
        if name == "mirrored":
            for path in (tmp_path / "images").iterdir():
                cv2.imwrite(str(path), cv2.imread(str(path))[:, ::-1])
        flags = ["--out", str(tmp_path / name), *([] if name == "plain" else ["--tta"])]
        run_test([str(tmp_path / "clip.py"), *flags, *options(tmp_path / f"work_{name}")])
        files = sorted((tmp_path / name).glob("*.png"))
        labels[name] = np.stack([cv2.imread(str(file), cv2.IMREAD_UNCHANGED) for file in files])
    assert np.array_equal(labels["tta"], labels["mirrored"][..., ::-1])
    assert not np.array_equal(labels["tta"], labels["plain"])


def test_each_run_of_a_process_logs_into_its_own_folder(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when they begin in the same second, which is all that mmengine's names tell apart."""
    monkeypatch.setattr("mmengine.runner.runner.time.strftime", lambda *_: "20260101_000000")
    more = ("train_cfg.max_iters=1", "default_hooks.logger.interval=1")
    for name in ("first/work", "second/work"):
        run_train([str(config), *options(config.parent / name, *more)])
        (log,) = (config.parent / name).rglob("scalars.json")
        assert log.read_text().count('"loss"') == 1


def test_tensorboard_is_an_option(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run_train(["--help"])
    assert "--tensorboard" in capsys.readouterr().out
    folder = config.parent / "board"
    more = ("train_cfg.max_iters=1", "default_hooks.logger.interval=1")
    run_train([str(config), "--tensorboard", *options(folder, *more)])
    (file,) = folder.rglob("events.out.tfevents.*")
    events = EventAccumulator(str(file)).Reload()
    assert len(events.Scalars("loss")) == 1


def test_two_processes_equal_one_on_the_joint_batch(tmp_path: Path) -> None:
    config = write_task(tmp_path / "task", dropout=0.0, flip=0.0)
    alone, half = tmp_path / "alone", tmp_path / "half"
    run_train([str(config), *options(alone, "train_dataloader.batch_size=4")])
    run_train([str(config), *options(half)])
    two = tmp_path / "two"
    result = launch("dist_train.sh", str(config), "2", *options(two))
    assert result.returncode == 0, result.stderr[-3000:]
    first, second = parameters(alone / "iter_4.pth"), parameters(two / "iter_4.pth")
    assert float((first - second).abs().max()) < 1e-5
    # what lost gradients would look like: half of the batch gives other weights
    assert float((first - parameters(half / "iter_4.pth")).abs().max()) > 1e-3
    saved = torch.load(two / "iter_4.pth", weights_only=True)
    assert len(saved["random_states"]) == 2

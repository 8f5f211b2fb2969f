"""Mistakes of the user become one line and exit code 2; bugs keep their traceback."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import HOOKS, MODELS
from torch.utils.data import DataLoader, Dataset

from mmclipdis.apis import cli
from mmclipdis.apis import run as run_module
from mmclipdis.apis.run import find_checkpoint, prepare_cpu_processes, use_exact_engine
from mmclipdis.apis.run import test as run_test
from mmclipdis.apis.run import train as run_train
from mmclipdis.apis.test_options import keep_predictions, use_tta
from mmclipdis.engine import read_checkpoint
from tests.paths import ROOT

MODEL = "model = dict(type='ToyModel')\n"
TRAIN = MODEL + (
    "train_dataloader = dict(batch_size=1)\ntrain_cfg = dict(type='IterBasedTrainLoop')\n"
    "optim_wrapper = dict(type='OptimWrapper')\n"
)
TEST = MODEL + "test_dataloader = dict()\ntest_evaluator = dict()\ntest_cfg = dict()\n"


def failure(
    tool: Callable[[Sequence[str] | None], object],
    arguments: Sequence[str],
    capsys: pytest.CaptureFixture[str],
) -> str:
    """Run a tool that must fail by one line; return the line."""
    with pytest.raises(SystemExit) as exit_info:
        cli.run(tool, arguments)
    assert exit_info.value.code == cli.EXIT_CODE
    captured = capsys.readouterr().err
    assert captured.startswith("error: ") and captured.count("\n") == 1
    return captured[7:-1]


@pytest.fixture
def config(tmp_path: Path) -> Callable[[str], str]:
    def write(text: str, name: str = "config.py") -> str:
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return write


def test_a_missing_config_comes_with_close_matches(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    line = failure(run_train, ["configs/default_runtim.py"], capsys)
    assert line.startswith(
        "config 'configs/default_runtim.py' does not exist; "
        "did you mean configs/_base_/default_runtime.py or "
    )


def test_a_missing_config_without_relatives(capsys: pytest.CaptureFixture[str]) -> None:
    assert failure(run_test, ["zzzzqqqq.py"], capsys) == "config 'zzzzqqqq.py' does not exist."


def test_a_config_of_the_package_is_found_by_its_name_and_its_path_anywhere(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # as where there is no clone
    asked = {"cfg_options": None, "launcher": "none", "work_dir": None}
    paths = ("shapes/clearclip.py", "mmclipdis::shapes/clearclip.py")
    for name in ("clearclip-shapes", "clearclip-shapes.py", *paths):
        config = cli.read_config(SimpleNamespace(config=name, **asked), ["model"])
        assert Path(config.filename).samefile(ROOT / "configs/shapes/clearclip.py")
        assert config.work_dir == "work_dirs/clearclip"
    line = failure(run_test, ["clearclip-shape"], capsys)
    assert line.startswith("config 'clearclip-shape' does not exist; did you mean clearclip-shapes")


def test_a_broken_config_is_named(
    capsys: pytest.CaptureFixture[str], config: Callable[..., str]
) -> None:
    assert "cannot be read" in failure(run_train, [config("model = dict(\n")], capsys)
    assert "must be a .py file" in failure(run_train, [config("", "config.txt")], capsys)


def test_missing_entries_are_named(
    capsys: pytest.CaptureFixture[str], config: Callable[..., str]
) -> None:
    line = failure(run_train, [config(MODEL)], capsys)
    assert "has no train_dataloader and no train_cfg and no optim_wrapper" in line


def test_help_says_which_images_are_painted(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run_test(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "every 50th" in text and "default_hooks.visualization.interval=n" in text


def test_cfg_options_need_pairs(
    capsys: pytest.CaptureFixture[str], config: Callable[..., str]
) -> None:
    line = failure(run_train, [config(TRAIN), "--cfg-options", "lr"], capsys)
    assert "key=value" in line


@pytest.mark.parametrize(
    "option", ["model.type.foo=2", "model.type.0=2", "train_cfg.type.x.y=1", "train_cfg=3"]
)
def test_cfg_options_that_fit_nothing_are_named(
    option: str, capsys: pytest.CaptureFixture[str], config: Callable[..., str]
) -> None:
    line = failure(run_train, [config(TRAIN), "--cfg-options", option], capsys)
    assert "--cfg-options does not fit the config" in line or "train_cfg must be a dict" in line


@pytest.mark.parametrize("where", ["auto", "path"])
def test_resume_without_a_checkpoint(
    where: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], config: Callable[..., str]
) -> None:
    arguments = [config(TRAIN), "--work-dir", str(tmp_path / "empty"), "--resume"]
    if where == "auto":
        line = failure(run_train, arguments, capsys)
        assert "no checkpoint in" in line and "train without --resume" in line
    else:
        line = failure(run_train, [*arguments, "gone.pth"], capsys)
        assert line == "--resume: checkpoint 'gone.pth' does not exist."


def test_amp_without_a_gpu(
    capsys: pytest.CaptureFixture[str],
    config: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(run_module, "get_device", lambda: "cpu")
    assert "leave --amp out" in failure(run_train, [config(TRAIN), "--amp"], capsys)


def test_mixed_precision_of_a_config_becomes_fp32_without_a_gpu() -> None:
    wrapper = dict(type="AmpOptimWrapper", loss_scale=512.0, clip_grad=dict(max_norm=1.0))
    config = Config({"optim_wrapper": wrapper})
    with pytest.warns(UserWarning, match="needs a GPU"):
        run_module.use_full_precision(config)
    fp32 = dict(type="OptimWrapper", clip_grad=dict(max_norm=1.0))
    assert config.optim_wrapper.to_dict() == fp32
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run_module.use_full_precision(config)  # nothing to do
    assert config.optim_wrapper.to_dict() == fp32


def test_amp_with_another_optimiser_wrapper(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module, "get_device", lambda: "cuda")
    amp = Config({"optim_wrapper": {"type": "OptimWrapper"}})
    run_module.use_mixed_precision(amp)
    assert amp.optim_wrapper.type == "AmpOptimWrapper"
    assert amp.optim_wrapper.loss_scale == "dynamic"
    run_module.use_mixed_precision(amp)  # already on: nothing to do
    untyped = Config({"optim_wrapper": {"optimizer": {"type": "SGD"}}})
    run_module.use_mixed_precision(untyped)
    assert untyped.optim_wrapper.type == "AmpOptimWrapper"
    with pytest.raises(cli.UserInputError, match="got 'ApexOptimWrapper'"):
        run_module.use_mixed_precision(Config({"optim_wrapper": {"type": "ApexOptimWrapper"}}))


def test_testing_needs_weights_from_somewhere(
    capsys: pytest.CaptureFixture[str], config: Callable[..., str]
) -> None:
    line = failure(run_test, [config(TEST)], capsys)
    assert line.startswith("no weights: give a checkpoint") and "init_cfg" in line
    line = failure(run_test, [config(TEST), "gone.pth"], capsys)
    assert line == "checkpoint 'gone.pth' does not exist."


def test_pretrained_parts_are_found_anywhere_in_the_model() -> None:
    deep = {"backbone": {"init_cfg": [{"type": "Pretrained", "checkpoint": "openai"}]}}
    assert any(run_module._pretrained(deep))
    assert not any(run_module._pretrained({"backbone": {"init_cfg": {"type": "Kaiming"}}}))


def test_show_and_tta_need_their_config(
    capsys: pytest.CaptureFixture[str], config: Callable[..., str], tmp_path: Path
) -> None:
    torch.save({"state_dict": {}}, tmp_path / "w.pth")
    arguments = [config(TEST), str(tmp_path / "w.pth")]
    assert "SegVisualizationHook" in failure(run_test, [*arguments, "--show"], capsys)
    hooked = config(TEST + "default_hooks = dict(visualization=dict(type='A'))\n", "hooked.py")
    show = [hooked, str(tmp_path / "w.pth"), "--show-dir", str(tmp_path)]
    assert "visualizer=dict(type='SegLocalVisualizer'" in failure(run_test, show, capsys)
    assert "--tta needs tta_pipeline" in failure(run_test, [*arguments, "--tta"], capsys)


def test_label_maps_are_written_by_a_metric_that_does_not_wrap_them() -> None:
    config = Config({"test_evaluator": [{"type": "mmseg.IoUMetric"}, {"type": "Other"}]})
    keep_predictions(config, "out")
    assert config.test_evaluator == [
        {"type": "OpenVocabIoUMetric", "output_dir": "out"},
        {"type": "Other", "output_dir": "out"},
    ]


def test_tta_takes_the_views_of_the_config_or_adds_the_mirror_image() -> None:
    pipeline = [{"type": "LoadReadableImage"}, {"type": "mmseg.LoadReadableAnnotations"},
                {"type": "PackSegInputs"}]  # fmt: skip
    base = {"model": {"type": "A"}, "test_dataloader": {"dataset": {"pipeline": pipeline}}}
    derived = Config(base)
    use_tta(derived)
    assert derived.model == {"type": "OpenVocabTTAModel", "module": {"type": "A"}}
    first, views = derived.test_dataloader.dataset.pipeline
    flips = [{"type": "RandomFlip", "prob": prob} for prob in (0.0, 1.0)]
    assert first == pipeline[0]
    assert views == {"type": "TestTimeAug", "transforms": [flips, [pipeline[1]], [pipeline[2]]]}
    own = Config({**base, "tta_model": {"type": "Own"}, "tta_pipeline": [{"type": "Mine"}]})
    own.model.data_preprocessor = {"type": "P"}  # or mmengine replaces it by that of the config
    use_tta(own)
    assert own.model.data_preprocessor == own.model.module.data_preprocessor == {"type": "P"}
    assert own.model.type == "Own" and own.test_dataloader.dataset.pipeline == [{"type": "Mine"}]


def test_launchers_on_a_machine_without_gpus() -> None:
    with pytest.raises(cli.UserInputError, match="use --launcher pytorch"):
        prepare_cpu_processes(Config({"launcher": "slurm"}))


def test_sync_bn_in_several_processes_needs_gpus() -> None:
    model = {"neck": {"layers": [{"norm_cfg": {"type": "SyncBN"}}]}}
    training = Config({"launcher": "pytorch", "model": model, "train_cfg": {"max_iters": 1}})
    with pytest.raises(cli.UserInputError, match="SyncBN works in several processes on GPUs only"):
        prepare_cpu_processes(training)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_launcher_pytorch_is_for_torchrun(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setattr(run_module, "get_device", lambda: device)
    with pytest.raises(cli.UserInputError, match=r"tools/dist_train\.sh"):
        run_module.build_runner(Config({"launcher": "pytorch"}))


def test_last_checkpoint_is_found_also_in_a_moved_folder(tmp_path: Path) -> None:
    for name in ("iter_10.pth", "iter_9.pth", "best_mIoU_iter_11.pth"):  # copied in any order
        torch.save({"state_dict": {}}, tmp_path / name)
    (tmp_path / "last_checkpoint").write_text("/somewhere/else/iter_9.pth")
    assert find_checkpoint(str(tmp_path)) == str(tmp_path / "iter_9.pth")
    (tmp_path / "last_checkpoint").write_text("")
    assert find_checkpoint(str(tmp_path)) == str(tmp_path / "iter_10.pth")
    assert find_checkpoint(str(tmp_path), str(tmp_path / "iter_9.pth")).endswith("iter_9.pth")


def test_stock_loops_and_hooks_become_exact() -> None:
    stock = Config(
        {
            "train_cfg": {"type": "IterBasedTrainLoop", "max_iters": 3},
            "default_hooks": {"checkpoint": {"type": "CheckpointHook", "interval": 2}},
        }
    )
    use_exact_engine(stock)
    assert stock.train_cfg == {"type": "ExactIterBasedTrainLoop", "max_iters": 3}
    assert stock.default_hooks.checkpoint == {"type": "ExactCheckpointHook", "interval": 2}
    bare = Config({"train_cfg": {"by_epoch": True, "max_epochs": 2}})
    use_exact_engine(bare)
    assert bare.train_cfg == {"type": "ExactEpochBasedTrainLoop", "max_epochs": 2}
    assert bare.default_hooks.checkpoint.type == "ExactCheckpointHook"
    own = Config({"train_cfg": {"type": "MyLoop"}, "default_hooks": {"checkpoint": None}})
    use_exact_engine(own)
    assert own.train_cfg.type == "MyLoop" and own.default_hooks.checkpoint is None


def test_unknown_types_and_arguments_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    line = failure(lambda _: MODELS.build({"type": "ClearClipVit"}), [], capsys)
    assert line.startswith("ClearClipVit is not in the ")
    guard = {"type": "NonFiniteGuard", "interval": 3}
    line = failure(lambda _: HOOKS.build(guard), [], capsys)
    assert "NonFiniteGuard" in line


def test_errors_that_we_raise_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = failure(lambda _: read_checkpoint(tmp_path / "gone.pth"), [], capsys)
    assert line.endswith("gone.pth' does not exist.")


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(cli.DEBUG_VARIABLE, "1")
    with pytest.raises(FileNotFoundError):
        cli.run(lambda _: read_checkpoint(tmp_path / "gone.pth"), [])


def bug(_: Any) -> None:
    torch.zeros(2) @ torch.zeros(3)


def test_bugs_keep_their_traceback() -> None:
    with pytest.raises(RuntimeError, match="inconsistent|size mismatch|shapes"):
        cli.run(bug, [])
    with pytest.raises(ValueError, match="invalid literal"):
        cli.run(lambda _: int("x"), [])


def test_calls_that_fail_inside_our_code_are_bugs() -> None:
    from mmclipdis.engine.random_state import set_random_state

    with pytest.raises(KeyError):
        cli.run(lambda _: set_random_state({}), [])
    broken = {"python": [3, SimpleNamespace(tolist=lambda: [1]), None]}
    with pytest.raises(ValueError, match="state vector"):  # raised by random.setstate
        cli.run(lambda _: set_random_state(broken), [])


class Unreadable(Dataset):
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Any:
        return read_checkpoint(self.folder / "gone.pth")


def test_errors_of_data_loader_workers_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loader = DataLoader(Unreadable(tmp_path), num_workers=1)
    line = failure(lambda _: next(iter(loader)), [], capsys)
    assert line.endswith("gone.pth' does not exist.")


def test_control_c_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def main(_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as exit_info:
        cli.run(main, [])
    assert exit_info.value.code == 130
    assert capsys.readouterr().err == "interrupted\n"

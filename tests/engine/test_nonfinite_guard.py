"""Training stops at the first loss that is not a number, before the next checkpoint."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper
from mmengine.registry import HOOKS, MODELS, OPTIM_WRAPPERS

from mmclipdis.apis.run import prepare_cpu_processes
from mmclipdis.engine import NonFiniteGuard, NonFiniteLossError, read_checkpoint
from mmclipdis.engine.nonfinite_guard import image_files
from mmclipdis.utils.finite import first_nonfinite, saved_entries
from tests.engine.toy import ToyModel, toy_config, train
from tests.ranks import run_ranks

NAN = float("nan")


@MODELS.register_module()
class BreakingModel(ToyModel):
    """Breaks at its n-th step what ``breaks`` names; the loss of that step is finite."""

    def __init__(self, breaks: str, step: int = 3) -> None:
        super().__init__()
        self.breaks, self.step, self.steps = breaks, step, 0
        self.register_buffer("mask", torch.tensor([0.0, -torch.inf]))  # infinite by design

    def forward(self, inputs: Any, data_samples: Any, mode: str = "tensor") -> Any:
        output = super().forward(inputs, data_samples, mode)
        if mode == "loss":
            self.steps += 1
            if self.steps == self.step and "gradient" in self.breaks:
                value = torch.inf if "infinite" in self.breaks else torch.nan
                output["loss"].register_hook(lambda gradient: gradient * value)
        return output


def breaking(work_dir: Path, breaks: str, guard: bool = True, **more: Any) -> Config:
    return toy_config(
        work_dir,
        **{
            "model": {"type": "BreakingModel", "breaks": breaks},
            "train_dataloader.sampler": {"type": "DefaultSampler", "shuffle": False},
            "train_cfg": {"type": "IterBasedTrainLoop", "max_iters": 6, "val_interval": 100},
            "default_hooks.checkpoint.interval": 1,
            "default_hooks.checkpoint.max_keep_ckpts": 1,
            "custom_hooks": [{"type": "BreakBehind"}, *([{"type": "NonFiniteGuard"}] * guard)],
            **more,
        },
    )


def test_training_stops_and_the_last_checkpoint_is_good(tmp_path: Path) -> None:
    config = toy_config(
        tmp_path / "run",
        **{
            "train_dataloader.sampler": {"type": "DefaultSampler", "shuffle": False},
            "train_dataloader.dataset": {"type": "ToyDataset", "nan_at": 10},
            "train_cfg.val_interval": 100,
            "default_hooks.checkpoint.interval": 1,
            "custom_hooks": [{"type": "NonFiniteGuard"}],
        },
    )
    with pytest.raises(NonFiniteLossError) as error:
        train(config)
    message = str(error.value)
    assert "iteration 4: loss = nan" in message
    assert "files of the batch: 9.png, 10.png, 11.png" in message
    assert "iter_3.pth" in message
    assert not (tmp_path / "run" / "iter_4.pth").exists()
    saved = torch.load(tmp_path / "run" / "iter_3.pth", weights_only=True)["state_dict"]
    assert all(bool(value.isfinite().all()) for value in saved.values())


def runner() -> SimpleNamespace:
    return SimpleNamespace(
        iter=4, model=None, message_hub=SimpleNamespace(get_info=lambda key: None)
    )


@pytest.mark.parametrize("value", [float("inf"), -float("inf"), torch.tensor(float("nan"))])
def test_every_kind_of_broken_number_is_caught(value: float) -> None:
    with pytest.raises(NonFiniteLossError, match="decode.loss_ce.*none was saved yet"):
        NonFiniteGuard().after_train_iter(runner(), 4, None, {"decode.loss_ce": value})


def test_metrics_that_are_not_losses_may_be_nan() -> None:
    NonFiniteGuard().after_train_iter(runner(), 4, None, {"acc_seg": float("nan"), "loss": 1.0})


def test_image_files_of_both_batch_layouts() -> None:
    samples = [SimpleNamespace(img_path="a.png"), SimpleNamespace(img_path="b.png")]
    assert list(image_files({"inputs": [], "data_samples": samples})) == ["a.png", "b.png"]
    assert list(image_files([{"data_samples": sample} for sample in samples])) == ["a.png", "b.png"]
    assert list(image_files(None)) == []


def assert_kept(folder: Path, name: str) -> None:
    """One checkpoint is left, and all in it is finite but the mask."""
    assert [path.name for path in folder.glob("*.pth")] == [name]
    saved = read_checkpoint(folder / name)
    assert first_nonfinite(saved_entries(saved, {"mask"})) is None


@pytest.mark.parametrize(
    ("breaks", "message"),
    [
        ("gradient", r"parameter net.0.weight \(32 of 32 values\) is NaN or infinite"),
        ("infinite gradient", r"parameter net.0.weight|parameter net.3.weight"),
        ("buffer", r"buffer net.1.running_mean \(1 of 8 values\)"),
        ("state", r"optimiser state net.0.weight.exp_avg_sq \(4 of 32 values\)"),
    ],
)
@pytest.mark.parametrize("hook", ["CheckpointHook", "ExactCheckpointHook"])
def test_what_breaks_in_a_step_is_found_in_it(
    breaks: str, message: str, hook: str, tmp_path: Path
) -> None:
    config = breaking(tmp_path, breaks, **{"default_hooks.checkpoint.type": hook})
    with pytest.raises(NonFiniteLossError, match=message) as error:
        train(config)
    said = str(error.value)
    assert said.startswith("iteration 3: ")
    assert "files of the batch: 6.png, 7.png, 8.png" in said
    assert "last good checkpoint: " in said and "iter_2.pth. Lower" in said
    assert_kept(tmp_path, "iter_2.pth")


@pytest.mark.parametrize("breaks", ["gradient", "buffer", "state"])
def test_without_the_guard_the_hook_writes_no_broken_checkpoint(
    breaks: str, tmp_path: Path
) -> None:
    more = {"default_hooks.checkpoint.save_best": "acc", "default_hooks.checkpoint.rule": "greater",
            "train_cfg.val_interval": 2}  # fmt: skip
    with pytest.raises(ValueError, match="checkpoint of iteration 3' is not written: .*net|optim"):
        train(breaking(tmp_path, breaks, guard=False, **more))
    (tmp_path / "best_acc_iter_2.pth").unlink()
    assert_kept(tmp_path, "iter_2.pth")
    assert (tmp_path / "last_checkpoint").read_text().endswith("iter_2.pth")


@pytest.mark.parametrize("hook", ["EMAHook", "WeightEnsembleHook"])
def test_weights_that_are_averaged_are_looked_at(hook: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"type": hook}
    options |= {"alpha": 0.5, "module": "net"} if hook == "WeightEnsembleHook" else {}
    run = breaking(tmp_path, "nothing")
    run.custom_hooks = [options, *run.custom_hooks]
    with pytest.raises(NonFiniteLossError, match="net.0.weight .*iter_2.pth"):
        train(run)
    assert_kept(tmp_path, "iter_2.pth")


@HOOKS.register_module()
class BreakBehind(Hook):
    """Breaks the averaged or original weights or the optimiser's state, without any gradient."""

    priority = "ABOVE_NORMAL"

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        if runner.iter != 2:
            return
        model: Any = runner.model.module if is_model_wrapper(runner.model) else runner.model
        if model.breaks == "state":
            state = runner.optim_wrapper.optimizer.state
            state[model.net[0].weight]["exp_avg_sq"][0] = torch.inf
        if model.breaks == "buffer" or (model.breaks == "rank1 buffer" and get_rank() == 1):
            model.net[1].running_mean[0] = torch.nan
        for hook in runner.hooks:
            if hasattr(hook, "ema_model"):
                hook.ema_model.module.net[0].weight.data[0] = torch.nan
            if hasattr(hook, "_original"):
                hook._original["0.weight"][0] = torch.nan


def test_the_checkpoint_called_good_is_good(tmp_path: Path) -> None:
    train(breaking(tmp_path, "nothing", **{"default_hooks.checkpoint.max_keep_ckpts": -1}))
    broken = torch.load(tmp_path / "iter_6.pth", weights_only=True)
    broken["state_dict"]["net.0.weight"][0] = torch.nan
    torch.save(broken, tmp_path / "iter_6.pth")
    (tmp_path / "iter_5.pth").write_bytes(b"cut short")
    config = breaking(tmp_path, "gradient", **{"default_hooks.checkpoint.interval": 100})
    with pytest.raises(NonFiniteLossError, match=r"last good checkpoint: \S+/iter_4.pth"):
        train(config)


@OPTIM_WRAPPERS.register_module()
class ScaledWrapper(OptimWrapper):
    """What mmengine's wrapper of mixed precision does with its dynamic loss scale, on a CPU."""

    def __init__(self, scale: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.loss_scaler = torch.amp.GradScaler("cpu", init_scale=scale)

    def backward(self, loss: torch.Tensor, **kwargs: Any) -> None:
        self.loss_scaler.scale(loss).backward(**kwargs)
        self._inner_count += 1

    def step(self, **kwargs: Any) -> None:
        self.loss_scaler.unscale_(self.optimizer)
        self.loss_scaler.step(self.optimizer, **kwargs)
        self.loss_scaler.update()


def scaled(work_dir: Path, scale: float) -> Config:
    optimizer = {"type": "AdamW", "lr": 0.01}
    wrapper = {"type": "ScaledWrapper", "scale": scale, "optimizer": optimizer}
    return breaking(work_dir, "infinite gradient", optim_wrapper=wrapper)


def test_a_step_that_the_loss_scaler_skips_is_no_fault(tmp_path: Path) -> None:
    run = train(scaled(tmp_path, 2.0**10))
    assert run.iter == 6 and run.optim_wrapper.loss_scaler.get_scale() == 2.0**9


def test_a_loss_scale_that_fell_for_ever_is_one(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteLossError, match="no gradient has been finite for long: the loss"):
        train(scaled(tmp_path, 2.0**-40))


def test_a_loss_of_the_validation_is_looked_at() -> None:
    guard = NonFiniteGuard()
    guard.after_val_epoch(runner(), {"mIoU": NAN, "val_loss": 1.0})
    with pytest.raises(NonFiniteLossError, match="validation: val_loss = nan; last good"):
        guard.after_val_epoch(runner(), {"acc": 1.0, "val_loss": NAN})


def test_a_batch_of_many_files_stays_one_line() -> None:
    samples = [SimpleNamespace(img_path=f"{i}.png") for i in range(90)]
    with pytest.raises(NonFiniteLossError, match=r"2.png, 3.png and 86 more;"):
        NonFiniteGuard().after_train_iter(
            runner(), 4, {"data_samples": samples}, {f"loss_{i}": NAN for i in range(40)}
        )


def fail_on_one(rank: int, folder: Path, breaks: str, guard: bool) -> str:
    config = breaking(folder, breaks, guard, launcher="pytorch")
    prepare_cpu_processes(config)
    with pytest.raises((NonFiniteLossError, ValueError, RuntimeError)) as error:
        train(config)
    return str(error.value)


@pytest.mark.parametrize(
    ("breaks", "guard"), [("rank1 buffer", True), ("gradient", False)], ids=["guard", "hook"]
)
def test_all_processes_stop(breaks: str, guard: bool, tmp_path: Path) -> None:
    first, second = run_ranks(fail_on_one, 2, tmp_path, breaks, guard, timeout=100)
    assert "net.1.running_mean" in first if guard else "is not written" in first
    assert first == second if guard else "another process could not save" in second
    assert_kept(tmp_path, "iter_2.pth")

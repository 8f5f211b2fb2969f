"""The monitor of the class features: values, freshness in the log, no trace in the training."""

from __future__ import annotations

import json
import random
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.model import BaseModel, MMDistributedDataParallel
from mmengine.registry import HOOKS, MODELS, VISBACKENDS
from mmengine.visualization import BaseVisBackend
from torch import nn

from mmclipdis.engine.mfi_monitor_hook import MFIMonitorHook, measure
from tests.engine.toy import toy_config, train, weights
from tests.ranks import group_of_one


@MODELS.register_module()
class ToyClasses(BaseModel):
    """Class features that a batch norm, a dropout and every generator have a hand in."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = nn.Parameter(torch.linspace(0.5, 2, 6 * 4).sin().view(6, 4))
        self.norm = nn.BatchNorm1d(4)
        self.dropout = nn.Dropout(0.5)
        self.measured: list[bool] = []
        self.history: list[float] = []

    def class_features(self):
        random.random(), np.random.rand(), torch.rand(())
        self.measured.append(torch.is_grad_enabled())
        return self.dropout(self.norm(self.rows))

    def forward(self, inputs, data_samples, mode="tensor"):
        noise = torch.stack(list(inputs)).mean() * torch.rand(())
        return {"loss": ((self.dropout(self.norm(self.rows)) - noise) ** 2).sum()}


@VISBACKENDS.register_module()
class ListVisBackend(BaseVisBackend):
    """A backend of somebody else: keeps the scalars it is given."""

    lines: list[dict] = []

    def __init__(self, save_dir: str = "") -> None:
        super().__init__(save_dir)
        type(self).lines = []

    def _init_env(self):
        """Nothing to set up."""

    @property
    def experiment(self):
        return self

    def add_scalars(self, scalar_dict, step=0, file_path=None, **kwargs):
        self.lines.append({**scalar_dict, "step": step})


@HOOKS.register_module()
class Truth(MFIMonitorHook):
    """What is to be in the log of an iteration, from the definition; measured at each."""

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        model = runner.model
        norm = model.norm
        rows = torch.nn.functional.batch_norm(
            model.rows.detach(), norm.running_mean, norm.running_var, norm.weight, norm.bias
        )
        model.history.append(truth(rows.detach()))


def truth(rows):
    """Naive cosines: different positives, and a class's own two."""
    count = len(rows) // 2
    cosine = torch.cosine_similarity(rows[:, None], rows[None], dim=2)
    pairs = [cosine[count + i, count + j] for i in range(count) for j in range(count) if i != j]
    same = [cosine[i, count + i] for i in range(count)]
    return {
        "mean_cosine": float(sum(pairs) / len(pairs)),
        "posneg_cosine": float(sum(same) / count),
    }


def config(folder, *hooks, loop="ExactIterBasedTrainLoop", **changes):
    by_epoch = "Epoch" in loop
    length = {"max_epochs": 3} if by_epoch else {"max_iters": 20}
    built = toy_config(
        folder,
        model={"type": "ToyClasses"},
        train_cfg={"type": loop, **length},
        val_dataloader=None,
        val_cfg=None,
        val_evaluator=None,
        custom_hooks=list(hooks),
        param_scheduler=None,
        log_level="INFO",
        log_processor={"by_epoch": by_epoch},
        visualizer={
            "type": "Visualizer",
            "vis_backends": [{"type": "LocalVisBackend"}, {"type": "ListVisBackend"}],
        },
        **changes,
    )
    if by_epoch:
        built.train_dataloader.sampler.type = "DefaultSampler"
    return built


def scalars(folder):
    """Lines that ``LocalVisBackend`` wrote."""
    (path,) = folder.glob("*/vis_data/scalars.json")
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("loop", ["ExactIterBasedTrainLoop", "ExactEpochBasedTrainLoop"])
@pytest.mark.parametrize(("interval", "log_interval"), [(4, 4), (50, 4), (3, 1), (50, 30)])
def test_every_line_of_every_backend_has_the_value_of_its_iteration(
    tmp_path, loop, interval, log_interval
):
    """The loop of epochs has 3 of 4 iterations here: also lines at the end of short ones."""
    runner = train(
        config(
            tmp_path,
            {"type": "MFIMonitorHook", "interval": interval},
            {"type": "Truth"},
            loop=loop,
            **{"default_hooks.logger": {"type": "LoggerHook", "interval": log_interval}},
        )
    )
    history = runner.model.history
    lines = scalars(tmp_path)
    assert len(lines) == len(ListVisBackend.lines)
    for mine, other in zip(lines, ListVisBackend.lines):
        for name, value in history[mine["step"] - 1].items():
            assert mine[name] == pytest.approx(value, abs=1e-6)
            assert other[name] == pytest.approx(value, abs=1e-6)
    steps = [line["step"] for line in lines]
    epochs = "Epoch" in loop
    if log_interval < 5:
        expected = range(log_interval, 13 if epochs else 21, log_interval)
        assert steps == list(expected)
    else:  # one at the end of an epoch; the other loop's first pass over the data counts as one
        assert steps[0] == 4 and (not epochs or steps == [4, 8, 12])
    assert len({line["mean_cosine"] for line in lines}) == len(lines)
    log = next(tmp_path.glob("*/*.log")).read_text()
    written = re.findall(r"mean_cosine: (-?[\d.]+)  posneg_cosine: (-?[\d.]+)", log)
    assert written == [(f"{x['mean_cosine']:.4f}", f"{x['posneg_cosine']:.4f}") for x in lines]


def test_between_lines_it_measures_at_its_interval(tmp_path):
    runner = train(
        config(
            tmp_path,
            {"type": "MFIMonitorHook", "interval": 3},
            **{"default_hooks.logger": {"type": "LoggerHook", "interval": 10}},
        )
    )
    values, _ = runner.message_hub.get_scalar("train/mean_cosine").data
    # 3, 6, 9, 12, 15, 18; lines after 10 and 20; and 4, the end of a pass over the data
    assert len(values) == 9 == len(runner.model.measured)
    assert not any(runner.model.measured)  # no graph is made


def test_training_is_the_same_to_the_last_bit_with_it(tmp_path):
    """Dropout, batch norm statistics and noise of the batches would show any difference."""
    watched = train(config(tmp_path / "a", {"type": "MFIMonitorHook", "interval": 1}))
    alone = train(config(tmp_path / "b"))
    assert len(watched.model.measured) == 20 and not alone.model.measured
    assert torch.equal(weights(watched), weights(alone))
    assert torch.equal(watched.final_state["torch"], alone.final_state["torch"])
    assert watched.final_state["python"][1].equal(alone.final_state["python"][1])
    assert watched.final_state["numpy"][1].equal(alone.final_state["numpy"][1])
    assert all(module.training for module in watched.model.modules())


class Fixed(nn.Module):
    """Features that are given; ``train`` must not be called."""

    def __init__(self, features):
        super().__init__()
        self.inner = nn.Dropout(0.5).eval()
        self.features = features

    def train(self, mode=True):
        raise AssertionError("modes are those of the model")

    def class_features(self):
        assert not self.training and not self.inner.training
        if self.features is None:
            raise RuntimeError("no features")
        return self.features


def test_values_on_a_known_case():
    negative = torch.tensor([[1.0, 0, 0], [0, -2, 0]])
    positive = torch.tensor([[3.0, 4, 0], [0, 1, 0]])  # cosine 0.8
    expected = {"mean_cosine": 0.8, "posneg_cosine": (0.6 - 1) / 2}
    for dtype in (torch.float32, torch.bfloat16):
        found = measure(Fixed(torch.cat([negative, positive]).to(dtype)))
        assert found == pytest.approx(expected, abs=1e-6)
    assert found == pytest.approx(truth(torch.cat([negative, positive])), abs=1e-6)


def test_a_single_class_is_compared_with_its_negative_only():
    found = measure(Fixed(torch.tensor([[1.0, 0], [3.0, 4]])))
    assert found == {"posneg_cosine": pytest.approx(0.6)}


def test_modes_come_back_also_after_an_error():
    model = Fixed(None)
    with pytest.raises(RuntimeError, match="no features"):
        measure(model)
    assert model.training and not model.inner.training


def test_rows_must_be_halves():
    with pytest.raises(
        ValueError, match=r"class_features\(\) of Fixed has 3 rows; expected the neg"
    ):
        measure(Fixed(torch.ones(3, 4)))


def test_a_model_without_class_features_is_an_error_at_the_start(tmp_path):
    bare = toy_config(tmp_path, custom_hooks=[{"type": "MFIMonitorHook"}])
    with pytest.raises(TypeError, match="which ToyModel does not have; train a DCLIP or remove"):
        train(bare)


@pytest.mark.parametrize("interval", [0, -5])
def test_interval_must_be_positive(interval):
    with pytest.raises(ValueError, match=f"interval must be at least 1, got {interval}"):
        HOOKS.build({"type": "MFIMonitorHook", "interval": interval})


def test_a_wrapped_model_is_looked_into():
    with group_of_one():
        wrapped = MMDistributedDataParallel(ToyClasses())
        found = {}
        hub = SimpleNamespace(update_scalar=lambda name, value: found.update({name: value}))
        runner = SimpleNamespace(model=wrapped, message_hub=hub, hooks=[])
        hook = MFIMonitorHook(interval=2)
        hook.before_train(runner)
        hook.after_train_iter(runner, 0)
        assert not found
        hook.after_train_iter(runner, 1)
    assert set(found) == {"train/mean_cosine", "train/posneg_cosine"}

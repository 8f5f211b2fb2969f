"""OV-DQUO in training as a user runs it: what stays, what resumes, averaged weights, the tools."""

from __future__ import annotations

import json
import operator
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("mmdet")

from mmengine.config import Config
from mmengine.optim.optimizer import amp_optimizer_wrapper
from mmengine.runner import Runner

from mmclipdis.apis.run import test as run_test
from mmclipdis.apis.run import train as run_train
from mmclipdis.engine.checkpoint_io import read_checkpoint
from mmclipdis.models.detection import OVDQUO
from mmclipdis.shapes.weights import load_towers
from tests.models.detection.fvit.test_training import VIEWS
from tests.models.detection.ovdquo.files import EMA, write_files


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, list[torch.Tensor]]:
    """Four iterations with pseudo boxes and averaged weights; folder, runner, weights in tests."""
    folder = tmp_path_factory.mktemp("ovdquo")
    write_files(folder)
    tested = []
    predict = OVDQUO.predict

    def watched(self, *args, **kwargs):
        tested.append(self.query_embedding.weight.detach().clone())
        return predict(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OVDQUO, "predict", watched)
        runner = run_train([str(folder / "ovdquo.py"), "--work-dir", str(folder / "work")])
    return folder, runner, tested


def checkpoint(folder: Path, iteration: int) -> dict[str, Any]:
    return read_checkpoint(str(folder / f"iter_{iteration}.pth"))


def trained(run):
    return [name for name, p in run[1].model.named_parameters() if p.requires_grad]


def test_clip_stays_to_the_bit_and_all_else_moves(run):
    folder, runner, _ = run
    image = load_towers()[0].state_dict()
    tower = runner.model.backbone.encoder.tower.state_dict()
    assert tower and all(torch.equal(value, image[name]) for name, value in tower.items())
    first, last = (checkpoint(folder / "work", n) for n in (1, 4))
    for name in trained(run):  # an average may move by less than a bit
        raw = (kept["ema_state_dict"][f"module.{name}"] for kept in (first, last))
        assert not torch.equal(*raw), name
    for part in ("state_dict", "ema_state_dict"):
        kept = [name for name in last[part] if "backbone.encoder." in name]
        assert kept and all(torch.equal(last[part][n], first[part][n]) for n in kept)
    assert not any("text.encoder" in name for name in last["state_dict"])


def test_the_average_is_that_of_the_weights_and_is_what_is_tested(run):
    folder, _, tested = run
    kept = [checkpoint(folder / "work", n) for n in range(1, 5)]
    for name in trained(run):
        average = kept[0]["ema_state_dict"][f"module.{name}"].clone()  # the raw weights
        for after in kept[1:]:
            average.lerp_(after["ema_state_dict"][f"module.{name}"], EMA["momentum"])
        assert torch.equal(average, kept[-1]["state_dict"][name]), name
    assert len(tested) == 6  # three images after the second and the fourth iteration
    for iteration, seen in ((2, tested[:3]), (4, tested[3:])):
        expected = kept[iteration - 1]["state_dict"]["query_embedding.weight"]
        assert all(torch.equal(each, expected) for each in seen)
    assert not torch.equal(tested[0], tested[-1])
    # a fine-tuning goes on with the raw ones
    raw = kept[-1]["ema_state_dict"]["module.query_embedding.weight"]
    assert not torch.equal(raw, kept[-1]["state_dict"]["query_embedding.weight"])


def flattened(values: Any, name: str = "") -> dict[str, Any]:
    """Leaves of dicts and lists by their path."""
    if isinstance(values, dict):
        items = values.items()
    elif isinstance(values, (list, tuple)):
        items = enumerate(values)
    else:
        return {name: values}
    return {k: v for key, value in items for k, v in flattened(value, f"{name}/{key}").items()}


def test_a_resumed_run_equals_an_uninterrupted_one(run, tmp_path):
    folder = run[0]
    words = ["--resume", str(folder / "work/iter_1.pth"), "--work-dir", str(tmp_path)]
    run_train([str(folder / "ovdquo.py"), *words])
    parts = ("state_dict", "ema_state_dict", "optimizer")
    whole, resumed = (
        flattened({part: checkpoint(place, 4)[part] for part in parts})
        for place in (folder / "work", tmp_path)
    )
    assert whole.keys() == resumed.keys() and len(whole) > 300
    for name, value in whole.items():
        same = torch.equal if isinstance(value, torch.Tensor) else operator.eq
        assert same(value, resumed[name]), name


def test_pseudo_boxes_are_trained_on_and_what_is_dropped_is_logged(run, tmp_path):
    folder, runner, _ = run
    batch = next(iter(runner.train_dataloader))
    labels = torch.cat([sample.gt_instances.labels for sample in batch["data_samples"]])
    assert (labels == -1).any() and (labels >= 0).any()
    logs = [json.loads(line) for path in folder.glob("work/*/vis_data/scalars.json")
            for line in path.read_text().splitlines()]  # fmt: skip
    shown = [log for log in logs if "loss" in log]
    assert len(shown) == 4
    for log in shown:
        assert log["dropped_boxes"] == 0
        parts = sum(value for name, value in log.items() if "loss_" in name)
        assert log["loss"] == pytest.approx(parts, rel=1e-4)


def test_bfloat16_trains_in_the_stock_runner(run, tmp_path, monkeypatch):
    # the wrapper asks for a GPU, which its autocast can do without
    monkeypatch.setattr(amp_optimizer_wrapper, "is_cuda_available", lambda: True)
    config = Config.fromfile(run[0] / "ovdquo.py")
    config.optim_wrapper.update(type="AmpOptimWrapper", dtype="bfloat16")
    config.train_cfg = dict(type="IterBasedTrainLoop", max_iters=2)
    config.val_cfg = config.val_dataloader = config.val_evaluator = None
    config.test_cfg = config.test_dataloader = config.test_evaluator = None
    config.default_hooks.checkpoint.type = "CheckpointHook"
    config.work_dir, config.experiment_name = str(tmp_path), "ovdquo-bfloat16"
    runner = Runner.from_cfg(config)
    types = []
    branch = runner.model.bbox_head.cls_branches[0]
    branch.register_forward_hook(lambda *args: types.append(args[2].dtype))
    runner.train()
    assert set(types) == {torch.bfloat16}
    assert all(p.isfinite().all() for p in runner.model.parameters())
    name = "module.query_embedding.weight"
    half, exact = (checkpoint(f, 2)["ema_state_dict"][name] for f in (tmp_path, run[0] / "work"))
    assert half.dtype == torch.float32 and not torch.equal(half, exact)


def test_views_are_merged(run, tmp_path):
    folder = run[0]
    (folder / "views.py").write_text((folder / "ovdquo.py").read_text() + VIEWS)
    start = [str(folder / "views.py"), str(folder / "work/iter_4.pth")]
    found = run_test([*start, "--work-dir", str(tmp_path), "--tta"])
    assert {"coco/base_ap50", "coco/novel_ap50"} <= set(found)

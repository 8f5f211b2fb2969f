"""The report on images that could not be read."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from mmengine.model import BaseModel
from mmengine.registry import HOOKS
from mmengine.runner import Runner

import mmclipdis.engine.replaced_images_hook as module
from mmclipdis.engine.replaced_images_hook import ReplacedImagesHook, find_num_replaced
from mmclipdis.models.distillation.preprocessor import DistillDataPreprocessor
from tests.datasets.distillation.files import pipeline, write_photos


def runner_over(dataset):
    lines = []
    logger = SimpleNamespace(warning=lines.append)
    loader = SimpleNamespace(dataset=dataset)
    return SimpleNamespace(train_dataloader=loader, logger=logger), lines


def test_it_reports_what_is_new_at_the_end_of_an_epoch():
    dataset = SimpleNamespace(num_replaced=0)
    runner, lines = runner_over(dataset)
    hook = HOOKS.build(dict(type="ReplacedImagesHook"))
    hook.after_train_epoch(runner)
    assert not lines
    for count in (3, 3, 5):
        dataset.num_replaced = count
        hook.after_train_epoch(runner)
    assert len(lines) == 2
    assert lines[0].startswith("3 times an image could not be used") and "(3 since" in lines[0]
    assert lines[1].startswith("5 times") and "(2 since" in lines[1]


def test_ranks_are_summed(monkeypatch):
    monkeypatch.setattr(module, "all_reduce", lambda tensor: tensor.mul_(4))
    runner, lines = runner_over(SimpleNamespace(num_replaced=2))
    ReplacedImagesHook().after_train_epoch(runner)
    assert lines[0].startswith("8 times")


@pytest.mark.parametrize(
    ("dataset", "count"),
    [
        (SimpleNamespace(num_replaced=3), 3),
        (SimpleNamespace(dataset=SimpleNamespace(num_replaced=0)), 0),
        (
            SimpleNamespace(
                datasets=[
                    SimpleNamespace(num_replaced=1),
                    SimpleNamespace(),
                    SimpleNamespace(num_replaced=4),
                ]
            ),
            5,
        ),
        (SimpleNamespace(), None),
        (SimpleNamespace(datasets=[SimpleNamespace()]), None),
    ],
)
def test_wrapped_and_joined_data_sets_are_looked_into(dataset, count):
    assert find_num_replaced(dataset) == count


def test_data_sets_that_do_not_count_are_left_alone():
    runner, lines = runner_over(SimpleNamespace())
    ReplacedImagesHook().after_train_epoch(runner)
    assert not lines


class Brightness(BaseModel):
    """The smallest model that trains on distillation data."""

    def __init__(self):
        super().__init__(data_preprocessor=DistillDataPreprocessor())
        self.gain = torch.nn.Parameter(torch.ones(()))

    def forward(self, inputs, data_samples, mode):
        return {"loss": (self.gain * inputs["crops"]).mean()}


def test_a_run_with_persistent_workers_ends_each_epoch_with_the_number(tmp_path):
    paths = write_photos(tmp_path / "photos", 6)
    paths[2].write_bytes(b"broken")
    runner = Runner(
        model=Brightness(),
        work_dir=str(tmp_path / "run"),
        train_dataloader=dict(
            batch_size=3,
            num_workers=1,
            persistent_workers=True,
            sampler=dict(type="DefaultSampler", shuffle=True),
            dataset=dict(
                type="DistillImageDataset", data_root=str(tmp_path / "photos"), pipeline=pipeline()
            ),
        ),
        train_cfg=dict(type="ExactEpochBasedTrainLoop", max_epochs=2),
        optim_wrapper=dict(optimizer=dict(type="SGD", lr=0.1)),
        default_hooks=dict(checkpoint=None),
        custom_hooks=[dict(type="ReplacedImagesHook")],
        randomness=dict(seed=0),
        experiment_name="replaced_images",
    )
    runner.train()
    total = runner.train_dataloader.dataset.num_replaced
    assert total >= 2  # the broken one in each epoch
    log = next((tmp_path / "run").glob("*/*.log")).read_text()
    assert log.count("random other one took its place") == 2
    assert f"{total} times an image could not be used" in log
    assert log.count(f"{paths[2]} cannot be used") == total
    runner.train_loop.dataloader.stop_workers()

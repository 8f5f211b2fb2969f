"""Mistyped and impossible settings are told before anything is built. About 5 s."""

from __future__ import annotations

from typing import Any

import pytest
from mmengine.config import Config
from torch import nn

from mmclipdis.apis.config_check import UserInputError, check_config, check_custom_keys
from tests.paths import ROOT

SHIPPED = sorted((ROOT / "configs").glob("[!_]*/**/*.py"))


def sound(**changes: Any) -> Config:
    optimizer = dict(type="SGD", lr=0.1, weight_decay=0.0)
    config = dict(
        model=dict(type="ToyModel"),
        train_dataloader=dict(batch_size=2, num_workers=0, dataset={}, sampler={}),
        optim_wrapper=dict(type="OptimWrapper", optimizer=optimizer),
        train_cfg=dict(type="IterBasedTrainLoop", max_iters=10, val_interval=5),
        dataset_type="MyDataset",
        crop_size=(64, 64),
        train_pipeline=[],
        _default_hook=3,
    )
    return Config({**config, **changes})


def test_a_sound_config_passes() -> None:
    check_config(sound())
    check_config(sound(train_dataloader=None, optim_wrapper=None, train_cfg=None, env_cfg=None))


@pytest.mark.parametrize("file", SHIPPED[::7], ids=lambda file: file.stem)
def test_shipped_configs_pass(file: Any) -> None:
    check_config(Config.fromfile(file))


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("default_hook", "default_hooks"),
        ("train_dataloder", "train_dataloader"),
        ("param_schedular", "param_scheduler"),
        ("optim_wraper", "optim_wrapper"),
        ("custom_hook", "custom_hooks"),
        ("loadfrom", "load_from"),
        ("tta_pipline", "tta_pipeline"),
        ("randomnes", "randomness"),
        ("modell", "model"),
    ],
)
def test_a_mistyped_setting_is_not_taken_for_a_variable(name: str, meant: str) -> None:
    with pytest.raises(UserInputError, match=f"'{name}', which nothing reads; .* mean '{meant}'"):
        check_config(sound(**{name: {}}))


def loader(**settings: Any) -> dict[str, Any]:
    return dict(train_dataloader=dict(dataset={}, **settings))


def wrapper(**settings: Any) -> dict[str, Any]:
    return dict(optim_wrapper=dict(type="OptimWrapper", **settings))


def optimizer(**settings: Any) -> dict[str, Any]:
    return wrapper(optimizer=dict(type="SGD", **settings))


def paramwise(**settings: Any) -> dict[str, Any]:
    return wrapper(paramwise_cfg=settings)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (loader(batch_size=0), r"train_dataloader\.batch_size must be a whole .* least 1, got 0"),
        (loader(batch_size="8"), r"batch_size must be a whole number of at least 1, got '8'"),
        (loader(batch_size=1.5), r"batch_size must be a whole number of at least 1, got 1\.5"),
        (loader(batch_size=True), r"batch_size must be a whole number of at least 1, got True"),
        (loader(num_workers=-1), r"num_workers must be a whole number of at least 0, got -1"),
        (loader(num_worker=2), r"no setting 'num_worker'; did you mean 'num_workers"),
        (loader(batch_sise=2), r"no setting 'batch_sise'; did you mean 'batch_size'"),
        (loader(persistent_workers=True), r"persistent_workers=True needs num_workers of at least"),
        (optimizer(lr="fast"), r"optimizer\.lr must be a number of at least 0, got 'fast'"),
        (optimizer(lr=float("nan")), r"optimizer\.lr must be a number of at least 0, got nan"),
        (optimizer(lr=-1e-3), r"optimizer\.lr must be a number of at least 0, got -0\.001"),
        (optimizer(lr=1, weight_decay="no"), r"weight_decay must be a number of at .* got 'no'"),
        (wrapper(clip_grad=dict(max_norm="1")), r"clip_grad\.max_norm must be a number .* got '1'"),
        (wrapper(accumulative_counts=0), r"accumulative_counts must be a whole number .* got 0"),
        (paramwise(norm_decay=0), r"paramwise_cfg has no setting 'norm_decay'; did .*_mult'"),
        (paramwise(bias_lr_mult="2"), r"bias_lr_mult must be a number of at least 0, got '2'"),
        (paramwise(custom_keys=dict(head=0.1)), r"custom_keys\['head'\] must be a dict such as"),
        (paramwise(custom_keys=dict(head=dict(lr_mul=2))), r"'lr_mul'; did you mean 'lr_mult'"),
        (dict(train_cfg=dict(max_iters=0)), r"train_cfg\.max_iters must be .* at least 1, got 0"),
        (dict(train_cfg=dict(max_epochs="9")), r"max_epochs must be a whole .* got '9'"),
        (dict(train_cfg=dict(val_interval=0)), r"val_interval must be a whole number .* got 0"),
        (dict(env_cfg=dict(dist=1)), r"env_cfg has no setting 'dist'; did you mean 'dist_cfg'"),
        (dict(env_cfg="fork"), r"env_cfg must be a dict of settings, got 'fork'"),
        (dict(default_hooks=dict(logger=dict(interval="x"))), r"default_hooks\.logger\.interval"),
    ],
    ids=lambda value: None if isinstance(value, str) else "-".join(map(str, value)),
)  # fmt: skip
def test_a_value_that_cannot_be_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserInputError, match=message):
        check_config(sound(**changes))


def test_a_custom_key_must_be_in_the_name_of_a_parameter() -> None:
    model = nn.ModuleDict(dict(image_encoder=nn.Linear(2, 2), head=nn.Linear(2, 2)))
    for key in ("image_encoder", "head.weight", "bias"):
        check_custom_keys(sound(**paramwise(custom_keys={key: dict(lr_mult=1)})), model)
    wrong = sound(**paramwise(custom_keys=dict(image_encodr=dict(lr_mult=0.1))))
    with pytest.raises(UserInputError, match=r"'image_encodr' is in the name of no parameter; did "
                       r"you mean 'image_encoder'"):  # fmt: skip
        check_custom_keys(wrong, model)
    check_custom_keys(sound(optim_wrapper=None), model)

"""Faults of configs and of the command line. About 20 s: most of them import and build models."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmclipdis.apis.class_similarity import class_similarity
from mmclipdis.apis.run import test as run_test
from mmclipdis.apis.run import train as run_train
from mmclipdis.apis.segment import OpenVocabSegInferencer
from tests.faults.endings import Tool, ends_in, raises
from tests.paths import ROOT

SHAPES = ROOT / "configs/shapes"
Capture = pytest.CaptureFixture[str]


def test_there_is_no_such_config(capsys: Capture) -> None:
    path = SHAPES / "clearklip.py"
    ends_in("clearklip.py' does not exist; did you mean .*clearclip.py", run_test, [path], capsys)


def test_the_checkpoint_does_not_exist(capsys: Capture, tmp_path: Path) -> None:
    arguments = [SHAPES / "catseg.py", tmp_path / "none.pth"]
    ends_in("none.pth' does not exist", run_test, arguments, capsys)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("model = dict(type=ToyModel)", r"NameError: name 'ToyModel' is not defined \(line 2 of"),
        ("model = dict(", r"cannot be read: .*line 2"),
        ("model = 1 / 0", r"ZeroDivisionError: division by zero \(line 2 of .*config\.py\)"),
        ("model = dict(a=1)['b']", r"KeyError: 'b' \(line 2 of .*config\.py\)"),
        ("_base_ = ['../nowhere/base.py']", r"base\.py"),
        ("model = [1, 2]", r"has no test_dataloader"),
        ("model = 'resnet'\ntest_dataloader = test_evaluator = test_cfg = dict()",
         r"model must be a dict of settings, got 'resnet'"),
        ("raise SystemError('no data here')", r"SystemError: no data here \(line 2 of .*config"),
    ],
    ids=["name", "syntax", "division", "key", "base", "list", "string", "raise"],
)  # fmt: skip
def test_the_config_fails(text: str, line: str, capsys: Capture, tmp_path: Path) -> None:
    (tmp_path / "config.py").write_text(f"# a config\n{text}\n")
    ends_in(line, run_test, [tmp_path / "config.py"], capsys)


@pytest.mark.parametrize(
    ("name", "options", "line"),
    [
        ("catseg", "model.decode_head.aggregator.window_size=big", r"window_size.*'big'"),
        ("catseg", "model.decode_head.aggregator.decoder_dims=16", r"decoder_dims need one entry"),
        ("catseg", "model.decode_head.aggregator.hidden_dim=-4", r"hidden_dim=-4 is not a"),
        ("catseg", "model.data_preprocessor.size=big", r"data_preprocessor\.size must be .*'big'"),
        ("catseg", "model.decode_head.aggregator.guidance_proj_dims=x", r"guidance_proj_dims"),
        ("catseg", "optim_wrapper.optimizer.lr=fast", r"lr must be a number .* got 'fast'"),
        ("catseg", "optim_wrapper.optimizer.betas=x", r"AdamW does not accept .* betas='x'"),
        ("catseg", "optim_wrapper.optimizer.type=AdamWW", r"no optimiser 'AdamWW'; did .*'AdamW'"),
        ("catseg", "optim_wrapper.type=Wrapper", r"Wrapper is not in the"),
        ("catseg", "param_scheduler.0.end=x", r"LinearLR does not accept .*end='x'"),
        ("catseg", "train_dataloader.batch_size=0", r"batch_size must be .* at least 1, got 0"),
        ("catseg", "train_dataloader.num_workers=-1", r"num_workers must be .* at least 0, got -1"),
        ("catseg", "train_dataloader.sampler.type=Random", r"Random is not in the"),
        ("catseg", "train_cfg.max_iters=-5", r"train_cfg\.max_iters must be .* got -5"),
        ("catseg", "optim_wraper.clip_grad=None", r"'optim_wraper', which nothing reads; did you"),
        ("catseg", "optim_wrapper.paramwise_cfg.custom_keys.decoder_head.lr_mult=2",
         r"custom_keys: 'decoder_head' is in the name of no parameter; did you mean 'decode_head'"),
        ("catseg", "model.type=CATSegg", r"CATSegg is not in the"),
        ("catseg", "custom_hooks.0.type=VocabHook", r"VocabHook is not in the"),
        ("catseg", "randomness.seed=x", r"randomness\.seed must be a whole number .* got 'x'"),
        ("fvit", "train_dataloader.dataset.pipeline.0.type=LoadImage", r"LoadImage is not in the"),
        ("fvit", "model.rpn_head.num_convs=x", r"x"),
        ("dclip", "model.projectors.out_dim=wide", r"out_dim|'wide'"),
        ("declip_distill", "model.student.arch=ViT-Z", r"ViT-Z"),
        ("declip_distill", "model.content_loss.loss_weight=x",
         r"model\.content_loss\.loss_weight must be a number, got 'x' \(ContentLoss\)"),
        ("declip_distill", "model.context_loss.loss_weight=x",
         r"model\.context_loss\.loss_weight must be a number, got 'x'"),
        ("catseg", "model.decode_head.loss.ignore_as_negative=no",
         r"loss\.ignore_as_negative must be True or False, got 'no' \(GatheredBCELoss\)"),
        ("dclip", "model.mfi.loss_weight=x", r"model\.mfi\.loss_weight must be a number, got 'x'"),
    ],
    ids=lambda value: value.split("=")[0] if "=" in value else None,
)  # fmt: skip
def test_a_value_of_a_training_config(
    name: str, options: str, line: str, sound_shapes: Path, capsys: Capture, tmp_path: Path
) -> None:
    data = [f"{part}_dataloader.dataset.data_root={sound_shapes}/" for part in ("train", "val")]
    if name == "fvit":
        data.append(f"val_evaluator.ann_file={sound_shapes}/annotations/instances_val.json")
    words = [SHAPES / f"{name}.py", "--work-dir", tmp_path, "--cfg-options", options, *data]
    ends_in(line, run_train, words, capsys)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ("model.test_cfg.crop_size=wide", r"crop_size.*'wide'"),
        ("model.test_cfg.mode=slid", r"mode must be one of .* got 'slid'"),
        ("model.decode_head.logit_scale=True", r"logit_scale must be a number or a text, got True"),
        ("model.decode_head.logit_scale=hot", r"logit_scale.*'hot'"),
        ("model.backbone.readout.attention=zz", r"got \('zz',\)"),
        ("model.backbone.arch=3", r"arch=3"),
        ("test_evaluator.type=IoU", r"IoU is not in the"),
        ("test_dataloader.dataset.pipeline.1.prob_thd=1", r"prob_thd"),
        ("test_dataloader.dataset.typ=x", r"typ"),
    ],
    ids=lambda value: value.split("=")[0] if "=" in value else None,
)
def test_a_value_of_a_test_config(
    options: str, line: str, sound_shapes: Path, capsys: Capture, tmp_path: Path
) -> None:
    data = f"test_dataloader.dataset.data_root={sound_shapes}/"
    words = [SHAPES / "clearclip.py", "--work-dir", tmp_path, "--cfg-options", options, data]
    ends_in(line, run_test, words, capsys)


def similarity(_: object) -> object:
    return class_similarity(["cat,dog", "--device", "gpu"])


@pytest.mark.parametrize("tool", [similarity])
def test_an_unknown_device_on_the_command_line(
    tool: Tool, capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ends_in("there is no device 'gpu'; name one as 'cpu', 'cuda' or 'cuda:0'", tool, [], capsys)


def test_a_device_that_is_not_there_in_python() -> None:
    line = r"device 'cuda:7' cannot be used here \(PyTorch sees \d GPUs\); use 'cpu'"
    raises(line, OpenVocabSegInferencer, SHAPES / "clearclip.py", device="cuda:7")

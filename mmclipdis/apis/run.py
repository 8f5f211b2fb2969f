"""What ``tools/train.py`` and ``tools/test.py`` do."""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.model import is_model_wrapper
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from mmclipdis.apis.cache_features import use_cached_features
from mmclipdis.apis.class_report_options import report_classes
from mmclipdis.apis.cli import add_common_arguments, parse, read_config
from mmclipdis.apis.config_check import UserInputError, check_custom_keys
from mmclipdis.apis.preflight import check_data
from mmclipdis.apis.test_options import draw_predictions, keep_predictions, type_name, use_tta
from mmclipdis.engine.checkpoint_files import newest_checkpoint
from mmclipdis.engine.checkpoint_io import is_remote
from mmclipdis.engine.data_check_hook import DataCheckHook
from mmclipdis.engine.foreign_checkpoint_guard import ForeignCheckpointGuard, check_trained
from mmclipdis.engine.work_folder import lock_work_folder

EXACT_TYPES = {
    "IterBasedTrainLoop": "ExactIterBasedTrainLoop",
    "EpochBasedTrainLoop": "ExactEpochBasedTrainLoop",
    "CheckpointHook": "ExactCheckpointHook",
}


def train(arguments: Sequence[str] | None) -> Runner:
    """Train as the command line says and return the runner.

    Raises:
        UserInputError: the options and the config do not go together.
    """
    parser = argparse.ArgumentParser(description="Train a model.")
    parser.add_argument("config", nargs="?", help="config file")
    parser.add_argument(
        "--resume",
        nargs="?",
        const="auto",
        help="continue from the newest checkpoint in the work folder, or from this file",
    )
    parser.add_argument("--amp", action="store_true", help="train in mixed precision (GPU)")
    parser.add_argument("--tensorboard", action="store_true", help="write TensorBoard logs, too")
    parser.add_argument("--cache-features", metavar="DIR", help="compute the features of a frozen "
                        "encoder once, keep them in DIR, and train from them")  # fmt: skip
    add_common_arguments(parser)
    args = parse(parser, arguments)
    if args.config is None and str(args.resume).endswith(".py"):
        args.config, args.resume = args.resume, "auto"  # "--resume CONFIG", as in mmseg
    if args.config is None:
        parser.error("the following arguments are required: config")

    config = read_config(args, ("model", "train_dataloader", "train_cfg", "optim_wrapper"))
    if args.amp:
        use_mixed_precision(config)
    if get_device() == "cpu":
        use_full_precision(config)
    if args.tensorboard:
        add_tensorboard(config)
    if args.cache_features:
        use_cached_features(config, args.cache_features)
    use_exact_engine(config)
    # held until the checkpoint hook takes it over; before anything is written there
    lock = lock_work_folder(config.work_dir) if _is_first_process() else None
    if args.resume is not None:
        config.resume = True
        config.load_from = find_checkpoint(config.work_dir, args.resume)
    check_data(config, ("train_dataloader", "val_dataloader"))
    runner = build_runner(config)
    check_custom_keys(config, runner.model)
    runner.train()
    del lock
    return runner


def _test_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Test (and evaluate) a model.")
    parser.add_argument("config", help="config file")
    parser.add_argument("checkpoint", nargs="?", help="checkpoint; may be left out when the config "
                        "says where the weights come from")  # fmt: skip
    parser.add_argument("--out", help="folder for the predicted label maps, or, in recognition, "
                        "for predictions.npz with the scores of all images, or for detections, "
                        "predictions.bbox.json, in COCO's format")  # fmt: skip
    parser.add_argument("--show", action="store_true", help="show predictions in a window")
    parser.add_argument("--show-dir", help="folder for painted images; every 50th is painted, or "
                        "every n-th with default_hooks.visualization.interval=n; all, with boxes "
                        "above default_hooks.visualization.score_thr, by a detector")  # fmt: skip
    parser.add_argument("--wait-time", type=float, default=2, help="seconds to show each image")
    parser.add_argument("--tta", action="store_true", help="test on each image and its mirror "
                        "image, or on the views of the config's tta_pipeline")  # fmt: skip
    parser.add_argument("--per-class", metavar="FILE.csv", help="write the results of each class")
    parser.add_argument("--confusion-matrix", nargs="+", metavar="FILE", help="write what is "
                        "taken for what: counts (.csv), a picture (.png), or both")  # fmt: skip
    parser.add_argument("--overwrite", action="store_true", help="replace these files")
    parser.add_argument("--tensorboard", action="store_true", help="write the results of each "
                        "class and the confusion matrix to TensorBoard, too")  # fmt: skip
    add_common_arguments(parser)
    return parser


def test(arguments: Sequence[str] | None) -> dict[str, float]:
    """Test as the command line says and return the metrics.

    Without a checkpoint the model's own ``init_weights`` loads the weights; this is how
    training-free models are tested.

    Raises:
        UserInputError: the options and the config do not go together, or nothing says where the
            weights come from.
    """
    args = parse(_test_parser(), arguments)
    config = read_config(args, ("model", "test_dataloader", "test_evaluator", "test_cfg"))
    for name in ("train_cfg", "train_dataloader", "optim_wrapper", "param_scheduler"):
        config[name] = None  # a config may bring training data without a schedule to train by
    config.setdefault("model_wrapper_cfg", {"type": "Unwrapped"})
    config.resume = False
    config.load_from = args.checkpoint or config.get("load_from")
    if config.load_from and not is_remote(config.load_from):
        if not Path(config.load_from).is_file():
            raise UserInputError(f"checkpoint {config.load_from!r} does not exist.")
    elif not config.load_from and not any(_pretrained(config.model)):
        raise UserInputError(
            f"no weights: give a checkpoint (tools/test.py {args.config} CHECKPOINT), or set "
            "init_cfg=dict(type='Pretrained', checkpoint=...) in the config."
        )
    if args.show or args.show_dir:
        draw_predictions(config, args.show, args.show_dir, args.wait_time)
    if args.tta:
        use_tta(config)
    if args.out is not None:
        keep_predictions(config, args.out)
    if args.tensorboard:
        add_tensorboard(config)
    if args.per_class or args.confusion_matrix or args.tensorboard:
        report_classes(
            config, args.per_class, args.confusion_matrix, args.overwrite, args.tensorboard
        )
    check_data(config, ("test_dataloader",))
    runner = build_runner(config)
    if not config.load_from:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        try:
            check_trained(model)
        except ValueError as error:
            raise UserInputError(f"{error}: tools/test.py {args.config} CHECKPOINT.") from error
        model.init_weights()
    return runner.test()


def _is_first_process() -> bool:
    """Whether this is the main process, as the launchers tell before they form a group."""
    ranks = (os.environ.get(name) for name in ("RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK"))
    return next((rank for rank in ranks if rank is not None), "0") == "0"


#: Numbers of the runs of this process.
_RUNS = itertools.count(1)


def build_runner(config: Config) -> Runner:
    """Build the runner; starts the processes' group itself where there is no GPU.

    Raises:
        UserInputError: ``--launcher pytorch`` and torchrun did not start this process.
    """
    if config.launcher == "pytorch" and "RANK" not in os.environ:
        raise UserInputError(
            "--launcher pytorch needs torchrun to start it; use: tools/dist_train.sh CONFIG GPUS."
        )
    if config.launcher != "none" and get_device() == "cpu":
        prepare_cpu_processes(config)
    run = next(_RUNS)
    if run > 1:
        # mmengine hands the logger, messages and visualizer of a name to whoever asks for it, and
        # names differ by the second: two short runs of a process would paint into one folder.
        name = config.get("experiment_name") or Path(config.filename or "run").stem
        config.experiment_name = f"{name}_{run}"
    kind = "runner_type" in config
    runner: Runner = RUNNERS.build(config) if kind else Runner.from_cfg(config)
    runner.register_hook(ForeignCheckpointGuard())
    if not any(isinstance(hook, DataCheckHook) for hook in runner.hooks):  # VocabularyHook is one
        runner.register_hook(DataCheckHook())
    # mmengine warns of every frozen parameter by its name: hundreds of lines for a frozen tower.
    runner.logger.addFilter(_is_no_frozen_parameter)
    return runner


def _is_no_frozen_parameter(record: logging.LogRecord) -> bool:
    return not record.getMessage().endswith("is skipped since its requires_grad=False")


def prepare_cpu_processes(config: Config) -> None:
    """Run a distributed job on CPUs with gloo, which mmengine's own start-up does not allow for.

    Raises:
        UserInputError: the launcher is not ``pytorch``, or a model with SyncBN is to be trained.
    """
    if config.launcher != "pytorch":
        raise UserInputError(
            f"--launcher {config.launcher} needs GPUs, and this machine has none; use "
            "--launcher pytorch."
        )
    if config.get("train_cfg") and "SyncBN" in _types(config.get("model")):
        raise UserInputError(
            "SyncBN works in several processes on GPUs only, and this machine has none; train in "
            "one process, or set norm_cfg=dict(type='GN', num_groups=32) in the model's config."
        )
    environment = dict(config.get("env_cfg", {}))
    config.env_cfg = {**environment, "dist_cfg": {"backend": "gloo"}}
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group("gloo")
    wrapper = config.get("model_wrapper_cfg") or {
        "type": "MMDistributedDataParallel",
        "broadcast_buffers": False,
        "find_unused_parameters": config.get("find_unused_parameters", False),
    }
    config.model_wrapper_cfg = {**wrapper, "device_ids": None}


def use_mixed_precision(config: Config) -> None:
    """Replace ``OptimWrapper`` by ``AmpOptimWrapper``.

    Raises:
        UserInputError: there is no GPU, or the config has another optimiser wrapper.
    """
    if get_device() == "cpu":
        raise UserInputError("--amp needs a GPU, and none is available; leave --amp out.")
    kind = type_name(config.optim_wrapper) or "OptimWrapper"  # mmengine's default
    if kind == "AmpOptimWrapper":
        return
    if kind != "OptimWrapper":
        raise UserInputError(f"--amp works with optim_wrapper type 'OptimWrapper', got {kind!r}.")
    config.optim_wrapper.type = "AmpOptimWrapper"
    config.optim_wrapper.loss_scale = "dynamic"


def use_full_precision(config: Config) -> None:
    """Replace ``AmpOptimWrapper``, which needs a GPU, by ``OptimWrapper``, and say so."""
    if type_name(config.optim_wrapper) != "AmpOptimWrapper":
        return
    warnings.warn(
        "the config's mixed precision (AmpOptimWrapper) needs a GPU, and none is available: "
        "training in fp32",
        stacklevel=2,
    )
    config.optim_wrapper.type = "OptimWrapper"
    for name in ("loss_scale", "dtype", "use_fsdp"):  # what AmpOptimWrapper alone has
        config.optim_wrapper.pop(name, None)


def add_tensorboard(config: Config) -> None:
    """Add TensorBoard to the backends of the visualizer.

    Raises:
        UserInputError: the ``tensorboard`` package is not installed.
    """
    if importlib.util.find_spec("tensorboard") is None:
        raise UserInputError("--tensorboard needs a package; run: pip install tensorboard.")
    if config.get("visualizer") is None:
        config.visualizer = {"type": "Visualizer"}
    visualizer = config.visualizer
    backends = list(visualizer.get("vis_backends") or [{"type": "LocalVisBackend"}])
    if not any(type_name(backend) == "TensorboardVisBackend" for backend in backends):
        backends.append({"type": "TensorboardVisBackend"})
    visualizer["vis_backends"] = backends


def use_exact_engine(config: Config) -> None:
    """Replace mmengine's train loop and checkpoint hook by those that resume exactly."""
    loop = config.train_cfg
    if "type" not in loop:
        loop.type = "EpochBasedTrainLoop" if loop.pop("by_epoch", True) else "IterBasedTrainLoop"
    loop.type = EXACT_TYPES.get(type_name(loop), loop.type)
    if config.get("default_hooks") is None:
        config.default_hooks = {}
    hooks = config.default_hooks
    if "checkpoint" not in hooks:
        by_epoch = "Epoch" in type_name(loop)
        interval = 1 if by_epoch else 1000
        hooks["checkpoint"] = {"type": "CheckpointHook", "by_epoch": by_epoch, "interval": interval}
    checkpoint = hooks["checkpoint"]
    if checkpoint is not None:
        checkpoint["type"] = EXACT_TYPES.get(type_name(checkpoint), checkpoint["type"])


def find_checkpoint(work_dir: str, wanted: str = "auto") -> str:
    """Return the checkpoint to resume from: the file that is wanted, or with 'auto' the last.

    See :func:`mmclipdis.engine.checkpoint_files.newest_checkpoint`.

    Raises:
        UserInputError: there is none.
        ValueError: none of them can be read.
    """
    if wanted != "auto":
        if not is_remote(wanted) and not Path(wanted).is_file():
            raise UserInputError(f"--resume: checkpoint {wanted!r} does not exist.")
        return wanted
    found = newest_checkpoint(work_dir)
    if found is None:
        raise UserInputError(
            f"--resume: no checkpoint in {str(work_dir)!r}; train without --resume first, or name "
            "one: --resume PATH."
        )
    return found


def _types(config: Any) -> set[str]:
    """The ``type`` of every part of a config."""
    if isinstance(config, (list, tuple)):
        return set().union(*map(_types, config))
    if not isinstance(config, dict):
        return set()
    return {type_name(config)}.union(*map(_types, config.values()))


def _pretrained(config: Any, key: str = "") -> Iterator[bool]:
    """Yield True for every part of a model config that says where to load its weights from."""
    if isinstance(config, dict):
        if key == "init_cfg" and type_name(config) == "Pretrained":
            yield True
        if config.get("pretrained"):
            yield True
        for name, value in config.items():
            yield from _pretrained(value, name)
    elif isinstance(config, (list, tuple)):
        for value in config:
            yield from _pretrained(value, key)

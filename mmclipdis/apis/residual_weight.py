"""Metrics of a training-free config over the weight of the last block's residual."""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.model import is_model_wrapper
from mmengine.registry import LOOPS
from mmengine.runner import Runner, TestLoop, autocast

from mmclipdis.apis.class_similarity import writable_folder
from mmclipdis.apis.cli import DEBUG_VARIABLE, UserInputError
from mmclipdis.apis.run import test
from mmclipdis.utils.whole_files import refuse_existing, write_text
from mmclipdis.visualization.curve import draw_curve

FILES = ("residual_weight.json", "residual_weight.png")
#: Alphas by default.
WEIGHTS = tuple(step / 10 for step in range(11))


@LOOPS.register_module()
class ResidualWeightLoop(TestLoop):
    """Test under several weights of the last block's residual, in one pass over the data.

    Args:
        runner, dataloader, evaluator: As in mmengine's ``TestLoop``.
        weights: Values of alpha.
        fp16: Test in mixed precision.

    Raises:
        ValueError: The model's residual cannot be swept, see
            :func:`~mmclipdis.models.segmentation.residual_sweep.check_sweep`.
    """

    def __init__(
        self,
        runner: Runner,
        dataloader: Any,
        evaluator: Any,
        weights: Sequence[float],
        fp16: bool = False,
    ) -> None:
        from mmclipdis.models.segmentation.residual_sweep import check_sweep  # needs mmseg

        super().__init__(runner, dataloader, copy.deepcopy(evaluator), fp16)
        self.weights = tuple(weights)
        check_sweep(_bare(runner.model))
        self.evaluators = [runner.build_evaluator(copy.deepcopy(evaluator)) for _ in self.weights]
        for one in self.evaluators:
            one.dataset_meta = self.evaluator.dataset_meta

    def run(self) -> dict[str, float]:
        """Test; the keys are ``WEIGHT/METRIC``."""
        self.runner.call_hook("before_test")
        self.runner.call_hook("before_test_epoch")
        self.runner.model.eval()
        for index, batch in enumerate(self.dataloader):
            self.run_iter(index, batch)
        count = len(self.dataloader.dataset)
        metrics = {
            f"{weight:g}/{name}": value
            for weight, one in zip(self.weights, self.evaluators, strict=True)
            for name, value in one.evaluate(count).items()
        }
        self.runner.call_hook("after_test_epoch", metrics=metrics)
        self.runner.call_hook("after_test")
        return metrics

    @torch.no_grad()
    def run_iter(self, idx: int, data_batch: Any) -> None:
        """Label a batch under every weight."""
        from mmclipdis.models.segmentation.residual_sweep import sweep_residual

        self.runner.call_hook("before_test_iter", batch_idx=idx, data_batch=data_batch)
        model = _bare(self.runner.model)
        data = model.data_preprocessor(data_batch, False)
        swept = sweep_residual(model, data["inputs"], data["data_samples"], self.weights)
        outputs: Any = []
        with autocast(enabled=self.fp16):
            for one, (_, outputs) in zip(self.evaluators, swept, strict=True):
                one.process(data_samples=outputs, data_batch=data_batch)
        self.runner.call_hook(
            "after_test_iter", batch_idx=idx, data_batch=data_batch, outputs=outputs
        )


def residual_weight(arguments: Sequence[str] | None = None) -> Path:
    """Measure and draw what the command line asks for; see ``tools/analysis_tools``.

    Returns:
        The folder with ``residual_weight.json`` and ``residual_weight.png``.

    Raises:
        FileExistsError: one of these is there.
        UserInputError, ValueError: bad options, or a config whose residual cannot be swept.
    """
    args = _parser().parse_args(arguments)
    if args.debug:
        os.environ[DEBUG_VARIABLE] = "1"
    weights = sorted(set(args.weights))
    folder = writable_folder(args.out)
    for name in FILES:
        refuse_existing(folder / name, args.overwrite)
    words = [args.config, *([args.checkpoint] if args.checkpoint else [])]
    options = [f"test_cfg.type={ResidualWeightLoop.__name__}", f"test_cfg.weights={weights}"]
    options += args.cfg_options
    words += ["--work-dir", str(folder), "--cfg-options", *options]
    found = test(words)
    rows = [{"weight": weight, "metrics": _of(found, f"{weight:g}/")} for weight in weights]
    if args.metric not in rows[0]["metrics"]:
        raise UserInputError(
            f"--metric {args.metric}: the config's test_evaluator gives "
            f"{', '.join(rows[0]['metrics'])}"
        )
    settings = {"config": args.config, "checkpoint": args.checkpoint, "options": args.cfg_options}
    content = {"settings": settings, "definition": DEFINITION, "rows": rows}
    write_text(folder / FILES[0], json.dumps(content, indent=1) + "\n")
    values = [row["metrics"][args.metric] for row in rows]
    draw_curve(
        weights,
        values,
        folder / FILES[1],
        title=Path(args.config).stem,
        labels=("alpha, weight of the residual: U = A + alpha X", args.metric),
    )
    best = max(range(len(weights)), key=lambda index: values[index])
    print("\n".join(f"alpha {w:g}: {args.metric} {v:.2f}" for w, v in zip(weights, values)))
    print(f"best at alpha {weights[best]:g}; {folder / FILES[0]}, {folder / FILES[1]}")
    return folder


DEFINITION = "U = A + alpha X: X the input of the last block, A its attention output"


def _of(metrics: dict[str, float], prefix: str) -> dict[str, float]:
    return {
        name.removeprefix(prefix): float(value)
        for name, value in metrics.items()
        if name.startswith(prefix)
    }


def _bare(model: Any) -> Any:
    return model.module if is_model_wrapper(model) else model


def _weight(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r} is no number")
    return value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("config", help="a training-free config, such as configs/shapes/clearclip.py")
    add("checkpoint", nargs="?", help="checkpoint; may be left out as for tools/test.py")
    add("--weights", nargs="+", type=_weight, default=list(WEIGHTS), metavar="ALPHA",
        help="default: 0 to 1 in steps of 0.1")  # fmt: skip
    add("--metric", default="mIoU", help="to draw; the JSON has all; default: %(default)s")
    add("--cfg-options", nargs="+", default=[], help="settings that replace the config's")
    add("--out", default="work_dirs/residual_weight", help="folder to write into")
    add("--overwrite", action="store_true", help="replace what the folder holds of this tool")
    add("--debug", action="store_true", help=f"show tracebacks (or set {DEBUG_VARIABLE}=1)")
    return parser

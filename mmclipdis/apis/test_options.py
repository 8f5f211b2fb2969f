"""What the options of ``tools/test.py`` change in a config."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmengine.config import Config

from mmclipdis.apis.cli import UserInputError


def type_name(config: Any) -> str:
    """Return the name in ``type``, which is a string (maybe with a scope) or a class."""
    kind = config.get("type", "")
    return kind.split(".")[-1] if isinstance(kind, str) else kind.__name__


def draw_predictions(config: Config, show: bool, folder: str | None, wait_time: float) -> None:
    """Switch drawing on in the visualisation hook.

    Raises:
        UserInputError: the config has no such hook, or no visualizer.
    """
    hook = (config.get("default_hooks") or {}).get("visualization")
    if hook is None or config.get("visualizer") is None:
        raise UserInputError(
            "--show and --show-dir need default_hooks.visualization="
            "dict(type='SegVisualizationHook') and visualizer=dict(type='SegLocalVisualizer', "
            "vis_backends=[dict(type='LocalVisBackend')]) in the config."
        )
    hook["draw"] = True
    if show:
        hook["show"] = True
        hook["wait_time"] = wait_time
    if folder:
        config.visualizer["save_dir"] = folder


def use_tta(config: Config) -> None:
    """Test on several views of each image with ``tta_model`` and ``tta_pipeline`` of the config.

    Without them: the mean of the class probabilities over the image and its mirror image.

    Raises:
        UserInputError: the config has neither ``tta_pipeline`` nor a test pipeline to derive it of.
    """
    dataset = config.test_dataloader.get("dataset", {})
    pipeline = config.get("tta_pipeline")
    if pipeline is None and dataset.get("pipeline") is None:
        raise UserInputError("--tta needs tta_pipeline in the config, or the test data's pipeline.")
    dataset["pipeline"] = pipeline or with_mirror_image(dataset["pipeline"])
    tta_model = config.get("tta_model") or {"type": "OpenVocabTTAModel"}
    config.model = {**tta_model, "module": config.model}


def with_mirror_image(pipeline: Sequence[Any]) -> list[Any]:
    """Let a test pipeline give each image twice, as it is and flipped; its labels stay unflipped.

    From the step that loads the labels on, or else the last, everything runs once for each view.
    A flip of the pipeline's own is left out.
    """
    pipeline = [step for step in pipeline if type_name(step) != "RandomFlip"]
    names = [type_name(step) for step in pipeline]
    split = next((i for i, name in enumerate(names) if "Annotations" in name), len(pipeline) - 1)
    flips = [{"type": "RandomFlip", "prob": 0.0}, {"type": "RandomFlip", "prob": 1.0}]
    views = {"type": "TestTimeAug", "transforms": [flips, *([step] for step in pipeline[split:])]}
    return [*pipeline[:split], views]


def keep_predictions(config: Config, folder: str) -> None:
    """Let every metric of the test evaluator write its predictions to the folder.

    mmseg's metric is replaced by ours: it writes labels above 255 modulo 256.
    """
    evaluator = config.test_evaluator
    for metric in evaluator if isinstance(evaluator, (list, tuple)) else [evaluator]:
        if type_name(metric) == "IoUMetric":
            metric["type"] = "OpenVocabIoUMetric"
        metric["output_dir"] = folder

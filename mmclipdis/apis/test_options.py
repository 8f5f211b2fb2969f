"""What the options of ``tools/test.py`` change in a config."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from mmengine.registry import METRICS

from mmclipdis.apis.cli import UserInputError
from mmclipdis.utils.whole_files import whole_file

#: Metrics that tell what a config tests where that is no segmentation.
_OTHER_TASKS = {
    "MultiLabelMetric": "recognition of whole images",
    "RegionAccuracy": "classification of regions",
}
#: Metrics that write results of each class and have no predictions to keep.
_REPORTS = ("DetClassReport", "SegClassReport")
#: mmdet's metrics that write what they get, as COCO's result files, for ``outfile_prefix``.
DETECTION_METRICS = ("CocoMetric", "OVCocoMetric", "LVISMetric")


def type_name(config: Any) -> str:
    """Return the name in ``type``, which is a string (maybe with a scope) or a class."""
    kind = config.get("type", "")
    return kind.split(".")[-1] if isinstance(kind, str) else kind.__name__


def only_for_segmentation(config: Config, option: str) -> None:
    """Refuse an option for a config that tests something else.

    Raises:
        UserInputError: its metrics are of recognition or of regions.
    """
    for metric in metrics_of(config):
        task = _OTHER_TASKS.get(type_name(metric))
        if task:
            raise UserInputError(
                f"{option} is for segmentation, and this config tests {task} "
                f"({type_name(metric)}); leave {option} out."
            )


def tests_detection(config: Config) -> bool:
    """Whether the config is of mmdet."""
    return str(config.get("default_scope")) == "mmdet"


def metrics_of(config: Config) -> Iterator[Any]:
    """The metrics of the test, one or several."""
    evaluator = config.get("test_evaluator") or {}
    yield from evaluator if isinstance(evaluator, (list, tuple)) else [evaluator]


def draw_predictions(config: Config, show: bool, folder: str | None, wait_time: float) -> None:
    """Show predictions by the visualisation hook, and paint them into a folder by ours.

    Raises:
        UserInputError: the config tests neither segmentation nor detection, has no such hook, or
            no visualizer.
    """
    only_for_segmentation(config, "--show" if show else "--show-dir")
    detection = tests_detection(config)
    task = "Det" if detection else "Seg"
    hook = (config.get("default_hooks") or {}).get("visualization")
    if hook is None or config.get("visualizer") is None:
        raise UserInputError(
            "--show and --show-dir need default_hooks.visualization="
            f"dict(type='{task}VisualizationHook') and visualizer="
            f"dict(type='{task}LocalVisualizer', vis_backends=[dict(type='LocalVisBackend')]) in "
            "the config."
        )
    if show:
        hook.update(draw=True, show=True, wait_time=wait_time)
    if folder:
        interval = 1 if detection else hook.get("interval", 50)
        painter = {"type": "PaintedPhotosHook", "folder": folder, "interval": interval}
        if detection:
            painter["score_thr"] = hook.get("score_thr", 0.3)
        add_hook(config, painter)


def add_hook(config: Config, hook: Mapping[str, Any]) -> None:
    """Add a hook to those of a config."""
    config.custom_hooks = [*(config.get("custom_hooks") or []), hook]


def use_tta(config: Config) -> None:
    """Test on several views of each image with ``tta_model`` and ``tta_pipeline`` of the config.

    Without them: the mean of the class probabilities over the image and its mirror image. Of
    detections there is no such mean, so that a detector needs both in its config.

    Raises:
        UserInputError: the config is of recognition or of regions, a detector's without the two,
            or has neither ``tta_pipeline`` nor a test pipeline to derive it of.
    """
    only_for_segmentation(config, "--tta")
    dataset = config.test_dataloader.get("dataset", {})
    pipeline = config.get("tta_pipeline")
    if tests_detection(config) and not (pipeline and config.get("tta_model")):
        raise UserInputError(
            "--tta of a detector needs tta_model=dict(type='DetTTAModel', tta_cfg=...) and "
            "tta_pipeline in the config, as in mmdet; add them, or leave --tta out."
        )
    if pipeline is None and dataset.get("pipeline") is None:
        raise UserInputError("--tta needs tta_pipeline in the config, or the test data's pipeline.")
    dataset["pipeline"] = pipeline or with_mirror_image(dataset["pipeline"])
    tta_model = config.get("tta_model") or {"type": "OpenVocabTTAModel"}
    # mmengine would put the preprocessor of the whole config in place of the model's own
    own = config.model.get("data_preprocessor")
    kept = {} if own is None else {"data_preprocessor": own}
    config.model = {**kept, **tta_model, "module": config.model}


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

    mmseg's metric is replaced by ours: it writes labels above 255 modulo 256. Predictions of whole
    images become one file (:class:`PredictionsFile`); detections become ``predictions.bbox.json``
    (and ``predictions.segm.json``) in COCO's format of results, with the data set's category ids.

    Raises:
        UserInputError: the config tests the classification of regions, or a metric of detection
            does not write what it gets.
    """
    metrics = [m for m in metrics_of(config) if type_name(m) not in _REPORTS]
    if any(type_name(metric) == "MultiLabelMetric" for metric in metrics):
        # First: a metric that fails leaves the file.
        config.test_evaluator = [{"type": "PredictionsFile", "folder": folder}, *metrics]
        return
    only_for_segmentation(config, "--out")
    if tests_detection(config):
        _keep_detections(metrics, folder)
        return
    for metric in metrics:
        if type_name(metric) == "IoUMetric":
            metric["type"] = "OpenVocabIoUMetric"
        metric["output_dir"] = folder
    add_hook(config, {"type": "LabelMapNamesHook"})


def _keep_detections(metrics: Sequence[Any], folder: str) -> None:
    for metric in metrics:
        if type_name(metric) not in DETECTION_METRICS:
            raise UserInputError(
                f"--out: {type_name(metric)} writes no predictions, as "
                f"{', '.join(DETECTION_METRICS)} do; leave --out out."
            )
        metric["outfile_prefix"] = str(Path(folder) / "predictions")
    Path(folder).mkdir(parents=True, exist_ok=True)  # not after hours


@METRICS.register_module()
class PredictionsFile(BaseMetric):
    """No metric: writes what a model predicts of whole images to ``predictions.npz``.

    Of M images and N classes the file holds ``img_path`` (M,), ``pred_logit`` and ``pred_score``,
    float32 (M, N), and ``classes`` (N,), the names of the data set.

    Args:
        folder: Where; it is made if it is not there.
    """

    def __init__(self, folder: str) -> None:
        super().__init__()
        self.file = Path(folder) / "predictions.npz"
        self.file.parent.mkdir(parents=True, exist_ok=True)  # not after hours

    def process(self, data_batch: Any, data_samples: Sequence[Mapping[str, Any]]) -> None:
        """Keep the predictions of one batch."""
        for sample in data_samples:
            values = [sample[key].float().cpu().numpy() for key in ("pred_logit", "pred_score")]
            self.results.append((str(sample.get("img_path", "")), *values))

    def compute_metrics(self, results: list[Any]) -> dict[str, float]:
        """Write the file; there are no metrics."""
        paths, logits, scores = zip(*results)
        classes = (self.dataset_meta or {}).get("classes") or range(len(logits[0]))
        with whole_file(self.file) as file:
            np.savez_compressed(
                file,
                img_path=np.array(paths),
                pred_logit=np.stack(logits),
                pred_score=np.stack(scores),
                classes=np.array([str(name) for name in classes]),
            )
        print_log(f"predictions of {len(paths)} images: {self.file}", logger="current")
        return {}

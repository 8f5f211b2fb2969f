"""The training-free segmentor: windows in batches, and labels without the full score tensor.

    python tools/benchmarks/segmentor.py --write

An image of ``--size`` pixels (448 x 672 has 15 windows of 224 at stride 112) through a ViT with
random weights and the 150 classes of ADE20K, to labels at the photo's size:

* batched: all windows together, then argmax over chunks of classes;
* one by one: the same with one window at a time;
* plain form: one window at a time, its scores upsampled for all classes and padded to the canvas,
  softmax and argmax over the full tensor, as the released code of ClearCLIP does.

Then the peak memory of the second half alone, scores of windows to labels, for more and more
classes: chunks against the full tensor.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from bench import Claim, clock_of, interleave, make_parser, peak_mb, report
from torch import Tensor

from mmclipdis.clip.text.vocabulary import Vocabulary
from mmclipdis.clip.weights.loading import Arch, model_config
from mmclipdis.engine.random_weights import take_as_meant
from mmclipdis.models.segmentation.open_vocab_segmentor import OpenVocabSegmentor
from mmclipdis.models.segmentation.prediction import (
    LabelRule,
    WindowScores,
    class_probabilities,
    full_size_scores,
    labels_from_probabilities,
    predict_labels,
)
from mmclipdis.models.segmentation.settings import TestSettings
from mmclipdis.models.segmentation.windows import Size, slide_windows


def build(arch: Arch, crop: int, stride: int) -> OpenVocabSegmentor:
    """Segmentor with random weights and random text embeddings."""
    vocabulary, width = Vocabulary.bundled("ade20k"), model_config(arch)["embed_dim"]
    backbone = {"type": "ClearCLIPViT", "arch": arch}
    settings = {"mode": "slide", "crop_size": (crop, crop), "stride": (stride, stride)}
    model = OpenVocabSegmentor(
        backbone=backbone,
        decode_head={
            "type": "CosineSegHead",
            "vocabulary": vocabulary,
            "embeddings": torch.randn(vocabulary.num_classes, width),
        },
        test_cfg=settings,
    )
    take_as_meant(model)
    return model.eval()


def crop_and_stride(model: OpenVocabSegmentor) -> tuple[Size, Size]:
    """Window size and step of ``model`` in pixels."""
    return model.test_cfg["crop_size"], model.test_cfg["stride"]


def plain_labels(model: OpenVocabSegmentor, image: Tensor) -> Tensor:
    """Labels (H, W) of ``image`` (3, H, W) the plain way."""
    size = tuple(image.shape[-2:])
    windows = slide_windows(size, *crop_and_stride(model))
    canvas, count = image.new_zeros(model.num_classes, *size), image.new_zeros(1, *size)
    for rows, columns in windows.slices():
        scores = model._forward(image[None, :, rows, columns])
        scores = F.interpolate(scores, size=windows.crop, mode="bilinear", align_corners=False)[0]
        margin = (columns.start, size[1] - columns.stop, rows.start, size[0] - rows.stop)
        canvas = canvas + F.pad(scores, margin)
        count[:, rows, columns] += 1
    return (canvas / count).softmax(0).argmax(0)


def speed_rows(
    model: OpenVocabSegmentor, image: Tensor, rounds: int, clock: Any
) -> tuple[list[dict[str, Any]], list[Claim]]:
    """Images a second and peak memory of the three ways, after checking that they agree."""

    def segment(batch_size: int) -> Tensor:
        model.test_cfg["window_batch_size"] = batch_size
        return model.predict(image[None])[0].pred_sem_seg.data[0]

    cases = {
        "batched": lambda: segment(16),
        "one by one": lambda: segment(1),
        "plain form": lambda: plain_labels(model, image),
    }
    agreement = (cases["batched"]() == cases["plain form"]()).float().mean().item()
    if agreement < 0.999:  # ties differ by rounding
        raise RuntimeError(f"only {agreement:.2%} of the labels agree with the plain form")
    times = interleave(cases, rounds, clock=clock)
    windows = slide_windows(tuple(image.shape[-2:]), *crop_and_stride(model))
    title = f"segmentor, {len(windows)} windows"
    rows: list[dict[str, Any]] = [
        {
            "name": f"{title}, {name}",
            "metrics": {
                "images_per_second": 1 / times.median(name),
                "peak_mb": peak_mb(case),
            },
        }
        for name, case in cases.items()
    ]
    speed = times.ratio("plain form", "batched")
    memory = rows[0]["metrics"]["peak_mb"] / rows[2]["metrics"]["peak_mb"]
    return rows, [
        Claim(f"{title}, batched / plain form, speed", speed, at_least=1.6),
        Claim(f"{title}, batched / plain form, memory", memory, at_most=0.5),
    ]


def memory_rows(size: Size, classes: tuple[int, ...]) -> list[dict[str, Any]]:
    """Peak memory from window scores to labels at twice ``size``."""
    windows = slide_windows(size, 224, 112)
    photo = (2 * size[0], 2 * size[1])
    rows = []
    for count in classes:
        scores = WindowScores(torch.randn(len(windows), count, 14, 14), windows)
        rule = LabelRule(torch.arange(count), count)

        def full(scores: WindowScores = scores, rule: LabelRule = rule) -> Tensor:
            probabilities = class_probabilities(full_size_scores(scores, photo), rule)
            return labels_from_probabilities(probabilities, rule)

        def chunked(scores: WindowScores = scores, rule: LabelRule = rule) -> Tensor:
            step = TestSettings().queries_at_once(scores, photo)
            return predict_labels(scores, photo, rule, class_chunk=step)

        name = f"labels of {photo[0]} x {photo[1]} px, {count} classes"
        rows.append({"name": f"{name}, in chunks", "metrics": {"peak_mb": peak_mb(chunked)}})
        rows.append({"name": f"{name}, full tensor", "metrics": {"peak_mb": peak_mb(full)}})
    return rows


def main() -> None:
    """Read the command line, measure, report."""
    parser = make_parser(__doc__, rounds=3)
    parser.add_argument("--arch", default="ViT-B-16-quickgelu")
    parser.add_argument("--size", type=int, nargs=2, default=(448, 672), help="height and width")
    parser.add_argument("--classes", type=int, nargs="+", default=(20, 150, 300))
    args = parser.parse_args()
    clock = clock_of(args)
    torch.manual_seed(0)
    size = (args.size[0], args.size[1])
    model = build(args.arch, crop=224, stride=112)
    with torch.inference_mode():
        rows, claims = speed_rows(model, torch.randn(3, *size), args.rounds, clock)
        rows += memory_rows(size, tuple(args.classes))
    report(args, rows, claims)


if __name__ == "__main__":
    main()

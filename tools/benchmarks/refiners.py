"""PAMR against its stacked form, and refiners at the size of a street photo with many classes.

    python tools/benchmarks/refiners.py --threads 1 --clock cpu --write

* PAMR of ``--queries`` score maps of ``--size`` pixels, 10 steps at dilations 8 and 16: as here,
  summed neighbour by neighbour, and stacked, with the neighbours of all maps in one tensor. By
  turns, after checking that the two agree; memory is that of tensors.
* From scores at patch resolution to labels at the size of the photo, ``--photo`` pixels and
  ``--classes`` classes: without refiners, with PAMR, with PAMR and a vote in 200 masks. Memory is
  the resident set above that before, so what the allocator takes for itself counts. Linux only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from bench import Claim, clock_of, interleave, make_parser, peak_above, peak_mb, report
from mmseg.structures import SegDataSample
from torch import Tensor

from mmclipdis.models.segmentation.prediction import LabelRule, WindowScores
from mmclipdis.models.segmentation.refiners.mask_vote import MaskVote
from mmclipdis.models.segmentation.refiners.pamr import PAMR, Offset, neighbours
from mmclipdis.models.segmentation.samples import predict_samples
from mmclipdis.models.segmentation.settings import TestSettings
from mmclipdis.models.segmentation.windows import Size, slide_windows

STEPS, DILATIONS = 10, (8, 16)
LIMIT_MB = 1500


def stacked(photo: Tensor, scores: Tensor, steps: int, dilations: Sequence[int]) -> Tensor:
    """PAMR as its formula is written: scores (K, H, W) of a photo (3, H, W)."""
    offsets, margin = neighbours(dilations), max(dilations)
    near = _around(photo, offsets, margin)
    samples = torch.cat([near, photo[:, None].expand(-1, len(dilations), -1, -1)], dim=1)
    unlike = (near - photo[:, None]).abs() / (1e-8 + 0.1 * samples.std(1, keepdim=True))
    weights = (-unlike).mean(0).softmax(0)
    for _ in range(steps):
        scores = (_around(scores, offsets, margin) * weights).sum(1)
    return scores


def _around(maps: Tensor, offsets: Sequence[Offset], margin: int) -> Tensor:
    """All neighbours (K, n, H, W) of maps (K, H, W)."""
    height, width = maps.shape[-2:]
    padded = F.pad(maps, (margin,) * 4, mode="replicate")
    views = [
        padded[:, margin + y : margin + y + height, margin + x : margin + x + width]
        for y, x in offsets
    ]
    return torch.stack(views, dim=1)


def pamr_rows(
    size: Size, queries: int, rounds: int, clock: Any
) -> tuple[list[dict[str, Any]], list[Claim]]:
    """Time and memory of the two forms, photo included."""
    photo, scores = torch.rand(3, *size), torch.rand(queries, *size)
    cases: dict[str, Callable[[], Tensor]] = {
        "in place": lambda: PAMR(STEPS, DILATIONS).prepare(photo)(scores),
        "stacked": lambda: stacked(photo, scores, STEPS, DILATIONS),
    }
    off = (cases["in place"]() - cases["stacked"]()).abs().max().item()
    if off > 1e-4:
        raise RuntimeError(f"PAMR is off by {off:.1e} of the stacked form")
    times = interleave(cases, rounds, clock=clock)
    title = f"PAMR, {queries} classes on {size[0]} x {size[1]} px"
    rows: list[dict[str, Any]] = [
        {
            "name": f"{title}, {name}",
            "metrics": {"time_ms": 1e3 * times.median(name), "peak_mb": peak_mb(case)},
        }
        for name, case in cases.items()
    ]
    memory = rows[0]["metrics"]["peak_mb"] / rows[1]["metrics"]["peak_mb"]
    return rows, [
        Claim(f"{title}, speed", times.ratio("stacked", "in place"), at_least=10),
        Claim(f"{title}, memory", memory, at_most=0.2),
    ]


def photo_rows(
    photo: Size, classes: int, steps: int, clock: Any
) -> tuple[list[dict[str, Any]], list[Claim]]:
    """Seconds and peak memory from scores of windows to labels at the size of the photo, once."""
    image = torch.rand(3, photo[0] * 7 // 16, photo[1] * 7 // 16)  # 448 x 896 of 1024 x 2048
    windows = slide_windows((image.shape[1], image.shape[2]), 224, 112)
    scores = WindowScores(torch.randn(len(windows), classes, 14, 14), windows)
    tiles = torch.randint(0, 200, (photo[0] // 32, photo[1] // 32))
    masks = tiles.repeat_interleave(32, 0).repeat_interleave(32, 1)
    rule = LabelRule(torch.arange(classes), classes)
    chains: dict[str, list[Any]] = {
        "no refiner": [],
        "PAMR": [PAMR(steps, DILATIONS)],
        "PAMR and mask vote": [PAMR(steps, DILATIONS), MaskVote()],
    }
    title, rows = f"labels of {photo[0]} x {photo[1]} px, {classes} classes", []
    for name, refiners in chains.items():

        def label(refiners: list[Any] = refiners) -> None:
            predict_samples(
                image[None],
                [SegDataSample(metainfo={"ori_shape": photo})],
                lambda *_: [scores],
                rule,
                TestSettings(),
                refiners=refiners,
                masks=[masks],
            )

        start = clock()
        peak = peak_above(label)
        metrics = {"seconds": clock() - start, "peak_mb": peak}
        rows.append({"name": f"{title}, {name}", "metrics": metrics})
    return rows, [Claim(f"{title}, MB above the scores", peak, at_most=LIMIT_MB)]


def main() -> None:
    """Read the command line, measure, report."""
    parser = make_parser(__doc__, rounds=3)
    parser.add_argument("--size", type=int, nargs=2, default=(512, 683), help="height and width")
    parser.add_argument("--queries", type=int, default=21)
    parser.add_argument("--photo", type=int, nargs=2, default=(1024, 2048))
    parser.add_argument("--classes", type=int, default=150)
    args = parser.parse_args()
    clock = clock_of(args)
    torch.manual_seed(0)
    with torch.inference_mode():
        rows, claims = photo_rows((args.photo[0], args.photo[1]), args.classes, STEPS, clock)
        more, ratios = pamr_rows((args.size[0], args.size[1]), args.queries, args.rounds, clock)
    report(args, rows + more, claims + ratios)


if __name__ == "__main__":
    main()

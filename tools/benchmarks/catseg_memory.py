"""Peak memory of testing CAT-Seg with a large vocabulary on a large photo, on a CPU.

    python tools/benchmarks/catseg_memory.py --threads 1 --clock cpu --write

CAT-Seg ViT-B/16 with random weights, ``--classes`` names (A-847 has 847) and one photo of
``--photo`` pixels, from the normalised image to the label map at the size of the photo. Memory is
the resident set above that of the process with model, text embeddings and photo in it, so what the
libraries and the allocator take for themselves counts. It is measured in a process of its own:

* as configured: of the classes of a view the best 256 compete;
* all classes compete: ``max_classes=None``, which is another result.

Then the time with a small vocabulary of ``--few`` classes, in chunks and with all classes at once,
by turns, after checking that the labels agree. Linux only.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import torch
from bench import Claim, clock_of, interleave, make_parser, peak_above, report
from mmengine.config import Config
from mmseg.registry import MODELS
from torch import Tensor

import mmclipdis  # noqa: F401
from mmclipdis.engine.random_weights import take_as_meant
from mmclipdis.engine.results import ROOT
from mmclipdis.models.segmentation.catseg.segmentor import CATSeg
from mmclipdis.models.segmentation.windows import Size

CONFIG = ROOT / "configs" / "_base_" / "models" / "catseg_vitb16.py"
LIMIT_MB = 3000
CASES: dict[str, dict[str, Any]] = {
    "as configured": {},
    "all classes compete": {"max_classes": None},
}


def build(model: Mapping[str, Any], classes: int, **aggregator: Any) -> CATSeg:
    """CATSeg of the config ``model`` with random weights, its text embeddings made.

    Args:
        model: Config of the model; what it says of weights to load is left out.
        classes: Number of classes, each with a name of its own.
        aggregator: Options of the aggregator to change.
    """
    config = Config({"model": dict(model)}).model  # a copy
    for name in ("image_encoder", "text_encoder"):
        config[name].pop("init_cfg", None)
    config.vocabulary = [f"thing {number}" for number in range(classes)]
    config.decode_head.aggregator.update(aggregator)
    built: CATSeg = MODELS.build(config).eval()
    take_as_meant(built)
    with torch.no_grad():
        built.class_embeddings()
    return built


def labels_of(model: CATSeg, photo: Tensor) -> Tensor:
    """Labels ``(H, W)`` of a normalised photo ``(3, H, W)``."""
    labels: Tensor = model.predict([photo])[0].pred_sem_seg.data[0]
    return labels


def _measure(model: Mapping[str, Any], name: str, classes: int, photo: Size, threads: int) -> float:
    """:func:`peak_above` of one case; runs in a fresh process."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    built, image = build(model, classes, **CASES[name]), torch.randn(3, *photo)
    return peak_above(lambda: labels_of(built, image))


def memory_rows(
    model: Mapping[str, Any],
    classes: int,
    photo: Size,
    run: Callable[..., float],
    threads: int = 1,
) -> tuple[list[dict[str, Any]], list[Claim]]:
    """Peak memory of every case; ``run(function, *args)`` calls it in a process of its own."""
    rows, claims = [], []
    for name in CASES:
        title = f"CAT-Seg, {classes} classes, photo {photo[0]} x {photo[1]}, {name}"
        peak = run(_measure, model, name, classes, photo, threads)
        rows.append({"name": title, "metrics": {"peak_mb": peak}})
        claims.append(Claim(f"{title}, MB above the model", peak, at_most=LIMIT_MB))
    return rows, claims


def speed_rows(
    model: CATSeg, photo: Tensor, rounds: int, clock: Callable[[], float]
) -> tuple[list[dict[str, Any]], list[Claim]]:
    """Seconds in chunks and with all classes at once, after checking that they agree."""
    aggregator, settings = model.decode_head.aggregator, dict(model.test_cfg or {})

    def in_chunks() -> Tensor:
        aggregator.chunk_mb, model.test_cfg = None, settings
        return labels_of(model, photo)

    def at_once() -> Tensor:
        aggregator.chunk_mb, model.test_cfg = float("inf"), {**settings, "chunk_mb": float("inf")}
        return labels_of(model, photo)

    agreement = (in_chunks() == at_once()).double().mean().item()
    if agreement < 0.999:  # near ties differ by rounding
        raise RuntimeError(f"only {agreement:.2%} of the labels agree with those without chunks")
    times = interleave({"in chunks": in_chunks, "at once": at_once}, rounds, clock=clock)
    height, width = photo.shape[1:]
    title = f"CAT-Seg, {model.num_classes} classes, photo {height} x {width}"
    rows = [
        {"name": f"{title}, {name}", "metrics": {"seconds": times.median(name)}}
        for name in times.seconds
    ]
    ratio = times.ratio("in chunks", "at once")
    return rows, [Claim(f"{title}, in chunks / at once, time", ratio, at_most=1.05)]


def _in_a_process(function: Callable[..., float], *args: Any) -> float:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(function, *args).result()


def main() -> None:
    """Read the command line, measure, report."""
    parser = make_parser(__doc__, rounds=3)
    parser.add_argument("--classes", type=int, default=847)
    parser.add_argument("--few", type=int, default=20, help="classes of the small vocabulary")
    parser.add_argument("--photo", type=int, nargs=2, default=(2048, 1024), help="height and width")
    args = parser.parse_args()
    clock = clock_of(args)
    photo = (args.photo[0], args.photo[1])
    model = Config.fromfile(str(CONFIG)).model.to_dict()
    rows, claims = memory_rows(model, args.classes, photo, _in_a_process, args.threads)
    torch.manual_seed(0)
    few = build(model, args.few)
    with torch.inference_mode():
        more, ratio = speed_rows(few, torch.randn(3, *photo), args.rounds, clock)
    report(args, rows + more, claims + ratio)


if __name__ == "__main__":
    main()

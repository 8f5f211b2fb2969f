"""Time and memory of CAT-Seg's aggregator against the plain form of the released code.

Every variant runs forward and backward in a process of its own; memory is the peak above what the
process held before the step (resident set on a CPU, allocated bytes on a GPU). Ratios are to the
plain form in the same run::

    python tools/benchmarks/catseg_aggregator.py --classes 171 --grid 24
"""

from __future__ import annotations

import argparse
import importlib.util
import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from bench import Claim, report
from torch import Tensor

from mmclipdis.models.segmentation.catseg_aggregator import CATSegAggregator

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "tests/models/segmentation/catseg_reference.py"
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "fast": {},
    "fast, nothing recomputed": {"recompute": "none"},
    "fast, all recomputed": {"recompute": "full"},
    "fast, all classes at once": {"class_chunk": None},
}


def plain_form() -> Callable[..., Tensor]:
    """The plain form, from the file that the tests compare with."""
    spec = importlib.util.spec_from_file_location("catseg_reference", REFERENCE)
    if spec is None or spec.loader is None or not REFERENCE.exists():
        raise FileNotFoundError(f"{REFERENCE} is needed: run the benchmark in a source tree.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.plain_forward  # type: ignore[no-any-return]


def measure(variant: str, args: argparse.Namespace) -> dict[str, float]:
    """Median seconds and peak MiB of one training step of ``variant``."""
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    device = torch.device(args.device)
    model = CATSegAggregator(hidden_dim=args.hidden, **VARIANTS[variant]).to(device)
    side = args.grid
    image = torch.randn(args.batch, 512, side, side, device=device)
    text = torch.randn(args.classes, 512, device=device)
    guidance = [
        torch.randn(args.batch, dim, side * scale, side * scale, device=device)
        for dim, scale in ((256, 2), (128, 4))
    ]
    plain = plain_form()

    def step() -> None:
        if variant == "plain":
            logits = plain(model, image, text, guidance)
        else:
            logits = model(image, text, guidance)
        logits.square().mean().backward()

    before = _memory(device)
    seconds = []
    for _ in range(args.repeats):
        start = time.perf_counter()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - start)
    return {"seconds": statistics.median(seconds), "MiB": _memory(device) - before}


def _memory(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def main() -> None:
    """Measure all variants and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--classes", type=int, default=171)
    parser.add_argument("--grid", type=int, default=24, help="tokens a side")
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--write", action="store_true", help="merge into results/benchmarks.json")
    args = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    rows = []
    for variant in args.variants:
        with context.Pool(1) as pool:
            rows.append({"name": variant, **pool.apply(measure, (variant, args))})
        first, row = rows[0], rows[-1]
        ratios = [row[name] / first[name] for name in ("seconds", "MiB")]
        print(
            f"{variant:26s} {row['seconds']:8.2f} s {row['MiB']:8.0f} MiB   "
            f"x{ratios[0]:.2f} time, x{ratios[1]:.2f} memory",
            flush=True,
        )
    by_name = {row["name"]: row for row in rows}
    claims = []
    if "plain" in by_name and "fast" in by_name:
        for what, key in (("time", "seconds"), ("memory", "MiB")):
            ratio = by_name["fast"][key] / by_name["plain"][key]
            claims.append(Claim(f"CAT-Seg aggregator, fast / plain, {what}", ratio, at_most=0.5))
    table = [
        {"name": f"CAT-Seg aggregator, {row.pop('name')}", "metrics": row}
        for row in map(dict, rows)
    ]
    report(args, table, claims)


if __name__ == "__main__":
    main()

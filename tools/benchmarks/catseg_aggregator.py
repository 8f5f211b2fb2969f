"""Time and memory of CAT-Seg's aggregator against the plain form of the released code.

Every variant runs forward and backward in a process of its own, and the processes take turns after
one untimed step each. Memory is the peak above what the process held before (resident set on a
CPU, allocated bytes on a GPU). Ratios are to the plain form in the same round::

    python tools/benchmarks/catseg_aggregator.py --classes 171 --grid 24
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import multiprocessing
import resource
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch
from bench import Claim, interleave, report
from torch import Tensor

from mmclipdis.models.segmentation.catseg.aggregator import CATSegAggregator

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "tests/models/segmentation/catseg/reference.py"
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "fast": {},
    "fast, nothing recomputed": {"recompute": "none"},
    "fast, all recomputed": {"recompute": "full"},
    "fast, all classes at once": {"chunk_mb": float("inf")},
}


def plain_form() -> Callable[..., Tensor]:
    """The plain form, from the file that the tests compare with."""
    spec = importlib.util.spec_from_file_location("catseg_reference", REFERENCE)
    if spec is None or spec.loader is None or not REFERENCE.exists():
        raise FileNotFoundError(f"{REFERENCE} is needed: run the benchmark in a source tree.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.plain_forward  # type: ignore[no-any-return]


class Worker:
    """A process that holds one variant and runs training steps of it on demand."""

    def __init__(self, variant: str, args: argparse.Namespace) -> None:
        self.process = ProcessPoolExecutor(
            1, multiprocessing.get_context("spawn"), initializer=_prepare, initargs=(variant, args)
        )

    def step(self) -> None:
        """Run forward and backward."""
        self.process.submit(_step).result()

    def peak(self) -> float:
        """Peak MiB above what the process held before its first step."""
        return self.process.submit(_peak).result()


_held: dict[str, Any] = {}  # of a worker process


def _prepare(variant: str, args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    device = torch.device(args.device)
    model = CATSegAggregator(hidden_dim=args.hidden, **VARIANTS[variant]).to(device)
    forward = functools.partial(plain_form(), model) if variant == "plain" else model
    side = args.grid
    image = torch.randn(args.batch, 512, side, side, device=device)
    text = torch.randn(args.classes, 512, device=device)
    guidance = [
        torch.randn(args.batch, dim, side * scale, side * scale, device=device)
        for dim, scale in ((256, 2), (128, 4))
    ]
    _held.update(run=lambda: forward(image, text, guidance), device=device, before=_memory(device))


def _step() -> None:
    _held["run"]().square().mean().backward()
    if _held["device"].type == "cuda":
        torch.cuda.synchronize(_held["device"])


def _peak() -> float:
    return _memory(_held["device"]) - _held["before"]


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
    parser.add_argument("--rounds", type=int, default=3, help="timed steps of each variant")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--write", action="store_true", help="merge into results/benchmarks.json")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)  # what the results file says
    workers = {variant: Worker(variant, args) for variant in args.variants}
    times = interleave({name: worker.step for name, worker in workers.items()}, args.rounds)
    memory = {name: worker.peak() for name, worker in workers.items()}
    rows = [
        {
            "name": f"CAT-Seg aggregator, {name}",
            "metrics": {"seconds": times.median(name), "MiB": memory[name]},
        }
        for name in args.variants
    ]
    claims = []
    if "plain" in workers and "fast" in workers:
        name = "CAT-Seg aggregator, fast / plain"
        ratios = {
            "time": times.ratio("fast", "plain"),
            "memory": memory["fast"] / memory["plain"],
        }
        claims = [Claim(f"{name}, {what}", ratio, at_most=0.5) for what, ratio in ratios.items()]
    report(args, rows, claims, device=args.device)


if __name__ == "__main__":
    main()

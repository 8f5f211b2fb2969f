"""Dense features of a ViT with random weights: speed and memory of each readout, and of batching.

    python tools/benchmarks/dense_features.py --write

Three questions, each answered by ratios within one run:

* What does a readout cost? Images a second, peak memory, time of the last block. open_clip's own
  forward pass (pooled, not dense) stands beside them.
* How much of the machine does a batch of windows use? Its matrix products (patch embedding, linear
  layers, both products of the attention; nothing else) a second, over the rate of one large fp32
  product.
* What does batching the windows gain over one window at a time?
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from bench import Claim, clock_of, interleave, make_parser, matmul_case, peak_mb, report
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from mmclipdis.clip.towers.attention import run_blocks
from mmclipdis.clip.towers.block_reader import read_last_block
from mmclipdis.clip.towers.build import build_image_tower
from mmclipdis.clip.towers.image_tower import ImageTower
from mmclipdis.clip.towers.readout import READOUTS, AnyReadout, Readout, get_readout
from mmclipdis.clip.towers.self_calibrated import SelfCalibrated


def matmul_flops(tower: ImageTower, image: Tensor, readout: AnyReadout) -> float:
    """FLOPs of the matrix products of one ``image`` (1, 3, H, W), a multiply-add counting two."""
    # With gradients and the plain attention every product is an operator that the counter knows.
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as flops:
        tower.forward_dense(image, readout)
    return float(flops.get_total_flops())


def _is_alone(readout: AnyReadout, depth: int) -> bool:
    """Whether a tower of so many blocks is read so without a vision model."""
    if isinstance(readout, Readout):
        return readout.affinity is None and all(index < depth for index in readout.layers)
    if isinstance(readout, SelfCalibrated):
        return all(index < depth for index in readout.blocks_read)
    return readout.blocks <= depth


def readout_rows(
    tower: ImageTower, images: Tensor, rounds: int, clock: Callable[[], float]
) -> tuple[list[dict[str, Any]], list[Claim]]:
    """Every readout on the same ``images``, and the last block alone on the same tokens."""
    rope = tower.rope(images)
    tokens, _ = run_blocks(tower.blocks[:-1], tower.embed(images), rope=rope)
    last, grid = tower.blocks[-1], tower.grid_of(images)
    whole = {
        name: _dense(tower, images, readout)
        for name, readout in READOUTS.items()
        if _is_alone(readout, tower.depth)
    }
    whole["open_clip, pooled"] = lambda: tower.visual(images)
    blocks = {
        name: lambda readout=readout: read_last_block(last, tokens, readout, rope, grid)
        for name, readout in READOUTS.items()
        if isinstance(readout, Readout) and _is_alone(readout, tower.depth)
    }
    times = interleave(whole, rounds, clock=clock)
    block_times = interleave(blocks, 3 * rounds, clock=clock)
    rows = []
    for name, case in whole.items():
        metrics: dict[str, Any] = {
            "images_per_second": len(images) / times.median(name),
            "peak_mb": peak_mb(case),
        }
        if name in blocks:
            metrics["last_block_ms"] = 1e3 * block_times.median(name)
        rows.append({"name": f"readout {name}", "metrics": metrics})
    ratio = block_times.ratio("clearclip", "vanilla")
    return rows, [Claim("last block, ClearCLIP / vanilla, time", ratio, at_most=0.75)]


def window_rows(
    tower: ImageTower, windows: Tensor, readout: AnyReadout, rounds: int, clock: Any
) -> tuple[list[dict[str, Any]], list[Claim]]:
    """All ``windows`` in one batch, one by one, and the matrix product to measure them by."""
    product, product_flops = matmul_case()
    cases = {
        "batched": _dense(tower, windows, readout),
        "one by one": lambda: [tower.forward_dense(w[None], readout) for w in windows],
        "product": product,
    }
    times = interleave(cases, rounds, clock=clock)
    flops = len(windows) * matmul_flops(tower, windows[:1], readout)
    rows = [
        {
            "name": f"{len(windows)} windows {name}",
            "metrics": {
                "images_per_second": len(windows) / times.median(name),
                "peak_mb": peak_mb(cases[name]),
                "gflop_per_second": flops / times.median(name) / 1e9,
            },
        }
        for name in ("batched", "one by one")
    ]
    rate = product_flops / times.median("product") / 1e9
    rows.append({"name": "fp32 product 2048 x 2048", "metrics": {"gflop_per_second": rate}})
    share = flops / product_flops / times.ratio("batched", "product")
    gain = times.ratio("one by one", "batched")
    size = f"{len(windows)} windows of {windows.shape[-1]} px, batched"
    return rows, [
        Claim(f"{size} / the machine's fp32 product, FLOPs a second", share, at_least=0.75),
        Claim(f"{size} / one by one, speed", gain, at_least=1.6),
    ]


def _dense(tower: ImageTower, images: Tensor, readout: AnyReadout) -> Callable[[], Any]:
    return lambda: tower.forward_dense(images, readout)


def main() -> None:
    """Read the command line, measure, report."""
    parser = make_parser(__doc__, rounds=5)
    parser.add_argument("--arch", default="ViT-B-16-quickgelu")
    parser.add_argument("--size", type=int, default=224, help="side of an image or window, pixels")
    parser.add_argument("--windows", type=int, default=15)
    parser.add_argument("--images", type=int, default=4, help="batch for the readouts")
    parser.add_argument("--readout", default="clearclip", help="readout of the windows")
    args = parser.parse_args()
    clock = clock_of(args)
    torch.manual_seed(0)
    tower = build_image_tower(args.arch).eval()
    images = torch.randn(max(args.windows, args.images), 3, args.size, args.size)
    with torch.inference_mode():
        readout = get_readout(args.readout)
        rows, claims = window_rows(tower, images[: args.windows], readout, args.rounds, clock)
        more = readout_rows(tower, images[: args.images], args.rounds, clock)
    report(args, rows + more[0], claims + more[1])


if __name__ == "__main__":
    main()

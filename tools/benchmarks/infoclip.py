"""What InfoCLIP's transfer adds to a training step of CAT-Seg, and to its parameters.

    python tools/benchmarks/infoclip.py --batch 4 --device cuda --write

The model of configs/_base_/models/catseg_vitb16.py with random weights, alone and inside InfoCLIP,
on random crops and labels; forward and backward apart, without logged gradient norms. Published for
ViT-B: 0.53 M parameters, 0.08 s forward, 0.03 s backward.
"""

from __future__ import annotations

from typing import Any

import torch
from bench import Case, Claim, clock_of, interleave, make_parser, report
from mmengine.config import Config
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from mmclipdis.engine.random_weights import take_as_meant
from mmclipdis.engine.results import ROOT

CONFIG = ROOT / "configs" / "_base_" / "models" / "catseg_vitb16.py"


def build(model: dict[str, Any], classes: int, device: str) -> dict[str, nn.Module]:
    """CAT-Seg, and InfoCLIP around another one of the same weights."""
    config: dict[str, Any] = dict(model)
    for name in ("image_encoder", "text_encoder"):
        config[name] = {k: v for k, v in config[name].items() if k != "init_cfg"}
    config |= {"data_preprocessor": None, "vocabulary": [f"thing {i}" for i in range(classes)]}
    config["text_encoder"].update(cache_dir=False, progress=False)
    models = {}
    for name in ("CAT-Seg", "InfoCLIP"):
        torch.manual_seed(0)
        inside = {"type": "InfoCLIP", "segmentor": config, "grad_norm_interval": 0}
        models[name] = MODELS.build(config if name == "CAT-Seg" else inside)
        take_as_meant(models[name])
        models[name].init_weights()
        models[name].to(device).train()
    return models


def crops(batch: int, size: int, classes: int, device: str) -> tuple[Tensor, list[SegDataSample]]:
    """Random crops ``(batch, 3, size, size)`` and their labels."""
    samples = [SegDataSample() for _ in range(batch)]
    for sample in samples:
        labels = torch.randint(0, classes, (1, size, size), device=device)
        sample.gt_sem_seg = PixelData(data=labels)
    return torch.randn(batch, 3, size, size, device=device), samples


def step_rows(
    models: dict[str, Any], data: tuple[Tensor, list[SegDataSample]], rounds: int, clock: Any
) -> tuple[list[dict[str, Any]], list[Claim]]:
    """Times of both models, the added share, and the added parameters."""
    held: dict[str, Tensor] = {}

    def forward(name: str) -> None:
        losses = models[name].loss(*data)
        held[name] = sum(value for key, value in losses.items() if "loss" in key)

    def backward(name: str) -> None:
        models[name].zero_grad()
        held.pop(name).backward()

    cases: dict[str, Case] = {}
    for name in models:
        cases[f"{name}, forward"] = lambda name=name: forward(name)
        cases[f"{name}, backward"] = lambda name=name: backward(name)
    device = str(data[0].device)
    times = _in_order(cases, rounds, device, clock)
    title = f"training step, batch {len(data[0])}"
    rows: list[dict[str, Any]] = [
        {
            "name": f"{title}, {case}",
            "metrics": {
                "time_ms": 1e3 * times.median(case),
                "share_of_catseg": times.ratio(case, f"CAT-Seg, {case.split(', ')[1]}"),
            },
        }
        for case in cases
    ]
    sizes = [sum(p.numel() for p in m.parameters()) for m in models.values()]
    rows.append({"name": "InfoCLIP, added parameters", "metrics": {"count": sizes[1] - sizes[0]}})
    ratio = times.ratio("InfoCLIP, forward", "CAT-Seg, forward")
    return rows, [Claim(f"{title}, InfoCLIP / CAT-Seg, forward", ratio, at_most=1.25)]


def _in_order(cases: dict[str, Case], rounds: int, device: str, clock: Any) -> Any:
    """As :func:`interleave`, with a backward pass always right after its forward pass."""
    whole = {name.split(",")[0]: [] for name in cases}
    for name in cases:
        whole[name.split(",")[0]].append(name)
    seconds: dict[str, tuple[float, ...]] = dict.fromkeys(cases, ())

    def both(names: list[str]) -> None:
        for name in names:
            timed = interleave({name: cases[name]}, 1, warmup=0, device=device, clock=clock)
            seconds[name] += timed.seconds[name]

    steps: dict[str, Case] = {key: lambda names=names: both(names) for key, names in whole.items()}
    outer = interleave(steps, rounds, device=device, clock=clock)
    return type(outer)({name: values[1:] for name, values in seconds.items()})  # less the warm-up


def main() -> None:
    """Read the command line, measure, report."""
    parser = make_parser(__doc__, rounds=5)
    parser.add_argument("--batch", type=int, default=4, help="crops; 2 or more")
    parser.add_argument("--classes", type=int, default=171)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    clock = clock_of(args)
    model = Config.fromfile(str(CONFIG)).model
    models = build(model, args.classes, args.device)
    data = crops(args.batch, model.clip_size[0], args.classes, args.device)
    rows, claims = step_rows(models, data, args.rounds, clock)
    report(args, rows, claims, device=args.device)


if __name__ == "__main__":
    main()

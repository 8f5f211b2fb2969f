"""DeCLIP at many tokens: the context loss and the last block's attention against plain forms.

    python tools/benchmarks/context_correlation.py --write

Both run forward and backward, after checking that they agree:

* the context loss in strips, of one image of ``--side`` x ``--side`` tokens and of ``--batch``
  smaller ones; the plain form holds both correlation matrices and lets autograd differentiate. One
  student map (``qq``) and two (``csa``);
* the ``csa`` attention of the large image as the towers compute it, against the matrices of weights
  written out.

Memory is the peak of both passes beyond the inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from bench import Case, Claim, clock_of, interleave, make_parser, peak_mb, report
from torch import Tensor

from mmclipdis.clip.towers.attention import attend
from mmclipdis.losses.context_correlation import context_correlation_loss


def plain_loss(students: Sequence[Tensor], teacher: Tensor) -> Tensor:
    """The context loss with both matrices whole."""

    def correlation(maps: Tensor) -> Tensor:
        tokens = F.normalize(maps.flatten(2), dim=1)
        return tokens.transpose(1, 2) @ tokens

    with torch.no_grad():
        goal = correlation(teacher)
    own = correlation(students[0])
    for student in students[1:]:
        own = own + correlation(student)
    return torch.linalg.vector_norm(goal - own / len(students), dim=2).mean()


def plain_attention(terms: Sequence[str], parts: dict[str, Tensor], scale: float) -> Tensor:
    """Sum of the softmax attentions of the patches, with their weights written out."""
    weights = [(scale * parts[t[0]][:, :, 1:] @ parts[t[1]].mT).softmax(-1) for t in terms]
    return sum(weights[1:], weights[0]) @ parts["v"]


def loss_rows(
    batch: int, side: int, channels: int, rounds: int, clock: Any
) -> tuple[list[dict[str, Any]], list[Claim]]:
    """The context loss for one student map and two."""
    rows: list[dict[str, Any]] = []
    claims: list[Claim] = []
    for mode, count in (("qq", 1), ("csa", 2)):
        maps = torch.randn(count + 1, batch, side**2, channels).mT.unflatten(3, (side, side))
        maps += torch.randn(count + 1, 1, channels, 1, 1)  # tokens of a network resemble another
        teacher, students = maps[0], [x.requires_grad_() for x in maps[1:].unbind()]
        title = f"context loss {mode}, {batch} x {side**2} tokens"
        cases = {
            "in strips": _step(partial(context_correlation_loss, teacher=teacher), students),
            "plain form": _step(partial(plain_loss, teacher=teacher), students),
        }
        more = _compare(title, cases, rounds, clock)
        rows, claims = rows + more[0], claims + more[1]
    return rows, claims


def attention_rows(
    tokens: int, heads: int, width: int, rounds: int, clock: Any
) -> tuple[list[dict[str, Any]], list[Claim]]:
    """The attention of the readout ``csa`` in the last block, ``width`` a head."""
    inputs = [torch.randn(1, heads, 1 + tokens, width).requires_grad_() for _ in "qkv"]
    terms, scale = ("qq", "kk"), width**-0.5

    def fused(parts: Sequence[Tensor]) -> Tensor:
        return attend(terms, dict(zip("qkv", parts)), scale, 1).square().mean()

    def plain(parts: Sequence[Tensor]) -> Tensor:
        return plain_attention(terms, dict(zip("qkv", parts)), scale).square().mean()

    cases = {"as in the towers": _step(fused, inputs), "plain form": _step(plain, inputs)}
    return _compare(f"attention csa, {tokens} tokens", cases, rounds, clock)


def _step(loss: Callable[[Any], Tensor], inputs: Sequence[Tensor]) -> Case:
    """Forward and backward; returns value and gradients."""

    def run() -> list[Tensor]:
        value = loss(inputs)
        return [value.detach(), *torch.autograd.grad(value, list(inputs))]

    return run


def _compare(
    title: str, cases: dict[str, Case], rounds: int, clock: Any
) -> tuple[list[dict[str, Any]], list[Claim]]:
    """Time and memory of ours and the plain form, in this order in ``cases``."""
    ours, plain = cases
    for a, b in zip(cases[ours](), cases[plain](), strict=True):
        error = ((a - b).norm() / b.norm()).item()
        if error > 1e-5:
            raise RuntimeError(f"{title}: {ours} is off by {error:.1e} of the plain form")
    times = interleave(cases, rounds, clock=clock)
    memory = {name: peak_mb(case) for name, case in cases.items()}
    rows: list[dict[str, Any]] = [
        {
            "name": f"{title}, {name}",
            "metrics": {"time_ms": 1e3 * times.median(name), "peak_mb": memory[name]},
        }
        for name in cases
    ]
    claim = f"{title}, {ours} / plain form"
    return rows, [
        Claim(f"{claim}, time", times.ratio(ours, plain), at_most=1),
        Claim(f"{claim}, memory", memory[ours] / memory[plain], at_most=0.25),
    ]


def main() -> None:
    """Read the command line, measure, report."""
    parser = make_parser(__doc__, rounds=5)
    parser.add_argument("--side", type=int, default=64, help="tokens a side of the large image")
    parser.add_argument("--batch", type=int, default=4, help="smaller images")
    parser.add_argument("--batch-side", type=int, default=35, help="tokens a side of those")
    parser.add_argument("--heads", type=int, default=12, help="of 64 channels each")
    args = parser.parse_args()
    clock = clock_of(args)
    torch.manual_seed(0)
    channels = 64 * args.heads
    rows, claims = loss_rows(1, args.side, channels, args.rounds, clock)
    # What does not grow with the square of the tokens weighs more here: no claim on memory.
    more, small = loss_rows(args.batch, args.batch_side, channels, args.rounds, clock)
    last, fused = attention_rows(args.side**2, args.heads, 64, args.rounds, clock)
    claims += [claim for claim in small if claim.name.endswith("time")] + fused
    report(args, rows + more + last, claims)


if __name__ == "__main__":
    main()

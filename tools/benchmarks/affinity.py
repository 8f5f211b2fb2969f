"""An affinity of a vision model in CLIP's last block: its time, its memory, and who takes the rest.

    python tools/benchmarks/affinity.py --threads 1 --clock cpu --rounds 2 --write

Random weights, tokens and values; the sizes are those of the papers:

* ``W V`` as here, in blocks of rows, against the whole matrix as its formula is written, after
  checking that the two agree: a window of ProxyCLIP (``--crop`` pixels, 8 a token) and an image of
  OV-Stitcher (448 x 597). An image of Cityscapes (560 x 1120) in blocks alone. Memory is that of
  tensors, beside that of the ``n x n`` numbers that are never made.
* A window of ProxyCLIP: what the vision model takes of its time, CLIP up to the last block, the
  affinity, and what follows with 150 classes.
* Memory beyond the score maps that are kept, for more and more windows, four at a time; and with
  ``test_cfg.stitch='values'`` for the same image cut into 9 and into 16 windows. Of two blocks a
  model: a block leaves nothing behind for the next.
* NACLIP: the last block with the bias of the neighbours and without.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from bench import Case, Claim, clock_of, interleave, make_parser, peak_mb, report
from torch import Tensor

from mmclipdis.clip.text.vocabulary import Vocabulary
from mmclipdis.clip.towers.affinity import Guide, mix
from mmclipdis.clip.towers.attention import run_blocks
from mmclipdis.clip.towers.block_reader import read_last_block
from mmclipdis.clip.towers.build import build_image_tower
from mmclipdis.clip.towers.image_tower import ImageTower
from mmclipdis.clip.towers.readout import READOUTS, Affinity, Readout, get_readout
from mmclipdis.clip.weights.loading import Arch, model_config
from mmclipdis.engine.random_weights import take_as_meant
from mmclipdis.models.segmentation.open_vocab_segmentor import OpenVocabSegmentor
from mmclipdis.models.segmentation.windows import Size

Measured = tuple[list[dict[str, Any]], list[Claim]]
PROXYCLIP = Affinity(shift=1.2, scale=3.0, keep="positive")
#: Windows encoded together in :func:`window_rows`.
BATCH = 4


def whole(affinity: Affinity, guide: Guide, values: Tensor) -> Tensor:
    """``W V`` of one guide as its formula is written, ``(1, n, D)``: all ``n x n`` numbers."""
    unit = F.normalize(guide.tokens.flatten(2)[0].T, dim=-1)
    at_grid = F.interpolate(values, size=guide.grid, mode="bilinear").flatten(2)[0].T
    cosines = unit @ unit.T
    logits = affinity.scale * (cosines - affinity.shift * cosines.mean())
    dropped = (logits < 0).fill_diagonal_(False)
    return (logits.masked_fill(dropped, -torch.inf).softmax(-1) @ at_grid)[None]


def mix_rows(grid: Size, width: int, rounds: int, clock: Any, compare: bool = True) -> Measured:
    """Time and memory of ``W V`` on a grid of tokens, in blocks and, to compare, whole."""
    alike = torch.randn(1, width, 1, 1) + torch.randn(1, width, *grid)  # cosines of 0.5
    guide = Guide(alike)
    values = torch.randn(1, width, *(-(-side // 2) for side in grid))
    cases: dict[str, Case] = {"in blocks": lambda: mix(PROXYCLIP, guide, values)}
    if compare:
        cases["whole"] = lambda: whole(PROXYCLIP, guide, values)
        off = (cases["in blocks"]() - cases["whole"]()).abs().max().item()
        if off > 1e-3:  # a borderline cosine may fall on either side
            raise RuntimeError(f"the affinity is off by {off:.1e} of the whole matrix")
    times = interleave(cases, rounds, warmup=int(compare), clock=clock)
    count = grid[0] * grid[1]
    title = f"affinity of {grid[0]} x {grid[1]} = {count} tokens"
    peaks = {name: peak_mb(case) for name, case in cases.items()}
    rows = [
        {
            "name": f"{title}, {name}",
            "metrics": {
                "time_ms": 1e3 * times.median(name),
                "peak_mb": peaks[name],
                "matrix_mb": 4e-6 * count**2,
            },
        }
        for name in cases
    ]
    if not compare:
        part = peaks["in blocks"] / (4e-6 * count**2)
        return rows, [Claim(f"{title}, memory / its n x n matrix", part, at_most=0.4)]
    return rows, [
        Claim(f"{title}, time / whole", times.ratio("in blocks", "whole"), at_most=1.1),
        Claim(f"{title}, memory / whole", peaks["in blocks"] / peaks["whole"], at_most=0.65),
    ]


def build(arch: Arch, vfm: Mapping[str, Any], classes: int = 150) -> OpenVocabSegmentor:
    """ProxyCLIP with random weights and random text embeddings."""
    names = [f"class {number}" for number in range(classes)]
    model = OpenVocabSegmentor(
        backbone={
            "type": "CLIPViT",
            "arch": arch,
            "readout": "proxyclip",
            "vfm": {"type": "TimmVFM", **vfm},
        },
        decode_head={
            "type": "CosineSegHead",
            "vocabulary": Vocabulary.from_names(names, "single"),
            "embeddings": torch.randn(classes, model_config(arch)["embed_dim"]),
        },
    )
    take_as_meant(model)
    return model.eval()


def share_rows(model: OpenVocabSegmentor, crop: int, rounds: int, clock: Any) -> Measured:
    """What the parts of one window take of its time."""
    backbone, image = model.backbone, torch.randn(1, 3, crop, crop)
    tower, guide = backbone.tower, backbone.guide(image)
    values = backbone.values(image)
    tokens = backbone.mixed_tokens(values, guide)
    cases: dict[str, Case] = {
        "whole": lambda: model._forward(image),
        "vision model": lambda: backbone.guide_tokens(image),
        "CLIP before its last block": lambda: run_blocks(tower.blocks[:-1], tower.embed(image)),
        "affinity": lambda: mix(backbone.affinity, guide, values),
        "norm, projection, cosines": lambda: model.decode_head((backbone.joint_map(tokens),)),
    }
    times = interleave(cases, rounds, clock=clock)
    title = f"ProxyCLIP, a window of {crop} px"
    rows = [
        {
            "name": f"{title}, {name}",
            "metrics": {
                "time_ms": 1e3 * times.median(name),
                "share": times.ratio(name, "whole"),
            },
        }
        for name in cases
    ]
    return rows, [
        Claim(f"{title}, share of the affinity", rows[3]["metrics"]["share"], at_most=0.1)
    ]


def window_rows(model: OpenVocabSegmentor, crop: int) -> Measured:
    """Memory beyond what is kept of 1, 4 and 16 windows, and of 9 and 16 of one image.

    Of one image both are several batches: the grid of the image, which is kept from the first to
    the last, stands beside a batch in both.
    """
    step = crop // 3  # of ProxyCLIP: 112 of 336
    cut = {"crop_size": (crop, crop), "window_batch_size": BATCH}
    rows, beyond = [], {}
    for count, side in ((1, 1), (4, 2), (16, 4)):
        size = crop + (side - 1) * step
        model.test_cfg = {**cut, "stride": (step, step)}
        beyond[count] = _beyond_scores(model, torch.randn(3, size, size), count)
    stitched, image = {}, torch.randn(3, 2 * crop, 2 * crop)
    for count, stride in ((9, crop // 2), (16, step)):
        model.test_cfg = {**cut, "stride": (stride, stride), "stitch": "values"}
        stitched[count] = _beyond_scores(model, image, 1)
    title = f"ProxyCLIP, windows of {crop} px"
    for what, found in (("", beyond), (" of one image, values stitched", stitched)):
        rows += [
            {"name": f"{title}, {count}{what}", "metrics": {"peak_mb": peak}}
            for count, peak in found.items()
        ]
    flat, same = beyond[16] / beyond[4], stitched[16] / stitched[9]
    return rows, [
        Claim(f"{title}, 16 / 4, memory beyond their scores", flat, at_most=1.05),
        Claim(f"{title}, 16 / 9 of one image, values stitched, memory", same, at_most=1.05),
    ]


def _beyond_scores(model: OpenVocabSegmentor, image: Tensor, count: int) -> float:
    """Peak MB of the scores of all windows, of which there are ``count``, but for those scores."""
    kept: list[Tensor] = []

    def score() -> None:
        kept.append(model.window_scores([image])[0].maps)

    peak, (maps,) = peak_mb(score), kept
    if len(maps) != count:
        raise RuntimeError(f"{len(maps)} windows, and {count} were meant")
    return peak - maps.nbytes / 1e6


def neighbour_rows(tower: ImageTower, images: Tensor, rounds: int, clock: Any) -> Measured:
    """NACLIP's last block with its bias, and without."""
    tokens, _ = run_blocks(tower.blocks[:-1], tower.embed(images))
    last, grid = tower.blocks[-1], tower.grid_of(images)
    readouts = {"with neighbours": READOUTS["naclip"], "without": get_readout("kk")}
    cases: dict[str, Case] = {
        name: lambda readout=readout: read_last_block(last, tokens, readout, grid=grid)
        for name, readout in readouts.items()
        if isinstance(readout, Readout)
    }
    times = interleave(cases, 5 * rounds, clock=clock)
    title = f"NACLIP's last block, {len(images)} x {grid[0]} x {grid[1]} patches"
    rows = [
        {
            "name": f"{title}, {name}",
            "metrics": {"time_ms": 1e3 * times.median(name), "peak_mb": peak_mb(case)},
        }
        for name, case in cases.items()
    ]
    ratio = times.ratio("with neighbours", "without")
    return rows, [Claim(f"{title}, with / without, time", ratio, at_most=1.15)]


def main() -> None:
    """Read the command line, measure, report."""
    parser = make_parser(__doc__, rounds=2)
    parser.add_argument("--arch", default="ViT-B-16-quickgelu")
    parser.add_argument("--vfm", default="dino-B-8")
    parser.add_argument("--crop", type=int, default=336, help="side of a window in pixels")
    args = parser.parse_args()
    clock = clock_of(args)
    torch.manual_seed(0)
    timing = args.rounds, clock
    side = args.crop // 8
    shallow = model_config(args.arch)
    shallow["vision_cfg"] = {**shallow["vision_cfg"], "layers": 2}
    two_blocks = {"model": args.vfm, "model_kwargs": {"depth": 2}}
    with torch.inference_mode():
        found = [
            mix_rows((side, side), 768, *timing),
            mix_rows((56, 74), 768, *timing),
            mix_rows((70, 140), 768, *timing, compare=False),
            share_rows(build(args.arch, {"model": args.vfm}), args.crop, *timing),
            window_rows(build(shallow, two_blocks), args.crop),
        ]
        tower = build_image_tower(args.arch).eval()
        for images in (torch.randn(8, 3, 224, 224), torch.randn(1, 3, args.crop, 448)):
            found.append(neighbour_rows(tower, images, *timing))
    rows = [row for more, _ in found for row in more]
    report(args, rows, [claim for _, more in found for claim in more])


if __name__ == "__main__":
    main()

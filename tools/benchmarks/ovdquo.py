"""What OV-DQUO costs on top of its frozen CLIP, and where that goes.

    python tools/benchmarks/ovdquo.py --threads 1 --clock cpu --write

The detector of configs/_base_/models/ovdquo_vitb16.py with random weights, and random embeddings of
the classes, on one image of ``--size`` pixels a side:

* whole: image to detections, and of that the tower alone;
* its parts, on what the parts before them give: levels and neck, deformable encoder, CLIP's
  embedding of the 1000 boxes where queries start and end, decoder, scores and NMS, the last once
  for each of ``--classes``;
* the most memory of a training step, forward and backward;
* deformable attention of a layer of the encoder: mmcv's form on ``grid_sample``, which runs
  wherever mmcv has no compiled op for the device (on CPUs it never has one), against the same
  by gathering the four neighbours of every point. The compiled op needs CUDA and was not measured.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from bench import Case, Claim, clock_of, interleave, make_parser, peak_mb, report
from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import InstanceData
from torch import Tensor

from mmclipdis.clip.weights.loading import model_config
from mmclipdis.engine.random_weights import take_as_meant
from mmclipdis.engine.results import ROOT
from mmclipdis.models.detection.ovdquo.queries import class_scores, cosines, rois_of
from mmclipdis.models.detection.ovdquo.targets import image_sizes

CONFIG = ROOT / "configs" / "_base_" / "models" / "ovdquo_vitb16.py"


def build(config: Config) -> Any:
    """The detector with random weights, and without a text encoder.

    Args:
        config: With ``model`` as in configs/_base_/models.
    """
    init_default_scope("mmdet")
    model = config.model
    model.backbone.encoder.pop("init_cfg", None)
    head = model.bbox_head
    head.text_encoder = None
    dim = model_config(model.backbone.encoder.arch)["embed_dim"]
    with tempfile.TemporaryDirectory() as folder:
        head.text_embeddings = str(Path(folder) / "text.pt")
        torch.save(torch.randn(2, dim), head.text_embeddings)
        head.vocabulary = ["thing"]
        built = MODELS.build(model)
    built.init_weights()
    take_as_meant(built)
    return built.eval()


def use_classes(model: Any, count: int) -> None:
    """So many classes with random embeddings, every fourth novel."""
    text = model.class_text.text
    with tempfile.TemporaryDirectory() as folder:
        text.text_embeddings = str(Path(folder) / "text.pt")
        torch.save(torch.randn(count + 1, text.embed_dim), text.text_embeddings)
        names = [f"thing {number}" for number in range(count)]
        model.set_vocabulary(names, names[::4])


def sample(size: int, boxes: int = 10) -> DetDataSample:
    """What a data set says about an image with so many boxes, half of them pseudo boxes."""
    shape = (size, size)
    facts = dict(img_shape=shape, ori_shape=shape, pad_shape=shape, scale_factor=(1.0, 1.0))
    found = DetDataSample(metainfo={**facts, "batch_input_shape": shape})
    corners = torch.rand(boxes, 2) * size / 2
    found.gt_instances = InstanceData(
        bboxes=torch.cat([corners, corners + size / 4], dim=1),
        labels=torch.arange(boxes) % 2 * 2 - 1,  # -1, 1: no base class is a multiple of four
        weights=torch.ones(boxes),
    )
    return found


def speed_rows(
    model: Any, image: Tensor, classes: tuple[int, ...], rounds: int, clock: Any
) -> tuple[list[dict[str, Any]], list[Claim]]:
    """Times of the whole, the tower and the parts."""
    facts = sample(image.shape[-1])
    use_classes(model, classes[0])
    cases: dict[str, Case] = {
        "whole": lambda: model.predict(image, [facts]),
        "tower": lambda: model.backbone.encode(image),
        **_parts(model, image, facts, classes),
    }
    times = interleave(cases, rounds, clock=clock)
    title = f"OV-DQUO {image.shape[-1]} px"
    rows = times.shares(title)
    for name, row in zip(cases, rows, strict=True):
        if name.startswith("scores"):
            row["metrics"]["peak_mb"] = peak_mb(cases[name])
    claims = [
        Claim(f"{title}, scores and NMS, {count} classes / tower", share, at_most=0.05)
        for count in classes
        for share in [times.ratio(f"scores and NMS, {count} classes", "tower")]
    ]
    return rows, claims


def _parts(
    model: Any, image: Tensor, facts: DetDataSample, classes: tuple[int, ...]
) -> dict[str, Case]:
    """Each part of the detector on what those before it give."""
    levels, maps = model._extract(image)
    encoded = model._encode(levels, [facts])
    sizes = image_sizes([facts], image.device)
    starts = encoded.starts.sigmoid()
    hidden, references = model._decode(encoded, encoded.starts, None, None)
    (logits,), (boxes,) = model.bbox_head(hidden, references, last=True)
    regions = model.backbone.score_embeddings(maps, rois_of(boxes, sizes))
    blocks, _ = model.backbone.encode(image)
    cases: dict[str, Case] = {
        "levels and neck": lambda: model.neck(model.backbone.pyramid(blocks)),
        "encoder": lambda: model._encode(levels, [facts]),
        "CLIP's regions, once": lambda: model.backbone.query_embeddings(
            maps, rois_of(starts, sizes)
        ),
        "decoder": lambda: model._decode(encoded, encoded.starts, None, None),
    }

    def ends(text: Tensor) -> Case:
        def end() -> Any:
            scores = class_scores(
                cosines(regions, text), model.test_cfg.temperature, logits.sigmoid().flatten()
            )
            return model.bbox_head.detections(boxes[0], scores, facts.metainfo, rescale=False)

        return end

    for count in classes:
        text = torch.nn.functional.normalize(torch.randn(count, regions.shape[1]), dim=1)
        cases[f"scores and NMS, {count} classes"] = ends(text)
    return cases


def memory_rows(model: Any, image: Tensor) -> list[dict[str, Any]]:
    """Most memory of a step of training on one image, without that of weights and gradients."""
    facts = [sample(image.shape[-1])]
    model.train()

    def step() -> None:
        losses = model.loss(image, facts)
        sum(value for name, value in losses.items() if "loss" in name).backward()

    step()  # gradients exist from here on
    row = {"name": f"OV-DQUO {image.shape[-1]} px, training step, one image"}
    found = [{**row, "metrics": {"peak_mb": peak_mb(step)}}]
    model.zero_grad()
    model.eval()
    return found


def attention_rows(size: int, rounds: int, clock: Any) -> list[dict[str, Any]]:
    """Deformable attention of a layer of the encoder, forward and backward, in two forms.

    Raises:
        RuntimeError: they differ.
    """
    shapes = [(size // stride, size // stride) for stride in (8, 16, 32)]
    count, heads, points = sum(h * w for h, w in shapes), 8, 4
    value = torch.randn(1, count, heads, 32, requires_grad=True)
    where = torch.rand(1, count, heads, len(shapes), points, 2, requires_grad=True)
    weights = torch.rand(1, count, heads, len(shapes), points)
    weights = (weights / weights.sum((-1, -2), keepdim=True)).requires_grad_()
    spatial = torch.tensor(shapes)
    inputs = (value, spatial, where, weights)
    forms = {"grid_sample": multi_scale_deformable_attn_pytorch, "gather": gathered_attention}
    found = [form(*inputs) for form in forms.values()]
    if not torch.allclose(found[0], found[1], atol=1e-4):
        raise RuntimeError("the two forms of deformable attention differ")

    def both(form: Any) -> Case:
        return lambda: form(*inputs).sum().backward()

    cases = {name: both(form) for name, form in forms.items()}
    times = interleave(cases, rounds, clock=clock)
    title = f"deformable attention {size} px"
    return [
        {
            "name": f"{title}, {name}",
            "metrics": {
                "time_ms": 1e3 * times.median(name),
                "ratio": times.ratio(name, "grid_sample"),
                "peak_mb": peak_mb(cases[name]),
            },
        }
        for name in cases
    ]


def gathered_attention(value: Tensor, spatial: Tensor, where: Tensor, weights: Tensor) -> Tensor:
    """The same as mmcv's, by indexing: each point is the weighted mean of four neighbours."""
    batch, _, heads, dim = value.shape
    queries = where.shape[1]
    total = value.new_zeros(batch, queries, heads, dim)
    rows, start = torch.arange(heads)[None, None, :, None], 0
    for level, (height, width) in enumerate(spatial.tolist()):
        x = where[:, :, :, level, :, 0] * width - 0.5
        y = where[:, :, :, level, :, 1] * height - 0.5
        for dx in (0, 1):
            for dy in (0, 1):
                column, row = x.floor() + dx, y.floor() + dy
                share = (1 - (x - column).abs()) * (1 - (y - row).abs())
                inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
                place = row.clamp(0, height - 1) * width + column.clamp(0, width - 1)
                found = value[torch.arange(batch)[:, None, None, None], start + place.long(), rows]
                factor = share * inside * weights[:, :, :, level]
                total = total + (factor[..., None] * found).sum(dim=3)
        start += height * width
    return total.flatten(2)


def main() -> None:
    """Read the command line, measure, report."""
    parser = make_parser(__doc__, rounds=3)
    parser.add_argument("--size", type=int, default=640, help="pixels a side")
    parser.add_argument("--classes", type=int, nargs="+", default=(65, 1203))
    args = parser.parse_args()
    clock = clock_of(args)
    torch.manual_seed(0)
    model = build(Config.fromfile(str(CONFIG)))
    image = torch.randn(1, 3, args.size, args.size)
    with torch.inference_mode():
        rows, claims = speed_rows(model, image, tuple(args.classes), args.rounds, clock)
    rows += memory_rows(model, image)
    rows += attention_rows(args.size, args.rounds, clock)
    report(args, rows, claims)


if __name__ == "__main__":
    main()

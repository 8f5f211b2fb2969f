"""DCLIP's cost on top of its frozen CLIP, and an epoch on kept features against one on images.

    python tools/benchmarks/dclip.py --write

Towers with random weights, ``--batch`` images of ``--size`` pixels:

* head: both projectors, pooling and both losses, forward and then forward and backward, for as many
  classes as VOC 2007 and COCO have, against the forward pass of the tower that gives the tokens;
* epoch: ``--images`` random photos (JPEG, 640 x 480) in COCO's layout through data set, transforms,
  collation and training step, each time from the files and from features kept as
  ``tools/train.py --cache-features`` keeps them. Both give the same losses, which is looked at
  first.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import torch
from bench import Case, Claim, clock_of, interleave, make_parser, report
from mmengine.dataset import pseudo_collate
from mmengine.optim import OptimWrapper
from mmengine.structures import BaseDataElement
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mmclipdis.apis.cache_features import compute_tokens
from mmclipdis.clip.weights.loading import Arch
from mmclipdis.datasets import CachedTokens, CocoMultiLabelDataset
from mmclipdis.datasets.recognition.cached_tokens import TokenImages
from mmclipdis.datasets.recognition.token_store import TokenStore
from mmclipdis.engine.random_weights import take_as_meant
from mmclipdis.models.recognition.dclip import DCLIP

#: The towers of the published table, ResNet and ViT.
TOWERS = {
    "RN101": {"type": "CLIPResNet", "arch": "RN101-quickgelu", "readout": "v"},
    "ViT-B/16": {"type": "CLIPViT", "arch": "ViT-B-16-quickgelu", "readout": "vanilla"},
}
#: Classes of VOC 2007 and of COCO.
CLASSES = (20, 80)


def build(encoder: dict[str, Any], text_arch: Arch | None = None) -> DCLIP:
    """A DCLIP with random weights, as its configs have it."""
    text = {"type": "OpenCLIPTextEncoder", "arch": text_arch or encoder["arch"]}
    model = DCLIP({**encoder, "positions": "size"}, {**text, "cache_dir": False, "progress": False})
    take_as_meant(model)
    return model.train()


def names(count: int) -> list[str]:
    """So many class names."""
    return [f"thing {number}" for number in range(count)]


def head_rows(
    model: DCLIP, title: str, images: Tensor, classes: Sequence[int], rounds: int, clock: Any
) -> tuple[list[dict[str, Any]], list[Claim]]:
    """Everything behind the tokens of ``images`` against the tower before them."""
    tokens = model.tokens(images)
    cases: dict[str, Case] = {"tower": lambda: model.tokens(images)}
    for count in classes:
        # Its own class texts on the same weights.
        head = DCLIP(model.encoder, model.text.encoder, model.projectors, names(count)).train()
        cases |= _head(head, tokens, count)
    times = interleave(cases, rounds, clock=clock)
    rows = times.shares(f"DCLIP {title}, {len(images)} images")
    claims = [
        Claim(
            f"DCLIP {title}, {len(images)} images, {name} / tower",
            times.ratio(name, "tower"),
            at_most=0.05,
        )
        for name in cases
        if name.endswith("forward")
    ]
    return rows, claims


def _head(model: DCLIP, tokens: Tensor, count: int) -> dict[str, Case]:
    """The head for so many classes, forward as in training, and with its gradients."""
    labels = (torch.rand(len(tokens), count) < 3 / count).float()
    samples = [BaseDataElement(gt_score=row) for row in labels]
    parameters = [p for p in model.parameters() if p.requires_grad]

    def forward() -> Tensor:
        return sum(model.loss(tokens, samples).values(), torch.zeros(()))

    def both() -> Any:
        return torch.autograd.grad(forward(), parameters)

    return {f"{count} classes, forward": forward, f"{count} classes, with backward": both}


def write_photos(folder: Path, count: int, classes: Sequence[str]) -> None:
    """Random photos of 640 x 480 pixels, with three classes each, in COCO's layout."""
    rng = np.random.default_rng(0)
    notes: list[dict[str, int]] = []
    for number in range(count):
        coarse = rng.integers(0, 256, (15, 20, 3), dtype=np.uint8)
        photo = cv2.resize(coarse, (640, 480), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / f"{number}.jpg"), photo)
        labels = (number * 3 + np.arange(3)) % len(classes)
        notes += [{"image_id": number, "category_id": int(label)} for label in labels]
    content = {
        "images": [{"id": number, "file_name": f"{number}.jpg"} for number in range(count)],
        "annotations": notes,
        "categories": [{"id": label, "name": name} for label, name in enumerate(classes)],
    }
    (folder / "labels.json").write_text(json.dumps(content))


def photos(folder: Path, size: int) -> CocoMultiLabelDataset:
    """The data set of the photos, with the pipeline of the config for kept features."""
    scale = {"scale": (size, size), "keep_ratio": False, "backend": "pillow"}
    pipeline = [
        {"type": "LoadImageFromFile"},
        {"type": "Resize", **scale},
        {"type": "PackMultiLabelInputs"},
    ]
    return CocoMultiLabelDataset("labels.json", data_root=str(folder), pipeline=pipeline)


def keep(model: DCLIP, wrapper: OptimWrapper, dataset: Any, folder: Path, batch: int) -> Any:
    """``dataset`` on features that are computed here."""
    images = TokenImages(dataset)
    images.check()
    runner: Any = SimpleNamespace(model=model, optim_wrapper=wrapper)
    shape = compute_tokens(runner, [images[0]]).shape[1:]
    store = TokenStore.create(folder, len(images), shape, batch)
    for shard in store.missing():
        samples = [images[row] for row in store.rows(shard)]
        facts = [sample["facts"] for sample in samples]
        store.write(shard, [(compute_tokens(runner, samples), facts)])
    cached = CachedTokens(dataset)
    cached.attach(store)
    return cached


def epoch_rows(
    model: DCLIP,
    title: str,
    folder: Path,
    count: int,
    batch: int,
    size: int,
    rounds: int,
    clock: Any,
) -> tuple[list[dict[str, Any]], list[Claim]]:
    """An epoch of training from files and from kept features."""
    classes = names(CLASSES[-1])
    model.set_vocabulary(classes)
    write_photos(folder, count, classes)
    trained = [p for p in model.parameters() if p.requires_grad]
    wrapper = OptimWrapper(torch.optim.SGD(trained, lr=1e-6, momentum=0.9))
    dataset = photos(folder, size)
    start = clock()
    cached = keep(model, wrapper, dataset, folder / "features", batch)
    once = clock() - start
    sets = {"from images": dataset, "from kept features": cached}
    losses = [_first_loss(model, data, batch) for data in sets.values()]
    if abs(losses[0] - losses[1]) > 1e-5 * abs(losses[0]):
        raise RuntimeError(f"{title}: kept features give the loss {losses[1]}, images {losses[0]}")
    cases = {name: _epoch(model, wrapper, data, batch) for name, data in sets.items()}
    times = interleave(cases, rounds, clock=clock)
    what = f"DCLIP {title}, epoch of {count} images"
    rows: list[dict[str, Any]] = [
        {"name": f"{what}, {name}", "metrics": {"ms_per_image": 1e3 * times.median(name) / count}}
        for name in cases
    ]
    kept = {"ms_per_image": 1e3 * once / count, "mb_per_image": cached[0]["inputs"].nbytes / 1e6}
    rows.append({"name": f"{what}, computing the features once", "metrics": kept})
    claim = f"{what}, from images / from kept features"
    return rows, [Claim(claim, times.ratio(*cases), at_least=10)]


def _first_loss(model: DCLIP, dataset: Dataset, batch: int) -> float:
    """Loss of the first batch."""
    data = pseudo_collate([dataset[row] for row in range(min(batch, len(dataset)))])
    with torch.no_grad():
        losses = model(**model.data_preprocessor(data, True), mode="loss")
    return float(sum(losses.values(), torch.zeros(())))


def _epoch(model: DCLIP, wrapper: OptimWrapper, dataset: Dataset, batch: int) -> Case:
    """All batches of an epoch through the training step."""
    loader = DataLoader(dataset, batch, shuffle=True, collate_fn=pseudo_collate)

    def run() -> None:
        for data in loader:
            model.train_step(data, wrapper)

    return run


def main() -> None:
    """Read the command line, measure, report."""
    parser = make_parser(__doc__, rounds=3)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--size", type=int, default=448, help="pixels a side")
    parser.add_argument("--images", type=int, default=32, help="photos of an epoch")
    parser.add_argument("--towers", nargs="+", choices=TOWERS, default=list(TOWERS))
    args = parser.parse_args()
    clock = clock_of(args)
    torch.manual_seed(0)
    rows: list[dict[str, Any]] = []
    claims: list[Claim] = []
    for title in args.towers:
        start = time.perf_counter()
        model = build(TOWERS[title])
        images = torch.randn(args.batch, 3, args.size, args.size)
        results = [head_rows(model, title, images, CLASSES, args.rounds, clock)]
        del images
        with tempfile.TemporaryDirectory() as folder:
            options = (args.images, args.batch, args.size, args.rounds, clock)
            results.append(epoch_rows(model, title, Path(folder), *options))
        for more in results:
            rows, claims = rows + more[0], claims + more[1]
        print(f"{title}: {time.perf_counter() - start:.0f} s")
    report(args, rows, claims)


if __name__ == "__main__":
    main()

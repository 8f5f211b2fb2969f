"""``tools/train.py --cache-features DIR``: compute a frozen tower's tokens once, train from them.

Each state of what the tokens depend on (weights, settings of the tower, pipeline, images) has its
own folder in DIR, named by a hash of all that. So features of another state are never taken, and
those of two settings can lie side by side.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.dist import barrier, get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from mmclipdis.apis.cli import UserInputError
from mmclipdis.clip.text.embedding_cache import weights_fingerprint
from mmclipdis.datasets.recognition.cached_tokens import TokenImages
from mmclipdis.datasets.recognition.token_store import Batch, TokenStore
from mmclipdis.engine.nonfinite_guard import image_files
from mmclipdis.engine.random_state import preserved_random_state

#: Part of every key; raise it when the files or the meaning of the tokens in them change.
FORMAT = 2
#: Settings of a model that its tokens do not depend on. Any other one is part of the key.
_NOT_IN_TOKENS = (
    *("text_encoder", "projectors", "vocabulary", "prompts", "pooling", "logit_temperature"),
    *("logit_scale", "asl", "mfi", "init_cfg"),
)
#: Largest relative difference of stored tokens of the first image to new ones. CPU and GPU differ
#: by 1e-5 to 1e-3 (TF32), other weights or another layout by far more.
_TOLERANCE = 1e-2


def use_cached_features(config: Config, folder: str) -> None:
    """Make a training config keep frozen features in ``folder`` and train from them."""
    loader = config.train_dataloader
    loader["dataset"] = {"type": "CachedTokens", "dataset": loader["dataset"]}
    hook = {"type": "CacheFeaturesHook", "folder": folder}
    config.custom_hooks = [*(config.get("custom_hooks") or []), hook]


@HOOKS.register_module()
class CacheFeaturesHook(Hook):
    """Computes, before training, the features that are not in ``folder`` yet.

    The model has to have a frozen ``encoder`` and ``tokens(images)``, (B, L, D) without gradient;
    the training set is a :class:`CachedTokens`. All ranks share the work, so ``folder`` has to be
    on a disk that all of them see.

    Args:
        folder: where the features are, each state of weights, pipeline and images in a folder of
            its own.

    Raises:
        UserInputError: the model has no frozen tokens, the disk is too small, or stored features
            are not those of this model after all.
        ValueError: an image cannot be read, or the pipeline is random.
    """

    priority = "VERY_HIGH"

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def before_run(self, runner: Runner) -> None:
        """Refuse a model without tokens before its weights are loaded."""
        model = _bare(runner.model)
        if not (
            hasattr(model, "tokens") and isinstance(getattr(model, "encoder", None), nn.Module)
        ):
            raise UserInputError(
                f"--cache-features: {type(model).__name__} has no frozen features (a method tokens "
                "and an encoder), as DCLIP has; leave --cache-features out."
            )
        if any(parameter.requires_grad for parameter in model.encoder.parameters()):
            raise UserInputError(
                "--cache-features: the encoder is trained, so its features change; freeze it with "
                "model.encoder.trainable=(), or leave --cache-features out."
            )

    def before_train(self, runner: Runner) -> None:
        """Compute what is missing, and let the training set read it."""
        dataset = runner.train_dataloader.dataset
        with preserved_random_state():
            dataset.attach(self.provide(runner))

    def provide(self, runner: Runner) -> TokenStore:
        """The store of this run's features, complete."""
        loader = runner.train_dataloader
        images = TokenImages(loader.dataset.dataset)
        images.check()
        first = compute_tokens(runner, [images[0]])
        _check_preprocessor(_bare(runner.model), first)
        parts = key_parts(runner, images)
        key = _digest(parts)
        folder = self.folder / key[:16]
        if get_rank() == 0:
            _prepare(runner, folder, (len(images), *first.shape[1:]), parts)
        barrier()
        store = TokenStore.open(folder) or _unseen(folder)
        if store.key != key or len(store) != len(images):
            raise UserInputError(
                f"{str(folder)!r} holds other features than its name says; delete that folder."
            )
        missing = store.missing()
        barrier()  # before any rank adds to the folder, all have looked into it
        if missing:
            _fill(runner, store, missing[get_rank() :: get_world_size()], images)
            barrier()
            if store.missing():
                _unseen(folder)
        error = float((store[0][0] - first[0]).norm() / first[0].norm())
        if not error < _TOLERANCE:
            raise UserInputError(
                f"the features in {str(folder)!r} are not those of this model (they differ by "
                f"{error:.1e}); delete that folder."
            )
        return store


def compute_tokens(runner: Runner, samples: list[dict[str, Any]]) -> Tensor:
    """Tokens (B, L, D) of samples, float32 on the CPU, computed as in a training iteration.

    Raises:
        UserInputError: those of an image are nan or infinite.
    """
    model = _bare(runner.model)
    was_training = model.training
    data = pseudo_collate([{k: v for k, v in s.items() if k != "facts"} for s in samples])
    model.eval()
    with torch.no_grad(), runner.optim_wrapper.optim_context(runner.model):  # mixed precision
        tokens = model.tokens(model.data_preprocessor(data, True)["inputs"])
    model.train(was_training)
    tokens = tokens.float().cpu()
    broken = [s for s, finite in zip(samples, tokens.isfinite().all((1, 2)).tolist()) if not finite]
    if broken:
        files = ", ".join(image_files(broken)) or "an image without a path"
        raise UserInputError(
            f"--cache-features: the features of {files} are not finite, and are not kept; look at "
            "the images, at the weights, and, with --amp, train without it."
        )
    return tokens  # type: ignore[no-any-return]


def _check_preprocessor(model: Any, tokens: Tensor) -> None:
    """Try whether tokens get through.

    Raises:
        UserInputError: they do not, or are changed.
    """
    try:
        passed = model.data_preprocessor({"inputs": list(tokens)}, True)["inputs"]
        same = torch.equal(passed.cpu(), tokens)
    except (AssertionError, AttributeError, RuntimeError, TypeError, ValueError):
        same = False
    if not same:
        raise UserInputError(
            f"--cache-features: {type(model.data_preprocessor).__name__} takes images only; use "
            "model.data_preprocessor=dict(type='DCLIPDataPreprocessor')."
        )


def key_parts(runner: Runner, images: TokenImages) -> dict[str, Any]:
    """Everything that the tokens of a run depend on.

    Raises:
        FileNotFoundError: an image is not there.
    """
    config, model = runner.cfg, _bare(runner.model)
    settings = {name: value for name, value in config.model.items() if name not in _NOT_IN_TOKENS}
    # The weights themselves are part of the key, not the file that they came from.
    encoder = dict(settings.get("encoder") or {})
    settings["encoder"] = {name: value for name, value in encoder.items() if name != "init_cfg"}
    files = hashlib.sha256()
    for row in range(len(images)):
        path = os.path.abspath(images.path(row))
        status = os.stat(path)
        files.update(f"{path}\0{status.st_size} {status.st_mtime_ns}\n".encode())
    return {
        "format": FORMAT,
        "weights": weights_fingerprint(model.encoder, ""),
        "model": settings,
        "data_preprocessor": config.get("data_preprocessor"),
        "mixed_precision": str(getattr(runner.optim_wrapper, "cast_dtype", "no")),
        "pipelines": [
            *_pipelines(config.train_dataloader.dataset),  # a transform's repr leaves things out
            *(list(map(_repr, part.pipeline.transforms)) for part in images.parts),
        ],
        "images": files.hexdigest(),
    }


def _pipelines(config: Any) -> Iterator[Any]:
    """The transforms of every data set in a config; the last packs the image."""
    if isinstance(config, (list, tuple)):
        for part in config:
            yield from _pipelines(part)
    elif isinstance(config, dict):
        for name, value in config.items():
            if name == "pipeline":
                yield value
            else:
                yield from _pipelines(value)


def _digest(parts: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=_repr).encode()).hexdigest()


def _repr(part: Any) -> str:
    """``repr`` without where an object lies in memory, which the default one says."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(part))


def _prepare(
    runner: Runner, folder: Path, size: tuple[int, int, int], about: dict[str, Any]
) -> None:
    """Open or start the store, and say what will be done.

    Raises:
        UserInputError: the disk is too small for what is missing.
    """
    count, *shape = size
    batch = int(runner.train_dataloader.batch_size or 1)
    store = TokenStore.open(folder) or TokenStore.create(
        folder, count, shape, batch, about, _digest(about)
    )
    store.remove_abandoned()
    missing = sum(len(store.rows(shard)) for shard in store.missing())
    needed, free = store.bytes_of(missing), shutil.disk_usage(folder).free
    sizes = f"{count} x {shape[0]} x {shape[1]} float32, {_gb(store.bytes_of(count))}"
    others = sum(path.parent != folder for path in folder.parent.glob("*/index.json"))
    runner.logger.info(
        f"features in {folder}: {sizes}; {missing} images to compute ({_gb(needed)})"
        + f"; {others} folders beside it hold features of other settings" * bool(others)
    )
    if needed > free:
        raise UserInputError(
            f"--cache-features: {_gb(needed)} are needed in {str(folder.parent)!r} ({sizes}), and "
            f"{_gb(free)} are free; name another folder, or delete in it what is no longer needed."
        )


def _fill(runner: Runner, store: TokenStore, shards: list[int], images: TokenImages) -> None:
    """Compute and write some shards, with a progress bar of this rank's images."""
    loader = runner.train_dataloader
    size = int(loader.batch_size or 1)
    batches = {
        shard: [rows[i : i + size] for i in range(0, len(rows), size)]
        for shard in shards
        for rows in [list(store.rows(shard))]
    }
    samples = iter(
        DataLoader(
            images,
            batch_sampler=[batch for group in batches.values() for batch in group],
            num_workers=loader.num_workers,
            collate_fn=list,
            multiprocessing_context=loader.multiprocessing_context,
        )
    )
    total = sum(len(store.rows(shard)) for shard in shards)
    runner.logger.info(f"features: {total} images are this process's part")
    with tqdm(total=total, desc="features", unit="image", disable=get_rank() > 0 or None) as bar:

        def computed(count: int) -> Iterator[Batch]:
            for batch in islice(samples, count):
                yield compute_tokens(runner, batch), [sample["facts"] for sample in batch]
                bar.update(len(batch))

        try:
            for shard, group in batches.items():
                store.write(shard, computed(len(group)))
        finally:  # or else, after an error, the process waits seconds for its workers at its end
            getattr(samples, "_shutdown_workers", int)()


def _unseen(folder: Path) -> NoReturn:
    raise UserInputError(
        f"rank {get_rank()} does not see the features in {str(folder)!r} that other ranks have "
        "written; --cache-features needs a folder on a disk that all ranks share."
    )


def _gb(size: int) -> str:
    return f"{size / 1e9:.3g} GB"


def _bare(model: Any) -> Any:
    return model.module if is_model_wrapper(model) else model

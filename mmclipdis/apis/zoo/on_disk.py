"""Weights on this machine: where they lie, what is downloaded, and what to say of the rest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from open_clip import pretrained

from mmclipdis.apis.zoo.listing import ModelInfo, find
from mmclipdis.apis.zoo.sources import Weights, cache_folder, known_file
from mmclipdis.clip.weights.fetching import place_of_tag
from mmclipdis.clip.weights.loading import fetch_weights
from mmclipdis.clip.weights.tags import PACKAGED, tags_of
from mmclipdis.engine.checkpoint_io import is_remote
from mmclipdis.engine.downloads import downloaded_to
from mmclipdis.utils.downloading import sha256_of

ENDINGS = (".safetensors", ".pth", ".pt", ".bin")


def put_weights(config: Any, info: ModelInfo | None, name: str) -> None:
    """See to the weights that a config names: those of CLIP, of its text, projectors and the like.

    A file that is there stays. A tag of open_clip is downloaded, which later reads it from its
    cache. For a file that is not there the folder of downloads is looked through, and what has an
    address is downloaded; the config then names that file.

    Args:
        config: Whose model is looked through, and changed.
        info: The model of the zoo, which may know how a file is made.
        name: What the model was called, for messages.

    Raises:
        FileNotFoundError: something is not here and cannot be downloaded.
        ValueError: a downloaded file is not the one that it should be.
    """
    tags: dict[tuple[str, str], None] = {}
    for owner, key, arch in list(weight_sources(config.get("model") or {})):
        source = str(owner[key])
        if Path(source).expanduser().is_file() or is_remote(source):
            continue
        if isinstance(arch, str) and source in tags_of(arch):
            tags[arch, source] = None
            continue
        found = _fetched(source, info, name)
        if found is not None:
            owner[key] = str(found)
    for arch, tag in tags:  # large, and of no use where another file is missing
        try:
            fetch_weights(arch, tag)
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{name!r} needs what is not here: {error}") from error


def look_for_weights(
    config: Any, info: ModelInfo | None, name: str, folder: Path
) -> tuple[list[str], list[str]]:
    """Which weights a config lacks, and which :func:`put_weights` would download.

    Args:
        config: As of :func:`put_weights`; what lies in ``folder`` is named there.
        info, name: As of :func:`put_weights`.
        folder: Where files are looked for by their names, too, those of tags included.

    Returns:
        A line for each that has to be got by hand, and one for each download.
    """
    missing: dict[str, None] = {}
    downloads: dict[str, None] = {}
    for owner, key, arch in list(weight_sources(config.get("model") or {})):
        source = str(owner[key])
        if Path(source).expanduser().is_file():
            continue
        tag = isinstance(arch, str) and source in tags_of(arch)
        kept = _place_of_tag(arch, source) if tag else cache_folder() / Path(source).name
        given = folder / kept.name
        weights = known_file(source)
        if given.is_file():
            owner[key] = str(given)
        elif tag:
            if not kept.is_file():
                downloads[f"{source} of {arch} (open_clip fetches it unless it has it)"] = None
        elif is_remote(source):
            downloads[source] = None
        elif weights is not None and kept.is_file():
            owner[key] = str(kept)
        elif weights is not None and weights.url is not None:
            downloads[f"{weights.name} ({weights.title}, licence: {weights.license})"] = None
        elif weights is not None:
            missing[_missing(source, weights, name)] = None
        else:
            made = _made(source, info)
            missing[_not_made(source, made, name)] = None
    return list(missing), list(downloads)


def find_checkpoint(
    info: ModelInfo | None,
    given: str | Path | None,
    name: str,
    needed: bool,
    folder: Path = Path("checkpoints"),
) -> str | None:
    """The checkpoint to load: the one that is given, that ships, or that was put into a folder.

    Args:
        info: The model of the zoo.
        given: A file or URL.
        name: What the model was called, for messages.
        needed: Whether a model that must be trained is refused without one.
        folder: Where one is looked for by its name, before the folder of downloads.

    Raises:
        FileNotFoundError: there is none, and the model is worth nothing without.
    """
    if given is not None:
        path = Path(given).expanduser()
        if not is_remote(given) and not path.is_file():
            raise FileNotFoundError(f"no checkpoint at {given}")
        return str(given) if is_remote(given) else str(path)
    if info is None:
        return None
    if info.checkpoint is not None:
        return str(info.checkpoint)
    if not info.trained:
        return None
    for called in (info.name, *info.aliases):
        for ending in ENDINGS:
            for place in (folder, cache_folder()):
                if (place / f"{called}{ending}").is_file():
                    return str(place / f"{called}{ending}")
    if needed:
        raise FileNotFoundError(_untrained(info, name))
    return None


def weight_sources(node: Any, arch: Any = None) -> Iterator[tuple[Any, Any, Any]]:
    """Where settings name weights: the dict or list, the key, and the CLIP that they are of."""
    if isinstance(node, dict):
        arch = node.get("arch", arch)
        if node.get("type") == "Pretrained" and isinstance(node.get("checkpoint"), str):
            yield node, "checkpoint", arch
            return
    pairs = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in pairs:
        if isinstance(value, (dict, list)):
            yield from weight_sources(value, arch)
        elif isinstance(value, str) and value.endswith(ENDINGS):
            yield node, key, arch


def _place_of_tag(arch: str, tag: str) -> Path:
    """The file of a tag: in the package, or where one that was downloaded lies."""
    packaged = PACKAGED.get((arch, tag))
    if packaged is not None:
        return packaged
    return place_of_tag(arch, tag, pretrained.get_pretrained_cfg(arch, tag) or {})


def _fetched(source: str, info: ModelInfo | None, name: str) -> Path | None:
    """A file that a config names and that does not lie there; None: nothing is known of it."""
    weights = known_file(source)
    made = _made(source, info)
    if weights is None and made is None:
        return None  # what reads it says so, with near names
    place = cache_folder() / Path(source).name
    if weights is not None and place.is_file():
        _check_hash(place, weights)
        return place
    if weights is not None and weights.url is not None:
        remedy = f"fetch it by other means ({weights.page}) and put it to {place}"
        return downloaded_to(weights.url, place, weights.sha256, remedy)
    raise FileNotFoundError(
        _not_made(source, made, name) if weights is None else _missing(source, weights, name)
    )


def _check_hash(place: Path, weights: Weights) -> None:
    if weights.sha256 is not None and (found := sha256_of(place)) != weights.sha256:
        raise ValueError(
            f"{place} is not the file that {weights.page} tells of: its SHA-256 is {found}, not "
            f"{weights.sha256}; delete it, and it is downloaded again"
        )


def _made(source: str, info: ModelInfo | None) -> Weights | None:
    downloads = info.downloads if info is not None else ()
    return next((one for one in downloads if one.where == source), None)


def _missing(source: str, weights: Weights, name: str) -> str:
    return (
        f"{name!r} needs {Path(source).name} ({weights.title}, licence: {weights.license}), which "
        f"is not on this machine, and no address of the file is known: get it from {weights.page} "
        f"and put it to {cache_folder() / weights.name}, or to {source} in this folder"
    )


def _not_made(source: str, made: Weights | None, name: str) -> str:
    maker = (made.title if made is not None else "").removeprefix("made by ")
    info = find(maker)
    config = f"python tools/train.py {info.config}" if info is not None else "the training"
    return (
        f"{name!r} needs {source}, which nobody released: make it ({config}), or name a file of "
        "your own in its place with cfg_options"
    )


def _untrained(info: ModelInfo, name: str) -> str:
    released = next((one for one in info.downloads if one.kind == "trained" and one.page), None)
    text = f"{name!r} must be trained, and no weights of it ship"
    if released is not None:
        tool = f", convert it with {info.converter}" if info.converter else ""
        text += f": get the authors' checkpoint from {released.page}"
        text += f" (licence: {released.license}){tool}"
    else:
        text += f": train it (python tools/train.py {info.config})"
    return (
        f"{text}; then give the file (weights=FILE, --weights FILE) or put it to "
        f"{cache_folder() / f'{info.name}.pth'}"
    )

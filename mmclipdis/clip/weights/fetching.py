"""Weights behind open_clip's tags: from a folder, from Hugging Face's hub, from an address."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import open_clip.pretrained
from huggingface_hub.utils import logging as hub_logging

from mmclipdis.clip.weights.files import first_line
from mmclipdis.utils.downloading import DownloadError, download, sha256_of

#: Where OpenAI's clip and open_clip keep what they download from addresses.
FOLDER = Path("~/.cache/clip")


def fetch_tag(arch: str, tag: str, config: Mapping[str, Any]) -> Path:
    """The file of a tag, downloaded where it is not there.

    A file at :func:`place_of_tag` does, if its hash is right or not known. Else open_clip takes it
    from Hugging Face's cache or hub; if that fails, or there is none, it comes from the tag's
    address.

    Args:
        arch: Name of open_clip's model.
        tag: Of its weights.
        config: What open_clip knows of the tag.

    Raises:
        FileNotFoundError: It cannot be had; the message says where to put it.
        OSError: of the disk.
        ValueError: The address sends another file.
    """
    place, url = place_of_tag(arch, tag, config), str(config.get("url") or "")
    sha256 = sha256_of_address(url)
    if place.is_file() and sha256 in (None, sha256_of(place)):
        return place
    problems = []
    if config.get("hf_hub") or not url:
        try:
            with _quiet_hub():
                return Path(open_clip.pretrained.download_pretrained(dict(config)))
        except Exception as error:  # of urllib, Hugging Face's hub and open_clip, each with its own
            problems.append(f"{str(config.get('hf_hub') or url)!r}: {first_line(error)[:160]}")
    if url:
        try:
            return download(url, place, sha256)
        except DownloadError as error:
            problems.append(f"{url}: {error}")
    raise FileNotFoundError(
        f"cannot download the weights {tag!r} of {arch!r} from {'; from '.join(problems)}; fetch "
        f"the file by other means and put it to {place}, or give its path as checkpoint"
    )


@contextmanager
def _quiet_hub() -> Iterator[None]:
    """Leave out the hub's line for each time it tries again; the last failure is told."""
    before = hub_logging.get_verbosity()
    hub_logging.set_verbosity(hub_logging.ERROR)
    try:
        yield
    finally:
        hub_logging.set_verbosity(before)


def place_of_tag(arch: str, tag: str, config: Mapping[str, Any]) -> Path:
    """Where a file of a tag is looked for first: as open_clip names it, or ``ARCH-TAG``."""
    name = Path(urlsplit(str(config.get("url") or "")).path).name
    return FOLDER.expanduser() / (name or f"{arch.replace('/', '-')}-{tag}.safetensors")


def sha256_of_address(url: str) -> str | None:
    """The hash that OpenAI's addresses carry, as open_clip reads it; None for others."""
    found = re.search(r"/([0-9a-f]{64})/[^/]+$", url)
    return found[1] if found else None

"""Files of URLs, kept in torch's cache under the whole URL rather than under the file's name."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from urllib.parse import urlsplit

import torch
from mmengine.logging import print_log

from mmclipdis.utils.downloading import DownloadError, download, sha256_of, shown


def downloaded(url: str) -> Path:
    """The file of a URL, downloaded if it is not there yet; says which file is used.

    It lies in ``torch.hub.get_dir()/checkpoints``, in a folder named by a digest of the URL: equal
    file names of two places are two files. Files that others put there under their name alone are
    not taken. Where the name carries the start of the file's SHA-256 (torch's and OpenMMLab's
    ``NAME-1a2b3c4d.pth``), it is compared, each time.

    Raises:
        FileNotFoundError: It cannot be downloaded, or ends early; names the URL and the reason.
        ValueError: The file is not the one whose hash stands in its name.
    """
    path = place_of(url)
    downloaded_to(url, path, None, "download it by other means and give the file.")
    _check_hash(url, path)
    print_log(f"{shown(url)} is read from {path}", logger="current")
    return path


def place_of(url: str) -> Path:
    """Where the file of a URL lies, or will lie."""
    name = re.sub(r"[^\w.+-]", "_", Path(urlsplit(url).path).name).lstrip(".")[-100:]
    key = hashlib.sha256(url.encode()).hexdigest()[:16]
    return Path(torch.hub.get_dir()) / "checkpoints" / key / (name or "checkpoint")


def downloaded_to(url: str, path: Path, sha256: str | None, remedy: str) -> Path:
    """The file of a URL at ``path``, downloaded if it is not there yet.

    Args:
        url: Of the file.
        path: Where it lies, or will lie.
        sha256: Of the whole file, in hexadecimal digits; None: it is not checked.
        remedy: What to do when it cannot be downloaded.

    Raises:
        FileNotFoundError: It cannot be downloaded; names the URL, the reason and the place for it.
        OSError, ValueError: as :func:`mmclipdis.utils.downloading.download`.
    """
    if path.is_file():
        return path
    print_log(f"Download {shown(url)} to {path}", logger="current")
    try:
        return download(url, path, sha256)
    except DownloadError as error:
        raise FileNotFoundError(
            f"cannot download checkpoint {shown(url)} ({error}); {remedy}"
        ) from error


def _check_hash(url: str, path: Path) -> None:
    found = re.search(r"-([0-9a-f]{8,64})\.\w+$", path.name)
    if found is None or re.fullmatch(r"(19|20)\d{6}", found[1]):  # the date of a release
        return
    digest = sha256_of(path)
    if not digest.startswith(found[1]):
        raise ValueError(
            f"{path} is not what {shown(url)} promises: its SHA-256 starts with "
            f"{digest[: len(found[1])]}, not with {found[1]}; delete it to download it again, and "
            "if that ends here, too, the server has another file"
        )

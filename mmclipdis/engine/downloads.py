"""Files of URLs, kept in torch's cache under the whole URL rather than under the file's name."""

from __future__ import annotations

import hashlib
import re
import shutil
import sys
from http.client import HTTPException
from pathlib import Path
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import torch
from mmengine.logging import print_log
from tqdm import tqdm

from mmclipdis.utils.whole_files import whole_file

#: Seconds without an answer after which a server is given up.
TIMEOUT = 60


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
    if not path.is_file():
        print_log(f"Download {shown(url)} to {path}", logger="current")
        _download(url, path)
    _check_hash(url, path)
    print_log(f"{shown(url)} is read from {path}", logger="current")
    return path


def place_of(url: str) -> Path:
    """Where the file of a URL lies, or will lie."""
    name = re.sub(r"[^\w.+-]", "_", Path(urlsplit(url).path).name).lstrip(".")[-100:]
    key = hashlib.sha256(url.encode()).hexdigest()[:16]
    return Path(torch.hub.get_dir()) / "checkpoints" / key / (name or "checkpoint")


def _download(url: str, path: Path) -> None:
    try:
        request = Request(url, headers={"User-Agent": "mmclipdis"})
        with urlopen(request, timeout=TIMEOUT) as answer, whole_file(path) as file:
            if answer.headers.get_content_type() == "text/html":
                raise HTTPException("the server answers with a web page")
            size = int(answer.headers.get("Content-Length") or 0)
            with tqdm.wrapattr(
                answer, "read", total=size or None, disable=not sys.stderr.isatty()
            ) as source:
                shutil.copyfileobj(source, file)
            if (file.tell() != size and size) or not file.tell():
                raise HTTPException(f"{file.tell():,} bytes came of {size:,}")
    except (OSError, HTTPException, ValueError) as error:
        if isinstance(error, OSError) and not isinstance(error, URLError) and error.filename:
            raise  # of our disk
        reason = " ".join(str(error).split())[:200]
        raise FileNotFoundError(
            f"cannot download checkpoint {shown(url)} ({reason}); download it by other means and "
            "give the file."
        ) from error


def _check_hash(url: str, path: Path) -> None:
    found = re.search(r"-([0-9a-f]{8,64})\.\w+$", path.name)
    if found is None or re.fullmatch(r"(19|20)\d{6}", found[1]):  # the date of a release
        return
    sha256 = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            sha256.update(block)
    digest = sha256.hexdigest()
    if not digest.startswith(found[1]):
        raise ValueError(
            f"{path} is not what {shown(url)} promises: its SHA-256 starts with "
            f"{digest[: len(found[1])]}, not with {found[1]}; delete it to download it again, and "
            "if that ends here, too, the server has another file"
        )


def shown(url: str) -> str:
    """The URL without what may be secret in it: user, password, query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

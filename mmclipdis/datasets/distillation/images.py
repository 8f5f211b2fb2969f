"""Images without annotations for distillation; broken ones are replaced and counted."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Sequence
from typing import Any

import torch
from mmengine.dataset import BaseDataset
from mmengine.dist import get_rank
from mmengine.logging import print_log
from mmengine.registry import DATASETS
from torch.utils.data import get_worker_info

from mmclipdis.utils.listed_files import files_below, missing_places, unread_by_ending
from mmclipdis.utils.paths import check_samples

#: Files taken for images in a folder.
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


@DATASETS.register_module()
class DistillImageDataset(BaseDataset):
    """The images that a COCO or LVIS json lists, or all below a folder; annotations are not used.

    An image for which the pipeline gives None (missing, broken, too small) is replaced by a random
    other one, with a warning that names it. :attr:`num_replaced` counts them.

    Args:
        ann_file: json whose ``images`` are taken by ``file_name`` or, where there is none (LVIS),
            by the last two components of ``coco_url``; ``''`` takes all images below the folder.
        data_root: Folder to which ``ann_file`` and ``data_prefix`` are relative.
        data_prefix: ``dict(img_path=...)``, the folder of the images.
        pipeline: Transforms, configs or callables.
        indices: Take only these images, or only the first so many.
        max_refetch: Most images tried in place of one that cannot be used.
        lazy_init: Read ``ann_file`` later, at the first use.
        metainfo: See ``BaseDataset``.

    Raises:
        FileNotFoundError: There is no such json or folder, no image in it, or none that the json
            lists.
        ValueError: The json is none of that kind or names files outside ``data_root``, or
            ``data_prefix`` has other keys.
    """

    def __init__(
        self,
        ann_file: str = "",
        data_root: str = "",
        data_prefix: dict[str, str] | None = None,
        pipeline: Sequence[Any] = (),
        indices: int | Sequence[int] | None = None,
        max_refetch: int = 100,
        lazy_init: bool = False,
        metainfo: dict[str, Any] | None = None,
    ) -> None:
        prefix = dict(data_prefix or {"img_path": ""})
        if set(prefix) != {"img_path"}:
            raise ValueError(f"data_prefix must be dict(img_path=...), got {prefix}.")
        self._replaced = _SharedCount()
        super().__init__(
            ann_file=ann_file,
            data_root=data_root,
            data_prefix=prefix,
            pipeline=list(pipeline),
            indices=indices,
            max_refetch=max_refetch,
            lazy_init=lazy_init,
            metainfo=metainfo,
        )

    @property
    def num_replaced(self) -> int:
        """Images replaced so far by this process and its data-loading workers.

        Workers read a few batches ahead of the training. A copy of the data set starts at 0.
        """
        return self._replaced.total

    def load_data_list(self) -> list[dict[str, Any]]:
        """List the paths of the images: ``[{"img_path": ...}, ...]``."""
        name, folder = type(self).__name__, self.data_prefix["img_path"]
        if not os.path.isdir(folder):
            raise FileNotFoundError(
                f"{name}: no image folder {folder!r}; set data_root or data_prefix.img_path"
            )
        if self.ann_file:
            paths = [os.path.join(folder, file) for file in listed_images(self.ann_file)]
            check_samples(self, [{"img_path": path} for path in paths])
            missing = missing_places(paths)
            if len(missing) == len(paths):
                raise FileNotFoundError(
                    f"{name}: {paths[0]!r} is not there, nor are the next that {self.ann_file!r} "
                    "lists; set data_prefix.img_path"
                )
            if missing:
                self._say(
                    f"{len(missing):,} of {len(paths):,} images that {self.ann_file!r} lists are "
                    f"not there, and others take their place; the first is {paths[missing[0]]!r}"
                )
        else:
            paths = images_below(folder)
            if not paths:
                raise FileNotFoundError(
                    f"{name}: no image ({', '.join(SUFFIXES)}) in {folder!r} or below"
                )
            others = unread_by_ending(folder, "", set(paths))
            if others:
                endings = ", ".join(f"{n:,} {ending}" for ending, n in others.most_common(5))
                self._say(
                    f"{sum(others.values()):,} pictures below {folder!r} are not read: {endings}; "
                    f"only {', '.join(SUFFIXES)} are"
                )
        return [{"img_path": path} for path in paths]

    def _say(self, text: str) -> None:
        print_log(f"{type(self).__name__}: {text}", logger="current", level=logging.WARNING)

    def prepare_data(self, idx: int) -> dict[str, Any] | None:
        """Run the pipeline on one image; count and name an image that cannot be used."""
        info = self.get_data_info(idx)
        data: dict[str, Any] | None = self.pipeline(info)
        if data is None:
            self._replaced.add()
            reason = info.get("unreadable", "a transform returned None")
            print_log(
                f"{info['img_path']} cannot be used ({reason}) and is replaced by a random other "
                f"image; {self.num_replaced} so far",
                logger="current",
                # The loggers of other ranks print errors only.
                level=logging.WARNING if get_rank() == 0 else logging.ERROR,
            )
        return data

    def __getitem__(self, idx: int) -> dict[str, Any]:
        """The sample of image ``idx``, or of random others until one can be used.

        Raises:
            RuntimeError: ``max_refetch`` others cannot be used either.
        """
        data = self.prepare_data(idx)
        for _ in range(self.max_refetch):
            if data is not None:
                return data
            data = self.prepare_data(self._rand_another())
        if data is None:
            raise RuntimeError(
                f"{type(self).__name__}: {self.max_refetch + 1} images in a row in "
                f"{self.data_prefix['img_path']!r} cannot be used; the warnings above name them "
                "and say why."
            )
        return data


class _SharedCount:
    """A count that worker processes raise and the main process reads.

    Each process writes a place of its own, so that none overwrites another's.
    """

    PLACES = 1024

    def __init__(self) -> None:
        self._counts = torch.zeros(self.PLACES, dtype=torch.int64).share_memory_()

    def add(self) -> None:
        worker = get_worker_info()
        self._counts[0 if worker is None else 1 + worker.id % (self.PLACES - 1)] += 1

    @property
    def total(self) -> int:
        return int(self._counts.sum())

    def __deepcopy__(self, memo: dict[int, Any]) -> _SharedCount:
        return _SharedCount()  # torch would copy into memory that is not shared


def listed_images(ann_file: str) -> list[str]:
    """Paths of the images that a COCO or LVIS json lists, relative to the images' folder.

    Only the list ``images`` is parsed: with COCO's 860,000 annotations it takes ten times as long.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no such json, or lists no images, or one without a name.
    """
    try:
        with open(ann_file, encoding="utf-8") as file:
            text = file.read()
        # Not inside a string, where quotes are escaped; and no annotation has such a key.
        start = re.search(r'"images"\s*:\s*(?=\[)', text)
        images = json.JSONDecoder().raw_decode(text, start.end())[0] if start else []
    except FileNotFoundError as error:
        raise FileNotFoundError(f"no image list {ann_file!r}; set ann_file") from error
    except ValueError as error:
        raise ValueError(f"{ann_file!r} is no COCO or LVIS json ({error})") from error
    if not images:
        raise ValueError(f"{ann_file!r} lists no images: it needs a non-empty list 'images'")
    return [_file_name(image, f"image {i} in {ann_file!r}") for i, image in enumerate(images)]


def _file_name(image: Any, name: str) -> str:
    if isinstance(image, dict) and isinstance(image.get("file_name"), str):
        return str(image["file_name"])
    if isinstance(image, dict) and isinstance(image.get("coco_url"), str):
        return "/".join(image["coco_url"].split("/")[-2:])
    raise ValueError(f"{name} has no file_name and no coco_url")


def images_below(folder: str) -> list[str]:
    """All image files below a folder, sorted; hidden ones are none (``._a.jpg`` of macOS)."""
    return sorted(path for path in files_below(folder) if path.lower().endswith(SUFFIXES))

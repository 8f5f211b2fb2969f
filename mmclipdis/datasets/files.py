"""Say which folder, list or kind of file a data set lacks, before anything is read."""

from __future__ import annotations

import os
from typing import Any

from mmseg.datasets import BaseSegDataset

from mmclipdis.utils.paths import check_samples


def check_files(name: str, folder: str, split: str = "", suffix: str = "") -> None:
    """Check what a segmentation data set is going to read.

    Args:
        name: of the data set, for the message.
        folder: with the photos, and folders of photos.
        split: file that lists the photos, or ``''`` for all in the folder.
        suffix: of the photos; checked without a split file.

    Raises:
        FileNotFoundError: there is no such folder or file, or no photo.
    """
    if not os.path.isdir(folder):
        raise FileNotFoundError(
            f"{name}: no image folder {folder!r}; set data_root, or data_prefix.img_path below it"
        )
    if split and not os.path.isdir(split):
        if not os.path.isfile(split):
            raise FileNotFoundError(f"{name}: no split file {split!r}; set ann_file")
        return
    files = (file for _, _, names in os.walk(folder, followlinks=True) for file in names)
    if not any(file.endswith(suffix) for file in files):
        raise FileNotFoundError(
            f"{name}: no file in {folder!r} ends with {suffix!r}; set img_suffix or the folder"
        )


class FilesThere(BaseSegDataset):
    """Base of the data sets here: missing files are one error that says what to set."""

    def load_data_list(self) -> list[dict[str, Any]]:
        """List images and label maps.

        Raises:
            FileNotFoundError: the image folder, the split file or the photos are missing.
            ValueError: the split file names photos outside ``data_root``.
        """
        folder = self.data_prefix.get("img_path") or ""
        check_files(type(self).__name__, folder, self.ann_file, self.img_suffix)
        listed: list[dict[str, Any]] = super().load_data_list()
        if not listed:
            raise FileNotFoundError(f"{type(self).__name__}: {self.ann_file!r} lists no photo")
        check_samples(self, listed)
        return listed

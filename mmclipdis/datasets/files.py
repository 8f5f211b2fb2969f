"""Say which folder, list or kind of file a data set lacks, before anything is read."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any

from mmengine.logging import print_log
from mmseg.datasets import BaseSegDataset

from mmclipdis.engine.data_check import check_listed
from mmclipdis.utils.listed_files import read_split
from mmclipdis.utils.names import check_metainfo
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
        ending = f" ends with {suffix!r}; set img_suffix or the folder"
        raise FileNotFoundError(
            f"{name}: no file in {folder!r}{ending if suffix else '; set data_prefix.img_path'}"
        )


class FilesThere(BaseSegDataset):
    """Base of the data sets here: what is wrong with names, lists and files is said first."""

    @classmethod
    def _load_metainfo(cls, metainfo: Mapping[str, Any] | None = None) -> dict[str, Any]:
        loaded: dict[str, Any] = super()._load_metainfo(metainfo)
        check_metainfo(loaded, cls.__name__, twice=True)
        return loaded

    def load_data_list(self) -> list[dict[str, Any]]:
        """List images and label maps.

        Lists are read as Windows and spreadsheets write them, too; what lies in the folder and is
        not read is counted in a warning.

        Raises:
            FileNotFoundError: the image folder, the split file, or any photo or label map that is
                to be read is missing.
            ValueError: the split file is no list of names, or names photos outside ``data_root``.
        """
        name, folder = type(self).__name__, self.data_prefix.get("img_path") or ""
        check_files(name, folder, self.ann_file, self.img_suffix)
        split = self.ann_file if os.path.isfile(self.ann_file) else ""
        listed = self._of_split() if split else self._of_folder()
        if not listed:
            where = f"{self.ann_file!r} lists" if split else f"{folder!r} has"
            raise FileNotFoundError(f"{name}: {where} no photo")
        check_samples(self, listed)
        for warning in check_listed(self, listed):
            print_log(f"{type(self).__name__}: {warning}", logger="current", level=logging.WARNING)
        self.files_checked = True  # DataCheckHook need not look again
        return listed

    def _of_folder(self) -> list[dict[str, Any]]:
        """As mmseg's: all photos in the folder that end with ``img_suffix``."""
        listed: list[dict[str, Any]] = super().load_data_list()
        return listed

    def _of_split(self) -> list[dict[str, Any]]:
        """As mmseg's, of the names that :func:`read_split` reads."""
        photos, maps = (self.data_prefix.get(key) for key in ("img_path", "seg_map_path"))
        listed = []
        for _, name in read_split(self.ann_file):
            item = {
                "img_path": os.path.join(photos or "", name + self.img_suffix),
                "label_map": self.label_map,
                "reduce_zero_label": self.reduce_zero_label,
                "seg_fields": [],
            }
            if maps is not None:
                item["seg_map_path"] = os.path.join(maps, name + self.seg_map_suffix)
            listed.append(item)
        return listed

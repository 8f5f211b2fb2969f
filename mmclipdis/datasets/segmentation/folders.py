"""Photos of any kind of file, and the label maps that go with them."""

from __future__ import annotations

import os
from typing import Any

from mmseg.registry import DATASETS

from mmclipdis.datasets.files import FilesThere
from mmclipdis.utils.listed_files import PICTURES, ending_of, files_below


@DATASETS.register_module()  # type: ignore[misc, unused-ignore]  # mmengine is untyped
class FolderSegDataset(FilesThere):  # type: ignore[misc, unused-ignore]
    """A folder of photos and one of label maps of the same names: data of one's own.

    mmseg's ``BaseSegDataset`` takes photos of one ending. Here all pictures below the folder count,
    ``IMG_1.JPG`` and ``scan.png`` alike, and what is missing is said in a line. Label maps may lie
    in the same folder when their suffix tells them apart (``IMG_1_mask.png``).

    Args:
        img_suffix: Ending of the photos; ``''``: any picture's.
        seg_map_suffix: Put in place of the photo's ending.
        metainfo: ``dict(classes=...)``, and ``palette`` and ``groups`` if there are any.
        **kwargs: See ``mmseg.datasets.BaseSegDataset``. With ``ann_file``, a list of names without
            ending, ``img_suffix`` is needed.

    Raises:
        FileNotFoundError: A folder is missing, has no picture, or a photo has no label map.
        ValueError: No classes are named, or two photos share a name and so a label map.
    """

    METAINFO: dict[str, Any] = {}

    def __init__(self, img_suffix: str = "", seg_map_suffix: str = ".png", **kwargs: Any) -> None:
        if not (kwargs.get("metainfo") or {}).get("classes"):
            raise ValueError(
                f"{type(self).__name__} needs the names of the classes: "
                "metainfo=dict(classes=('road', 'tree', ...)), in the order of the labels"
            )
        super().__init__(img_suffix=img_suffix, seg_map_suffix=seg_map_suffix, **kwargs)

    def _of_folder(self) -> list[dict[str, Any]]:
        """All pictures below the folder with their label maps, by name."""
        folder, maps = self.data_prefix["img_path"], self.data_prefix.get("seg_map_path")
        same = maps is not None and os.path.abspath(maps) == os.path.abspath(folder)
        found: dict[str, dict[str, Any]] = {}
        for path in sorted(files_below(folder)):
            ending = ending_of(path)
            wanted = path.endswith(self.img_suffix) and ending.lower() in PICTURES
            if not wanted or (same and path.endswith(self.seg_map_suffix)):
                continue
            stem = path.removesuffix(self.img_suffix or ending)
            name = os.path.relpath(stem, folder)
            if name in found:
                raise ValueError(
                    f"{type(self).__name__}: {found[name]['img_path']!r} and {path!r} have one "
                    f"name, and so one label map, {name + self.seg_map_suffix!r}; rename one"
                )
            found[name] = {
                "img_path": path,
                "label_map": self.label_map,
                "reduce_zero_label": self.reduce_zero_label,
                "seg_fields": [],
            }
            if maps is not None:
                found[name]["seg_map_path"] = os.path.join(maps, name + self.seg_map_suffix)
        return list(found.values())

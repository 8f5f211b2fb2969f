"""Loading of label maps that names the file when it cannot be read."""

from __future__ import annotations

from typing import Any

from mmseg.datasets.transforms import LoadAnnotations
from mmseg.registry import TRANSFORMS

from mmclipdis.datasets.loading import BROKEN, LoadReadableImage

# It is in the root registry; "mmseg.LoadReadableImage" is looked for in mmseg's only.
TRANSFORMS.register_module(module=LoadReadableImage)


@TRANSFORMS.register_module()
class LoadReadableAnnotations(LoadAnnotations):
    """mmseg's ``LoadAnnotations`` with one clear error for a broken or misfitting label map."""

    def _load_seg_map(self, results: dict[str, Any]) -> None:
        """Load ``results['seg_map_path']`` as labels (H, W).

        Raises:
            FileNotFoundError: there is no such file.
            OSError: the system does not give the file: permissions, a failing disk.
            ValueError: the file is no image, or its size is not the photo's.
        """
        path = results["seg_map_path"]
        try:
            super()._load_seg_map(results)
        except FileNotFoundError as error:
            raise FileNotFoundError(f"no label map at {path}") from error
        except BROKEN as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise ValueError(f"cannot read {path} as a label map; replace or remove it") from error
        size, photo = results["gt_seg_map"].shape, results.get("ori_shape")
        if photo is not None and tuple(size) != tuple(photo[:2]):
            raise ValueError(
                f"label map {path} has {tuple(size)} pixels (height, width), its photo "
                f"{tuple(photo[:2])}"
            )

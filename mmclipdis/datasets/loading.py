"""Loading that names the file when it cannot be read."""

from __future__ import annotations

from typing import Any

import cv2
from mmcv.transforms import LoadImageFromFile
from mmengine.registry import TRANSFORMS

from mmclipdis.utils.photo_sizes import size_problem

#: What OpenCV, mmcv and Pillow raise for a broken file; Pillow's OSErrors have no ``errno``.
BROKEN = (cv2.error, AssertionError, OSError, SyntaxError, ValueError)


@TRANSFORMS.register_module()
class LoadReadableImage(LoadImageFromFile):
    """``LoadImageFromFile`` with one clear error for a broken or empty image.

    The original dies in OpenCV or in an assertion, without the name for an empty file.
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any] | None:
        """Load ``results['img_path']`` as BGR uint8 (H, W, 3).

        Raises:
            FileNotFoundError: there is no such file.
            OSError: the system does not give the file: permissions, a failing disk.
            ValueError: the file is no image, an image without pixels, or of another size than the
                annotation says (``height``, ``width``): turned by its EXIF tag, for instance.
        """
        path = results["img_path"]
        try:
            loaded: dict[str, Any] | None = super().transform(results)
        except FileNotFoundError as error:
            raise FileNotFoundError(f"no image at {path}") from error
        except BROKEN as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise ValueError(f"cannot read {path} as an image; replace or remove it") from error
        if loaded is not None and 0 in loaded["img"].shape:
            raise ValueError(f"{path} is an image without pixels; replace or remove it")
        if loaded is not None and {"height", "width"} <= loaded.keys():
            said = (loaded["height"], loaded["width"])
            problem = size_problem(str(path), loaded["img"].shape[:2], said, "its annotation")
            if problem:
                raise ValueError(problem)
        return loaded

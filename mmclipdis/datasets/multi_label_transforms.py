"""Views and packing of images whose classes are to be told: DCLIP's training (DualCoOp's)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine.registry import TRANSFORMS
from mmengine.structures import BaseDataElement

META_KEYS = ("img_path", "img_id", "ori_shape", "img_shape", "sample_idx")


@TRANSFORMS.register_module()
class PackMultiLabelInputs(BaseTransform):
    """Make the sample of a multi-label model.

    ``inputs``: uint8 (3, H, W), channels as they were loaded (mmcv: BGR). ``data_samples``: a
    ``BaseDataElement`` with ``gt_score`` float32 (N,), 1 present, 0 absent, -1 unknown, if the
    data set has labels, and as meta information the path, the id, the place in the data set and
    the sizes (height, width) of the image.

    Required keys: ``img``. Optional: ``gt_score`` and those of ``META_KEYS``.
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Turn arrays into tensors and drop everything else."""
        image = torch.from_numpy(np.ascontiguousarray(results["img"].transpose(2, 0, 1)))
        meta = {key: results[key] for key in META_KEYS if key in results}
        sample = BaseDataElement(metainfo=meta)
        if "gt_score" in results:
            sample.gt_score = torch.from_numpy(np.asarray(results["gt_score"], np.float32))
        return {"inputs": image, "data_samples": sample}

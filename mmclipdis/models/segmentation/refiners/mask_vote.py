"""One label a mask: the label that most of its pixels have."""

from __future__ import annotations

import torch
from mmseg.registry import MODELS
from torch import Tensor


@MODELS.register_module()
class MaskVote:
    """A label refiner: all pixels of a mask take their most frequent label.

    Of equally frequent labels the smallest wins. The pixels with the smallest number of the mask
    map are in no mask and keep their labels; pixels without a class vote like any others. A mask
    map of one number changes nothing. It comes after the threshold, at the size of the photo.

    Source: CorrCLIP (ICCV 2025), released code.
    """

    #: It cannot do without a mask map.
    needs_masks = True

    def refine(self, labels: Tensor, masks: Tensor | None) -> Tensor:
        """Labels (H, W) after the vote.

        Args:
            labels: int64 (H, W), none below 0.
            masks: int64 (H, W), the number of each pixel's mask, the smallest for none; or None.

        Raises:
            ValueError: no mask map, or one of another size.
        """
        if masks is None:
            raise ValueError(
                "MaskVote has no masks to vote in: give the segmentor "
                "masks=dict(type='MaskFolder', root=...), or take MaskVote out of its refiners"
            )
        if masks.shape != labels.shape:
            raise ValueError(
                f"MaskVote got masks of {tuple(masks.shape)} pixels for labels of "
                f"{tuple(labels.shape)}: they must be of one photo, at its size"
            )
        numbers, region = masks.to(labels.device).unique(return_inverse=True)
        if len(numbers) == 1:
            return labels
        present, label = labels.unique(return_inverse=True)
        votes = torch.bincount((region * len(present) + label).flatten())
        whole = votes.new_zeros(len(numbers) * len(present))
        whole[: len(votes)] = votes
        # argmax takes the first of equal counts, and `present` ascends
        winner = present[whole.view(len(numbers), len(present)).argmax(dim=1)]
        return torch.where(region == 0, labels, winner[region])

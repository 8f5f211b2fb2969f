"""What mends scores or labels at the size of the photo; registered in mmseg's ``MODELS``.

What a refiner is, and how segmentors use them, is in :mod:`mmclipdis.models.segmentation.refining`.
"""

from mmclipdis.models.segmentation.refiners.mask_vote import MaskVote
from mmclipdis.models.segmentation.refiners.pamr import PAMR

__all__ = ["PAMR", "MaskVote"]

"""Naming regions by CLIP's dense map: DeCLIP's and CLIPSelf's region classification.

Functions from maps and regions to features and labels, and a model of them for ``tools/test.py``.
Source: DeCLIP (CVPR 2025), released code; its facts are in sections 2.2 and 5 of its description.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.model import BaseDataPreprocessor, BaseModel
from mmengine.registry import MODELS
from mmengine.structures import BaseDataElement, InstanceData
from torch import Tensor, nn
from torchvision.ops import roi_align

from mmclipdis.clip.towers.pools import like_map
from mmclipdis.engine.pixel_statistics import FollowsTower
from mmclipdis.engine.random_weights import check_weights
from mmclipdis.models.class_text import ClassText
from mmclipdis.utils.finite import check_scores
from mmclipdis.utils.precision import at_least_fp32

#: RoIAlign of boxes, mean over masks (both of the dense map), CLIP's embedding of a crop.
KINDS = ("rois", "maskpool", "crops")
CROPS_AT_ONCE = 64


def roi_features(maps: Tensor, boxes: Tensor) -> Tensor:
    """One feature a box: RoIAlign with a single bin, as many samples as the box has cells.

    Args:
        maps: (B, D, h, w).
        boxes: (M, 5): image index, x0, y0, x1, y1 in units of the image's sides, in [0, 1].

    Returns:
        (M, D), not normalised, float32 (or float64); differentiable with respect to ``maps``.
    """
    maps = at_least_fp32(maps)
    height, width = maps.shape[-2:]
    cells = boxes.new_tensor([1, width, height, width, height], dtype=maps.dtype)
    rois = boxes.to(maps.dtype) * cells
    pooled: Tensor = roi_align(maps, rois, output_size=1, sampling_ratio=-1, aligned=True)
    return pooled.flatten(1)


def mask_features(maps: Tensor, masks: Tensor, index: Tensor) -> Tensor:
    """One feature a mask: the mean of the map over its cells.

    Args:
        maps: (B, D, h, w).
        masks: (M, h, w), boolean or weights.
        index: (M,) image of every mask.

    Returns:
        (M, D), not normalised; zeros for an empty mask.

    Raises:
        ValueError: the masks have another grid than the map.
    """
    if masks.shape[1:] != maps.shape[2:]:
        raise ValueError(
            f"masks of {tuple(masks.shape[1:])} cells for a map of {tuple(maps.shape[2:])}: "
            "LetterboxRegions.patch_size must be the encoder's"
        )
    maps = at_least_fp32(maps)
    weights = masks.to(maps.dtype).flatten(1)
    # the place of every mask within its image, so that all images are one batched product
    belongs = F.one_hot(index, len(maps))  # (M, B)
    place = belongs.cumsum(0).gather(1, index[:, None])[:, 0] - 1
    most = int(belongs.sum(0).max()) if len(index) else 0
    padded = weights.new_zeros(len(maps), most, weights.shape[1])
    padded[index, place] = weights
    with torch.autocast(maps.device.type, enabled=False):
        sums = torch.bmm(padded, maps.flatten(2).transpose(1, 2))[index, place]
    return sums / (weights.sum(1, keepdim=True) + 1e-12)


def classify(features: Tensor, text: Tensor, topk: int = 5) -> Tensor:
    """The classes of the largest cosines, best first.

    Args:
        features: (M, D).
        text: (C, D) embeddings of all classes.
        topk: how many; all where there are fewer classes.

    Returns:
        (M, min(topk, C)) int64; equal cosines in the order of ``torch.topk``.

    Raises:
        ValueError: features and text are of different spaces.
    """
    if features.shape[1] != text.shape[1]:
        raise ValueError(
            f"features have {features.shape[1]} channels, text embeddings {text.shape[1]}: both "
            "must be of one CLIP"
        )
    with torch.autocast(features.device.type, enabled=False):  # half-precision cosines tie
        dtype = torch.promote_types(features.dtype, torch.float32)
        unit = F.normalize(features.to(dtype), dim=1)
        cosines = unit @ F.normalize(text.to(unit), dim=1).T
    return cosines.topk(min(topk, len(text)), dim=1).indices


@torch.no_grad()
def predict_regions(
    encoder: Any,
    inputs: Mapping[str, Any],
    data_samples: Sequence[BaseDataElement],
    text: Tensor,
    kinds: Sequence[str] = ("rois", "maskpool"),
) -> list[BaseDataElement]:
    """Name the regions of a batch of images; the encoder sees every image once.

    Args:
        encoder: its :meth:`CLIPViT.dense` map is read, normalised or not as the encoder has it.
        inputs: what :class:`RegionDataPreprocessor` makes.
        data_samples: one an image, with ``gt_regions``; their ``masks`` are read by ``maskpool``.
        text: (C, D).
        kinds: of :data:`KINDS`.

    Returns:
        The samples, with ``pred_regions``: for every kind the best five classes (n, 5), best first.

    Raises:
        ValueError: crops are asked for and not there, features that are not finite (names the
            image), or as :func:`mask_features`.
    """
    boxes = inputs["boxes"]
    counts = [len(sample.gt_regions.labels) for sample in data_samples]
    found: dict[str, Tensor] = {}
    if "rois" in kinds or "maskpool" in kinds:
        maps = encoder.dense(inputs["image"]).map
        for sample, dense in zip(data_samples, maps, strict=True):
            check_scores(dense, sample, "features")
        if "rois" in kinds:
            found["rois"] = classify(roi_features(maps, boxes), text)
        if "maskpool" in kinds:
            masks = torch.cat([sample.gt_regions.masks for sample in data_samples])
            found["maskpool"] = classify(mask_features(maps, masks, boxes[:, 0].long()), text)
    if "crops" in kinds:
        if "crops" not in inputs:
            raise ValueError("no crops in the sample: put dict(type='CropRegions') in the pipeline")
        crops = _embed_crops(encoder, inputs["crops"], text.shape[1])
        for sample, features in zip(data_samples, crops.split(counts), strict=True):
            check_scores(features, sample, "features of the crops")
        found["crops"] = classify(crops, text)
    split = {kind: best.split(counts) for kind, best in found.items()}
    for number, sample in enumerate(data_samples):
        sample.pred_regions = InstanceData(**{kind: split[kind][number] for kind in kinds})
    return list(data_samples)


def _embed_crops(encoder: Any, crops: Tensor, channels: int) -> Tensor:
    """CLIP's embeddings (M, D) of crops; M may be 0, which a tower does not take."""
    parts = [part for part in crops.split(CROPS_AT_ONCE) if len(part)]
    width = encoder.tower.embed_dim
    embeddings = [like_map(encoder.tower.encode_image(part), width) for part in parts]
    return torch.cat(embeddings) if parts else crops.new_zeros(0, channels)


@MODELS.register_module()
class RegionDataPreprocessor(FollowsTower, BaseDataPreprocessor):
    """Batch what ``PackRegions`` packs.

    Gives ``image`` (B, 3, S, S) and ``crops`` (M, 3, R, R), if any, float32 with mean and std taken
    off, and ``boxes`` (M, 5): image index, x0, y0, x1, y1 in units of S. The M regions come image
    by image.

    Args:
        non_blocking: Copy to the device without waiting; of use with pinned memory only.
        mean, std: Of RGB in 0..255. None is that of the model's encoder.
    """

    def __init__(
        self,
        non_blocking: bool = False,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__(non_blocking=non_blocking)
        for name, values in zip(("mean", "std"), self.or_clip(mean, std), strict=True):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)

    def forward(self, data: dict[str, Any], training: bool = False) -> dict[str, Any]:
        """The batch on the model's device; ``training`` changes nothing."""
        data = self.cast_data(data)  # type: ignore[assignment]
        inputs = data["inputs"]
        boxes = [F.pad(one, (1, 0), value=float(i)) for i, one in enumerate(inputs["boxes"])]
        batch = {"image": self._normalise(torch.stack(list(inputs["image"])))}
        batch["boxes"] = torch.cat(boxes)
        if "crops" in inputs:
            batch["crops"] = self._normalise(torch.cat(list(inputs["crops"])))
        return {"inputs": batch, "data_samples": data["data_samples"]}

    def _normalise(self, pixels: Tensor) -> Tensor:
        return (pixels - self.mean) / self.std


@MODELS.register_module()
class RegionClassifier(BaseModel):
    """CLIP names given regions: of boxes by RoIAlign, of masks by their mean, or of crops.

    Args:
        encoder: config of a ``CLIPViT``, or None where a model classifies with an encoder of its
            own through :meth:`predict`.
        text_encoder, vocabulary, templates, text_embeddings: see
            :class:`~mmclipdis.models.class_text.ClassText`.
        regions: what is classified, of ``rois``, ``maskpool``, ``crops``.
        data_preprocessor: a :class:`RegionDataPreprocessor`, by default.
        init_cfg: as in mmengine.

    Raises:
        ValueError: an unknown or no kind of region, or as ``ClassText``.
    """

    def __init__(
        self,
        encoder: Mapping[str, Any] | nn.Module | None = None,
        text_encoder: Mapping[str, Any] | nn.Module | None = None,
        vocabulary: Any = "dataset",
        templates: Any = "vild63",
        text_embeddings: str | None = None,
        regions: Sequence[str] = ("rois", "maskpool"),
        data_preprocessor: Mapping[str, Any] | None = None,
        init_cfg: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(
            data_preprocessor=data_preprocessor or {"type": "RegionDataPreprocessor"},
            init_cfg=init_cfg,
        )
        unknown = [kind for kind in regions if kind not in KINDS]
        if unknown or isinstance(regions, str) or not regions:
            raise ValueError(f"regions must be some of {KINDS}, got {regions!r}")
        self.regions = tuple(regions)
        self.encoder: Any = MODELS.build(encoder) if isinstance(encoder, Mapping) else encoder
        embed_dim = getattr(self.encoder, "embed_dim", None)
        self.text = ClassText(text_encoder, vocabulary, templates, text_embeddings, embed_dim)

    def forward(
        self,
        inputs: Mapping[str, Any],
        data_samples: Sequence[BaseDataElement] | None = None,
        mode: str = "tensor",
    ) -> Any:
        """Samples with predictions (``'predict'``) or the dense map (B, D, h, w) (``'tensor'``).

        Args:
            inputs: what :class:`RegionDataPreprocessor` makes.
            data_samples: one an image; their regions are classified.
            mode: ``'predict'`` or ``'tensor'``.

        Raises:
            ValueError: another mode, or ``'predict'`` without samples, or no encoder.
        """
        if self.encoder is None:
            raise ValueError("RegionClassifier has no encoder: give encoder=dict(type='CLIPViT')")
        if mode == "tensor":
            return self.encoder.dense(inputs["image"]).map
        if mode != "predict" or data_samples is None:
            raise ValueError(
                f"RegionClassifier only predicts, with samples of regions; got mode={mode!r}"
            )
        check_weights(self)
        return self.predict(self.encoder, inputs, data_samples)

    def predict(
        self, encoder: Any, inputs: Mapping[str, Any], data_samples: Sequence[BaseDataElement]
    ) -> list[BaseDataElement]:
        """:func:`predict_regions` of any encoder in the space of this model's text."""
        text = self.text.embeddings()
        return predict_regions(encoder, inputs, data_samples, text, self.regions)

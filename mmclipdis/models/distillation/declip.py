"""DeCLIP: a CLIP student learns its content from CLIP's own crops, its context from a VFM."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.model import BaseModel, ModuleList
from mmengine.registry import MODELS
from torch import Tensor, nn

from mmclipdis.clip.towers.features import DenseFeatures
from mmclipdis.clip.towers.pools import like_map
from mmclipdis.clip.weights.readout_mark import describe_readout
from mmclipdis.engine import random_weights
from mmclipdis.engine.pixel_statistics import check_statistics
from mmclipdis.losses.context_correlation import check_weights
from mmclipdis.models.distillation.regions import roi_features
from mmclipdis.models.guided import check_has_blocks
from mmclipdis.models.unsaved import SharesUnsaved, leave_out_of_checkpoints

CONTEXT_FROM = ("attention", "map")


@MODELS.register_module()
class DeCLIP(SharesUnsaved, BaseModel):
    r"""Distillation with decoupled content and context.

    .. math:: L = w_1\,(1 - \overline{\cos(f^s, f^t)})
              + w_2\,\overline{\lVert R^{vfm}_i - R^s_i \rVert_2}

    *Content*: RoIAlign of the student's dense map over the cells of a random grid, against the
    frozen CLIP's embedding of the same crops. *Context*: the correlations between all tokens in
    the projections that the last block's self-attention compares (q, or q and k), against those of
    a vision foundation model. Both gradients flow through the whole trunk.

    Checkpoints hold the student only: ``init_weights()`` loads teachers and text encoder again.

    Args:
        student: Config of a ``CLIPViT``; its readout decides the context features (``csa``: q and
            k), ``trainable`` what is tuned.
        vfms: Configs of the context teachers: each a module that turns normalised images into a
            map (B, C, h, w), has a ``patch_size``, and may carry a ``weight`` (default: equal
            shares; they must sum to 1). Empty for none.
        teacher: Config of the content teacher; by default the student's, frozen.
        content_loss: Config of the content loss, or None.
        context_loss: Config of the context loss, or None.
        context_from: ``'attention'`` as described; ``'map'`` takes the dense map itself, which is
            the paper's "VFM on X_dense" (its Table 1, row 2): content and context on one feature.
        region_classifier: Config of a ``RegionClassifier`` without encoder, which validates and
            tests the student; None if no run does.
        data_preprocessor: A ``DistillDataPreprocessor`` for training.
        init_cfg: As in mmengine.

    Raises:
        ValueError: for losses without what they need: no VFM, a readout without context.

    Source: DeCLIP (CVPR 2025), sections 3.2 and 3.3; facts of the released code: docs/declip.md.
    """

    def __init__(
        self,
        student: Mapping[str, Any],
        vfms: Sequence[Mapping[str, Any]] = (),
        teacher: Mapping[str, Any] | None = None,
        content_loss: Mapping[str, Any] | None = None,
        context_loss: Mapping[str, Any] | None = None,
        context_from: str = "attention",
        region_classifier: Mapping[str, Any] | None = None,
        data_preprocessor: Mapping[str, Any] | None = None,
        init_cfg: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        if context_from not in CONTEXT_FROM:
            raise ValueError(f"context_from must be one of {CONTEXT_FROM}, got {context_from!r}")
        _check_parts(content_loss, context_loss, context_from, vfms, teacher)
        self.student = MODELS.build(student)
        check_has_blocks(self.student, "DeCLIP.student")
        self.context_from = context_from
        self.content_loss = None if content_loss is None else MODELS.build(content_loss)
        self.context_loss = None if context_loss is None else MODELS.build(context_loss)
        self.teacher = None
        if self.content_loss is not None:
            config = {**(student if teacher is None else teacher), "trainable": ()}
            self.teacher = MODELS.build(config).requires_grad_(False)
        self.vfms, self.vfm_weights = _build_vfms(vfms)
        self._check_losses()
        self.regions = None
        if region_classifier is not None:
            text = region_classifier.get("text_encoder")
            _check_same_clip(self.student, text)
            self.regions = MODELS.build({"type": "RegionClassifier", **region_classifier})
            check_statistics(self.regions.data_preprocessor, self.student, "student")
        leave_out_of_checkpoints(self, ("teacher", "vfms", "regions"))

    def forward(
        self, inputs: Any, data_samples: Sequence[Any] | None = None, mode: str = "tensor"
    ) -> Any:
        """As mmengine's models: losses, predicted regions or the student's dense map.

        Args:
            inputs: For ``'loss'`` what ``DistillDataPreprocessor`` makes: ``image`` (B, 3, S, S),
                ``crops`` (M, 3, R, R), ``boxes`` (M, 5) and ``proxies`` {side: (B, 3, side, side)};
                for ``'predict'`` what ``RegionDataPreprocessor`` makes; ``'tensor'`` takes both.
            data_samples: Regions to classify, for ``'predict'``.
            mode: ``'loss'``, ``'predict'`` or ``'tensor'``.

        Raises:
            ValueError: for another mode, or proxies that do not fit the student's grid.
        """
        if mode == "loss":
            return self.loss(inputs)
        if mode == "predict":
            random_weights.check_weights(self)
            return self._classifier().predict(self.student, inputs, data_samples or ())
        if mode == "tensor":
            return self.student.dense(inputs["image"]).map
        raise ValueError(f"mode must be 'loss', 'predict' or 'tensor', got {mode!r}")

    def loss(self, inputs: Mapping[str, Any]) -> dict[str, Tensor]:
        """The two losses by their names; ``inputs`` as in :meth:`forward`."""
        images = inputs["image"]
        _check_whole_patches(images, self.student.patch_size)
        wanted = self.student.readout.context if self._reads_attention else ()
        dense: DenseFeatures = self.student.dense(images, context=wanted)
        losses = {}
        if self.content_loss is not None:
            regions = roi_features(dense.map, inputs["boxes"])
            losses[self.content_loss.loss_name] = self.content_loss(
                regions, self.crop_embeddings(inputs["crops"])
            )
        if self.context_loss is not None:
            context = [dense.context[name] for name in wanted] or [dense.map]
            targets = self.vfm_maps(inputs["proxies"], context[0].shape[-2:])
            losses[self.context_loss.loss_name] = self.context_loss(
                context, targets, self.vfm_weights
            )
        return losses

    def val_step(self, data: Any) -> Any:
        """Classify the regions of a batch with the student."""
        data = self._classifier().data_preprocessor(data, False)
        return self._run_forward(data, mode="predict")

    def test_step(self, data: Any) -> Any:
        """As :meth:`val_step`."""
        return self.val_step(data)

    @torch.no_grad()
    def crop_embeddings(self, crops: Tensor) -> Tensor:
        """The frozen CLIP's image embeddings (M, D) of crops (M, 3, R, R), as maps have them."""
        embeddings: Tensor = self.teacher.tower.encode_image(crops)  # type: ignore[union-attr]
        return like_map(embeddings, self.teacher.tower.embed_dim)  # type: ignore[union-attr]

    @torch.no_grad()
    def vfm_maps(self, proxies: Mapping[int, Tensor], grid: Sequence[int]) -> list[Tensor]:
        """The map (B, C, h, w) of every VFM on the student's ``grid`` (h, w).

        Raises:
            ValueError: where a VFM has no image of the size that gives this grid.
        """
        maps = []
        vfm: Any
        for vfm in self.vfms:
            side = int(grid[0]) * vfm.patch_size[0]
            if side not in proxies:
                raise ValueError(
                    f"{_title(vfm)} has patches of {vfm.patch_size[0]} px and needs images of "
                    f"{side} px to match the student's {grid[0]} x {grid[1]} tokens, the pipeline "
                    f"makes {sorted(proxies)}: set DistillViews.proxy_sizes=({side},), or choose "
                    "a student size that both grids divide"
                )
            found = vfm(proxies[side])
            if tuple(found.shape[-2:]) != tuple(grid):
                raise ValueError(
                    f"{_title(vfm)} gives a map of {tuple(found.shape[-2:])} tokens for {side} px, "
                    f"the student has {tuple(grid)}; take another VFM or correct its patch_size"
                )
            maps.append(found)
        return maps

    def _classifier(self) -> Any:
        if self.regions is None:
            raise ValueError(
                "DeCLIP has no region_classifier to validate with: give it one with a text_encoder"
            )
        return self.regions

    def train(self, mode: bool = True) -> DeCLIP:
        """As in PyTorch; the teachers stay in eval mode."""
        super().train(mode)
        for teacher in (self.teacher, *self.vfms):
            if teacher is not None:
                teacher.eval()
        return self

    @property
    def _reads_attention(self) -> bool:
        return self.context_loss is not None and self.context_from == "attention"

    def _check_losses(self) -> None:
        """Refuse a readout without context, and losses of one name."""
        readout = self.student.readout
        if self._reads_attention and not getattr(readout, "context", ()):
            raise ValueError(
                f"the student's readout {describe_readout(readout)} compares no projection with "
                "itself, so there is no context to teach: take qq, kk, vv, csa or all, or "
                "context_from='map'"
            )
        losses = [loss for loss in (self.content_loss, self.context_loss) if loss is not None]
        names = [loss.loss_name for loss in losses]
        if len(set(names)) < len(names):
            raise ValueError(f"content_loss and context_loss are both named {names[0]!r}")


def _check_parts(
    content: Any, context: Any, context_from: str, vfms: Sequence[Any], teacher: Any
) -> None:
    """Refuse losses without what they compare, and what no loss reads."""
    if content is None and context is None:
        raise ValueError("DeCLIP has nothing to learn: give content_loss, context_loss or both")
    if content is None and context_from == "attention":
        raise ValueError(
            "context alone never reaches what lies behind the last attention, which stops DDP: "
            "give content_loss=dict(type='ContentLoss', loss_weight=0.0)"
        )
    if context is not None and not vfms:
        raise ValueError("DeCLIP.context_loss needs at least one teacher in vfms")
    if context is None and vfms:
        raise ValueError("DeCLIP.vfms teach the context: give context_loss, or vfms=[]")
    if content is None and teacher is not None:
        raise ValueError("DeCLIP.teacher teaches the content: give content_loss, or no teacher")


def _check_same_clip(student: Any, text: Any) -> None:
    """Refuse a text encoder of another CLIP: accuracies would come out near zero."""
    arch = text.get("arch") if isinstance(text, Mapping) else None
    if arch is not None and arch != student.arch:
        raise ValueError(
            f"the student is {student.arch!r}, the text encoder of region_classifier {arch!r}: "
            "image and text must be of one CLIP"
        )


def _build_vfms(configs: Sequence[Mapping[str, Any]]) -> tuple[ModuleList, list[float]]:
    """The teachers and their weights; equal ones where no config names any.

    Raises:
        ValueError: if only some name a weight, or the weights do not sum to 1.
    """
    given = [config.get("weight") for config in configs]
    if any(w is None for w in given) and any(w is not None for w in given):
        raise ValueError(f"give every VFM a weight or none of them, got {given}")
    bare = [{k: v for k, v in config.items() if k != "weight"} for config in configs]
    # mmengine's list: init_weights() does not go into torch's, and the teachers would stay random
    weights = [1 / len(given) if w is None else float(w) for w in given]
    if weights:
        check_weights(weights, len(weights))
    return ModuleList(MODELS.build(c).requires_grad_(False) for c in bare), weights


def _check_whole_patches(images: Tensor, patch: tuple[int, int]) -> None:
    """Boxes are in units of the image; a cut-off remainder would shift them."""
    size = (images.shape[-2], images.shape[-1])
    if any(side % p for side, p in zip(size, patch, strict=True)):
        below = tuple(side // p * p for side, p in zip(size, patch, strict=True))
        raise ValueError(
            f"the student's images of {size} px do not divide into patches of {patch} px; set "
            f"DistillViews.size to a multiple, such as {below[0]} or {below[0] + patch[0]}"
        )


def _title(vfm: nn.Module) -> str:
    return f"the VFM {type(vfm).__name__}"

"""OV-DQUO: a DINO detector whose queries ask for the class that CLIP sees where they start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmdet.models.detectors import DINO
from mmdet.models.layers import MLP
from mmdet.registry import MODELS
from torch import Tensor, nn
from torchvision.ops import box_convert

from mmclipdis.engine.random_weights import check_weights, training_begins
from mmclipdis.models.asked_names import by_asked_names
from mmclipdis.models.detection.names import check_training_names
from mmclipdis.models.detection.open_vocab import OpenVocabDetector
from mmclipdis.models.detection.ovdquo.attention import check_levels, sample_in_full_precision
from mmclipdis.models.detection.ovdquo.denoising import TextDenoising
from mmclipdis.models.detection.ovdquo.options import check_model, checked_test_cfg
from mmclipdis.models.detection.ovdquo.queries import (
    Encoded,
    best_classes,
    by_class,
    class_scores,
    cosines,
    overlaps_unknown,
    rois_of,
)
from mmclipdis.models.detection.ovdquo.targets import (
    image_sizes,
    make_targets,
    trained_classes,
    warn_without_unknowns,
)
from mmclipdis.utils.precision import at_least_fp32

Maps = tuple[Tensor, ...]


@MODELS.register_module()
class OVDQUO(OpenVocabDetector, DINO):
    r"""A two-stage ``DINO`` on a frozen CLIP, which alone says what a box shows.

    Each of the queries starts at a box of the encoder. CLIP's embedding of that region chooses the
    class that the query asks for: its text, through a small MLP, is added to what the query has
    learned. The decoder finds where the thing is and how surely there is one; a query may only
    match boxes of its own class, or, where it starts on a pseudo box, unknown things, whose text is
    a wildcard's. In the end CLIP names the final boxes:

    .. math:: s_c = \mathrm{softmax}(\tau\, [u \cdot t_c ; 0])_c \; \sigma(o)

    Classes, texts of samples and names of results: as in
    :class:`~mmclipdis.models.detection.open_vocab.OpenVocabDetector`.

    Options of ``test_cfg``: ``temperature`` (:math:`\tau`), ``target_class_factor`` (of novel
    classes, where queries choose theirs), ``score_thr``, ``nms``, ``max_per_img``.

    Args:
        text_queries: False: queries ask for no class, and hold what they have learned alone.
        query_temperature: Of CLIP's word about the regions where queries start.
        max_classes: M, most classes of an iteration of training: those of the batch, and random
            others of the base classes. If a batch has more, boxes of a random choice of them are
            left out, as are boxes of novel classes, if there are any; the log counts them as
            ``dropped_boxes``.
        wildcard_iou: Queries that overlap a pseudo box by more ask for the wildcard.
        dn_cfg: ``num_queries``, ``label_noise``, ``box_noise_scale`` of
            :class:`~mmclipdis.models.detection.ovdquo.denoising.TextDenoising`.
        backbone: An ``OVDQUOViTBackbone`` or ``OVDQUOResNetBackbone``.
        bbox_head: An ``OVDQUOHead``.
        **kwargs: As in ``DINO``.

    Ground truth of pseudo boxes (``pseudo_boxes`` of the data set) has label -1 and ``weights``.

    Raises:
        ValueError: image and text of different CLIPs, a backbone without dense map, options that
            do not go together, or as the parts.

    Source: OV-DQUO (AAAI 2025); with DeCLIP's weights, DeCLIP (CVPR 2025).
    """

    #: Of training data (:mod:`mmclipdis.models.detection.unknown_boxes`).
    takes_pseudo_boxes = True
    _said = False  # whether training begins with pseudo boxes has been looked at

    def __init__(
        self,
        text_queries: bool = True,
        query_temperature: float = 100.0,
        max_classes: int = 48,
        wildcard_iou: float = 0.5,
        dn_cfg: Mapping[str, Any] | None = None,
        bbox_head: Mapping[str, Any] | None = None,
        test_cfg: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if not kwargs.setdefault("as_two_stage", True) or not kwargs.setdefault(
            "with_box_refine", True
        ):
            raise ValueError("OVDQUO is two-stage and refines boxes; remove what says otherwise")
        check_model(
            text_queries,
            query_temperature,
            max_classes,
            wildcard_iou,
            kwargs.get("num_queries", 100),
            dict(kwargs.get("decoder") or {}).get("return_intermediate", True),
        )
        # not DINO's own, which makes other denoising queries
        super(DINO, self).__init__(
            bbox_head=dict(bbox_head or {}), test_cfg=checked_test_cfg(test_cfg), **kwargs
        )
        self.class_text.text.expect_channels(self.backbone.embed_dim)
        self.text_queries = text_queries
        self.query_temperature = query_temperature
        self.wildcard_iou = wildcard_iou
        self.dn_query_generator = TextDenoising(
            self.embed_dims, self.num_queries, max_classes, **dict(dn_cfg or {})
        )
        if text_queries:
            dim, width = self.backbone.embed_dim, self.embed_dims
            self.text_proj = nn.Sequential(
                nn.Linear(dim, width // 2), nn.ReLU(), nn.Linear(width // 2, width)
            )
        if self.bbox_head.embed_dims != self.embed_dims:
            raise ValueError(
                f"embed_dims={self.bbox_head.embed_dims} of the bbox_head, but queries have "
                f"{self.embed_dims} channels: set it to that"
            )
        check_levels(self, self.num_feature_levels)
        self._check_parts()

    def _init_layers(self) -> None:
        super()._init_layers()
        nn.init.normal_(self.level_embed)  # mmdet leaves what was in the memory
        sample_in_full_precision(self)
        # mmdet's decoder codes each of four coordinates by 128 numbers, but expects 2 * embed_dims
        dims = self.embed_dims
        self.decoder.ref_point_head = MLP(4 * 128, dims, dims, 2)

    @property
    def class_text(self) -> Any:
        """The part that knows the classes."""
        return self.bbox_head

    def loss(self, batch_inputs: Tensor, batch_data_samples: list[Any]) -> dict[str, Any]:
        """Losses of a batch; ``batch_inputs`` (B, 3, H, W) is normalised.

        Raises:
            ValueError: a sample's ``text`` names other classes than the model's.
        """
        training_begins(self)
        check_training_names(by_asked_names(batch_data_samples), self.vocabulary)
        if not self._said:  # later batches of joined data sets may be without
            self._said = True
            warn_without_unknowns(batch_data_samples)
        text = self.class_text.text.embeddings()
        targets = make_targets(
            batch_data_samples,
            trained_classes(self.class_text.novel),
            self.dn_query_generator.max_classes,
            batch_inputs.device,
        )
        levels, maps = self._extract(batch_inputs)
        encoded = self._encode(levels, batch_data_samples)
        if (count := encoded.logits.shape[1]) < self.num_queries:
            raise ValueError(
                f"{count} places in the levels of images of {tuple(batch_inputs.shape[-2:])} px, "
                f"for num_queries={self.num_queries}: train on larger images, or with fewer queries"
            )
        sizes = image_sizes(batch_data_samples, batch_inputs.device)
        text = torch.cat([text[targets.sampled], text[-1:]])  # the wildcard is the last one
        classes, starts = None, encoded.starts
        if self.text_queries:
            classes = self._classes_at(starts.sigmoid(), maps, sizes, text[:-1])
            unknown = overlaps_unknown(starts.sigmoid(), targets, self.wildcard_iou)
            classes, starts = by_class(classes.masked_fill(unknown, targets.wildcard), starts)
        content = self._content(text)
        denoising = self.dn_query_generator(
            [box_convert(boxes, "cxcywh", "xyxy") for boxes in targets.boxes],
            targets.labels,
            targets.weights,
            content,
        )
        hidden, references = self._decode(encoded, starts, content, classes, denoising)
        losses: dict[str, Any] = self.bbox_head.loss(
            self.bbox_head(hidden, references),
            (encoded.logits, encoded.boxes),
            targets,
            classes,
            denoising,
            [sample.metainfo for sample in batch_data_samples],
        )
        losses["dropped_boxes"] = encoded.logits.new_tensor(targets.dropped)
        return losses

    def predict(
        self, batch_inputs: Tensor, batch_data_samples: list[Any], rescale: bool = True
    ) -> list[Any]:
        """Detections of a batch.

        Samples with a ``text`` are searched for what that names
        (:mod:`mmclipdis.models.asked_names`), others for the model's classes. The names are
        ``pred_instances.label_names``.

        Raises:
            ValueError: names that cannot be read, scores that are not finite; and as the parts.
            RuntimeError: no weights for a part that must be trained.
        """
        check_weights(self)
        self.take_names()
        groups = by_asked_names(batch_data_samples)
        levels, maps = self._extract(batch_inputs)
        encoded = self._encode(levels, batch_data_samples)
        sizes = image_sizes(batch_data_samples, batch_inputs.device)
        found: list[Any] = [None] * len(batch_data_samples)
        for names, places in groups:
            with self._searching(names):
                boxes, scores = self._search(
                    encoded.of(places), tuple(each[places] for each in maps), sizes[places]
                )
                named = [
                    self.bbox_head.detections(
                        boxes[i], scores[i], batch_data_samples[place].metainfo, rescale
                    )
                    for i, place in enumerate(places)
                ]
                self._name(named)
            for place, instances in zip(places, named, strict=True):
                found[place] = instances
        return self.add_pred_to_datasample(batch_data_samples, found)

    def _forward(self, batch_inputs: Tensor, batch_data_samples: list[Any]) -> Any:
        """Logits of objectness and boxes of all layers, before CLIP names anything.

        Without names, as in mmdet's ``get_flops.py``, queries ask for no class.
        """
        self.take_names()
        levels, maps = self._extract(batch_inputs)
        encoded = self._encode(levels, batch_data_samples)
        sizes = image_sizes(batch_data_samples, batch_inputs.device)
        return self.bbox_head(*self._look(encoded, maps, sizes))

    def _extract(self, batch_inputs: Tensor) -> tuple[Maps, Maps]:
        """Levels of the neck, and the maps that CLIP's regions are read from."""
        *levels, maps = self.backbone(batch_inputs)
        levels = self.neck(tuple(levels))
        if len(levels) != self.num_feature_levels:
            raise ValueError(
                f"the neck gives {len(levels)} levels, for num_feature_levels="
                f"{self.num_feature_levels}: set its num_outs to that"
            )
        return tuple(levels), maps

    def extract_feat(self, batch_inputs: Tensor) -> Maps:
        """Levels of the neck, for images (B, 3, H, W)."""
        return self._extract(batch_inputs)[0]

    def _encode(self, levels: Maps, samples: Sequence[Any]) -> Encoded:
        """Run the deformable encoder, and choose where queries start."""
        given, facts = self.pre_transformer(levels, samples)
        memory = self.forward_encoder(**given)["memory"]
        output, proposals = self.gen_encoder_output_proposals(
            memory, facts["memory_mask"], facts["spatial_shapes"]
        )
        head = self.bbox_head
        logits = at_least_fp32(head.cls_branches[1](output)[..., 0])
        logits, chosen = logits.topk(min(self.num_queries, logits.shape[1]), dim=1)
        rows = chosen[..., None]
        output = output.gather(1, rows.expand(-1, -1, output.shape[-1]))
        moves = at_least_fp32(head.reg_branches[-1](output))
        starts = moves + proposals.gather(1, rows.expand(-1, -1, 4))
        return Encoded(memory, facts, logits, starts.sigmoid(), starts.detach())

    def _classes_at(
        self,
        boxes: Tensor,
        maps: Maps,
        sizes: Tensor,
        text: Tensor,
        novel: Tensor | None = None,
        factor: float = 1.0,
    ) -> Tensor:
        """The class (B, Q) that CLIP sees in each box (B, Q, 4), of those of ``text`` (C, D)."""
        regions = self.backbone.query_embeddings(maps, rois_of(boxes, sizes))
        similar = cosines(regions, text)
        return best_classes(similar, self.query_temperature, novel, factor).view(boxes.shape[:2])

    def _content(self, text: Tensor) -> Tensor:
        """What texts (C, D) add to queries, (C, dim)."""
        if self.text_queries:
            projected: Tensor = self.text_proj(text)
            return projected
        return text.new_zeros(len(text), self.embed_dims)

    def _look(self, encoded: Encoded, maps: Maps, sizes: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The decoder on queries for the classes in use."""
        classes, content, starts = None, None, encoded.starts
        if self.text_queries and self.vocabulary is not None:
            text = self.class_text.text.embeddings()[:-1]
            novel, factor = None, self.test_cfg.target_class_factor
            if factor != 1:
                novel = torch.tensor(self.class_text.text.flags(), device=starts.device)
            classes = self._classes_at(starts.sigmoid(), maps, sizes, text, novel, factor)
            classes, starts = by_class(classes, starts)
            content = self._content(text)
        return self._decode(encoded, starts, content, classes)

    def _decode(
        self,
        encoded: Encoded,
        starts: Tensor,
        content: Tensor | None,
        classes: Tensor | None,
        denoising: Any = None,
    ) -> tuple[Tensor, list[Tensor]]:
        """Hidden states (L, B, Q, dim) and references of the decoder's layers."""
        learned = self.query_embedding.weight[: starts.shape[1]]
        query = learned.expand(len(starts), -1, -1)
        if content is not None and classes is not None:
            query = query + content[classes]
        mask = None
        if denoising is not None:
            query = torch.cat([denoising.content.to(query), query], dim=1)
            starts = torch.cat([denoising.references, starts], dim=1)
            mask = denoising.mask
        elif self.training:
            query = query + self.dn_query_generator.zero()
        found = self.forward_decoder(
            query=query,
            memory=encoded.memory,
            reference_points=starts.sigmoid(),
            dn_mask=mask,
            **encoded.facts,
        )
        return found["hidden_states"], found["references"]

    def _search(self, encoded: Encoded, maps: Maps, sizes: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes (B, Q, 4) and scores (B, Q, K + 1).

        CLIP is only asked about boxes that are things surely enough: no score exceeds the
        objectness, so that others stay below the threshold. On ResNets it is the dearest part.
        """
        hidden, references = self._look(encoded, maps, sizes)
        (logits,), (boxes,) = self.bbox_head(hidden, references, last=True)
        objectness = logits.sigmoid().flatten()
        kept = ~(objectness <= self.test_cfg.score_thr)  # what is not finite is looked at, too
        text = self.class_text.text.embeddings()[:-1]
        scores = objectness.new_zeros(len(objectness), len(text) + 1)
        regions = self.backbone.score_embeddings(maps, rois_of(boxes, sizes)[kept])
        scores[kept] = class_scores(
            cosines(regions, text), self.test_cfg.temperature, objectness[kept]
        )
        return boxes, scores.view(*boxes.shape[:2], -1)

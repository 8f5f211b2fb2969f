"""Detect things in photos by words that are typed in: boxes with a word and a score."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
import torch
from torchvision.ops import batched_nms

from mmclipdis.apis.inferencers.asked import Asked, flat_columns
from mmclipdis.apis.inferencers.base import OpenVocabInferencer
from mmclipdis.apis.inferencers.heat import at_photo, one_word, patch_cosines, word_embedding
from mmclipdis.apis.inferencers.search import Ready
from mmclipdis.apis.inferencers.words import Backdrop, read_words
from mmclipdis.apis.results.base import Result
from mmclipdis.apis.results.detections import Detections
from mmclipdis.apis.results.heatmap import HeatMap
from mmclipdis.clip.text.templates import get_templates
from mmclipdis.clip.text.vocabulary import Vocabulary, novel_flags
from mmclipdis.models.detection.open_vocab import OpenVocabDetector
from mmclipdis.models.text_encoder import build_vocabulary
from mmclipdis.utils.names import name_list


class OpenVocabDetInferencer(OpenVocabInferencer):
    """A loaded detector (F-ViT, OV-DQUO) that takes photos and words.

    Example::

        inferencer = OpenVocabDetInferencer("configs/shapes/fvit.py", "fvit.pth")
        result = inferencer("street.jpg", ["car", "bicycle"])[0]
        result.boxes, result.scores, result.label_names

    A ``threshold`` is the least score of a box, in place of the config's ``score_thr``, above or
    below it; of more boxes than the config's ``max_per_img`` the surest stay. Words of a
    ``background`` are searched for, too, and boxes around them are left out. Synonyms are searched
    for one by one; of boxes that overlap, the surest stays.

    **Base and novel.** F-ViT trusts CLIP more about words that it was never taught (beta) than
    about those it was (alpha), and OV-DQUO has a factor for them. A word counts as base if the
    checkpoint's ``dataset_meta``, or else the config's data set, says that it had boxes in
    training, and as novel otherwise. ``novel=[...]`` in a call says it for the words of that call.

    Args and errors: those of :class:`~mmclipdis.apis.inferencers.base.OpenVocabInferencer`.
    """

    task: ClassVar[str] = "detect"
    call_options: ClassVar[tuple[str, ...]] = ("novel",)
    usual_scope: ClassVar[str] = "mmdet"
    usual_pipeline: ClassVar[Sequence[Mapping[str, Any]]] = ({"type": "PackDetInputs"},)

    def heat(self, result: Result, word: str) -> HeatMap:
        """Cosine of each pixel with a word, by the dense map of the detector's CLIP.

        Raises:
            ValueError: an empty word, or a detector without text encoder.
        """
        text = self.model.class_text.text
        if text.encoder is None:
            raise ValueError(
                f"no text encoder reads {word!r}: the detector has a file of embeddings; give its "
                "box head a text_encoder"
            )
        batch = self._batch_of(result.photo, result.title)
        with self.turn, self._cast():
            embedding = word_embedding(text.encoder, word, text.templates)
            cosines = patch_cosines(self.model.backbone.encoder, batch["inputs"], embedding)
        shape = batch["data_samples"][0].img_shape[:2]
        values = at_photo(cosines, batch["inputs"].shape[-2:], shape, result.size)
        return HeatMap(values, one_word(word), "cosine", result.photo, result.path, result.frame)

    def _vocabulary_owner(self) -> Any:
        if not isinstance(self.model, OpenVocabDetector):
            raise ValueError(f"{type(self.model).__name__} has fixed classes: it takes no words")
        return self.model

    def _know_names(self) -> None:
        if self._own is None:
            self.model.know_names(self.metainfo, self.config)
            self._own_novel = self.model.class_text.novel

    def _read(self, words: Any) -> Vocabulary:
        found = build_vocabulary(read_words(words), self.model.class_text.text.templates)
        if found is None:
            raise ValueError(f"words={words!r} name no classes; give words or a file")
        return found

    def _set_templates(self, templates: Any) -> None:
        text = self.model.class_text.text
        if text.encoder is None:
            raise ValueError(
                f"templates={templates!r}: the detector has a file of embeddings and reads no "
                "prompts; give its box head a text_encoder, or leave templates out"
            )
        text.templates = get_templates(templates)
        known, novel = text.classes, text.novel
        if known is not None:
            self.model.set_vocabulary(Vocabulary(known.names, text.templates))
            self.model.set_novel(novel)

    def _extend(self, known: Vocabulary, backdrop: Backdrop) -> tuple[Vocabulary, tuple[int, ...]]:
        return flat_columns(known, backdrop)

    def _check_asked(self, asked: Asked) -> None:
        self.model.class_text.text.check_words(asked.vocabulary)
        novel = asked.options.get("novel")
        if novel is not None:
            novel_flags(asked.vocabulary.queries, name_list(novel, "novel"), "novel")

    def _use(self, asked: Asked) -> None:
        if asked is self._current:
            return
        novel = asked.options.get("novel")
        kept = self._own is asked.vocabulary and novel is None
        flags = self._own_novel if kept else None
        self.model.set_vocabulary(asked.vocabulary, novel)
        if flags is not None:
            self.model.set_novel(flags)
        self._current = asked

    def forward(self, inputs: Any, **kwargs: Any) -> list[Any]:
        """As of the base, with the threshold that was asked for."""
        asked = self._current
        with _least_score(self.model, None if asked is None else asked.backdrop.threshold):
            return super().forward(inputs, **kwargs)

    def _takes_mixed_sizes(self) -> bool:
        return True  # the preprocessor pads

    def _first_step(self, results: dict[str, Any]) -> dict[str, Any]:
        return {**super()._first_step(results), "scale_factor": (1.0, 1.0)}

    def _result(self, ready: Ready, sample: Any) -> Detections:
        found, asked, loaded = sample.pred_instances, ready.asked, ready.loaded
        columns = torch.tensor(asked.columns, device=found.labels.device)
        labels, kept = columns[found.labels], columns[found.labels] >= 0
        if asked.backdrop.threshold is not None:
            kept &= found.scores >= asked.backdrop.threshold
        order = kept.nonzero()[:, 0]
        if len(asked.columns) > len(asked.names) + len(asked.backdrop.words):  # synonyms
            limit = _iou_threshold(self.model)
            chosen = batched_nms(found.bboxes[order], found.scores[order], labels[order], limit)
            order = order[chosen]
        else:
            order = order[found.scores[order].argsort(descending=True, stable=True)]
        masks = found.masks[order].bool().cpu().numpy() if "masks" in found else None
        return Detections(
            boxes=found.bboxes[order].float().cpu().numpy().astype(np.float32),
            scores=found.scores[order].float().cpu().numpy(),
            labels=labels[order].cpu().numpy(),
            names=asked.names,
            photo=loaded.photo,
            path=loaded.path,
            masks=masks,
            frame=loaded.frame,
            threshold=asked.backdrop.threshold,
            look=self.heat,
        )


@contextmanager
def _least_score(model: Any, threshold: float | None) -> Iterator[None]:
    """Have a detector give boxes of at least this score, in place of its ``score_thr``."""
    if threshold is None:
        yield
        return
    # Detectors keep what is above score_thr, and a threshold is kept itself.
    below = max(float(np.nextafter(np.float32(threshold), np.float32(-1))), 0.0)
    settings = [getattr(part, "test_cfg", None) for part in model.modules()]
    found = {id(cfg): cfg for cfg in settings if isinstance(cfg, Mapping) and "score_thr" in cfg}
    before = [(cfg, cfg["score_thr"]) for cfg in found.values()]
    try:
        for cfg, _ in before:
            cfg["score_thr"] = below  # type: ignore[index]
        yield
    finally:
        for cfg, value in before:
            cfg["score_thr"] = value  # type: ignore[index]


def _iou_threshold(model: Any) -> float:
    """The IoU above which the model takes two boxes of a class for one."""
    cfg = model.test_cfg.get("rcnn", model.test_cfg)
    nms = cfg.get("nms") or {}
    return float(nms.get("iou_threshold", 0.5))

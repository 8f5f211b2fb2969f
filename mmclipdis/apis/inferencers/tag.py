"""Tag photos by words that are typed in: a score for each word about the whole photo."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from mmclipdis.apis.inferencers.asked import Asked, flat_columns
from mmclipdis.apis.inferencers.base import OpenVocabInferencer
from mmclipdis.apis.inferencers.heat import at_photo, one_word, patch_cosines, word_embedding
from mmclipdis.apis.inferencers.search import Ready
from mmclipdis.apis.inferencers.words import Backdrop, read_words
from mmclipdis.apis.results.base import Result
from mmclipdis.apis.results.heatmap import HeatMap
from mmclipdis.apis.results.tags import Tags
from mmclipdis.clip.text.templates import get_templates
from mmclipdis.clip.text.vocabulary import Vocabulary
from mmclipdis.clip.towers.pools import like_map
from mmclipdis.models.recognition.dclip import DCLIP
from mmclipdis.models.recognition.segments import resize
from mmclipdis.models.text_encoder import build_vocabulary


class OpenVocabTagger(OpenVocabInferencer):
    """A loaded recogniser (CLIP as it is, DCLIP) that takes photos and words.

    Example::

        tagger = OpenVocabTagger("configs/shapes/dclip_zero_shot.py")
        result = tagger("beach.jpg", ["kite", "fish", "umbrella"], local=True)[0]
        result.top(3), result.local

    CLIP's scores are a softmax: words compete, and at least two are needed, or a ``background``,
    whose words compete, too, and are left out. DCLIP's, and those with ``score='sigmoid'``, are
    independent probabilities, and words of a background say nothing there. Words below a
    ``threshold`` are not :meth:`~mmclipdis.apis.results.Tags.found`;
    :attr:`~mmclipdis.apis.results.Tags.scores` has all. The best synonym of a word counts.

    In a call ``local=True`` also looks at places: :attr:`~mmclipdis.apis.results.Tags.local` is the
    cosine of each word with the place that is most like it, through DCLIP's projectors if the model
    has them. A ViT that is read out as CLIP itself is read out as ClearCLIP for it.

    Args:
        segments: a checkpoint of DCLIP, whose segments of the photo CLIP looks at, too (DCLIP,
            Table 5); for CLIP as it is. More settings: ``cfg_options={'model.segments.reduce':
            'mean'}``; see :class:`~mmclipdis.models.recognition.segments.DCLIPSegments`.

    The others, and errors: those of :class:`~mmclipdis.apis.inferencers.base.OpenVocabInferencer`.
    """

    task: ClassVar[str] = "tag"
    call_options: ClassVar[tuple[str, ...]] = ("local",)
    usual_scope: ClassVar[str] = "mmengine"
    usual_pipeline: ClassVar[Sequence[Mapping[str, Any]]] = ({"type": "PackMultiLabelInputs"},)

    def __init__(self, *args: Any, segments: str | Path | None = None, **options: Any) -> None:
        if segments is not None:
            settings = {"model.segments.projector": str(segments)}
            options["cfg_options"] = {**settings, **(options.get("cfg_options") or {})}
        super().__init__(*args, **options)

    def heat(self, result: Result, word: str) -> HeatMap:
        """Cosine of each pixel with a word, through DCLIP's projectors if the model has them.

        Raises:
            ValueError: an empty word, or a model without text encoder.
        """
        text = self.model.text
        if text.encoder is None:
            raise ValueError(
                f"no text encoder reads {word!r}: the model has a file of embeddings; give it a "
                "text_encoder"
            )
        batch = self._batch_of(result.photo, result.title)
        with self.turn, self._cast():
            embedding = word_embedding(text.encoder, word, text.prompt_sets[self._positive])
            cosines = self._cosines(batch["inputs"], embedding)
        side = batch["inputs"].shape[-2:]
        values = at_photo(cosines, side, side, result.size)
        return HeatMap(values, one_word(word), "cosine", result.photo, result.path, result.frame)

    @property
    def _positive(self) -> int:
        """Which of the prompts affirm the word: DCLIP's first deny it."""
        return 1 if isinstance(self.model, DCLIP) else 0

    def _cosines(self, images: Tensor, text: Tensor) -> Tensor:
        """Cosines (B, K, h, w) of places and texts (K, E) as the model compares them."""
        projector = getattr(self.model, "projectors", None)
        if projector is not None:
            projector.belong_to(self.model.encoder)
        images = resize(images, getattr(self.model, "image_size", None), "bicubic")
        return patch_cosines(self.model.encoder, images, text, projector, projector is None)

    def _vocabulary_owner(self) -> Any:
        if not hasattr(self.model, "set_vocabulary"):
            raise ValueError(f"{type(self.model).__name__} has fixed classes: it takes no words")
        return self.model

    def _know_names(self) -> None:
        if self.model.vocabulary is None and self.metainfo.get("classes"):
            self.model.set_vocabulary(list(self.metainfo["classes"]))

    def _read(self, words: Any) -> Vocabulary:
        found = build_vocabulary(read_words(words), self.model.text.templates)
        if found is None:
            raise ValueError(f"words={words!r} name no classes; give words or a file")
        return found

    def _set_templates(self, templates: Any) -> None:
        text, prompts = self.model.text, get_templates(templates)
        if isinstance(self.model, DCLIP):
            raise ValueError(
                f"templates={templates!r}: DCLIP's projectors were trained with a pair of prompts, "
                "one that denies the word and one that affirms it; leave templates out"
            )
        text.prompt_sets = (prompts, *text.prompt_sets[1:])
        text.templates = prompts
        known = text.vocabulary
        if known is not None:
            self.model.set_vocabulary(Vocabulary(known.names, prompts))

    def _extend(self, known: Vocabulary, backdrop: Backdrop) -> tuple[Vocabulary, tuple[int, ...]]:
        return flat_columns(known, backdrop)

    def _check_asked(self, asked: Asked) -> None:
        if getattr(self.model, "score", "sigmoid") == "sigmoid":  # DCLIP's always is
            who = "DCLIP" if isinstance(self.model, DCLIP) else "score='sigmoid'"
            if asked.backdrop.words:
                raise ValueError(
                    f"background={asked.backdrop.words[0]!r}: {who} says of each word alone how "
                    "probable it is, and compares it with no background; leave it out, or give a "
                    "number, the least score"
                )
        elif len(asked.names) + len(asked.backdrop.words) < 2:
            raise ValueError(
                f"one word: there is nothing that {asked.names[0]!r} is compared with, and its "
                "score is 1 whatever the photo shows; give more words, or background='...'"
            )

    def postprocess(
        self,
        preds: Any,
        visualization: Any = None,
        return_datasample: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Results of ``(ready photo, data sample)`` pairs, with local scores if they are asked."""
        results = super().postprocess(preds)
        asked = preds[0][0].asked
        if not asked.options.get("local"):
            return results
        batch = self.collate_fn([ready.inputs for ready, _ in preds])
        inputs = self.model.data_preprocessor(batch, False)["inputs"]
        count = asked.vocabulary.num_classes
        text = self.model.text.embeddings()[self._positive * count :][:count]
        text = like_map(text, self.model.encoder.embed_dim)
        with torch.no_grad(), self._cast():
            best = self._cosines(inputs, text).amax((2, 3))
        local = [_of_classes(row, asked).cpu().numpy() for row in best]
        return [
            replace(result, local=values[: len(asked.names)])
            for result, values in zip(results, local, strict=True)
        ]

    def _result(self, ready: Ready, sample: Any) -> Tags:
        asked, loaded = ready.asked, ready.loaded
        logits = _of_classes(sample.pred_logit.float(), asked)
        is_dclip = isinstance(self.model, DCLIP)
        scores = logits.sigmoid() if is_dclip else self.model.probabilities(logits)
        return Tags(
            scores=scores[: len(asked.names)].cpu().numpy().astype(np.float32),
            names=asked.names,
            photo=loaded.photo,
            path=loaded.path,
            frame=loaded.frame,
            threshold=asked.backdrop.threshold or 0.0,
            look=self.heat,
        )


def _of_classes(rows: Tensor, asked: Asked) -> Tensor:
    """Values (C + B,) of words and, behind them, of the background, from those of all synonyms."""
    if len(asked.columns) == len(asked.names) + len(asked.backdrop.words):
        return rows
    places, extra = [], len(asked.names)
    for column in asked.columns:
        places.append(column if column >= 0 else extra)
        extra += column < 0
    index = torch.tensor(places, device=rows.device)
    return rows.new_full((extra,), -torch.inf).scatter_reduce(0, index, rows, "amax")

"""Segment photos by words that are typed in: a word for each pixel."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from mmclipdis.apis.inferencers.asked import Asked
from mmclipdis.apis.inferencers.base import OpenVocabInferencer
from mmclipdis.apis.inferencers.heat import one_word
from mmclipdis.apis.inferencers.search import Ready
from mmclipdis.apis.inferencers.segment_heat import segmentor_heat
from mmclipdis.apis.inferencers.words import read_words
from mmclipdis.apis.results.base import Result
from mmclipdis.apis.results.heatmap import HeatMap
from mmclipdis.apis.results.segmentation import Segmentation
from mmclipdis.clip.text.templates import get_templates
from mmclipdis.clip.text.vocabulary import Vocabulary
from mmclipdis.models.segmentation.named_segmentor import config_metainfo
from mmclipdis.models.segmentation.preprocessor import MixedSizeSegDataPreProcessor
from mmclipdis.models.segmentation.window_segmentor import WindowSegmentor


class OpenVocabSegInferencer(OpenVocabInferencer):
    """A loaded segmentor that takes photos and words.

    Example::

        inferencer = OpenVocabSegInferencer("configs/clearclip/clearclip_vitb16_voc20.py")
        result = inferencer("street.jpg", ["road", "tree", ["car", "van"], "sky"])[0]
        result.shares(), result.save("street_segmented.png")

    Every pixel gets the word that it is most like. Words of a ``background`` take their share, and
    their pixels get none (:attr:`~mmclipdis.apis.results.Segmentation.nothing`), as do pixels whose
    best word has a smaller probability than ``threshold``; 0 switches a threshold of the config
    off. Where one of the words is called "background", doubtful pixels get that.

    Args and errors: those of :class:`~mmclipdis.apis.inferencers.base.OpenVocabInferencer`. In a
    call ``names`` is an older name of ``words``.
    """

    task: ClassVar[str] = "segment"
    usual_scope: ClassVar[str] = "mmseg"
    usual_pipeline: ClassVar[Sequence[Mapping[str, Any]]] = ({"type": "PackSegInputs"},)

    def stream(self, sources: Any, words: Any = None, **options: Any) -> Iterator[Any]:
        """As of the base; ``names`` is an older name of ``words``."""
        names = options.pop("names", None)
        if names is not None:
            if words is not None:
                raise ValueError("words and names are two names of one thing: give one")
            words = names
        return super().stream(sources, words, **options)

    def heat(self, result: Result, word: str) -> HeatMap:
        """Cosine of each pixel with a word or, of trained heads, its probability among the words.

        Raises:
            ValueError: an empty word, or a model that compares nothing with words.
        """
        is_file = result.path is not None and result.frame is None  # masks are found by its name
        batch = self._batch_of(result.photo, str(result.path) if is_file else result.title)
        with self.turn, self._cast():
            values, kind = segmentor_heat(self._part, batch, result, word)
        return HeatMap(values, one_word(word), kind, result.photo, result.path, result.frame)

    @property
    def _part(self) -> Any:
        """The segmentor itself, out of one that is around it (InfoCLIP)."""
        return getattr(self.model, "segmentor", self.model)

    def _vocabulary_owner(self) -> Any:
        for part in (self.model, getattr(self.model, "decode_head", None)):
            if hasattr(part, "set_vocabulary"):
                return part
        raise ValueError(f"{type(self.model).__name__} has fixed classes: it takes no names")

    def _know_names(self) -> None:
        """Those of the data set first, also where others were typed in.

        What the config says of its background is about these.
        """
        if self.vocabulary_owner.vocabulary is None:
            found = config_metainfo(self.config) or self.metainfo
            if found.get("classes"):
                self.vocabulary_owner.set_vocabulary(list(found["classes"]))

    def _read(self, words: Any) -> Vocabulary:
        # the model's own way of reading: CAT-Seg takes the first of several synonyms
        self._current = None
        self.vocabulary_owner.set_vocabulary(read_words(words))
        vocabulary: Vocabulary = self.vocabulary_owner.vocabulary
        return vocabulary

    def _set_templates(self, templates: Any) -> None:
        head = self._part if hasattr(self._part, "templates") else self._part.decode_head
        if getattr(head, "has_ready_embeddings", False):
            raise ValueError(
                f"templates={templates!r}: {type(head).__name__} has ready embeddings and reads no "
                "prompts; give it a text_encoder, or leave templates out"
            )
        known, head.templates = self.vocabulary_owner.vocabulary, get_templates(templates)
        if known is not None:
            named = Vocabulary(
                known.names, head.templates, known.background_index, known.allow_duplicates
            )
            self.vocabulary_owner.set_vocabulary(named)

    def _check_asked(self, asked: Asked) -> None:
        threshold = asked.backdrop.threshold
        alone = getattr(self._part.decode_head, "score", "sigmoid") == "sigmoid"
        if asked.vocabulary.num_classes > 1 or alone:
            return  # its probabilities are of each word alone, as CAT-Seg's
        if threshold:
            raise ValueError(
                f"threshold {threshold} with one word: there is nothing that {asked.names[0]!r} is "
                "compared with, and its probability is 1 everywhere; add words, or give "
                "background='background'"
            )
        warnings.warn(
            f"one word and no background: all pixels become {asked.names[0]!r}; add words, or give "
            "background='background'",
            stacklevel=5,
        )

    def _takes_mixed_sizes(self) -> bool:
        return isinstance(self.model.data_preprocessor, MixedSizeSegDataPreProcessor)

    def _use(self, asked: Asked) -> None:
        super()._use(asked)
        if isinstance(self._part, WindowSegmentor):
            self._part.asked_threshold = asked.backdrop.threshold

    def _release(self) -> None:
        if isinstance(self._part, WindowSegmentor):
            self._part.asked_threshold = None

    def _result(self, ready: Ready, sample: Any) -> Segmentation:
        labels = sample.pred_sem_seg.data[0].long().cpu().numpy()
        names, loaded = ready.asked.names, ready.loaded
        threshold = ready.asked.backdrop.threshold
        result = Segmentation(labels, names, loaded.photo, loaded.path, loaded.frame, self.heat)
        none = labels >= len(names)  # the background's words, and the model's own "no class"
        if threshold and not isinstance(self._part, WindowSegmentor):
            none |= (sample.seg_logits.data.amax(0) < threshold).cpu().numpy()
        if none.any():
            labels[none] = result.nothing
        return result

"""mmseg's ``EncoderDecoder`` around a head with class names: what it says of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmseg.models.segmentors import EncoderDecoder as StockEncoderDecoder
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor

from mmclipdis.models.segmentation.named_segmentor import NamedSegmentor


@MODELS.register_module(force=True)
class EncoderDecoder(NamedSegmentor, StockEncoderDecoder):
    """mmseg's, which configs name by this name, with the names of a ``CosineSegHead`` in it.

    With such a head names come from checkpoints and from the text of samples, and results carry
    them, as with the segmentors here. With any other head all is mmseg's.
    """

    @property
    def named_part(self) -> Any:
        """The head, if it has a vocabulary."""
        head = self.decode_head
        return head if hasattr(head, "state_of_names") else None

    def predict(
        self, inputs: Tensor, data_samples: Sequence[SegDataSample] | None = None
    ) -> list[SegDataSample]:
        """As mmseg's, by the names of each sample.

        Raises:
            ValueError: as ``NamedSegmentor.predict_by_names``.
        """
        return self.predict_by_names(self._predict, inputs, data_samples)

    def _predict(
        self, inputs: Tensor, data_samples: Sequence[SegDataSample] | None
    ) -> list[SegDataSample]:
        if self.named_part is not None:  # mmseg counts the classes once, when the model is built
            if (self.test_cfg or {}).get("stitch", "scores") != "scores":
                raise ValueError(
                    f"test_cfg.stitch={self.test_cfg['stitch']!r} puts windows together before "
                    "the head, and mmseg's EncoderDecoder cannot: use type='OpenVocabSegmentor' as "
                    "the model, or leave stitch out"
                )
            self.named_part.embeddings()  # without names it says what to do
            self.num_classes = self.named_part.num_classes
            self.out_channels = self.named_part.out_channels
        found: list[SegDataSample] = super().predict(inputs, data_samples)
        return found

"""A segmentor around another one, to which it hands everything but training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmseg.models.segmentors import BaseSegmentor
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from mmclipdis.clip.text.vocabulary import Vocabulary
from mmclipdis.models.segmentation.named_segmentor import NamedSegmentor
from mmclipdis.models.segmentation.preprocessor import for_mixed_sizes


class WrappedSegmentor(NamedSegmentor, BaseSegmentor):
    """Validation, testing, augmented testing and the classes are those of ``segmentor``.

    A subclass brings ``loss``.

    Args:
        segmentor: The segmentor inside.
        data_preprocessor: Its own by default.
    """

    def __init__(
        self,
        segmentor: Any,
        data_preprocessor: Mapping[str, Any] | nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.segmentor = segmentor
        if data_preprocessor is not None:
            found = for_mixed_sizes(data_preprocessor)
            own = isinstance(found, nn.Module)
            self.segmentor.data_preprocessor = found if own else MODELS.build(found)
        self.data_preprocessor = self.segmentor.data_preprocessor

    @property
    def vocabulary(self) -> Vocabulary | None:
        """The classes in use, if known."""
        found: Vocabulary | None = self.segmentor.vocabulary
        return found

    @property
    def follow_dataset(self) -> bool:
        """Whether the classes are those of the data set in use."""
        return bool(self.segmentor.follow_dataset)

    @property
    def num_classes(self) -> int | None:
        """Number of classes, if known."""
        found: int | None = self.segmentor.num_classes
        return found

    @property
    def out_channels(self) -> int | None:
        """Channels of the class scores."""
        found: int | None = self.segmentor.out_channels
        return found

    @property
    def decode_head(self) -> nn.Module:
        """The segmentor's, which mmseg's tools ask for."""
        head: nn.Module = self.segmentor.decode_head
        return head

    @property
    def align_corners(self) -> bool:
        """How the segmentor resizes."""
        return bool(self.segmentor.align_corners)

    @property
    def test_cfg(self) -> Any:
        """The segmentor's."""
        return self.segmentor.test_cfg

    @test_cfg.setter
    def test_cfg(self, value: Any) -> None:
        """Sets the settings of the segmentor, the only one that reads them."""
        self.segmentor.test_cfg = value

    def set_vocabulary(self, vocabulary: Any) -> None:
        """Change the classes of the live model; see the segmentor's."""
        self.segmentor.set_vocabulary(vocabulary)

    def extract_feat(self, inputs: Tensor) -> Any:
        """The segmentor's dense features."""
        return self.segmentor.extract_feat(inputs)

    def class_embeddings(self) -> Tensor:
        """The segmentor's class embeddings ``(T, E)``."""
        embeddings: Tensor = self.segmentor.class_embeddings()
        return embeddings

    def predict(
        self, inputs: Any, data_samples: Sequence[SegDataSample] | None = None
    ) -> list[SegDataSample]:
        """The segmentor's predictions."""
        self.take_names()
        found: list[SegDataSample] = self.segmentor.predict(inputs, data_samples)
        return found

    def val_step(self, data: Any) -> list[SegDataSample]:
        """The segmentor's."""
        found: list[SegDataSample] = self.segmentor.val_step(data)
        return found

    def encode_decode(
        self, inputs: Tensor, batch_data_samples: Sequence[SegDataSample] | None = None
    ) -> Tensor:
        """The segmentor's class scores at input size."""
        scores: Tensor = self.segmentor.encode_decode(inputs, batch_data_samples)
        return scores

    def _forward(
        self, inputs: Tensor, data_samples: Sequence[SegDataSample] | None = None
    ) -> Tensor:
        """The segmentor's ``mode='tensor'``."""
        logits: Tensor = self.segmentor(inputs, data_samples, mode="tensor")
        return logits

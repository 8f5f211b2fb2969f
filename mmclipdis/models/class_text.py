"""Text embeddings of the classes of a data set, made when they are needed and kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor, nn

from mmclipdis.clip.text.embeddings_file import read_embeddings
from mmclipdis.clip.text.templates import Templates, TemplateSet, get_templates
from mmclipdis.clip.text.vocabulary import Vocabulary
from mmclipdis.engine.random_weights import before_use, watch_weights
from mmclipdis.models.text_encoder import build_vocabulary, dense_channels, dense_option
from mmclipdis.models.unsaved import SharesUnsaved, leave_out_of_checkpoints


class TextEmbeddings(BaseModule):
    """Base of what keeps text embeddings: given ones for good, others until weights are loaded.

    They move with the module and yet are no buffers: mmengine's ``EMAHook`` pairs the buffers of
    model and average by their places and copies them, but how many rows there are, and whether any,
    depends on the names that each of the two has been told.
    """

    #: Tensors that belong to the names in use.
    tensors_of_names: tuple[str, ...] = ("_embeddings",)
    _embeddings: Tensor | None
    _are_given: bool  # by a file or a tensor, and not by a text encoder

    def _apply(self, fn: Callable[[Tensor], Tensor], *args: Any, **kwargs: Any) -> TextEmbeddings:
        super()._apply(fn, *args, **kwargs)
        for name in self.tensors_of_names:
            value = getattr(self, name)
            if value is not None:
                setattr(self, name, fn(value))
        return self

    def init_weights(self) -> None:
        """Load the text encoder's weights; embeddings made with other weights are forgotten."""
        super().init_weights()
        self._forget()

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._forget()

    def _forget(self) -> None:
        if not self._are_given:
            self._embeddings = None


class ClassText(SharesUnsaved, TextEmbeddings):
    """One constant text embedding a class and prompt set, from a text encoder or from a file.

    The embeddings follow the vocabulary and the weights of the text encoder, and are not saved.

    Args:
        text_encoder: config of an ``OpenCLIPTextEncoder``, or the module; None with a file.
        vocabulary: ``'dataset'`` to take the classes of the data set in use (``VocabularyHook``
            names them), or anything that
            :func:`~mmclipdis.models.text_encoder.build_vocabulary` reads, with one name a class.
        templates: prompts, for vocabularies that bring none.
        prompt_sets: several sets of prompts, each with its own embedding of every class (DCLIP:
            one that denies and one that affirms the class), in place of ``templates`` and of those
            that a vocabulary brings. A set is one sentence or what ``templates`` takes.
        text_embeddings: file with ready embeddings (C, D) in the order of the classes, see
            :func:`~mmclipdis.clip.text.embeddings_file.read_embeddings`. They belong to one CLIP:
            with another's, accuracies come out near zero.
        embed_dim: D of the image encoder, which the embeddings must have; None takes any.
        saved: Whether checkpoints hold the text encoder. Otherwise its weights are those of its
            ``init_cfg``, read when they are needed, whatever checkpoint is loaded.

    Raises:
        ValueError: neither or both of encoder and file, a file for several prompt sets, no prompt
            set, or a text encoder that trains or has another D.
    """

    #: Distillation trains without class names (see ``VocabularyHook``).
    used_in_training = False

    def __init__(
        self,
        text_encoder: Mapping[str, Any] | nn.Module | None = None,
        vocabulary: Any = "dataset",
        templates: Templates = "vild63",
        text_embeddings: str | None = None,
        embed_dim: int | None = None,
        prompt_sets: Sequence[Templates] | None = None,
        saved: bool = True,
    ) -> None:
        super().__init__()
        if (text_encoder is None) == (text_embeddings is None):
            raise ValueError("give either a text_encoder or a file of text_embeddings")
        self.encoder: Any = text_encoder
        if isinstance(text_encoder, Mapping):
            self.encoder = MODELS.build(text_encoder)
            watch_weights(self.encoder)
        if self.encoder is not None and any(p.requires_grad for p in self.encoder.parameters()):
            raise ValueError("class embeddings are constants: give the text_encoder trainable=()")
        _check_channels(embed_dim, _own_channels(self.encoder, embed_dim))
        self.embed_dim = embed_dim
        self.prompt_sets = _read_prompt_sets(prompt_sets)
        if self.prompt_sets and text_embeddings is not None:
            raise ValueError("a file of text_embeddings has one row a class, not one a prompt set")
        self.templates = self.prompt_sets[0] if self.prompt_sets else templates
        self.text_embeddings = text_embeddings
        self._are_given = text_embeddings is not None
        self.follow_dataset = isinstance(vocabulary, str) and vocabulary == "dataset"
        self.vocabulary: Vocabulary | None = None
        self._embeddings = None
        self.register_buffer("_place", torch.empty(0), persistent=False)  # knows the device
        self.saved = saved
        if not saved:
            leave_out_of_checkpoints(self, ("encoder",))
        if not self.follow_dataset:
            self.set_vocabulary(vocabulary)

    def expect_channels(self, embed_dim: int) -> None:
        """Say what D is, for a model that knows it once its parts are built.

        Raises:
            ValueError: the text has another D.
        """
        found = _own_channels(self.encoder, embed_dim)
        if self._are_given and self._embeddings is not None:
            found = self._embeddings.shape[1]
        _check_channels(embed_dim, found)
        self.embed_dim = embed_dim

    def set_vocabulary(self, vocabulary: Any) -> None:
        """Change the classes.

        Raises:
            FileNotFoundError, ValueError: no names, several for one class, templates beside
                ``prompt_sets``, or a file of embeddings that does not fit, see
                ``read_embeddings``.
        """
        if self.prompt_sets and isinstance(vocabulary, Mapping) and "templates" in vocabulary:
            raise ValueError(
                "the vocabulary brings templates, which this model does not read: it has prompts "
                "of its own"
            )
        new = build_vocabulary(vocabulary, templates=self.templates)
        if new is None:
            raise ValueError(f"vocabulary={vocabulary!r} names no classes; give names or a file")
        if len(new.queries) != new.num_classes:
            several = next(names for names in new.names if len(names) > 1)
            raise ValueError(
                f"class {several[0]!r} has {len(several)} names ({', '.join(several)}): this model "
                "takes one name a class; leave the synonyms out (first_only=True)"
            )
        if self.text_embeddings is not None:
            table = read_embeddings(self.text_embeddings, self.embed_dim, new.class_names)
            self._embeddings = table.to(self._place.device)
        elif self.vocabulary is None or new.key() != self.vocabulary.key():
            self._embeddings = None
        self.vocabulary = new

    def embeddings(self) -> Tensor:
        """(C, D) float32 unit vectors, computed at the first call.

        With S prompt sets (S * C, D), set by set.

        Raises:
            RuntimeError: no vocabulary has been set.
        """
        if self.vocabulary is None:
            raise RuntimeError(
                "no class names yet: the model follows its data set; run it with VocabularyHook, "
                "or name a vocabulary in the config"
            )
        if self._embeddings is None:
            # An inference tensor could not take part in a later backward pass.
            with torch.inference_mode(False), torch.no_grad():
                embedded = self._embed(self.vocabulary).clone().to(self._place)
            if torch.jit.is_tracing():  # which loads no weights
                return embedded
            self._embeddings = embedded
        return self._embeddings

    def _embed(self, vocabulary: Vocabulary) -> Tensor:
        before_use(self.encoder)
        # the dense half of dino.txt has another D than its whole
        whole = self.embed_dim in (None, getattr(self.encoder, "embed_dim", None))
        option = {} if whole else dense_option(self.encoder)
        if not self.prompt_sets:
            embedded: Tensor = self.encoder.embed(vocabulary, **option)
            return embedded
        worded = [replace(vocabulary, templates=prompts) for prompts in self.prompt_sets]
        return torch.cat([self.encoder.embed(vocabulary, **option) for vocabulary in worded])


class WithClassText:
    """Mixin: what ``VocabularyHook`` asks of a model, which its part with the classes answers."""

    text: Any

    @property
    def class_text(self) -> Any:
        """That part, by default :attr:`text`."""
        return self.text

    @property
    def vocabulary(self) -> Vocabulary | None:
        """The classes in use, if known."""
        return self.class_text.vocabulary

    @property
    def follow_dataset(self) -> bool:
        """Whether the classes are those of the data set in use."""
        return bool(self.class_text.follow_dataset)

    def set_vocabulary(self, vocabulary: Any) -> None:
        """Change the classes of the live model; see ``ClassText.set_vocabulary``."""
        self.class_text.set_vocabulary(vocabulary)


def _own_channels(encoder: Any, wanted: int | None) -> int | None:
    """Channels of a text encoder: ``wanted`` if it has as many for dense maps, else all."""
    whole: int | None = getattr(encoder, "embed_dim", None)
    return wanted if wanted is not None and wanted == dense_channels(encoder) else whole


def _check_channels(image: int | None, text: int | None) -> None:
    if None not in (image, text) and image != text:
        raise ValueError(
            f"the image encoder has {image} channels, the text encoder {text}: both must be of one "
            "CLIP"
        )


def check_same_clip(arch: Any, text_encoder: Any) -> None:
    """Refuse a text encoder of another CLIP: results would be those of chance.

    Raises:
        ValueError: naming both.
    """
    other = getattr(text_encoder, "arch", None)
    if arch is not None and other is not None and arch != other:
        raise ValueError(
            f"the encoder is {arch!r}, the text encoder {other!r}: image and text must be of one "
            "CLIP"
        )


def _read_prompt_sets(prompt_sets: Sequence[Templates] | None) -> tuple[TemplateSet, ...]:
    if prompt_sets is None:
        return ()
    if isinstance(prompt_sets, str) or not prompt_sets:
        raise ValueError(f"expected a list of prompts, got {prompt_sets!r}")
    return tuple(get_templates(prompts) for prompts in prompt_sets)

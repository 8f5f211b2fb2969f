"""CLIP's text tower and the vocabulary as things that a config can name."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor

from mmclipdis.clip.text.embedding_cache import CacheDir
from mmclipdis.clip.text.encoder import (
    build_text_tower,
    embed_empty,
    embed_vocabulary,
    ensemble,
)
from mmclipdis.clip.text.names import is_class_file, is_list_of_names, read_names
from mmclipdis.clip.text.templates import Templates, TemplateSet
from mmclipdis.clip.text.vocabulary import Vocabulary, bundled_names
from mmclipdis.clip.weights.activation_mark import remember_activation
from mmclipdis.clip.weights.loading import (
    Arch,
    has_quick_gelu,
    load_text_transformer,
    read_clip_checkpoint,
    scale_and_bias,
)
from mmclipdis.clip.weights.scale_mark import remember_scale
from mmclipdis.clip.weights.trainable import set_trainable
from mmclipdis.engine.random_weights import NO_SOURCE, before_use, watch_weights
from mmclipdis.models.backbones import pretrained_source
from mmclipdis.utils.names import name_list
from mmclipdis.utils.tracing import untraced

#: Where a vocabulary comes from, and the options that shape it.
_SOURCES = ("names", "file", "dataset", "bundled")
_OPTIONS = ("background_index", "background_names", "first_only", "allow_duplicates")
_KEYS = {*_SOURCES, *_OPTIONS, "templates", "separator"}


@MODELS.register_module()
class OpenCLIPTextEncoder(BaseModule):
    """CLIP's text tower with its tokenizer and a cache of class embeddings.

    (mmseg has a frozen ``CLIPTextEncoder`` of its own, hence the longer name.)

    Args:
        arch: open_clip config name or dict; the same as the image encoder's.
        trainable: ``()`` freezes the tower, ``('all',)`` trains it, a subset of ``('q', 'k',
            'v')`` trains these matrices of every block, ``('attention',)`` its whole attention,
            ``('blocks',)`` every block, ``('blocks', n)`` the last ``n``.
        batch_size: Prompts a batch in :meth:`embed`.
        cache_dir: Disk cache of :meth:`embed`: None for ``$MMCLIPDIS_CACHE`` or, without it,
            ``mmclipdis`` in the user's folder of caches; False for none. Trainable towers never
            use the disk.
        progress: Show a progress bar while prompts are encoded.
        init_cfg: ``dict(type='Pretrained', checkpoint=...)`` with an open_clip tag or a file, None
            or nothing, as in :class:`~mmclipdis.models.backbones.CLIPViT`.
        tokenizer: The ``tokenizer.json`` (or sentencepiece's ``.model``) that came with the
            weights, or the folder that holds it, for an arch that has another tokenizer than
            CLIP's: SigLIP, MetaCLIP 2, CLIPA, TIPS. Needs ``pip install 'mmclipdis[text]'``. Never
            downloaded, and no part of a checkpoint. One that is there is read and checked at once,
            one that is missing is asked for when texts come.
        clean: How texts are cleaned first: ``'lower'``, ``'canonicalize'`` (lower case without
            punctuation: "fire-hydrant" becomes "firehydrant") or ``'whitespace'``; None for the
            arch's way.

    Raises:
        ImportError: the package that reads the tokenizer is missing.
        ValueError: for an unknown arch or trainable part, a tower that is not supported, or a
            tokenizer that is not named, of another family, or given to an arch with CLIP's.
    """

    _is_init: bool  # mmengine's mark that init_weights() has run
    #: Whether checkpoints hold scale and bias, too: asked for by a model that computes with them.
    keeps_scale = False
    #: Scale and bias of the weights, if a file or a checkpoint has told them.
    known_scale: tuple[float, float | None] | None = None

    def __init__(
        self,
        arch: Arch = "ViT-B-16-quickgelu",
        trainable: Sequence[str] = (),
        batch_size: int = 256,
        cache_dir: CacheDir = None,
        progress: bool = True,
        init_cfg: Mapping[str, Any] | None = NO_SOURCE,
        tokenizer: str | Path | None = None,
        clean: str | None = None,
    ) -> None:
        super().__init__(init_cfg=dict(init_cfg) if init_cfg else None)
        self.arch = arch
        self.quick_gelu = has_quick_gelu(arch)
        remember_activation(self)
        remember_scale(self)
        self.tower = build_text_tower(arch, tokenizer, clean)
        self.batch_size = batch_size
        self.cache_dir = cache_dir
        self.progress = progress
        self.trainable = tuple(trainable)
        set_trainable(self.tower, self.trainable)
        stem = self.tower.text.token_embedding
        watch_weights(self, "tower.text", entries=[stem], taken_away=init_cfg is None)

    @property
    def embed_dim(self) -> int:
        """Channels of the joint image-text space."""
        return self.tower.embed_dim

    @property
    def dense_dim(self) -> int:
        """Channels of embeddings for dense maps: all, but for dino.txt's, which are the half."""
        return self.tower.dense_dim

    @property
    def context_length(self) -> int:
        """Longest token sequence."""
        return self.tower.context_length

    def init_weights(self) -> None:
        """Load the weights that ``init_cfg`` names; without one the weights stay random.

        Raises:
            FileNotFoundError, ValueError: if they do not exist or do not fit.
        """
        if self.init_cfg is None or self._is_init:
            return
        checkpoint = pretrained_source(self.init_cfg, type(self).__name__)
        self.known_scale = load_text_transformer(self.tower.text, self.arch, checkpoint)
        self._is_init = True

    def scale_and_bias(self) -> tuple[float, float | None]:
        """Factor of cosines, ``exp(logit_scale)``, and ``logit_bias`` (None if there is none).

        Those of the checkpoint of a run that used them, or of the file of ``init_cfg``.

        Raises:
            FileNotFoundError, ValueError: there is no such file, or it holds no scale.
        """
        before_use(self)
        if self.known_scale is None and self.init_cfg is not None:
            checkpoint = pretrained_source(self.init_cfg, type(self).__name__)
            self.known_scale = scale_and_bias(
                read_clip_checkpoint(self.arch, checkpoint).state_dict
            )
        if self.known_scale is None:
            source = "its init_cfg names no file" if self.init_cfg is None else "its file has none"
            raise ValueError(
                f"logit_scale='file', but the text encoder knows no scale: {source}; give "
                "logit_scale as a number (CLIP's is 100, SigLIP's about 110)"
            )
        return self.known_scale

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Token ids ``(N, L)``, cut at the longest; see :mod:`mmclipdis.clip.text.tower`."""
        return self.tower.tokenize(texts)

    def encode(self, tokens: Tensor) -> Tensor:
        """Text embeddings ``(N, E)`` of token ids, not normalised, differentiable."""
        return self.tower.encode(tokens)

    def ensemble(self, tokens: Tensor, classes: int, dense: bool = False) -> Tensor:
        """Unit embeddings ``(C, E)`` as those of :meth:`embed`, with gradient and no cache.

        Args:
            tokens: Ids ``(C * T, L)`` of as many sentences of each class, class by class.
            classes: ``C``.
            dense: As in :meth:`embed`.
        """
        return ensemble(self.tower, tokens, classes, dense)

    def forward(self, tokens: Tensor) -> Tensor:
        """Same as :meth:`encode`."""
        return self.tower.encode(tokens)

    def embed(self, vocabulary: Vocabulary, dense: bool = False) -> Tensor:
        """Ensembled unit embeddings ``(Q, E)`` of all queries, cached, without gradient.

        Args:
            vocabulary: Classes with ``Q`` queries.
            dense: For a dense map: ``(Q, dense_dim)``.
        """
        before_use(self)  # the caches ask for the weights before any text is encoded
        with untraced():  # a constant of the network whose FLOPs are counted
            return embed_vocabulary(
                self.tower,
                vocabulary,
                batch_size=self.batch_size,
                progress=self.progress,
                cache_dir=self.cache_dir,
                dense=dense,
            )

    def embed_empty(self, templates: TemplateSet, dense: bool = False) -> Tensor:
        """Unit embedding ``(E,)`` of ``templates`` without a name, cached, without gradient."""
        before_use(self)
        with untraced():
            return embed_empty(self.tower, templates, dense)


def dense_channels(encoder: Any) -> int | None:
    """Channels of a text encoder's embeddings for dense maps: all, where it says nothing of it."""
    found: int | None = getattr(encoder, "dense_dim", getattr(encoder, "embed_dim", None))
    return found


def dense_option(encoder: Any) -> dict[str, bool]:
    """What ``embed`` and ``embed_empty`` of a text encoder are told for a dense map.

    Nothing, unless it has fewer channels for one (dino.txt).
    """
    fewer = dense_channels(encoder) != getattr(encoder, "embed_dim", None)
    return {"dense": True} if fewer else {}


def build_vocabulary(
    cfg: Any, templates: Templates = "imagenet80", **defaults: Any
) -> Vocabulary | None:
    """A vocabulary from what a config or a user says.

    Args:
        cfg: ``None`` or ``'dataset'``: the model follows its data set (result None). Else a
            :class:`Vocabulary`, a class file of the package (``'voc21'``), a registered data set
            (``'ADE20KDataset'``), what :func:`~mmclipdis.clip.text.names.read_names` reads (lists,
            dicts of synonyms, class files, texts with several names), or a dict with one of
            ``names``, ``file``, ``dataset``, ``bundled`` and any of ``templates``, ``separator``,
            ``background_index``, ``background_names``, ``first_only``, ``allow_duplicates``.
        templates: Prompts where ``cfg`` names none.
        **defaults: Options of the dict form, where ``cfg`` says nothing of them.

    Raises:
        FileNotFoundError: for a class file that does not exist.
        ValueError: for anything that is none of these, and as :class:`Vocabulary`.
    """
    if cfg is None or (isinstance(cfg, str) and cfg == "dataset"):
        return None
    if isinstance(cfg, Vocabulary):
        return cfg
    if isinstance(cfg, Mapping) and (not cfg or _KEYS & set(cfg)):
        return _from_mapping({**defaults, **cfg}, templates)
    if isinstance(cfg, (str, Path)):
        return _from_mapping({**defaults, _kind_of(cfg): cfg}, templates)
    if isinstance(cfg, Iterable):
        return _from_mapping({**defaults, "names": cfg}, templates)
    raise ValueError(
        f"vocabulary={cfg!r}: expected 'dataset', a list of names, a class file, a data set or a "
        f"dict with one of {', '.join(_SOURCES)}"
    )


def _from_mapping(cfg: dict[str, Any], templates: Templates) -> Vocabulary:
    unknown = sorted(map(str, set(cfg) - _KEYS))
    sources = [source for source in _SOURCES if source in cfg]
    if unknown or len(sources) != 1:
        problem = f"unknown keys {unknown}" if unknown else f"{len(sources)} sources {sources}"
        raise ValueError(
            f"vocabulary dict has {problem}: give one of {', '.join(_SOURCES)}, and any of "
            f"{', '.join(sorted(_KEYS - set(_SOURCES)))}"
        )
    source, value = sources[0], cfg.pop(sources[0])
    templates = cfg.pop("templates", templates)
    if source == "file":
        return Vocabulary.from_file(value, templates, **cfg)
    if source == "bundled":
        return Vocabulary.bundled(value, templates, **cfg)
    if source == "dataset":
        return Vocabulary.from_names(dataset_classes(value), templates, **cfg)
    # A text is split by the reader; a list of strings by the separator.
    if isinstance(value, (str, Path)):
        value = read_names(value, cfg.pop("separator", None))
    return Vocabulary.from_names(value, templates, **cfg)


def typed_names(names: Any) -> Any:
    """What a person types in place of a config's vocabulary, for :func:`build_vocabulary`.

    The two read the same, but a single word that names neither a class file nor a data set is a
    class here.

    Raises:
        FileNotFoundError, ValueError: as :func:`~mmclipdis.clip.text.names.read_names`.
    """
    if isinstance(names, str) and _kind_of(names) == "dataset" and _find_dataset(names) is None:
        return read_names(names)
    return names


def _kind_of(text: str | Path) -> str:
    """Whether ``text`` names a class file of the package, a file, a data set, or classes."""
    if text in bundled_names():
        return "bundled"
    if isinstance(text, Path) or is_class_file(text):
        return "file"
    return "names" if is_list_of_names(text) else "dataset"


def dataset_classes(name: str) -> tuple[str, ...]:
    """Class names in the ``METAINFO`` of a data set registered in mmseg or mmdet.

    Raises:
        ValueError: if there is no such data set, or it names no classes.
    """
    found = _find_dataset(name)
    if found is None:
        raise ValueError(
            f"{name!r} is neither a registered data set (such as 'ADE20KDataset') nor a class file "
            f"(a path, or one of {', '.join(bundled_names())})"
        )
    classes = getattr(found, "METAINFO", {}).get("classes")
    if not classes:
        raise ValueError(f"data set {name!r} names no classes in its METAINFO; give them as a list")
    return name_list(classes, f"METAINFO['classes'] of {name}", twice=True)


def _find_dataset(name: str) -> Any:
    for library in ("mmseg", "mmdet", "mmengine"):
        try:
            registry = importlib.import_module(f"{library}.registry").DATASETS
        except ModuleNotFoundError:  # mmseg and mmdet are optional
            continue
        found = registry.get(name) if name else None
        if isinstance(found, type):  # a registry also finds modules of that name
            return found
    return None

"""Segment photos by names that are typed in: free-text open-vocabulary segmentation."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import init_default_scope
from mmengine.runner import load_checkpoint
from mmseg.registry import MODELS
from PIL import Image, ImageOps
from torch import nn

from mmclipdis.apis.plain_values import check_plain_values
from mmclipdis.clip.text.names import names_of_text
from mmclipdis.datasets.loading import LoadReadableImage
from mmclipdis.engine.checkpoint_io import is_remote
from mmclipdis.engine.configs import read_config_file
from mmclipdis.engine.foreign_checkpoint_guard import check_checkpoint, check_trained
from mmclipdis.engine.moved_pixels import check_test_pipeline
from mmclipdis.models.segmentation.named_segmentor import config_metainfo
from mmclipdis.models.segmentation.preprocessor import MixedSizeSegDataPreProcessor
from mmclipdis.models.text_encoder import typed_names
from mmclipdis.utils.device import usable_device
from mmclipdis.utils.labels import no_class
from mmclipdis.utils.pictures import check_size, to_rgb
from mmclipdis.visualization import NO_COLOUR, blend, class_palette, draw_sheet

#: A file, or an RGB picture uint8 (H, W, 3), or a Pillow image.
Photo = str | Path | np.ndarray | Image.Image
#: Class names, each with or without synonyms; see :func:`mmclipdis.clip.text.names.read_names`.
Names = str | Path | Sequence[str | Sequence[str]] | Mapping[str, Any]


@dataclass(frozen=True)
class Segmentation:
    """What was found in one photo.

    Attributes:
        labels: class index of each pixel, int64 (H, W), at the size of the photo; :attr:`nothing`
            where the model's ``prob_thd`` finds no name probable enough and none is the background.
        names: class names; ``names[labels[y, x]]`` is what is at row y, column x.
        photo: RGB uint8 (H, W, 3).
        path: file of the photo, if it came from one.
    """

    labels: np.ndarray
    names: tuple[str, ...]
    photo: np.ndarray
    path: Path | None = None

    @property
    def nothing(self) -> int:
        """The label of pixels that are none of the names: 255, or 65535 with more names."""
        return no_class(len(self.names))

    def shares(self) -> dict[str, float]:
        """Share of the pixels, in [0, 1], of each class that was found, largest first.

        Pixels that are none of the names are called ``"none"``.
        """
        labels = np.where(self.labels == self.nothing, len(self.names), self.labels)
        counts = np.bincount(labels.ravel(), minlength=len(self.names) + 1) / labels.size
        order = np.argsort(-counts, kind="stable")
        return {(*self.names, "none")[i]: float(counts[i]) for i in order if counts[i] > 0}

    def save(self, path: str | Path, opacity: float = 0.6) -> Path:
        """Write photo, overlay and label map side by side, with a legend; return the path.

        Pixels that are none of the names show the photo, and are light grey among the classes.
        """
        palette = [*class_palette(len(self.names)), NO_COLOUR]
        nothing = self.labels == self.nothing
        labels = np.where(nothing, len(self.names), self.labels)
        overlay = blend(self.photo, labels, palette, opacity, ignore_index=-1)
        overlay[nothing] = self.photo[nothing]
        row, titles = [self.photo, overlay, labels], ["photo", "overlay", "classes"]
        names = (*self.names, "none")
        return draw_sheet([row], titles, names, palette, path, cell_height=360, ignore_index=-1)


class OpenVocabSegInferencer:
    """A loaded segmentor that takes photos and names.

    Example::

        inferencer = OpenVocabSegInferencer("configs/clearclip/clearclip_vitb16_voc20.py")
        result = inferencer("street.jpg", ["road", "tree", ["car", "van"], "sky"])[0]
        result.shares(), result.save("street_segmented.png")

    Args:
        model: config file, config, or a built segmentor (then its weights are taken as they are).
        checkpoint: trained weights, a file or URL; without it the weights that the config's
            ``init_cfg`` name. Only with a config.
        device: ``'cuda'``, ``'cpu'``, ...; None for a GPU if there is one.
        cfg_options: settings that replace those of the config; a config object stays as it is.
        pipeline: test pipeline for a built segmentor without config; None keeps photos as they are.

    Raises:
        FileNotFoundError: no such config or checkpoint.
        ValueError: the model takes no vocabulary, or is built already and a checkpoint or
            ``cfg_options`` come with it; a checkpoint that does not fit, or none for a model with
            a head that must be trained.
    """

    def __init__(
        self,
        model: str | Path | Config | nn.Module,
        checkpoint: str | Path | None = None,
        device: str | torch.device | None = None,
        cfg_options: Mapping[str, Any] | None = None,
        pipeline: Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        self.device = usable_device(device)
        if isinstance(model, nn.Module):
            if checkpoint is not None or cfg_options:
                raise ValueError(
                    "checkpoint and cfg_options go with a config; the model is built already: "
                    "load its weights with mmengine.runner.load_checkpoint(model, file)"
                )
            config = getattr(model, "cfg", None)
            init_default_scope("mmseg")
        else:
            config = _read_config(model, cfg_options)
            model = build_model(config, checkpoint)
        self.model: Any = model.to(self.device).eval()
        self.vocabulary_owner = _vocabulary_owner(self.model)
        self.config = config
        self._dataset_names = (config_metainfo(config) or {}).get("classes")
        given = list(pipeline) if pipeline is not None else _pipeline_of(config)
        self._prepare = Compose(_for_loaded_photos(given))
        check_test_pipeline(self._prepare.transforms, self.model, "the inferencer")

    def __call__(
        self,
        photos: Photo | Iterable[Photo],
        names: Names | None = None,
        *,
        texts: str | Sequence[Any] | None = None,
        custom_entities: bool = False,
        batch_size: int = 1,
        out_dir: str | Path | None = None,
    ) -> list[Segmentation]:
        """Segment photos.

        Args:
            photos: one or several files, RGB arrays or Pillow images.
            names: class names: a list (of names or of synonyms), a dict of names to synonyms, a
                text (``'sky, road, [car, van]'``), a class file, or what a config has for
                ``vocabulary``. None keeps the model's vocabulary, or takes the classes of the
                config's data set.
            texts: in place of names, as mmdet's ``DetInferencer`` takes them: a text for all photos
                (``'kite . red apple'``), or a list of texts or of lists of names, one a photo; see
                :func:`~mmclipdis.clip.text.names.names_of_text`. The model's names stay.
            custom_entities: a text lists names for sure, and is no sentence.
            batch_size: photos whose windows are encoded together.
            out_dir: also write each result as a picture with a legend into this folder, as
                ``0000_PHOTO.png`` and on from the largest number that is there.

        Returns:
            One result a photo, in order.

        Raises:
            FileNotFoundError, ValueError: a photo that cannot be read, or bad names.
        """
        if not isinstance(batch_size, int) or batch_size < 1:
            raise ValueError(f"batch_size must be an int of at least 1, got {batch_size!r}")
        one = isinstance(photos, (str, Path, np.ndarray, Image.Image))
        if not one and not isinstance(photos, Iterable):
            raise ValueError(f"photos={photos!r}: give files, RGB arrays or Pillow images")
        listed: list[Any] = [photos] if one else [*photos]  # type: ignore[misc]
        asked = _asked_for(texts, custom_entities, names, len(listed))
        if texts is None:
            self._set_names(names)
        else:
            self._know_names()
        results = [
            result
            for start in range(0, len(listed), batch_size)
            for result in self._segment(
                listed[start : start + batch_size], asked[start : start + batch_size]
            )
        ]
        if out_dir is not None:
            first = _next_number(Path(out_dir))
            for i, result in enumerate(results, first):
                stem = result.path.stem if result.path else "photo"
                result.save(Path(out_dir) / f"{i:04d}_{stem}.png")
        return results

    def _know_names(self) -> None:
        """Those of the data set first, also where others were typed in.

        What the config says of its background is about these.
        """
        if self.vocabulary_owner.vocabulary is None and self._dataset_names is not None:
            self.vocabulary_owner.set_vocabulary(list(self._dataset_names))

    def _set_names(self, names: Names | None) -> None:
        self._know_names()
        owner = self.vocabulary_owner
        if names is not None:
            owner.set_vocabulary(typed_names(names))
        elif owner.vocabulary is None:
            raise ValueError("no class names: pass names=['cat', 'dog', ...]")

    def _segment(
        self, photos: Sequence[Photo], asked: Sequence[Mapping[str, Any]]
    ) -> Iterator[Segmentation]:
        pictures = [read_photo(photo) for photo in photos]
        # mmseg's steps take BGR.
        prepared = [
            self._prepare({"img": picture[..., ::-1].copy(), **text})
            for picture, text in zip(pictures, asked, strict=True)
        ]
        sizes = {tuple(item["inputs"].shape) for item in prepared}
        if len(sizes) > 1 and not isinstance(
            self.model.data_preprocessor, MixedSizeSegDataPreProcessor
        ):
            for photo, text in zip(photos, asked, strict=True):
                yield from self._segment([photo], [text])
            return
        batch = {key: [item[key] for item in prepared] for key in ("inputs", "data_samples")}
        with torch.no_grad():
            samples = self.model.test_step(batch)
        for photo, picture, sample in zip(photos, pictures, samples, strict=True):
            names = sample.get("label_names") or self.vocabulary_owner.vocabulary.class_names
            labels = sample.pred_sem_seg.data[0].long().cpu().numpy()
            path = Path(photo) if isinstance(photo, (str, Path)) else None
            yield Segmentation(labels, tuple(names), picture, path)


def segment(
    photo: Photo,
    names: Names,
    model: str | Path | Config | nn.Module | OpenVocabSegInferencer,
    **kwargs: Any,
) -> Segmentation:
    """Segment one photo by free-text names; see :class:`OpenVocabSegInferencer`.

    ``kwargs`` are those of the inferencer. For several photos build the inferencer once.

    Raises:
        ValueError: ``kwargs`` for an inferencer that is built already.
    """
    if isinstance(model, OpenVocabSegInferencer) and kwargs:
        raise ValueError(f"the inferencer is built already: it takes no {sorted(kwargs)}")
    if not isinstance(model, OpenVocabSegInferencer):
        model = OpenVocabSegInferencer(model, **kwargs)
    return model(photo, names)[0]


def read_photo(photo: Photo) -> np.ndarray:
    """RGB uint8 (H, W, 3) of a file or Pillow image (turned as its EXIF tag says), or array.

    Raises:
        FileNotFoundError, ValueError: no such file, no image, no pixels or too many.
    """
    if isinstance(photo, (str, Path)):
        loaded: dict[str, Any] = {"img_path": str(photo)}
        LoadReadableImage().transform(loaded)
        return np.ascontiguousarray(loaded["img"][..., ::-1])
    if isinstance(photo, Image.Image):  # Pillow decodes when it converts
        check_size(photo.size, "the photo")
        photo = to_rgb(ImageOps.exif_transpose(photo))  # as files are
    picture = np.asarray(photo)
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        raise ValueError(
            f"a photo must be RGB uint8 (H, W, 3), got {picture.dtype} {picture.shape}"
        )
    if 0 in picture.shape:
        raise ValueError(f"a photo without pixels: {picture.shape}")
    return picture


def build_model(config: Config, checkpoint: str | Path | None = None) -> Any:
    """Build the config's model with its weights: CLIP's from ``init_cfg``, then the checkpoint's.

    Raises:
        FileNotFoundError: no such checkpoint.
        ValueError: it does not fit the model, or there is none and a head must be trained.
    """
    init_default_scope(config.get("default_scope", "mmseg"))
    model: Any = MODELS.build(config.model)
    if checkpoint is None:
        check_trained(model)
    model.init_weights()
    if checkpoint is not None:
        if not is_remote(checkpoint) and not Path(checkpoint).is_file():
            raise FileNotFoundError(f"no checkpoint at {checkpoint}")
        check_checkpoint(model, load_checkpoint(model, str(checkpoint), map_location="cpu"))
    return model


def _next_number(folder: Path) -> int:
    """One more than the largest number at the start of a picture's name in a folder."""
    found = [re.match(r"(\d{4,})_.*\.png", path.name) for path in folder.glob("*.png")]
    return max((int(match[1]) + 1 for match in found if match), default=0)


def _read_config(config: str | Path | Config, options: Mapping[str, Any] | None) -> Config:
    if not isinstance(config, (Config, str, Path)):
        raise ValueError(
            f"model is a {type(config).__name__}: give a config file, a mmengine Config "
            "(Config(your_dict)) or a built segmentor"
        )
    if not isinstance(config, Config):
        if not Path(config).is_file():
            raise FileNotFoundError(f"no config at {config}")
        config = read_config_file(config)
    if options:
        if not isinstance(options, Mapping):
            raise ValueError(
                f"cfg_options={options!r}: give a dict such as {{'model.test_cfg.mode': 'whole'}}"
            )
        config = copy.deepcopy(config)
        config.merge_from_dict(dict(options))
    if not isinstance(config.get("model"), Mapping):
        raise ValueError(f"config {str(config.filename)!r} has no model, a dict of settings")
    check_plain_values(config.model, "model")
    return config


def _vocabulary_owner(model: nn.Module) -> Any:
    """The segmentor, or the head of a stock segmentor, that takes class names."""
    for part in (model, getattr(model, "decode_head", None)):
        if hasattr(part, "set_vocabulary"):
            return part
    raise ValueError(f"{type(model).__name__} has fixed classes: it takes no names")


def _asked_for(
    texts: Any, custom_entities: bool, names: Any, count: int
) -> Sequence[Mapping[str, Any]]:
    """What each photo's data sample says of the names that it asks for."""
    if texts is None:
        if custom_entities:
            raise ValueError("custom_entities=True says how to read texts=..., which is not given")
        return [{}] * count
    if names is not None:
        raise ValueError("give names=... or texts=..., not both: either says what to look for")
    each = [texts] * count if isinstance(texts, str) else list(texts)
    if len(each) != count:
        raise ValueError(
            f"{len(each)} texts for {count} photos: give one text for all "
            "(texts='kite . red apple'), or a list of one a photo"
        )
    for text in each:
        names_of_text(text, custom_entities)  # bad names must fail before the first photo
    return [{"text": text, "custom_entities": custom_entities} for text in each]


def _pipeline_of(config: Any) -> list[Mapping[str, Any]]:
    """The config's test pipeline; photos as they are where there is none."""
    dataset = (config or {}).get("test_dataloader", {}).get("dataset", {})
    return list(dataset.get("pipeline", [{"type": "PackSegInputs"}]))


def _for_loaded_photos(pipeline: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The pipeline for photos that are loaded already, without labels."""
    kept = [dict(step) for step in pipeline if "Load" not in str(step["type"])]
    return [{"type": "LoadImageFromNDArray"}, *kept]

"""DCLIP's two projectors, out of CLIP's joint space into a smaller one where classes lie apart."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor, nn

from mmclipdis.clip.weights.arch_mark import (
    MARK,
    WEIGHTS_MARK,
    check_arch,
    check_clip,
    clip_fingerprint,
    decode_arch,
    remember_arch,
    remember_clip,
)
from mmclipdis.clip.weights.files import read_file
from mmclipdis.clip.weights.loading import Arch
from mmclipdis.engine.random_weights import before_use, is_random, watch_weights
from mmclipdis.utils.finite import check_weights

#: What every projector has and no other module, side by side; the names tell the prefix. Which of
#: the second ones depends on the layers of the image projector.
_TEXT, _IMAGE = "text.0.weight", ("image.weight", "image.0.weight")
#: Names of weights and norms.
_ENTRY = re.compile(r"(text|image)\.(\d+\.)?\w+")
#: Modules that a layer brings: linear, batch norm, ReLU. The last one is linear alone.
_STEP = 3


class RowMLP(nn.Sequential):
    """``(Linear, BatchNorm1d, ReLU) x (layers - 1), Linear``, no biases, of rows ``(..., D)``.

    Args:
        sizes: Widths of input, hidden layers and output.
    """

    def __init__(self, *sizes: int) -> None:
        steps: list[nn.Module] = []
        for before, width in pairwise(sizes):
            steps += [nn.Linear(before, width, bias=False), nn.BatchNorm1d(width), nn.ReLU()]
        super().__init__(*steps[: 1 - _STEP])  # nothing after the last linear layer

    def forward(self, x: Tensor) -> Tensor:
        """``(..., D)`` to ``(..., d')``; a norm in training mode looks at all rows together."""
        return super().forward(x.flatten(0, -2)).unflatten(0, x.shape[:-1])  # type: ignore[no-any-return]


@MODELS.register_module()
class Projectors(BaseModule):
    r"""The only weights that DCLIP trains: an MLP for text, one matrix for image tokens.

    .. math:: t' = W_2\,\mathrm{ReLU}(\mathrm{BN}(W_1 t)), \qquad x' = W x

    No biases. D = 512 (RN101, ViT-B) gives 426,752 parameters, D = 1024 (RN50) 1,246,720.
    Initialised as PyTorch does.

    Args:
        in_dim: D, width of CLIP's joint space.
        hidden_dim: Width between layers; None for 0.75 D.
        out_dim: d', width of the new space.
        arch: The CLIP they belong to, saved with the weights and compared when weights are loaded;
            None for none.
        norm_eval: Keep the batch norm in eval mode while training: its running statistics stay 0
            and 1, so it is a learned scale and shift, as in the authors' code. With False it
            normalises over the prompts of a class list, and forgets what they have in common.
        any_arch: Load weights whatever CLIP they were trained on, of whatever arch and weights.
        init_cfg: As in mmengine.
        text_layers: Linear layers of the text projector, with batch norm and ReLU between two; 1 is
            a matrix, as for images.
        image_layers: Those of the image projector, the same for every token.

    Raises:
        ValueError: for a width or a number of layers below 1, or ``hidden_dim`` without a hidden
            layer; when weights are loaded, if they have other widths or layers, or belong to
            another CLIP.

    Source: DCLIP (arXiv 2502.02977), section 4; layer sizes and the mode of the batch norm from the
    first author's development code, where an image projector with a hidden layer was tried and
    dropped (its norm had a channel a *token*; here, as for text, one a feature).
    """

    text: nn.Sequential
    image: nn.Linear | RowMLP

    def __init__(
        self,
        in_dim: int,
        hidden_dim: int | None = None,
        out_dim: int = 256,
        arch: Arch | None = None,
        norm_eval: bool = True,
        any_arch: bool = False,
        init_cfg: Mapping[str, Any] | None = None,
        text_layers: int = 2,
        image_layers: int = 1,
    ) -> None:
        super().__init__(init_cfg=dict(init_cfg) if init_cfg else None)
        layers = {"text_layers": text_layers, "image_layers": image_layers}
        if hidden_dim is not None and max(layers.values()) == 1:
            raise ValueError(
                f"Projectors.hidden_dim={hidden_dim} is of no layer, since text_layers and "
                "image_layers are 1: leave it out"
            )
        hidden_dim = in_dim * 3 // 4 if hidden_dim is None else hidden_dim
        widths = {"in_dim": in_dim, "hidden_dim": hidden_dim, "out_dim": out_dim}
        for name, value in {**widths, **layers}.items():
            if value < 1:
                raise ValueError(f"Projectors.{name} must be at least 1, got {value}")
        self.in_dim, self.hidden_dim, self.out_dim = in_dim, hidden_dim, out_dim
        self.text_layers, self.image_layers = text_layers, image_layers
        self.arch = arch
        self.any_arch = any_arch
        self.norm_eval = norm_eval
        self.text = RowMLP(in_dim, *[hidden_dim] * (text_layers - 1), out_dim)
        self.image = (
            nn.Linear(in_dim, out_dim, bias=False)
            if image_layers == 1
            else RowMLP(in_dim, *[hidden_dim] * (image_layers - 1), out_dim)
        )
        #: Fingerprint of the weights of the CLIP that they belong to; None while unknown.
        self.clip: str | None = None
        self._compared_with: int | None = None
        remember_arch(self)
        remember_clip(self)
        watch_weights(self, entries=[self.text, self.image], must_train=True)
        self.train(self.training)  # a new module is in training mode, and nobody may call train()

    @property
    def fresh(self) -> bool:
        """Whether weights are random: neither loaded nor trained."""
        return is_random(self)

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return next(self.image.parameters()).dtype

    def forward(self, tokens: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (..., D) and text rows (M, D) -> (..., d') and (M, d'), not normalised."""
        return self.image(tokens), self.text(text)

    def train(self, mode: bool = True) -> Projectors:
        """As in PyTorch; with ``norm_eval`` the batch norm stays in eval mode."""
        super().train(mode)
        if self.norm_eval:
            for module in self.modules():
                if isinstance(module, nn.BatchNorm1d):
                    module.eval()
        return self

    def belong_to(self, encoder: nn.Module) -> None:
        """Refuse an encoder with other weights than those of the training; where none are known
        (a first training, an old file) or all will do (``any_arch``), these are from now on.

        They are read once an encoder, so give it when it holds its weights.

        Raises:
            ValueError: naming the remedies.
        """
        if self._compared_with == id(encoder):
            return
        before_use(encoder)
        used = clip_fingerprint(encoder)
        if not self.any_arch:
            check_clip(self.clip, used, "the checkpoint of the projectors")
        if self.any_arch or self.clip is None:
            self.clip = used
        self._compared_with = id(encoder)

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *more: Any) -> None:
        self.clip = self._compared_with = None  # a file without a mark says nothing
        super()._load_from_state_dict(state, prefix, *more)  # a mark of another CLIP speaks first
        # Non-strict loading, mmengine's, would leave weights of other shapes random, with a warning
        own = self.state_dict()
        shapes = {
            name.removeprefix(prefix): tuple(value.shape)
            for name, value in state.items()
            if name.startswith(prefix) and _ENTRY.fullmatch(name.removeprefix(prefix))
        }
        if any(name not in own or tuple(own[name].shape) != s for name, s in shapes.items()):
            raise ValueError(self._misfit(shapes, prefix.removesuffix(".") or "Projectors"))

    def _misfit(self, shapes: Mapping[str, tuple[int, ...]], owner: str) -> str:
        """What to say of weights of other layers or shapes."""
        start = f"the checkpoint of {owner} has "
        layers = _layers(shapes)
        if layers != (self.text_layers, self.image_layers):
            text, image = layers
            return (
                f"{start}text_layers={text}, image_layers={image}, the model {self.text_layers}, "
                f"{self.image_layers}: set projectors=dict(text_layers={text}, "
                f"image_layers={image})"
            )
        own = (self.in_dim, self.hidden_dim, self.out_dim)
        sizes = in_dim, hidden_dim, out_dim = _widths(shapes, own)
        if sizes == own:
            return f"{start}weights whose shapes contradict each other ({shapes}): it is damaged"
        start += "in_dim={}, hidden_dim={}, out_dim={}, ".format(*sizes)
        start += f"the model {self.in_dim}, {self.hidden_dim}, {self.out_dim}: "
        if in_dim != self.in_dim:
            return f"{start}it belongs to another CLIP"
        return f"{start}set projectors=dict(hidden_dim={hidden_dim}, out_dim={out_dim})"


def load_projectors(
    path: str | Path, in_dim: int | None = None, arch: Arch | None = None, any_arch: bool = False
) -> Projectors:
    """Trained projectors, frozen and in eval mode, of the sizes that the file has.

    Args:
        path: A checkpoint of a DCLIP run, or a ``.pt``, ``.pth`` or ``.safetensors`` with the state
            dict of :class:`Projectors`.
        in_dim: D that they must have; None takes any.
        arch: The CLIP that they must belong to, if the file names one; None takes any.
        any_arch: Take those of any CLIP of the right width.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file without projectors or with incomplete ones, of another width, of
            another CLIP, or that are not finite.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(
            f"no projectors at {str(path)!r}: train them with tools/train.py and a config of "
            "configs/dclip, and name its checkpoint"
        )
    where = f"{str(path)!r}"
    state = _projector_entries(read_file(path)[0], where)
    check_weights(state, str(path))
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    layers, (found, hidden_dim, out_dim) = _layers(shapes), _widths(shapes)
    if in_dim is not None and found != in_dim:
        raise ValueError(
            f"the projectors of {where} are for a CLIP of {found} channels, the one in use has "
            f"{in_dim}: they belong to another CLIP"
        )
    mark = state.pop(MARK, None)
    trained = None if mark is None else decode_arch(mark, where)
    if not any_arch:
        check_arch(trained, arch, where)
    projectors = Projectors(
        found,
        None if max(layers) == 1 else hidden_dim,
        out_dim,
        trained or arch,
        any_arch=any_arch,
        text_layers=layers[0],
        image_layers=layers[1],
    )
    try:
        projectors.load_state_dict(state)
    except (RuntimeError, ValueError) as error:
        problem = " ".join(str(error).split())
        raise ValueError(f"the projectors of {where} are damaged: {problem}") from error
    return projectors.requires_grad_(False).eval()


def _projector_entries(content: Any, where: str) -> dict[str, Tensor]:
    """The entries of the projectors in the content of a file, without what stands before them."""
    state = content.get("state_dict", content) if isinstance(content, Mapping) else {}
    starts = [key.removesuffix(_TEXT) for key in state if str(key).endswith(_TEXT)]
    starts = [start for start in starts if any(start + name in state for name in _IMAGE)]
    own: dict[str, Tensor] = {}
    if len(starts) == 1:
        cut = {k.removeprefix(starts[0]): v for k, v in state.items() if k.startswith(starts[0])}
        own = {k: v for k, v in cut.items() if k in (MARK, WEIGHTS_MARK) or _ENTRY.fullmatch(k)}
    if not own:
        raise ValueError(
            f"{where} holds no projectors: name a checkpoint that tools/train.py wrote for a "
            "config of configs/dclip"
        )
    return own


def _linear(names: Iterable[str], part: str) -> list[str]:
    """Names of the weights of a projector's linear layers, first to last."""
    numbers = sorted(
        int(name.split(".")[1])
        for name in names
        if re.fullmatch(rf"{part}\.\d+\.weight", name) and not int(name.split(".")[1]) % _STEP
    )
    return [f"{part}.{number}.weight" for number in numbers] or [f"{part}.weight"]


def _layers(names: Iterable[str]) -> tuple[int, int]:
    """Layers of the text and of the image projector, from the names of their weights."""
    names = list(names)
    text, image = (_linear(names, part)[-1].split(".") for part in ("text", "image"))
    return tuple(int(last[1]) // _STEP + 1 if len(last) == 3 else 1 for last in (text, image))  # type: ignore[return-value]


def _widths(
    shapes: Mapping[str, tuple[int, ...]], known: tuple[int, int, int] = (0, 0, 0)
) -> tuple[int, int, int]:
    """``in_dim, hidden_dim, out_dim`` from shapes of weights; ``known`` where they do not say."""
    in_dim, hidden_dim, out_dim = known
    for part in ("image", "text"):
        linear = [shapes[name] for name in _linear(shapes, part) if name in shapes]
        if linear:
            in_dim, out_dim = linear[0][1], linear[-1][0]
            hidden_dim = linear[0][0] if len(linear) > 1 else hidden_dim
    return in_dim, hidden_dim, out_dim

"""DCLIP's two projectors, out of CLIP's joint space into a smaller one where classes lie apart."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

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

#: A weight that every projector has and no other module; its name tells the prefix.
_LAST = "text.3.weight"
#: What the names of weights start with.
_PARTS = ("text.", "image.")


@MODELS.register_module()
class Projectors(BaseModule):
    r"""The only weights that DCLIP trains: an MLP for text, one matrix for image tokens.

    .. math:: t' = W_2\,\mathrm{ReLU}(\mathrm{BN}(W_1 t)), \qquad x' = W x

    No biases. D = 512 (RN101, ViT-B) gives 426,752 parameters, D = 1024 (RN50) 1,246,720. Every
    token is projected before anything is normalised or pooled. Initialised as PyTorch does.

    Args:
        in_dim: D, width of CLIP's joint space.
        hidden_dim: Width between the text layers; None for 0.75 D.
        out_dim: d', width of the new space.
        arch: The CLIP they belong to, saved with the weights and compared when weights are loaded;
            None for none.
        norm_eval: Keep the batch norm in eval mode while training: its running statistics stay 0
            and 1, so it is a learned scale and shift, as in the authors' code. With False it
            normalises over the prompts of a class list, and forgets what they have in common.
        any_arch: Load weights whatever CLIP they were trained on, of whatever arch and weights.
        init_cfg: As in mmengine.

    Raises:
        ValueError: for a width below 1; when weights are loaded, if they have other widths or
            belong to another CLIP.

    Source: DCLIP (arXiv 2502.02977), section 4; layer sizes and the mode of the batch norm from the
    first author's development code.
    """

    text: nn.Sequential
    image: nn.Linear

    def __init__(
        self,
        in_dim: int,
        hidden_dim: int | None = None,
        out_dim: int = 256,
        arch: Arch | None = None,
        norm_eval: bool = True,
        any_arch: bool = False,
        init_cfg: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(init_cfg=dict(init_cfg) if init_cfg else None)
        hidden_dim = in_dim * 3 // 4 if hidden_dim is None else hidden_dim
        for name, width in (("in_dim", in_dim), ("hidden_dim", hidden_dim), ("out_dim", out_dim)):
            if width < 1:
                raise ValueError(f"Projectors.{name} must be at least 1, got {width}")
        self.in_dim, self.hidden_dim, self.out_dim = in_dim, hidden_dim, out_dim
        self.arch = arch
        self.any_arch = any_arch
        self.norm_eval = norm_eval
        self.text = nn.Sequential(
            nn.Linear(in_dim, hidden_dim, bias=False),
            nn.BatchNorm1d(hidden_dim),
            nn.ReLU(),
            nn.Linear(hidden_dim, out_dim, bias=False),
        )
        self.image = nn.Linear(in_dim, out_dim, bias=False)
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

    def forward(self, tokens: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (..., D) and text rows (M, D) -> (..., d') and (M, d'), not normalised."""
        return self.image(tokens), self.text(text)

    def train(self, mode: bool = True) -> Projectors:
        """As in PyTorch; with ``norm_eval`` the batch norm stays in eval mode."""
        super().train(mode)
        if self.norm_eval:
            self.text[1].eval()
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
        found = {name: state.get(f"{prefix}{name}") for name in own if name.startswith(_PARTS)}
        shapes = {name: tuple(value.shape) for name, value in found.items() if value is not None}
        if any(tuple(own[name].shape) != shape for name, shape in shapes.items()):
            raise ValueError(self._misfit(shapes, prefix.removesuffix(".") or "Projectors"))

    def _misfit(self, shapes: Mapping[str, tuple[int, ...]], owner: str) -> str:
        """What to say of weights of other shapes."""
        hidden_dim, in_dim = shapes.get("text.0.weight", (self.hidden_dim, self.in_dim))
        last = shapes.get("text.3.weight", shapes.get("image.weight"))
        out_dim = last[0] if last else self.out_dim
        sizes = (in_dim, hidden_dim, out_dim)
        start = f"the checkpoint of {owner} has "
        if sizes == (self.in_dim, self.hidden_dim, self.out_dim):
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
    hidden_dim, found = state["text.0.weight"].shape
    if in_dim is not None and found != in_dim:
        raise ValueError(
            f"the projectors of {where} are for a CLIP of {found} channels, the one in use has "
            f"{in_dim}: they belong to another CLIP"
        )
    mark = state.pop(MARK, None)
    trained = None if mark is None else decode_arch(mark, where)
    if not any_arch:
        check_arch(trained, arch, where)
    out_dim = len(state["image.weight"])
    projectors = Projectors(found, hidden_dim, out_dim, trained or arch, any_arch=any_arch)
    try:
        projectors.load_state_dict(state)
    except (RuntimeError, ValueError) as error:
        problem = " ".join(str(error).split())
        raise ValueError(f"the projectors of {where} are damaged: {problem}") from error
    return projectors.requires_grad_(False).eval()


def _projector_entries(content: Any, where: str) -> dict[str, Tensor]:
    """The entries of the projectors in the content of a file, without what stands before them."""
    state = content.get("state_dict", content) if isinstance(content, Mapping) else {}
    prefixes = [key.removesuffix(_LAST) for key in state if str(key).endswith(_LAST)]
    own: dict[str, Tensor] = {}
    if len(prefixes) == 1:
        start = prefixes[0]
        own = {k.removeprefix(start): v for k, v in state.items() if k.startswith(start)}
        own = {k: v for k, v in own.items() if k in (MARK, WEIGHTS_MARK) or k.startswith(_PARTS)}
    if any(own.get(name) is None for name in ("text.0.weight", _LAST, "image.weight")):
        raise ValueError(
            f"{where} holds no projectors: name a checkpoint that tools/train.py wrote for a "
            "config of configs/dclip"
        )
    return own

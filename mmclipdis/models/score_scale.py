r"""How cosines become probabilities: the softmax over all names, or the sigmoid of each alone.

CLIP learns a scale :math:`e^t` with its weights, and SigLIP a bias :math:`b` too: its probability
of a pair is :math:`\sigma(e^t \cos + b)`, whatever the other names are. Both stand in the file of
the weights, as ``logit_scale`` (:math:`t`) and ``logit_bias``.
"""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

from torch import Tensor

SCORES = ("softmax", "sigmoid")
FILE = "file"


class ScoreScale:
    """Mixin of a model that compares with names: its scale, its bias and its kind of probability.

    Attributes:
        score: ``'softmax'`` or ``'sigmoid'``.
    """

    score: str
    _scale: float | str
    _bias: float | str | None
    _of: tuple[Any, ...]  # the text encoder, which is no child of this

    def take_scale(self, scale: Any, score: str, bias: Any, text_encoder: Any) -> None:
        """Check and keep the options of these names.

        Raises:
            ValueError: naming the option and what it may be.
        """
        if score not in SCORES:
            raise ValueError(f"score must be one of {', '.join(SCORES)}, got {score!r}")
        if score == "sigmoid" and bias is None:
            raise ValueError(
                "score='sigmoid' needs logit_bias: 'file' for that of the text encoder's weights, "
                "or a number (SigLIP starts from -10)"
            )
        if score == "softmax" and bias is not None:
            raise ValueError(
                f"logit_bias={bias!r} changes no softmax: leave it out, or set score='sigmoid'"
            )
        if (bias == FILE) and scale != FILE:
            raise ValueError(
                f"logit_bias='file' belongs to the file's scale, not to {scale!r}: set "
                "logit_scale='file', or give logit_bias as a number"
            )
        self._scale, self._bias, self.score = _scale(scale), _bias(bias), score
        self._of = (text_encoder,)
        if FILE in (self._scale, self._bias):
            if not hasattr(text_encoder, "scale_and_bias"):
                raise ValueError(
                    "logit_scale='file' is read from the weights of a text_encoder, and there are "
                    "ready embeddings only: give it as a number"
                )
            text_encoder.keeps_scale = True

    @property
    def logit_scale(self) -> float:
        """The factor of cosines, :math:`e^t`.

        Raises:
            ValueError: it is the file's, and no file has told it.
        """
        return self._of[0].scale_and_bias()[0] if isinstance(self._scale, str) else self._scale

    @property
    def logit_bias(self) -> float | None:
        """What is added before a sigmoid; None: there is a softmax.

        Raises:
            ValueError: as :attr:`logit_scale`.
        """
        if not isinstance(self._bias, str):
            return self._bias
        found = self._of[0].scale_and_bias()[1]
        if found is None:
            raise ValueError(
                "logit_bias='file', and the weights of the text encoder have none (they were "
                "trained by a softmax): give it as a number, or set score='softmax'"
            )
        return float(found)


def probabilities_of(logits: Tensor, bias: float | None, dim: int) -> Tensor:
    """Probabilities of logits without the bias, like them.

    Args:
        logits: Scaled cosines.
        bias: Of the sigmoid of each; None: the softmax over ``dim``.
        dim: Where the names stand.
    """
    return logits.softmax(dim) if bias is None else (logits + bias).sigmoid()


def _scale(value: Any) -> float | str:
    if value == FILE:
        return FILE
    if not isinstance(value, Real) or isinstance(value, bool) or not float(value) >= 0:
        raise ValueError(f"logit_scale must be 'file' or a number in [0.0, inf], got {value!r}")
    if value in (0.0, float("inf")):
        raise ValueError(f"logit_scale={value!r} makes all classes alike; CLIP's own is 100")
    return float(value)


def _bias(value: Any) -> float | str | None:
    if value is None or value == FILE:
        return value  # type: ignore[no-any-return]
    if not isinstance(value, Real) or isinstance(value, bool) or not math.isfinite(value):
        raise ValueError(f"logit_bias must be 'file', a finite number or None, got {value!r}")
    return float(value)

"""Names of the text sides of TIPS and Talk2DINO; their image towers are in ``dino_layout``."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from mmclipdis.clip.weights.renaming import LayoutReport, renamed_by, rule

_NAMES = r"((?:transformer\.resblocks\.\d+|ln_final)\..*)"


def _log_scale(temperature: Tensor) -> Tensor:
    """Logarithm of what TIPS divides by."""
    return -temperature.reshape(()).log()


_RULES = (
    rule(r"token_embedding(?:\.weight)?", "token_embedding.weight"),
    rule(_NAMES, r"\1"),
    rule(r"temperature", "logit_scale", _log_scale),
)
_SECOND = ((r"temperature_contrastive", "temperature of the training beside the one that is read"),)


def tips_text_to_open_clip(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], LayoutReport]:
    """Rename TIPS's text tower; ``temperature`` becomes ``logit_scale = -log(temperature)``.

    Raises:
        ValueError: for an entry that is not known of it, or a temperature that is not positive.
    """
    temperature = state.get("temperature")
    if temperature is not None and not bool((temperature > 0).all()):
        raise ValueError(f"a TIPS whose temperature is {temperature.tolist()}, not positive")
    return renamed_by(_RULES, state, "an official TIPS text tower", _SECOND)


def talk2dino_to_open_clip(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], LayoutReport]:
    """Talk2DINO's map from CLIP's text embeddings, whose names stay.

    Raises:
        ValueError: for an entry that is not known of it.
    """
    names = rule(r"((?:linear_layer|hidden_layers\.0)\.(?:weight|bias))", r"\1")
    return renamed_by((names,), state, "an official Talk2DINO")

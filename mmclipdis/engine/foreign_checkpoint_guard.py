"""A hook that refuses a checkpoint of which nothing would be loaded."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.registry import HOOKS


@HOOKS.register_module()
class ForeignCheckpointGuard(Hook):
    """Stop when no entry of a checkpoint belongs to the model.

    mmengine loads what fits and warns of the rest, so that the checkpoint of another model, or of a
    backbone, would leave every weight as it was: random. The tools add this hook to every run.

    Raises:
        ValueError: naming entries of both, and how a backbone is loaded instead.
    """

    priority = "VERY_LOW"  # after the hooks that change the checkpoint

    def after_load_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Compare the names."""
        model = runner.model
        while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
            model = model.module  # as mmengine loads
        state = checkpoint.get("state_dict", checkpoint)
        found = {str(key).removeprefix("module.") for key in state}
        own = model.state_dict().keys()
        if own and not found & own:
            raise ValueError(
                f"nothing in the checkpoint belongs to the {type(model).__name__}: it holds "
                f"{_some(found)}, the model {_some(own)}. Give one of this config; weights "
                f"{_remedy(found, model)}"
            )


def _remedy(found: set[str], model: Any) -> str:
    if all(name.startswith("projectors.") for name in found):
        for part in ("decode_head", "segments"):
            if hasattr(getattr(model, part, None), "projector"):
                return f"of DCLIP's projectors go into --cfg-options model.{part}.projector=FILE"
        return "of DCLIP's projectors belong to the config that they were trained with"
    if hasattr(model, "segmentor") and any(name.startswith("decode_head.") for name in found):
        return "of a plain segmentor go into --cfg-options model.segmentor.init_cfg"
    if any(name.startswith("segmentor.") for name in found):
        return "of InfoCLIP become the segmentor's by tools/model_converters/infoclip.py"
    return (
        "of an encoder alone (a distilled student, too) go into its init_cfg: "
        "--cfg-options model.backbone.init_cfg.checkpoint=FILE, or image_encoder, encoder"
    )


def _some(names: Any) -> str:
    return ", ".join(sorted(names)[:2]) or "nothing"

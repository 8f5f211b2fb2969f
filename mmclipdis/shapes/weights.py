"""The shipped weight file of the tiny CLIP: half precision, compact token embeddings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from open_clip.model import CLIP
from safetensors.torch import load_file, save_file
from torch import Tensor

CONFIG_DIR = Path(__file__).parents[1] / 'clip' / 'model_configs'
CONFIG_PATH = CONFIG_DIR / 'shapes-tiny.json'
WEIGHTS_PATH = CONFIG_DIR / 'shapes-tiny.safetensors'


def export_weights(
    model: CLIP, ids: Tensor, path: Path, metadata: Mapping[str, str], dtype: torch.dtype
) -> None:
    """Writes the state dict of ``model`` in open_clip's names, in ``dtype``.

    ``token_embedding.weight`` ``(V, W)`` becomes ``token_embedding.ids`` ``(V,)`` int64, the ids of
    its rows in the standard vocabulary, and ``token_embedding.rows`` ``(V, W)``.
    """
    state = {
        name: value.detach().to(dtype).contiguous() for name, value in model.state_dict().items()
    }
    state['token_embedding.rows'] = state.pop('token_embedding.weight')
    state['token_embedding.ids'] = ids.to(torch.int64)
    save_file(state, path, metadata=dict(metadata))


def load_model(weights: Path = WEIGHTS_PATH, config: Path = CONFIG_PATH) -> CLIP:
    """The tiny CLIP with its weights, over the whole standard vocabulary; tokens that no
    pretraining caption contained have embedding zero. In eval mode, float32.
    """
    settings = json.loads(config.read_text())
    state = {name: value for name, value in load_file(weights).items()}
    ids, rows = state.pop('token_embedding.ids'), state.pop('token_embedding.rows')
    table = torch.zeros(settings['text_cfg']['vocab_size'], rows.shape[1])
    table[ids] = rows.float()
    state['token_embedding.weight'] = table
    model = CLIP(
        settings['embed_dim'],
        settings['vision_cfg'],
        settings['text_cfg'],
        quick_gelu=settings['quick_gelu'],
    )
    model.load_state_dict(state)
    return model.eval()

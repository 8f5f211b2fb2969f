"""Faults of stitched tokens and of SAM as what mixes them, as the tools show them."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmclipdis.apis.run import test as run_test
from tests.faults.endings import ends_in
from tests.paths import ROOT

TOKENS = "model.test_cfg.stitch=tokens"
GUIDED = [
    TOKENS,
    "model.backbone.type=CLIPViT",
    "model.backbone.readout=proxyclip",
    "model.backbone.vfm.type=TimmVFM",
    "model.backbone.vfm.model=shapes-vfm",
    "model.backbone.vfm.init_cfg.type=Pretrained",
    "model.backbone.vfm.init_cfg.checkpoint=shapes",
]
SAM = "model.token_mixer.type=SAMMatrix"
TINY = [
    f"model.token_mixer.model_kwargs.{item}"
    for item in (
        "depth=2",
        "embed_dim=24",
        "num_heads=3",
        "img_size=128",
        "global_attn_indexes=[1]",
    )
]

CASES: dict[str, tuple[list[str], str]] = {
    "no affinity": ([TOKENS], "stitch='tokens' needs a backbone .* affinity alone"),
    "kappa": ([*GUIDED, SAM, "model.token_mixer.kappa=-1"], "kappa must be a number from 0 on"),
    "no SAM": ([*GUIDED, SAM, "model.token_mixer.model=shapes-vfm"], "'sam-L' or a samvit of timm"),
    "scores": (
        [*GUIDED, SAM, *TINY, "model.test_cfg.stitch=scores"],
        "token_mixer=SAMMatrix .*test_cfg.stitch='scores'",
    ),
    "no file": (
        [
            *(*GUIDED, SAM, *TINY),
            "model.token_mixer.init_cfg.type=Pretrained",
            "model.token_mixer.init_cfg.checkpoint=gone.pth",
        ],
        "no checkpoint 'gone.pth' of 'sam-B'; the official file .*sam_vit_b",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_trident_ends_in_a_line(
    case: str, sound_shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes, line = CASES[case]
    data = [f"test_dataloader.dataset.data_root={sound_shapes}"]
    arguments = [ROOT / "configs/shapes/clearclip.py", "--work-dir", tmp_path, "--cfg-options"]
    ends_in(line, run_test, [*arguments, *data, *changes], capsys)

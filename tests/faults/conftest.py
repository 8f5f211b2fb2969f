"""Small data that the faults are made of."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmclipdis.shapes.coco import Settings, write_dataset


@pytest.fixture(scope="session")
def sound_shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ShapeScenes with 4 photos to train and 3 to test on; copy it before you damage it."""
    folder = tmp_path_factory.mktemp("data") / "shapes"
    write_dataset(folder, Settings(train=4, val=3, seed=3))
    return folder

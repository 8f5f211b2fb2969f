"""Files of text embeddings: read whoever wrote them, refused if they are of another model."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from mmclipdis.clip.text.embeddings_file import read_embeddings, write_embeddings
from mmclipdis.clip.text.encoder import TextTower
from mmclipdis.clip.towers.build import build_text_transformer

NAMES = ["cat", "dog", "tree"]


@pytest.fixture
def embeddings():
    return torch.randn(3, 8, generator=torch.manual_seed(0))


def store(tensor, path):
    if path.suffix == ".npy":
        np.save(path, tensor.numpy())
    elif path.suffix == ".pt":
        torch.save(tensor, path)
    else:
        save_file({"any name": tensor}, path)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
@pytest.mark.parametrize("suffix", [".npy", ".pt", ".safetensors"])
def test_every_kind_of_file_gives_unit_rows(tmp_path, embeddings, suffix, dtype):
    path = tmp_path / f"text{suffix}"
    store(7 * embeddings.to(dtype), path)
    got = read_embeddings(path, 8, NAMES, "anything")
    assert got.dtype == torch.float32
    tolerance = 1e-3 if dtype == torch.float16 else 1e-6
    torch.testing.assert_close(got, F.normalize(embeddings, dim=1), rtol=0, atol=tolerance)
    torch.testing.assert_close(got.norm(dim=1), torch.ones(3), rtol=0, atol=1e-6)


def test_own_files_carry_what_they_were_made_from(tmp_path, embeddings, arch):
    torch.manual_seed(0)
    tower, path = TextTower(build_text_transformer(arch)), tmp_path / "out" / "text.safetensors"
    write_embeddings(path, embeddings, NAMES, tower.fingerprint())
    got = read_embeddings(path, 8, NAMES, tower.fingerprint())
    torch.testing.assert_close(got, F.normalize(embeddings, dim=1), rtol=0, atol=1e-6)
    read_embeddings(path)
    with torch.no_grad():
        tower.text.ln_final.bias.add_(1)
    with pytest.raises(ValueError, match="text.safetensors' were computed with another text tower"):
        read_embeddings(path, 8, NAMES, tower.fingerprint())
    with pytest.raises(ValueError, match="another order: row 1 is 'dog', expected 'tree'"):
        read_embeddings(path, 8, ["cat", "tree", "dog"])
    assert [p.name for p in path.parent.iterdir()] == ["text.safetensors"]


def test_another_width_names_both(tmp_path, embeddings):
    np.save(tmp_path / "large.npy", embeddings.numpy())
    message = r"large.npy' have 8 channels, the image tower has 512: they are of another CLIP"
    with pytest.raises(ValueError, match=message):
        read_embeddings(tmp_path / "large.npy", 512)


def test_another_number_of_classes_names_both(tmp_path, embeddings):
    np.save(tmp_path / "text.npy", embeddings.numpy())
    with pytest.raises(ValueError, match="text.npy' have 3 rows for 133 classes"):
        read_embeddings(tmp_path / "text.npy", 8, ["thing"] * 133)
    with pytest.raises(ValueError, match="these text embeddings have 3 rows for 2 classes"):
        write_embeddings(tmp_path / "text.safetensors", embeddings, NAMES[:2], "f")
    with pytest.raises(ValueError, match=r"go to a .safetensors, .*text.npy"):
        write_embeddings(tmp_path / "text.npy", embeddings, NAMES, "f")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (np.zeros(3, np.float32), r"shape \(queries, channels\), found torch.float32 \(3,\)"),
        (np.ones((3, 8), np.int64), r"found torch.int64 \(3, 8\)"),
        (np.eye(3, dtype=np.float32)[[0, 2, 1]] * [[1], [0], [1]], "row 1 is zero or not finite"),
        (np.full((2, 2), np.nan, np.float32), "row 0 is zero or not finite"),
        (np.array([{"pickled": 1}]), "is not a readable array of numbers"),
        (np.array(["cat"]), "is not a readable array of numbers"),
    ],
)
def test_what_is_no_embedding_is_refused(tmp_path, content, message):
    np.save(tmp_path / "text.npy", content, allow_pickle=True)
    with pytest.raises(ValueError, match=message):
        read_embeddings(tmp_path / "text.npy")


def test_two_tensors_damaged_and_missing_files_are_clear_errors(tmp_path, embeddings):
    torch.save({"a": embeddings, "b": embeddings}, tmp_path / "two.pt")
    with pytest.raises(ValueError, match="two.pt' must be one tensor .* found dict"):
        read_embeddings(tmp_path / "two.pt")
    (tmp_path / "empty.npy").write_bytes(b"")
    with pytest.raises(ValueError, match="empty.npy' is not a readable array"):
        read_embeddings(tmp_path / "empty.npy")
    with pytest.raises(FileNotFoundError, match="no file of text embeddings at .*absent.npy"):
        read_embeddings(tmp_path / "absent.npy")

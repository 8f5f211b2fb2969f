"""The picture of similar classes: what is drawn where, and names that can be read."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from mmclipdis.visualization.class_similarity import cluster_order, draw_class_similarity


def cosines(count: int, seed: int = 0, common: float = 0.8) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(count, 8)) + common
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows @ rows.T


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that would be saved."""
    kept: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda self, *args, **kwargs: kept.append(self))
    return kept


def test_the_order_puts_similar_classes_side_by_side() -> None:
    matrix = np.full((4, 4), 0.1)
    matrix[[0, 2], [2, 0]] = 0.9
    matrix[[1, 3], [3, 1]] = 0.8
    np.fill_diagonal(matrix, 1)
    order = cluster_order(matrix)
    assert sorted(order) == [0, 1, 2, 3]
    assert {frozenset(order[:2]), frozenset(order[2:])} == {frozenset({0, 2}), frozenset({1, 3})}
    assert sorted(cluster_order(np.ones((2, 2)) + 1e-16)) == [0, 1]


def test_heat_maps_show_the_raw_values_on_a_fixed_scale(
    tmp_path: Path, figures: list[Figure]
) -> None:
    before, after = cosines(5), cosines(5, 1, common=0)
    order = [3, 1, 4, 0, 2]
    names = ["ant", "bee", "cat", "$dog$", "eel"]
    matrices = {"CLIP": before, "projected": after}
    draw_class_similarity(matrices, names, tmp_path / "x.png", order)
    first, second, histogram, pairs = figures[0].axes[:4]
    for axes, matrix in ((first, before), (second, after)):
        image = axes.images[0]
        np.testing.assert_array_equal(np.asarray(image.get_array()), matrix[np.ix_(order, order)])
        assert image.get_clim() == (0, 1)
        mean = (matrix.sum() - 5) / 20
        assert axes.get_title().endswith(f"mean cosine {mean:.3f}")
    shown = [label.get_text() for label in first.get_yticklabels()]
    assert shown == ["$dog$", "bee", "eel", "ant", "cat"]
    cell = next(t for t in first.texts if t.get_position() == (1, 0))
    assert cell.get_text() == f"{before[3, 1]:.2f}".replace("0.", ".")
    heights = [[bar.get_height() for bar in bars] for bars in histogram.containers]
    values = before[np.triu_indices(5, 1)]
    expected = np.histogram(values, bins=[i / 50 for i in range(-50, 51)])[0] * 10
    np.testing.assert_allclose(heights[0], expected, atol=1e-9)
    assert histogram.get_xlim() == (-1, 1)
    assert len(pairs.patches) == 2 * 10


def test_pairs_are_those_of_the_first_matrix_with_both_values(
    tmp_path: Path, figures: list[Figure]
) -> None:
    before, after = cosines(4), cosines(4, 1, common=0)
    draw_class_similarity({"CLIP": before, "projected": after}, "abcd", tmp_path / "x.png", top=2)
    pairs = figures[0].axes[3]
    ranked = sorted(((before[i, j], i, j) for i in range(4) for j in range(i)), reverse=True)[:2]
    labels = [label.get_text() for label in pairs.get_yticklabels()]
    assert [set(label.split(" – ")) for label in labels] == [
        {"abcd"[i], "abcd"[j]} for _, i, j in ranked
    ]
    widths = [bar.get_width() for bar in pairs.patches]
    expected = [before[i, j] for _, i, j in ranked] + [after[i, j] for _, i, j in ranked]
    np.testing.assert_allclose(widths, expected)
    assert pairs.get_title() == "Most similar pairs of CLIP (2 of 6)"


@pytest.mark.parametrize("count", [2, 20, 80, 1203])
@pytest.mark.parametrize("panels", [1, 2])
def test_no_name_is_cut_off_or_overlaps_the_next_one(
    count: int, panels: int, tmp_path: Path, figures: list[Figure]
) -> None:
    names = [f"class number {i} of a very long name" if i % 3 else f"W{i}" for i in range(count)]
    matrices = {"CLIP": cosines(count), "projected": cosines(count, 1, 0)}
    titled = dict(list(matrices.items())[:panels])
    draw_class_similarity(titled, names, tmp_path / "x.png")
    figure = figures[0]
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    heat = figure.axes[0]
    boxes = [label.get_window_extent(renderer) for label in heat.get_yticklabels()]
    assert len(boxes) == (count if count <= 80 else len(range(0, count, -(-count // 45))))
    for upper, lower in itertools.pairwise(boxes):
        assert upper.y0 >= lower.y1 - 1
    texts = [*heat.get_yticklabels(), *heat.get_xticklabels(), *figure.axes[panels].texts]
    texts += [axes.title for axes in figure.axes] + [axes.xaxis.label for axes in figure.axes]
    texts += [label for axes in figure.axes[panels:] for label in axes.get_yticklabels()]
    for text in texts:
        box = text.get_window_extent(renderer)
        assert box.x0 >= 0 and box.y0 >= 0, text
        assert box.x1 <= figure.bbox.width and box.y1 <= figure.bbox.height, text
    if count > 80:
        assert f"of the classes 0 to {count - 1} is named" in heat.get_xlabel()
        last = heat.get_yticklabels()[-1].get_text()
        assert int(last.split()[0]) == int(heat.get_yticks()[-1])
    assert max(figure.get_size_inches()) < 25


def test_the_picture_is_written_into_a_new_folder(tmp_path: Path) -> None:
    path = draw_class_similarity({"CLIP": cosines(5)}, "abcde", tmp_path / "new" / "x.png")
    picture = np.asarray(Image.open(path).convert("L"))
    assert min(picture.shape) > 500
    assert picture.std() > 20


def test_no_pairs_leave_their_panel_empty(tmp_path: Path, figures: list[Figure]) -> None:
    draw_class_similarity({"CLIP": cosines(3)}, "abc", tmp_path / "x.png", top=0)
    pairs = figures[0].axes[2]
    assert not pairs.axison and not pairs.patches


@pytest.mark.parametrize(
    ("matrices", "order", "path", "message"),
    [
        ({}, None, "x.png", "0 matrices: one, or one before and one after"),
        (dict.fromkeys("abc", np.eye(3)), None, "x.png", "3 matrices: one, or one before"),
        ({"CLIP": np.eye(4)}, None, "x.png", r"'CLIP' has shape \(4, 4\) for 3 class names"),
        ({"CLIP": np.eye(3)}, [0, 1, 1], "x.png", "no permutation of the class indices 0 to 2"),
        ({"CLIP": np.eye(3)}, None, "x.doc", "cannot write '.*x.doc': end it with one of"),
    ],
)
def test_what_cannot_be_drawn_is_named(
    matrices: dict[str, np.ndarray], order: list[int] | None, path: str, message: str,
    tmp_path: Path,
) -> None:  # fmt: skip
    with pytest.raises(ValueError, match=message):
        draw_class_similarity(matrices, ["a", "b", "c"], tmp_path / path, order)

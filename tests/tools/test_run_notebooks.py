"""The notebooks run with the package as it is; what they show is of the code beside it."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tools.run_notebooks import (
    NOTEBOOKS,
    PARAMETERS,
    WIDEST,
    Notebook,
    code_cells,
    code_hash,
    execute,
    main,
    read,
)

#: Notebook -> values of its parameters at which it takes seconds.
TINY: dict[str, dict[str, Any]] = {
    "words_to_masks": {"SCENES": [25, 91], "SIZE": (80, 106)},
    "distil_and_compare": {"PHOTOS": 6, "TESTS": 1, "ITERATIONS": 1},
}


@pytest.fixture(params=TINY)
def kept(request: pytest.FixtureRequest) -> tuple[str, Notebook]:
    return request.param, read(NOTEBOOKS / f"{request.param}.ipynb")


def kinds(notebook: Notebook) -> list[list[tuple[str, list[str]]]]:
    """What each cell shows: kinds of outputs, and of what they hold."""
    return [
        [(output["output_type"], sorted(output.get("data", ()))) for output in cell["outputs"]]
        for cell in code_cells(notebook)
    ]


def pictures(notebook: Notebook) -> Iterator[Image.Image]:
    for cell in code_cells(notebook):
        for output in cell["outputs"]:
            if "image/jpeg" in output.get("data", ()):
                yield Image.open(io.BytesIO(base64.b64decode(output["data"]["image/jpeg"])))


def test_every_notebook_is_tried() -> None:
    assert {path.stem for path in NOTEBOOKS.glob("*.ipynb")} == set(TINY)
    assert sum(path.stat().st_size for path in NOTEBOOKS.glob("*.ipynb")) < 600_000


@pytest.mark.slow  # it trains and tests
def test_a_notebook_shows_at_tiny_size_what_it_showed_when_it_was_kept(
    kept: tuple[str, Notebook],
) -> None:
    name, notebook = kept
    done = execute(notebook, name, TINY[name])
    assert kinds(done) == kinds(notebook)


def test_what_a_notebook_shows_is_of_its_code(kept: tuple[str, Notebook]) -> None:
    name, notebook = kept
    cells = code_cells(notebook)
    assert notebook["metadata"]["code_sha256"] == code_hash(notebook), (
        f"run: make notebooks ({name})"
    )
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    shown = {output["output_type"] for cell in cells for output in cell["outputs"]}
    assert shown <= {"stream", "display_data", "execute_result"}
    assert len(notebook["cells"]) < 25
    found = list(pictures(notebook))
    assert len(found) >= 2 and all(max(picture.size) <= WIDEST for picture in found)


def test_a_notebook_is_as_jupyter_reads_it(kept: tuple[str, Notebook]) -> None:
    _, notebook = kept
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids)
    for cell in notebook["cells"]:
        wanted = {"cell_type", "id", "metadata", "source"}
        if cell["cell_type"] == "code":
            wanted |= {"execution_count", "outputs"}
        assert set(cell) == wanted
    assert sum(PARAMETERS in cell["metadata"].get("tags", ()) for cell in notebook["cells"]) == 1


def test_links_of_a_notebook_lead_somewhere(kept: tuple[str, Notebook]) -> None:
    _, notebook = kept
    texts = ["".join(cell["source"]) for cell in notebook["cells"]]
    links = [link for text in texts for link in re.findall(r"\]\((?!https?:)([^)#\s]+)", text)]
    assert links and [link for link in links if not (NOTEBOOKS / link).exists()] == []


def small(*sources: str, tags: tuple[str, ...] = ()) -> Notebook:
    """A notebook of code cells, the first with tags."""
    cells = [
        {"cell_type": "code", "id": f"c{n}", "source": [text], "metadata": {}, "outputs": []}
        for n, text in enumerate(sources)
    ]
    cells[0]["metadata"] = {"tags": list(tags)}
    return {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}


def test_outputs_are_what_is_printed_displayed_and_the_last_value(tmp_path: Path) -> None:
    text = "from PIL import Image\nprint(1)\ndisplay(2)\nprint(3)\nImage.new('RGB', (2000, 1000))"
    path = tmp_path / "a.ipynb"
    path.write_text(json.dumps(small("a = 5", text, "a")), encoding="utf-8")
    main([str(path)])
    first, second, third = code_cells(read(path))
    assert first["outputs"] == []
    printed, shown, more, picture = second["outputs"]
    assert (printed["text"], more["text"]) == (["1\n"], ["3\n"])
    assert shown["data"] == {"text/plain": ["2"]}
    assert picture["data"]["text/plain"] == ["<picture of 2000 x 1000>"]
    (found,) = pictures(read(path))
    assert found.size == (WIDEST, WIDEST // 2)
    assert third["outputs"][0]["data"] == {"text/plain": ["5"]}


def test_values_of_the_tagged_cell_are_replaced_and_no_others() -> None:
    notebook = small("a = 5\nb = 1", "a + b", tags=(PARAMETERS,))
    done = execute(notebook, "n", {"a": 7})
    assert code_cells(done)[1]["outputs"][0]["data"]["text/plain"] == ["8"]
    assert code_cells(notebook)[1]["outputs"] == []
    with pytest.raises(ValueError, match="n has no parameter 'c'"):
        execute(notebook, "n", {"c": 7})


def test_an_error_of_a_cell_names_the_cell_and_leaves_the_folder_as_it_was() -> None:
    before = Path.cwd()
    with pytest.raises(ZeroDivisionError) as caught:
        execute(small("a = 0", "1 / a"), "mine.ipynb")
    assert str(caught.traceback[-1].path).endswith("mine.ipynb, cell 2")
    assert Path.cwd() == before


def test_other_code_has_another_hash() -> None:
    assert code_hash(small("a = 0")) != code_hash(small("a = 1"))

"""The site of the documentation: links and references lead somewhere, or end the build by name."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import Any

import griffe
import pytest
import yaml
from markdown import Markdown
from mkdocs.commands.build import build
from mkdocs.config import load_config
from mkdocs.exceptions import Abort

from docs.hooks.api_pages import first_sentence, navigation, page, read_modules, rooms
from docs.hooks.docstrings import Docstrings
from docs.hooks.pages import Pages, notebook
from tests.paths import ROOT

HOOKS = ROOT / "docs/hooks"
PACKAGE = {
    "__init__.py": '"""Ours; see :func:`~mmclipdis.room.deed`."""\n\n__all__ = ["deed"]\n\n'
    "from mmclipdis.room import deed\n",
    "room.py": '''r"""A room.

Do it::

    deed(1)
"""

#: So often it is done.
TIMES = 3


def deed(x: int) -> int:
    r"""Give :math:`x^2`, :data:`TIMES` times.

    .. math:: y = \\sum x
        + 1

    Returns:
        What :class:`Thing` has: one.
    """


class Thing:
    """A thing; :meth:`be` is what it does."""

    def be(self) -> None:
        """As :class:`ValueError` and :func:`json.dumps`; :func:`_hidden`."""


def _hidden() -> None:
    """Not shown."""
''',
}


def write_site(folder: Path, **changes: str) -> str:
    """A repository with a page, a notebook, a package and ours for the rest; its mkdocs.yml."""
    files = {
        "README.md": '# Ours\n\n<p><img width=9 src="docs/pic.png"></p>\n\n'
        "See [page](docs/page.md#end), [setup](setup.py), `[x](y)`; "
        "[one](docs/notebooks/one.ipynb).\n",
        "CONTRIBUTING.md": "# How\n\n```\nmmclipdis/\n  room.py   a room\n```\n\n[us](README.md)\n",
        "SECURITY.md": "# Safe\n",
        "CHANGELOG.md": "# News\n",
        "setup.py": "",
        "docs/page.md": "# Page\n\n[up](../README.md), ![p](pic.png), $a_1 + b$, `$x$`\n\n## End\n",
        "docs/pic.png": "",
        "docs/notebooks/one.ipynb": json.dumps(
            {"cells": [{"cell_type": "markdown", "source": "# One\n\n[up](../page.md)"}]}
        ),
        **{f"mmclipdis/{name}": text for name, text in PACKAGE.items()},
        **changes,
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    config["theme"] = {"name": "mkdocs", "locale": "en"}
    config["hooks"] = [str(HOOKS / "hooks.py")]
    config["extra_css"] = []
    python = config["plugins"][-1]["mkdocstrings"]["handlers"]["python"]["options"]
    python["extensions"] = [str(HOOKS / "docstrings.py")]
    places = ["index", "page", "contributing", "security", "changelog"]
    config["nav"] = [f"{place}.md" for place in places]
    (folder / "mkdocs.yml").write_text(yaml.safe_dump(config))
    return str(folder / "mkdocs.yml")


def test_pages_of_the_repository_become_a_site(tmp_path: Path) -> None:
    build(load_config(write_site(tmp_path), strict=True))
    site = tmp_path / "site"
    start, one = (site / "index.html").read_text(), (site / "page.html").read_text()
    assert 'href="page.html#end"' in start and "<span>setup</span>" in start
    assert "<code>[x](y)</code>" in start and '<img width=9 src="pic.png">' in start
    assert 'href="index.html"' in one and 'src="pic.png"' in one
    assert "<msub><mi>a</mi><mn>1</mn></msub>" in one and "<code>$x$</code>" in one
    assert 'href="notebooks/one.html"' in start
    notebook_page = (site / "notebooks/one.html").read_text()
    assert 'href="../page.html"' in notebook_page
    assert 'href="one.ipynb"' in notebook_page and (site / "notebooks/one.ipynb").exists()
    room = (site / "api/room.html").read_text()
    assert "So often it is done" in room and "Not shown" not in room
    assert 'href="#mmclipdis.room.Thing.be"' in room and 'href="#mmclipdis.room.TIMES"' in room
    assert '<math xmlns="http://www.w3.org/1998/Math/MathML" display="block">' in room
    assert 'href="room.html#mmclipdis.room.deed"' in (site / "api/index.html").read_text()


def test_what_leads_nowhere_ends_the_build_by_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = write_site(
        tmp_path,
        **{
            "README.md": "# Ours\n\n[a](docs/gone.md) [b](docs/page.md#gone)\n",
            "docs/page.md": '# Page\n\n![p](gone.png) <img src="no.png">\n',
            "docs/more.md": "# In no menu\n",
            "mmclipdis/room.py": '"""A room."""\n\n\ndef deed() -> None:\n'
            '    """Idea.\n\n    See :func:`~mmclipdis.gone` and :meth:`Thing.be`.\n\n    '
            ':exc:`KeyError`\n    """\n',
        },
    )
    with caplog.at_level(logging.INFO, "mkdocs"), pytest.raises(Abort, match="8 warnings"):
        build(load_config(config, strict=True))
    said = "\n".join(record.getMessage() for record in caplog.records)
    for fault in (
        f"{tmp_path}/README.md: the link docs/gone.md leads to nothing",
        f"{tmp_path}/docs/page.md: the link gone.png leads to nothing",
        f"{tmp_path}/docs/page.md: the link no.png leads to nothing",
        "anchor '#gone'",
        "  - more.md",
        f"{tmp_path}/mmclipdis/room.py:7: :func:`~mmclipdis.gone` names nothing",
        f"{tmp_path}/mmclipdis/room.py:7: :meth:`Thing.be` names nothing",
        f"{tmp_path}/mmclipdis/room.py:9: :exc:`KeyError` is none of the roles",
    ):
        assert fault in said


def read_docstring(folder: Path, text: str) -> str:
    """A module's docstring as the site has it."""
    (folder / "thing.py").write_text(f'r"""{text}"""\n')
    extensions = griffe.Extensions(Docstrings())
    return griffe.load("thing", search_paths=[folder], extensions=extensions).docstring.value


def test_what_sphinx_reads_becomes_markdown(tmp_path: Path) -> None:
    text = "So::\n\n    import x\n\nand\n\n.. math:: a\n    b\n\nor in a shell::\n\n    x -y z\n"
    assert read_docstring(tmp_path, text) == (
        "So:\n\n```python\nimport x\n```\n\nand\n\n$$a\n    b$$\n\n"
        "or in a shell:\n\n```text\nx -y z\n```\n\n"
    )


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("$a$ and $b$", 2),
        ("from $HOME to ${OUT} or $3, $4", 0),
        ("`$a$`, \\$a\\$", 0),
        ("$$\\mathrm{softmax}(x)$$", 1),
    ],
)
def test_formulas_stand_between_dollars(text: str, found: int) -> None:
    made = Markdown(extensions=[Pages({})]).convert(text)
    assert made.count("<math") == found
    assert ("<mtext>softmax</mtext>" in made) == ("softmax" in text)


def test_a_formula_that_is_none_is_named() -> None:
    with pytest.raises(ValueError, match=re.escape("$a_$ is no formula")):
        Markdown(extensions=[Pages({})]).convert("$a_$")


def test_a_notebook_shows_text_code_and_what_came_of_it(tmp_path: Path) -> None:
    def code(*outputs: dict[str, Any]) -> dict[str, Any]:
        return {"cell_type": "code", "source": ["x = 1\n", "x"], "outputs": [*outputs]}

    cells = [
        {"cell_type": "markdown", "source": ["# Title\n", "text"]},
        code({"output_type": "stream", "text": ["said\n"]}),
        code({"output_type": "display_data", "data": {"image/png": "QUJD\n", "text/plain": "<P>"}}),
        code({"output_type": "execute_result", "data": {"text/plain": ["1"]}}),
        code(),
    ]
    (tmp_path / "x.ipynb").write_text(json.dumps({"cells": cells}))
    shown = notebook(tmp_path / "x.ipynb")
    block = "```python\nx = 1\nx\n```\n\n"
    assert shown == (
        f"# Title\ntext\n\n{block}```text\nsaid\n```\n\n{block}"
        f"![output](data:image/png;base64,QUJD)\n\n{block}```text\n1\n```\n\n{block}"
        '<p><a href="x.ipynb" download>Download this notebook</a></p>\n'
    )


def test_every_public_module_has_a_page_in_the_menu_in_the_order_of_the_rooms(
    tmp_path: Path,
) -> None:
    for name in ("models/__init__", "models/heads/__init__", "models/a", "clip/__init__", "_x/y"):
        (tmp_path / f"ours/{name}.py").parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"ours/{name}.py").write_text(f'"""Idea of {name}."""')
    (tmp_path / "ours/__init__.py").write_text(
        '__all__ = ["deed", "_own", "CLIP"]\n\ndef deed(): ...\n'
    )
    (tmp_path / "ours/__main__.py").write_text("")
    modules = read_modules(tmp_path, "ours")
    order = rooms("tree\nours/\n  models/   m\n    heads/   h\n  clip/  c\n```", "ours")
    assert order == ["ours.models", "ours.models.heads", "ours.clip"]
    assert navigation("ours", modules, order) == {
        "ours": [
            "api/index.md",
            {
                "models": [
                    "api/models/index.md",
                    {"heads": ["api/models/heads/index.md"]},
                    {"a": "api/models/a.md"},
                ]
            },
            {"clip": ["api/clip/index.md"]},
        ]
    }
    text = page(modules["ours"], modules, order)
    assert "members:\n        - deed\n" in text
    assert "## Names\n\n[`CLIP`][ours.CLIP]\n" in text
    assert "| [`models/`][ours.models] | Idea of models/__init__. |\n" in text


def test_the_rooms_of_the_menu_are_those_of_the_package() -> None:
    order = rooms((ROOT / "CONTRIBUTING.md").read_text(), "mmclipdis")
    paths = [ROOT / name.replace(".", "/") for name in order]
    assert len(order) > 20
    assert [
        path for path in paths if not (path.is_dir() or path.with_suffix(".py").is_file())
    ] == []


def test_the_menu_says_what_a_module_is_in_a_sentence() -> None:
    assert first_sentence("Idea of\n:class:`~a.B`.\n\nMore.") == "Idea of `a.B`."

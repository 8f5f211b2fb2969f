"""The pages in Markdown, which are read as they are on a forge, as pages of the site.

A link leads from file to file. On the site it leads from page to page, a link to what the site has
not (a config, a folder) is its name alone, and one to what does not exist is a warning, which ends
a strict build. Formulas between dollars become MathML, which a browser draws by itself.
"""

from __future__ import annotations

import json
import logging
import os
import posixpath
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit
from xml.etree.ElementTree import Element

from latex2mathml.converter import convert
from markdown import Markdown
from markdown.extensions import Extension
from markdown.inlinepatterns import InlineProcessor
from markdown.treeprocessors import Treeprocessor

LOG = logging.getLogger("mkdocs.hooks.pages")
#: Between dollars that touch the formula, so that two prices are none; or between double ones.
FORMULA = r"\$\$(?P<block>[^$]+)\$\$|(?<![\\$\w])\$(?P<inline>[^\s$](?:[^$]*[^\s$])?)\$(?![\w$])"

#: A link or a picture in HTML, but for what is to be saved.
TAG = re.compile(r'(<(?:a|img|source)\s(?![^>]*\bdownload\b)[^>]*?\b(?:src|href)=)"([^"]*)"')


class Pages(Extension):
    """Markdown with links between files and with formulas, of one page after the other.

    Args:
        places: Where each file of the site is on it: its path, from the site's root.
    """

    def __init__(self, places: Mapping[Path, str]) -> None:
        super().__init__()
        self.places = dict(places)
        self.file: Path | None = None
        self.place = ""

    def extendMarkdown(self, md: Markdown) -> None:
        """Before mkdocs looks at the links (0), and after code is put aside (190)."""
        md.treeprocessors.register(Links(md, self), "links_of_files", 5)
        md.inlinePatterns.register(Formulas(FORMULA, md), "formulas", 185)

    def begin(self, file: Path | None, place: str) -> None:
        """What is read next is ``file``, or made for the build if None, and goes to ``place``."""
        self.file, self.place = file, place

    def on_site(self, address: str) -> str | None:
        """Where a link of the page leads on the site; None if that has not what it leads to."""
        link = urlsplit(address)
        if self.file is None or not link.path or link.scheme or link.netloc:
            return address
        target = Path(os.path.normpath(self.file.parent / unquote(link.path)))
        if target in self.places:
            path = posixpath.relpath(self.places[target], posixpath.dirname(self.place) or ".")
            return link._replace(path=path).geturl()
        if not target.exists():
            LOG.warning("%s: the link %s leads to nothing", self.file, address)
        return None


class Links(Treeprocessor):
    """Sets the links of a page.

    Args:
        md: What reads it.
        pages: Knows where they lead.
    """

    def __init__(self, md: Markdown, pages: Pages) -> None:
        super().__init__(md)
        self.pages = pages

    def run(self, root: Element) -> None:
        """Set all links, those in HTML as well."""
        if self.pages.file is None:
            return
        for element in root.iter():
            key = {"a": "href", "img": "src"}.get(element.tag)
            if key is None:
                continue
            link = self.pages.on_site(element.get(key, ""))
            if link is None:
                element.attrib.clear()
                element.tag = "span"
            else:
                element.set(key, link)
        blocks = self.md.htmlStash.rawHtmlBlocks
        for number, block in enumerate(blocks):
            if isinstance(block, str):
                blocks[number] = TAG.sub(self._in_html, block)

    def _in_html(self, match: re.Match[str]) -> str:
        return f'{match[1]}"{self.pages.on_site(match[2]) or "#"}"'


class Formulas(InlineProcessor):
    """LaTeX between dollars."""

    def handleMatch(self, m: re.Match[str], data: str) -> tuple[str, int, int]:
        """The formula as MathML, which nothing changes any more."""
        display = "block" if m["block"] else "inline"
        try:
            math = convert(upright(m["block"] or m["inline"]), display=display)
        except Exception as error:  # it has no class of its own for what it cannot read
            raise ValueError(f"{m[0]} is no formula: {type(error).__name__}") from error
        return self.md.htmlStash.store(math), m.start(0), m.end(0)


def upright(latex: str) -> str:
    r"""Words in ``\mathrm`` as words: letter by letter a browser draws them in italics."""
    return re.sub(r"\\(?:mathrm|operatorname)\{([A-Za-z]{2,})\}", r"\\text{\1}", latex)


def notebook(file: Path) -> str:
    """A notebook as Markdown: its text, its code, what that printed or drew; and the file."""
    parts = []
    for cell in json.loads(file.read_text())["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
        elif cell["cell_type"] == "code":
            parts += [f"```python\n{source}\n```", *map(_output, cell["outputs"])]
    parts.append(f'<p><a href="{file.name}" download>Download this notebook</a></p>')
    return "\n\n".join(parts) + "\n"


def _output(output: Mapping[str, object]) -> str:
    data = output.get("data", {"text/plain": output.get("text", "")})
    for kind in ("image/png", "image/jpeg"):
        if kind in data:
            return f"![output](data:{kind};base64,{''.join(data[kind]).strip()})"
    text = "".join(data.get("text/plain", "")).rstrip()
    return f"```text\n{text}\n```" if text else ""

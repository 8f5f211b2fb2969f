"""Docstrings for mkdocstrings: what Sphinx reads (roles, literal blocks, formulas) as Markdown.

A role that names nothing of ours is a warning with its line, which ends a strict build.
"""

from __future__ import annotations

import ast
import builtins
import logging
import re
from collections.abc import Iterator
from importlib.util import find_spec
from textwrap import dedent, indent

import griffe

LOG = logging.getLogger("mkdocs.hooks.docstrings")
ROLES = ("attr", "class", "data", "func", "meth", "mod")
ROLE = re.compile(r":([a-z]+):`(~?)([^`]*)`")
MATHS = re.compile(r":math:`([^`]*)`")
#: ``.. math:: x`` and what follows it until an empty line.
FORMULA = re.compile(r"(?m)^( *)\.\. math::(.*(?:\n.*\S.*)*)")
#: A paragraph that ends with two colons, and the block below it, which is further to the right.
LITERAL = re.compile(r"(?m)^( *)(\S.*)?::\n\n((?:\1 +\S.*\n?|[ ]*\n)+)")


class Docstrings(griffe.Extension):
    """Rewrites the docstrings of a package when all of it has been read."""

    def on_package(self, *, pkg: griffe.Module, **kwargs: object) -> None:
        """Rewrite all docstrings; warn of each reference that leads nowhere."""
        names = Names(pkg)
        for found in objects(pkg):
            comment = None if found.docstring else comment_above(found)
            if comment is not None:
                found.docstring = griffe.Docstring(comment, parent=found)
        for found in objects(pkg):
            if found.docstring is not None:
                found.docstring.value = markdown(found, names)


def objects(parent: griffe.Object) -> Iterator[griffe.Object]:
    """An object and what is defined in it, its modules and private names included."""
    yield parent
    for member in parent.members.values():
        if isinstance(member, griffe.Object):
            yield from objects(member)


def comment_above(found: griffe.Object) -> str | None:
    """What the lines that begin with ``#:`` above an attribute say."""
    if not found.is_attribute or found.lineno is None:
        return None
    lines = found.lines_collection[found.filepath]
    said: list[str] = []
    for line in reversed(lines[: found.lineno - 1]):
        match = re.match(r"\s*#: ?(.*)", line)
        if match is None:
            break
        said.insert(0, match[1])
    return "\n".join(said) or None


def markdown(found: griffe.Object, names: Names) -> str:
    """The docstring of an object as Markdown."""
    text = found.docstring.value
    text = FORMULA.sub(lambda match: f"{match[1]}$${match[2].strip()}$$", text)
    text = MATHS.sub(r"$\1$", text)
    text = LITERAL.sub(_fenced, text)

    def link(match: re.Match[str]) -> str:
        role, short, name = match.groups()
        shown = (name.rpartition(".")[2] if short else name) + "()" * (role in ("func", "meth"))
        target = names.find(name, found) if role in ROLES else None
        if target is None:
            line = found.docstring.lineno or 0
            line += found.docstring.value[: found.docstring.value.find(match[0])].count("\n")
            fault = "names nothing" if role in ROLES else f"is none of the roles {ROLES}"
            LOG.warning("%s:%d: %s %s", found.filepath, line, match[0], fault)
        return f"[`{shown}`][{target}]" if target else f"`{shown}`"

    return ROLE.sub(link, text)


def _fenced(match: re.Match[str]) -> str:
    space, lead, block = match.groups()
    code = dedent(block).strip("\n")
    try:
        ast.parse(code)
        language = "python"
    except SyntaxError:
        language = "text"
    return (f"{space}{lead}:\n\n" if lead else "") + indent(
        f"```{language}\n{code}\n```\n\n", space
    )


class Names:
    """Finds what a reference in a docstring means.

    Args:
        package: What was read; its names are looked for, those of other packages are not.
    """

    def __init__(self, package: griffe.Module) -> None:
        self.package = package
        self.by_name: dict[str, list[griffe.Object]] = {}
        for found in objects(package):
            self.by_name.setdefault(found.name, []).append(found)

    def find(self, name: str, place: griffe.Object) -> str | None:
        """Where a name leads that stands in the docstring of ``place``.

        Sphinx's order: the class, the module; then any that is alone in the package with its name.

        Returns:
            The path of what the site shows of it; empty if it shows nothing of it, for example
            because it is another package's; None if there is no such name.
        """
        parts = name.split(".")
        if parts[0] == self.package.name:
            return self._shown(self.package, parts[1:])
        scope: griffe.Object | None = place
        while scope is not None:
            if parts[0] in scope.all_members:
                return self._shown(scope, parts)
            scope = scope.parent
        alone = self.by_name.get(parts[0], [])
        if len(alone) == 1:
            return self._shown(alone[0], parts[1:])
        known = hasattr(builtins, name) or (len(parts) > 1 and find_spec(parts[0]) is not None)
        return "" if known else None

    def _shown(self, start: griffe.Object, parts: list[str]) -> str | None:
        shown, found = "", start
        for part in [None, *parts]:
            if part is not None:
                member = found.all_members.get(part)
                if member is None:
                    return None
                if member.is_alias:
                    try:
                        member = member.final_target
                    except griffe.AliasResolutionError as error:
                        ours = str(error.alias.target_path).startswith(self.package.name + ".")
                        return None if ours else ""
                found = member
            if _is_shown(found):
                shown = found.path
        return shown


def _is_shown(found: griffe.Object) -> bool:
    """Whether the site has a place for an object: it is public and says what it is."""
    private = any(part.startswith("_") for part in found.path.split("."))
    return found.has_docstring and not private

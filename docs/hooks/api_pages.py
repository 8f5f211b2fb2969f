"""The pages of the API reference, one a module: they are made for the build, and never go stale."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Module:
    """A public module as its source says: nothing is imported.

    Args:
        name: With dots.
        is_package: Whether it has modules in it.
        idea: The first sentence of its docstring.
        own: Public names that it defines.
        exported: Names of ``__all__`` that others define.
    """

    name: str
    is_package: bool
    idea: str
    own: tuple[str, ...]
    exported: tuple[str, ...]

    @property
    def page(self) -> str:
        """Where its page is, from the site's root."""
        inside = "/".join(self.name.split(".")[1:])
        if self.is_package:
            return f"api/{inside}/index.md" if inside else "api/index.md"
        return f"api/{inside}.md"


def read_modules(root: Path, package: str) -> dict[str, Module]:
    """All public modules of a package, by name."""
    found = {}
    for file in sorted((root / package).rglob("*.py")):
        parts = list(file.relative_to(root).with_suffix("").parts)
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package else parts)
        if not any(part.startswith("_") or part.startswith(".") for part in name.split(".")):
            found[name] = _read(name, is_package, file.read_text())
    return found


def _read(name: str, is_package: bool, source: str) -> Module:
    tree = ast.parse(source)
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    own = [node.name for node in tree.body if isinstance(node, kinds)]
    exported: list[str] = []
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            exported = ast.literal_eval(node.value)
    return Module(
        name,
        is_package,
        first_sentence(ast.get_docstring(tree) or ""),
        tuple(one for one in own if not one.startswith("_")),
        tuple(one for one in exported if one not in own and not one.startswith("_")),
    )


def first_sentence(text: str) -> str:
    """The first paragraph of a docstring, in one line, without Sphinx's roles."""
    line = " ".join(text.split("\n\n")[0].split())
    return re.sub(r":\w+:`~?([^`]*)`", r"`\1`", line)


def rooms(contributing: str, package: str) -> list[str]:
    """The rooms in the order in which CONTRIBUTING.md has them: ``mmclipdis.apis.zoo``, ..."""
    tree = contributing[contributing.index(f"\n{package}/\n") :]
    found: list[str] = []
    floor = ""
    for indent, name in re.findall(r"(?m)^( {2}| {4})(\w+)(?:/|\.py) ", tree[: tree.index("```")]):
        floor = name if indent == "  " else floor
        found.append(f"{package}.{name}" if indent == "  " else f"{package}.{floor}.{name}")
    return found


def children(name: str, modules: dict[str, Module], order: list[str]) -> list[Module]:
    """What lies in a package: rooms in their order, then the others by name."""
    inside = [one for one in modules.values() if one.name.rpartition(".")[0] == name]

    def key(one: Module) -> tuple[int, str]:
        return (order.index(one.name) if one.name in order else len(order), one.name)

    return sorted(inside, key=key)


def navigation(name: str, modules: dict[str, Module], order: list[str]) -> dict[str, object]:
    """The navigation below a module, as mkdocs reads it."""
    module, title = modules[name], name.rpartition(".")[2]
    if not module.is_package:
        return {title: module.page}
    below = [navigation(one.name, modules, order) for one in children(name, modules, order)]
    return {title: [module.page, *below]}


def page(module: Module, modules: dict[str, Module], order: list[str]) -> str:
    """What mkdocstrings makes the page of a module from."""
    text = f"::: {module.name}\n"
    if module.is_package:
        own = "".join(f"\n        - {one}" for one in module.own)
        text += f"    options:\n      members:{own or ' false'}\n"
    if module.exported:
        links = (f"[`{one}`][{module.name}.{one}]" for one in module.exported)
        text += "\n## Names\n\n" + ",\n".join(links) + "\n"
    inside = children(module.name, modules, order)
    if inside:
        text += "\n## Modules\n\n| module | what is there |\n| --- | --- |\n"
        for one in inside:
            title = one.name.rpartition(".")[2] + "/" * one.is_package
            text += f"| [`{title}`][{one.name}] | {one.idea} |\n"
    return text

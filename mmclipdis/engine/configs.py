"""Reading configs: Python files, which are programs, and JSON; no YAML.

A YAML file is taken for data, but mmengine's reader builds any object that the file names
(``!!python/object/apply:os.system``). Our tools refuse such configs. Other YAML files that mmengine
reads once mmclipdis is imported, an annotation file or a list of models, are read as plain data.
"""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

import yaml
from mmengine.config import Config
from mmengine.fileio import register_handler
from mmengine.fileio.handlers.yaml_handler import YamlHandler

SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@register_handler(["yaml", "yml"])  # type: ignore[untyped-decorator]
class PlainYamlHandler(YamlHandler):  # type: ignore[misc]
    """mmengine's reader of YAML for plain data: dicts, lists, text, numbers and dates."""

    def load_from_fileobj(self, file: Any, **options: Any) -> Any:
        """Content of a file.

        Raises:
            ValueError: It is damaged, or names Python objects.
        """
        try:
            return yaml.load(file, **{**options, "Loader": SafeLoader})
        except yaml.YAMLError as error:
            problem = getattr(error, "problem", None) or type(error).__name__
            place = getattr(error, "problem_mark", None)
            where = f" (line {place.line + 1})" if place is not None else ""
            raise ValueError(
                f"this YAML file is not read as plain data: {problem}{where}"
            ) from error


def read_config_file(path: str | Path) -> Config:
    """The config in a ``.py`` or ``.json`` file. A ``.py`` file is a program: it is run.

    Raises:
        FileNotFoundError: there is no such file, or none of its ``_base_`` files.
        ImportError: it imports what is not installed.
        ValueError: It is YAML, or one of its ``_base_`` files is, or it fails; the message has the
            line.
    """
    path = str(path)
    try:
        _refuse_yaml(path, set())
        return Config.fromfile(path)
    except (FileNotFoundError, ImportError, YamlConfigError):
        raise
    except Exception as error:  # a config is a program
        if "Only py/yml/yaml/json" in str(error):
            raise ValueError(f"config {path!r} must be a .py file") from error
        raise ValueError(f"config {path!r} cannot be read: {_failure(error)}") from error


class YamlConfigError(ValueError):
    """A config is a YAML file."""


def _failure(error: Exception) -> str:
    """Kind and message of what stopped a config, and the line of the config where it was."""
    text = " ".join(str(error).split()).rstrip(".")
    if isinstance(error, (SyntaxError, UnicodeDecodeError)):
        return text  # names file and line itself
    places = [f for f in traceback.extract_tb(error.__traceback__) if f.name == "<module>"]
    where = f" (line {places[-1].lineno} of {places[-1].filename})" if places else ""
    return f"{type(error).__name__}: {text}{where}"


def _refuse_yaml(path: str, seen: set[str], named_by: str = "") -> None:
    suffix = Path(path).suffix.lower()
    if suffix in (".yaml", ".yml"):
        raise YamlConfigError(
            f"config {path!r}{named_by} is YAML, which is not read, since YAML of mmengine can "
            "run code; write it as a .py file"
        )
    if suffix not in (".py", ".json") or path in seen or not Path(path).is_file():
        return  # mmengine says what is wrong
    seen.add(path)
    for base in Config._get_base_files(path):
        _refuse_yaml(str(base), seen, f" (_base_ of {path!r})")
        _refuse_yaml(Config._get_cfg_path(base, path)[0], seen, f" (_base_ of {path!r})")

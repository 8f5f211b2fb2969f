"""``--cfg-options``: mmengine's reading of ``key=value``, with an error where it would guess."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from mmengine.config import DictAction

from mmclipdis.apis.config_check import UserInputError

#: A value, or one of a list, that begins as ``{name:``; a prompt such as ``a {}.`` does not.
_DICTIONARY = re.compile(r"""(^|[\[(,])\s*["']?\{\s*["']?\w+["']?\s*:""")


class CfgOptions(DictAction):  # type: ignore[misc, unused-ignore]
    """mmengine's action for ``key=value`` words; what it would misread ends in one line.

    mmengine takes ``a={b:1}`` for a text, and one with a list inside fills Python's stack.
    """

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: Any = None) -> None:
        """Read the words.

        Raises:
            UserInputError: a word is no ``key=value``, or its value cannot be read.
        """
        words: Sequence[str] = [values] if isinstance(values, str) else values
        for word in words:
            key, equals, value = word.partition("=")
            if not (key and equals):
                raise UserInputError(f"--cfg-options takes key=value pairs, got {word!r}")
            if _DICTIONARY.search(value):
                raise UserInputError(
                    f"--cfg-options {word!r}: a dictionary cannot be given; set its entries one by "
                    f"one, {key}.NAME=VALUE"
                )
            try:
                super().__call__(parser, namespace, [word], option_string)
            except AssertionError as error:
                raise UserInputError(
                    f"--cfg-options {word!r}: {error}; a list is '[a,b]'"
                ) from error

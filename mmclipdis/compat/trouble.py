"""What is wrong with an environment, and what puts it right."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Trouble:
    """A trouble and its remedy, in one line.

    Attributes:
        what: What is wrong, with the names and versions.
        remedy: What to do.
        stops: Whether nothing works until it is done.
        error: The error that told.
    """

    what: str
    remedy: str
    stops: bool = False
    error: Exception | None = None

    def __str__(self) -> str:
        return f"{self.what}; {self.remedy}"

"""Between the browser and the desk: what is sent becomes a question, what fails one line."""

from __future__ import annotations

import html
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

from mmclipdis.apis.cli import user_message
from mmclipdis.web.desk import Question
from mmclipdis.web.inputs import NO_PHOTO, NO_WORDS, clean_name, read_typed_words


def question_of(
    photo: Any, words: Any, task: Any, model: Any, background: Any, threshold: Any
) -> Question:
    """What the browser sends as a question.

    Raises:
        gradio.Error: no photo or no words.
    """
    path = photo.get("path") if isinstance(photo, dict) else None
    if not isinstance(path, str) or not path:
        raise _error(NO_PHOTO)
    if not isinstance(words, str) or not words.strip(" ,;.[]\n"):
        raise _error(NO_WORDS)
    friendly(read_typed_words, words)
    if not isinstance(threshold, (int, float)) or not 0 <= threshold <= 1:
        raise _error("the least score is a number from 0 to 1")
    return Question(
        photo=Path(path),
        name=clean_name(photo.get("orig_name") or Path(path).name),
        words=words,
        task=str(task),
        model=str(model),
        background=str(background or ""),
        threshold=float(threshold),
    )


def friendly(work: Callable[..., Any], *given: Any) -> Any:
    """Call ``work``; what it raises becomes one line on the page.

    Raises:
        gradio.Error: with the line; of a fault of our own it says that the log has more.
    """
    try:
        return work(*given)
    except gr.Error:
        raise
    except Exception as error:
        message = user_message(error)
        if message is None:
            traceback.print_exc()
            message = "this went wrong, and not by your fault; the log of the server says more"
        raise _error(message) from None


def _error(message: str) -> gr.Error:
    """A line on the page; it may hold what somebody typed, and is escaped."""
    text = html.escape(" ".join(message.split()), quote=False)
    return gr.Error(text, print_exception=False)

"""The page itself: what is where, and what happens when something is clicked."""

from __future__ import annotations

import html
import shutil
import tempfile
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from mmclipdis.apis.cli import user_message
from mmclipdis.web.desk import Desk, Question
from mmclipdis.web.inputs import NO_PHOTO, NO_WORDS, clean_name, read_typed_words
from mmclipdis.web.outputs import legend, pack, picture, summary, table

#: Least score that the slider shows at first: that of pictures of boxes, or the model's own.
THRESHOLDS = {"segment": 0.0, "detect": 0.3, "tag": 0.0}
#: Downloads that are kept, and seconds after which gradio removes its copies.
KEPT_FILES, CACHE_AGE = 8, 3600
CSS = """
.gradio-container {max-width: 1180px !important; margin: 0 auto !important}
ul.legend {list-style: none; display: flex;
  flex-wrap: wrap; gap: .3rem 1.2rem; margin: 0; padding: 0}
ul.legend li {display: flex; align-items: center; gap: .45rem; margin: 0}
ul.legend .field {width: 1em; height: 1em; border-radius: 3px; border: 1px solid #0004}
ul.legend small {opacity: .65}
#drawn img, #heat img {width: 100%; max-height: 70vh; object-fit: contain}
"""
HEAD = "# Words to masks, boxes and tags\nA photo, any words: what is where?"


def theme() -> Any:
    """Looks that need no font from elsewhere."""
    return gr.themes.Soft(
        primary_hue="teal",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    )


def make_page(
    desk: Desk,
    examples: Sequence[tuple[str, str, str]],
    labels: dict[str, list[tuple[str, str]]],
    first: tuple[str, str],
) -> Any:
    """The page as gradio's ``Blocks``.

    Args:
        desk: Who answers.
        examples: File, words and task of each example.
        labels: Task -> label and name of the models that are offered.
        first: Task and model that the page begins with.
    """
    with gr.Blocks(
        title="mmclipdis", analytics_enabled=False, delete_cache=(CACHE_AGE // 4, CACHE_AGE)
    ) as page:
        gr.Markdown(HEAD)
        with gr.Row(equal_height=False):
            with gr.Column(scale=5):
                given = _inputs(labels, first)
                go = gr.Button("Search", variant="primary", elem_id="go")
                gr.Examples(
                    [list(example) for example in examples],
                    given[:3],
                    label="Examples",
                    cache_examples=False,
                    api_visibility="private",
                )
            with gr.Column(scale=6):
                shown, word, heat = _outputs()
        _wire(page, desk, labels, given, go, shown, word, heat)
    return page


def _inputs(labels: dict[str, list[tuple[str, str]]], first: tuple[str, str]) -> list[Any]:
    """Photo, words, task, model, background, threshold, opacity."""
    task, model = first
    photo = gr.Image(
        label="Photo",
        type="filepath",
        image_mode=None,
        sources=["upload", "clipboard"],
        height=300,
        buttons=[],
        elem_id="photo",
    )
    words = gr.Textbox(
        label="Words",
        placeholder="grass, sand, apple; plum",
        info="Commas between words, semicolons between synonyms",
        elem_id="words",
        max_lines=4,
    )
    with gr.Row():
        tasks = gr.Radio(list(labels), value=task, label="Task", elem_id="task", scale=3)
        models = gr.Dropdown(labels[task], value=model, label="Model", elem_id="model", scale=2)
    with gr.Accordion("More", open=False):
        background = gr.Textbox(
            label="Background",
            info="Words of what is not looked for, such as: floor, wall; or a least probability",
            elem_id="background",
        )
        threshold = gr.Slider(0, 1, THRESHOLDS[task], step=0.01, label="Least score")
        opacity = gr.Slider(0, 1, 0.6, step=0.05, label="Opacity of the colours")
    return [photo, words, tasks, models, background, threshold, opacity]


def _outputs() -> tuple[list[Any], Any, Any]:
    """What a search fills in; the word of the heat map; and the heat map."""
    with gr.Tabs():
        with gr.Tab("Picture"):
            drawn = gr.Image(
                label="What was found",
                format="png",
                interactive=False,
                buttons=["fullscreen"],
                elem_id="drawn",
            )
            key = gr.HTML(elem_id="key")
        with gr.Tab("Heat map", id="heat"):
            word = gr.Radio([], label="Where the photo looks like", elem_id="word")
            heat = gr.Image(
                label="Blue: least, red: most",
                format="png",
                interactive=False,
                buttons=["fullscreen"],
                elem_id="heat",
            )
        with gr.Tab("Table"):
            rows = gr.Dataframe(interactive=False, show_label=False, elem_id="rows")
    note = gr.HTML(elem_id="note")
    file = gr.DownloadButton(
        "Download picture, table (CSV), COCO json, labels", interactive=False, elem_id="file"
    )
    return [drawn, key, rows, note, file, word, heat], word, heat


def _wire(
    page: Any,
    desk: Desk,
    labels: dict[str, list[tuple[str, str]]],
    given: list[Any],
    go: Any,
    shown: list[Any],
    word: Any,
    heat: Any,
) -> None:
    """Say what happens when.

    Values come as the browser sends them (``preprocess=False``): gradio would open a photo with
    Pillow before anybody looked at its size, and what it raises is no friendly line.
    """
    _, words, tasks, models, background, threshold, opacity = given
    packed: deque[Path] = deque()
    quietly: dict[str, Any] = dict(
        preprocess=False, api_visibility="private", show_progress="minimal"
    )

    def search(*values: Any) -> list[Any]:
        result = friendly(desk.answer, question_of(*values[:6]))
        return _filled(result, float(values[6]), _room(desk.folder, packed))

    def again(*values: Any) -> Any:
        """As a search, and without a word if there is nothing to search yet."""
        if not values[0] or not str(values[1] or "").strip():
            return [gr.skip() for _ in shown]
        return search(*values)

    def look(*values: Any) -> Any:
        *values_of_question, asked = values
        if asked is None:
            return None
        found = friendly(desk.heat, question_of(*values_of_question[:6]), str(asked))
        return found.draw(float(values_of_question[6]))

    def choose(task: Any) -> Any:
        known = labels.get(task) or labels[next(iter(labels))]
        return gr.Dropdown(known, value=known[0][1]), THRESHOLDS.get(task, 0.0)

    at_picture: dict[str, Any] = {**quietly, "show_progress_on": shown[0]}
    gr.on([go.click, words.submit, background.submit], search, given, shown, **at_picture)
    gr.on([threshold.release, opacity.release], again, given, shown, **at_picture)
    word.input(look, [*given, word], heat, **quietly)
    tasks.change(choose, tasks, [models, threshold], **quietly)


def _filled(result: Any, opacity: float, folder: Path) -> list[Any]:
    """Values for what :func:`_outputs` lists."""
    names = list(dict.fromkeys(result.names))
    return [
        picture(result, opacity),
        legend(result),
        gr.Dataframe(**_frame(table(result))),
        html.escape(summary(result)),
        gr.DownloadButton(value=str(pack(result, opacity, folder)), interactive=True),
        gr.Radio(names, value=None),
        None,
    ]


def _frame(rows: dict[str, Any]) -> dict[str, Any]:
    return {"value": rows["data"], "headers": rows["headers"]}


def _room(folder: Path, packed: deque[Path]) -> Path:
    """A folder for the next download; the oldest goes."""
    while len(packed) >= KEPT_FILES:
        shutil.rmtree(packed.popleft(), ignore_errors=True)
    packed.append(Path(tempfile.mkdtemp(prefix="results_", dir=folder)))
    return packed[-1]


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

"""The page itself: what is where, and what happens when something is clicked."""

from __future__ import annotations

import html
import shutil
import tempfile
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from mmclipdis.web.asking import friendly, question_of
from mmclipdis.web.desk import THRESHOLDS, Desk, Question
from mmclipdis.web.outputs import legend, pack, picture, summary, table

#: What each task gives, in words for people who never heard of it.
TASKS = {
    "segment": "Segment: a word for each pixel",
    "detect": "Detect: a box around each thing",
    "tag": "Tag: how well each word fits the photo",
}
#: Downloads that are kept, and seconds after which gradio removes its copies.
KEPT_FILES, CACHE_AGE = 8, 3600
CSS = """
.gradio-container {max-width: 1180px !important; margin: 0 auto !important}
ul.legend {list-style: none; display: flex;
  flex-wrap: wrap; gap: .3rem 1.2rem; margin: 0; padding: 0}
ul.legend li {display: flex; align-items: center; gap: .45rem; margin: 0}
ul.legend .field {width: 1em; height: 1em; border-radius: 3px; border: 1px solid #0004}
ul.legend small {opacity: .65}
#drawn .image-frame, #heat .image-frame {width: 100%}
#drawn img, #heat img {width: 100%; height: auto; max-height: 70vh; object-fit: contain}
"""
HEAD = """# Find anything in a photo by words
Give a photo, type what to look for, and see where it is."""
EMPTY = "What is found appears here. To see how it looks, click one of the examples."


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
            with gr.Column(scale=6):
                shown = _outputs()
                shelf = gr.Examples(
                    [list(example) for example in examples],
                    given[:3],
                    label="Examples: click one",
                    cache_examples=False,
                    api_visibility="private",
                )
        _Wires(desk, labels, given, shown).connect(shelf)
    return page


def _inputs(labels: dict[str, list[tuple[str, str]]], first: tuple[str, str]) -> list[Any]:
    """Photo, words, task, model, background, threshold, opacity; and the button."""
    task, model = first
    photo = gr.Image(
        label="Photo",
        type="filepath",
        image_mode=None,
        sources=["upload", "clipboard"],
        height=260,
        buttons=[],
        elem_id="photo",
    )
    words = gr.Textbox(
        label="Words",
        placeholder="grass, sand, apple; plum",
        info="What to look for: commas between things, semicolons between names of the same thing",
        elem_id="words",
        max_lines=4,
    )
    tasks = gr.Radio(
        [(TASKS[one], one) for one in labels], value=task, label="What to make", elem_id="task"
    )
    models = gr.Dropdown(
        labels[task],
        value=model,
        label="Model",
        info="The tiny ones know what is drawn in the examples; for photos take a larger one, "
        "which is downloaded when it is first used",
        elem_id="model",
    )
    go = gr.Button("Search", variant="primary", elem_id="go")
    with gr.Accordion("Background, least score, opacity", open=False):
        background = gr.Textbox(
            label="Background",
            info="What is there and not looked for, such as: floor, wall. "
            "Or a number from 0 to 1: what is less sure is background",
            elem_id="background",
        )
        threshold = gr.Slider(
            0,
            1,
            THRESHOLDS[task],
            step=0.01,
            label="Least score",
            info="What is less sure is left out; 0 leaves it to the model",
            elem_id="threshold",
        )
        opacity = gr.Slider(0, 1, 0.6, step=0.05, label="Opacity of the colours")
    return [photo, words, tasks, models, background, threshold, opacity, go]


def _outputs() -> dict[str, Any]:
    """What a search fills in."""
    image: dict[str, Any] = dict(
        format="png", interactive=False, buttons=["fullscreen"], show_label=False
    )
    with gr.Tabs():
        with gr.Tab("Picture"):
            drawn = gr.Image(label="What was found", elem_id="drawn", **image)
            key = gr.HTML(f"<p>{EMPTY}</p>", elem_id="key")
        with gr.Tab("Heat map") as heat_tab:
            word = gr.Radio(
                [],
                label="Where does the photo look like this word?",
                info="From blue (least) to red (most), for each word by itself",
                elem_id="word",
            )
            heat = gr.Image(label="Heat map", elem_id="heat", **image)
        with gr.Tab("Table"):
            rows = gr.Dataframe(interactive=False, show_label=False, elem_id="rows")
    note = gr.HTML(elem_id="note")
    file = gr.DownloadButton(
        "Download: picture, table (CSV), COCO json, labels", interactive=False, elem_id="file"
    )
    return dict(
        drawn=drawn, key=key, rows=rows, note=note, file=file, word=word, heat=heat, tab=heat_tab
    )


class _Wires:
    """What happens when something is clicked.

    What is asked for comes as the browser sends it (``preprocess=False``): gradio would open a
    photo with Pillow before anybody looked at its size, and what it raises is no friendly line.
    What is shown already belongs to the question in ``asked``, whatever was typed since.
    """

    def __init__(
        self,
        desk: Desk,
        labels: dict[str, list[tuple[str, str]]],
        given: list[Any],
        shown: dict[str, Any],
    ) -> None:
        self.desk, self.labels, self.shown = desk, labels, shown
        *self.given, self.go = given
        self.asked = gr.State(None, time_to_live=CACHE_AGE)
        self.packed: deque[Path] = deque()

    def connect(self, shelf: Any) -> None:
        """Say what follows what."""
        _, words, tasks, models, background, threshold, opacity = self.given
        names = ("drawn", "key", "rows", "note", "file", "word", "heat")
        drawn, _, _, _, file, word, heat = found = [self.shown[name] for name in names]
        quietly: dict[str, Any] = dict(api_visibility="private", show_progress="minimal")
        raw: dict[str, Any] = dict(quietly, preprocess=False, show_progress_on=drawn)
        search = (self.search, self.given, [*found, self.asked])
        gr.on([self.go.click, words.submit, background.submit], *search, **raw)
        threshold.release(self.again, *search[1:], **raw)
        choice = (self.choose, tasks, [models, threshold])
        tasks.input(*choice, **quietly, preprocess=False)
        # in turn, since the browser sends a task's model only after it got to know it
        chosen = shelf.load_input_event.then(*choice, **quietly, preprocess=False)
        chosen.then(*search, **raw)
        opacity.release(self.redraw, [self.asked, word, opacity], [drawn, file, heat], **quietly)
        word.input(self.look, [self.asked, word, opacity], heat, **quietly)
        self.shown["tab"].select(
            self.look_first, [self.asked, word, opacity], [word, heat], **quietly
        )

    def search(self, *values: Any) -> list[Any]:
        """Pictures, tables and files of an answer; and its question."""
        question, opacity = question_of(*values[:6]), float(values[6])
        result = friendly(self.desk.answer, question)
        return [
            picture(result, opacity),
            legend(result),
            gr.Dataframe(**_frame(table(result))),
            html.escape(summary(result)),
            self._file(result, opacity),
            gr.Radio(list(dict.fromkeys(result.names)), value=None),
            None,
            question,
        ]

    def again(self, *values: Any) -> Any:
        """As a search, and without a word if there is nothing to search yet."""
        if not values[0] or not str(values[1] or "").strip():
            return [gr.skip() for _ in range(8)]
        return self.search(*values)

    def redraw(self, question: Question | None, word: str | None, opacity: float) -> list[Any]:
        """What is shown, with other colours."""
        if question is None:
            return [gr.skip() for _ in range(3)]
        result = friendly(self.desk.answer, question)
        return [
            picture(result, opacity),
            self._file(result, opacity),
            self.look(question, word, opacity),
        ]

    def look(self, question: Question | None, word: str | None, opacity: float) -> Any:
        """The heat map of a word."""
        if question is None or word is None:
            return None
        return friendly(self.desk.heat, question, word).draw(opacity)

    def look_first(self, question: Question | None, word: str | None, opacity: float) -> list[Any]:
        """The heat map of the first word, for who opens the tab."""
        if question is None or word is not None:
            return [gr.skip(), gr.skip()]
        first = friendly(self.desk.answer, question).names[0]
        return [first, self.look(question, first, opacity)]

    def choose(self, task: Any) -> list[Any]:
        """The models of a task, and the score that it begins with."""
        known = self.labels.get(task) or next(iter(self.labels.values()))
        return [gr.Dropdown(known, value=known[0][1]), THRESHOLDS.get(task, 0.0)]

    def _file(self, result: Any, opacity: float) -> Any:
        """The button with a new file in a folder of its own; the oldest goes."""
        while len(self.packed) >= KEPT_FILES:
            shutil.rmtree(self.packed.popleft(), ignore_errors=True)
        self.packed.append(Path(tempfile.mkdtemp(prefix="results_", dir=self.desk.folder)))
        value = str(pack(result, opacity, self.packed[-1]))
        return gr.DownloadButton(value=value, interactive=True)


def _frame(rows: dict[str, Any]) -> dict[str, Any]:
    return {"value": rows["data"], "headers": rows["headers"]}

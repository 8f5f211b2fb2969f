"""``mmclipdis segment``, ``detect`` and ``tag``: photos and words in, pictures and tables out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from mmclipdis.commands.start import run
from mmclipdis.commands.usage import Mistake, complete_model, count, number, words_of

#: Formats, and whether stdout can take them.
FORMATS = {"png": False, "labels": False, "json": True, "csv": True, "coco": False}
ENDING = """\b
Exit codes: 0 done; 1 some photos could not be used; 2 a mistake, or no photo could be used;
130 interrupted: what was written is whole, and --resume goes on.
"""
EXAMPLES = {
    "segment": """\b
Examples:
  mmclipdis segment photo.jpg --words "grass, sand, apple; plum" --out results/
  mmclipdis segment photos/ --words-file names.txt --out results/ --format png,labels,coco
""",
    "detect": """\b
Examples:
  mmclipdis detect photos/ --words kite,apple --model fvit-shapes
  mmclipdis detect street.mp4 --words "car, [bicycle, bike]" --threshold 0.3 --json
""",
    "tag": """\b
Examples:
  mmclipdis tag *.jpg --words-file names.txt --format csv
  mmclipdis tag photos/ --words "beach, forest, city" --out results/ --resume
""",
}


class Formats(click.ParamType[tuple[str, ...]]):
    """A list of formats with commas between them."""

    name = "LIST"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        """The formats, each once; an unknown one is refused by name."""
        if isinstance(value, tuple):
            return value
        names = tuple(dict.fromkeys(n.strip().lower() for n in value.split(",") if n.strip()))
        unknown = [name for name in names if name not in FORMATS]
        if unknown or not names:
            raise Mistake(f"--format {value!r}: choose from {', '.join(FORMATS)}")
        return names

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """The last of the list."""
        before, comma, last = incomplete.rpartition(",")
        return [CompletionItem(before + comma + n) for n in FORMATS if n.startswith(last)]


def _number_or_word(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> str | float | None:
    try:
        return None if value is None else float(value)
    except ValueError:
        return value


#: Least score where nobody asks for one. Detectors have boxes for anything, with scores near 0;
#: this is what mmdet's demos show.
USUAL = {"detect": 0.3}
#: Options of all three, in the order of the help.
OPTIONS = (
    click.argument("sources", nargs=-1, required=True, metavar="SOURCES..."),
    click.option("--words", metavar="TEXT", help="What to look for, with commas between words; "
                 "synonyms of one stand between semicolons or in brackets: 'car; van, sky'."),
    click.option("--words-file", metavar="FILE", help="A file with a word a line, its synonyms "
                 "behind commas."),
    click.option("--model", metavar="NAME", shell_complete=complete_model, help="A name of "
                 "`mmclipdis models`, or a config; without it a tiny model that knows shapes."),
    click.option("--weights", metavar="FILE", help="A checkpoint, in place of the model's own."),
    click.option("-o", "--out", metavar="DIR", type=click.Path(path_type=Path), help="Folder for "
                 "results; without it they are printed."),
    click.option("--format", "formats", metavar="LIST", type=Formats(), help="What is written: "
                 f"some of {','.join(FORMATS)} [png]; without --out csv or json, printed."),
    click.option("--json", "as_json", is_flag=True, help="Print one JSON object a photo and line."),
    click.option("--background", metavar="WORD|NUMBER", callback=_number_or_word, help="What is "
                 "not looked for: a word that photos are compared with, too, or the least score."),
    click.option("--threshold", metavar="NUMBER", type=number(0, 1), help="Least score "
                 f"of what is kept, from 0 to 1; `detect` has {USUAL['detect']}."),
    click.option("--device", help="'cuda', 'cpu', ...; without it a GPU if there is one."),
    click.option("--precision", type=click.Choice(["fp32", "bf16", "fp16"]), default="fp32",
                 show_default=True, help="Of the layers that may run in less than fp32."),
    click.option("--batch-size", type=count(), default=1, show_default=True,
                 help="Photos that are searched together."),
    click.option("--resume", is_flag=True, help="Go on with the run that --out holds."),
    click.option("--overwrite", is_flag=True, help="Begin again where --out holds a run that was "
                 "not finished."),
    click.option("-q", "--quiet", is_flag=True, help="No bar and no summary, errors alone."),
)  # fmt: skip


def _task(task: str, summary: str) -> Callable[[Callable[..., Any]], click.Command]:
    """A subcommand with :data:`OPTIONS`; the function gives its help."""

    def decorate(described: Callable[..., Any]) -> click.Command:
        def command(**given: Any) -> int:
            return search(task, **given)

        command.__doc__ = described.__doc__
        for option in reversed(OPTIONS):
            command = option(command)
        epilog = f"{ENDING}\n{EXAMPLES[task]}"
        return click.command(task, short_help=summary, epilog=epilog)(command)

    return decorate


@_task("segment", "Give each pixel of photos one of the words.")
def segment() -> None:
    """Give each pixel of photos one of the words.

    SOURCES are photos, folders, patterns ('trip/**/*.jpg'), addresses and videos. Prints the share
    of each word, or writes pictures with a legend, label maps, tables and COCO's json.
    """


@_task("detect", "Find boxes around what the words name.")
def detect() -> None:
    """Find boxes around what the words name.

    SOURCES are photos, folders, patterns ('trip/**/*.jpg'), addresses and videos. Prints boxes with
    their words and scores, or writes pictures, tables and COCO's json.
    """


@_task("tag", "Say which of the words photos show.")
def tag() -> None:
    """Say which of the words photos show.

    SOURCES are photos, folders, patterns ('trip/**/*.jpg'), addresses and videos. Prints a score
    for each word, or writes pictures and tables.
    """


def search(
    task: str,
    words: str | None,
    words_file: str | None,
    formats: tuple[str, ...] | None,
    as_json: bool,
    out: Path | None,
    resume: bool,
    overwrite: bool,
    **given: Any,
) -> int:
    """Check what can be checked without torch, then search; returns the exit code."""
    formats = check_formats(task, formats, out)
    if out is None and "json" in formats:
        as_json = True
    if out is None and as_json and "csv" in formats:
        raise Mistake("--json and --format csv both say what is printed: give one, or --out DIR")
    if out is None and (resume or overwrite):
        raise Mistake(f"{'--resume' if resume else '--overwrite'} is about --out, which is missing")
    if resume and overwrite:
        raise Mistake("--resume goes on with a run and --overwrite begins again: give one")
    if given["threshold"] is None and not isinstance(given["background"], float):
        given["threshold"] = USUAL.get(task)
    packaged = _check_model(given["model"], task)

    from mmclipdis.commands.progress import Progress
    from mmclipdis.commands.work import Job, work

    job = Job(
        task=task,
        words=words_of(words, words_file),
        formats=formats,
        as_json=as_json,
        out=out,
        resume=resume,
        overwrite=overwrite,
        **given,
    )
    progress = None if out is None else Progress(out, job.deciding(), resume, overwrite)
    try:
        return run(lambda: work(job, progress), task if packaged else None)
    finally:
        if progress is not None:
            progress.close()


def check_formats(task: str, formats: tuple[str, ...] | None, out: Path | None) -> tuple[str, ...]:
    """The formats, with the default.

    Raises:
        Mistake: a format of another task, or one that needs ``--out``.
    """
    if formats is None:
        return () if out is None else ("png",)
    if "labels" in formats and task != "segment":
        raise Mistake(f"--format labels is a map of classes, which `mmclipdis {task}` has not")
    if "coco" in formats and task == "tag":
        raise Mistake("--format coco is about boxes and masks, which `mmclipdis tag` has not")
    if out is None and (len(formats) > 1 or not FORMATS[formats[0]]):
        raise Mistake(
            f"--format {','.join(formats)} writes files: give --out DIR (csv or json alone is "
            "printed)"
        )
    return formats


def _check_model(model: str | None, task: str) -> bool:
    """Whether the model is one of the package, which needs the task's library alone.

    Raises:
        Mistake: there is no such model, or it is of another task.
    """
    if model is None:
        return True
    from mmclipdis.apis.zoo.resolving import look_up

    try:
        return look_up(model, task)[2] is not None
    except (ValueError, FileNotFoundError) as error:
        raise Mistake(str(error)) from error

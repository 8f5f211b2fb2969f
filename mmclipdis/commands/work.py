"""The work of ``segment``, ``detect`` and ``tag``: photos in, results out, one after the other."""

from __future__ import annotations

import contextlib
import functools
import io
import os
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mmclipdis.commands.outputs import OF_PHOTO, as_text, csv_lines, finish, keep, plain
from mmclipdis.commands.progress import Progress, json_text, picture_folders
from mmclipdis.commands.usage import Mistake
from mmclipdis.utils.columns import columns_of

#: Exit codes: some photos could not be used, none could.
SOME_FAILED, ALL_FAILED = 1, 2
#: What a subcommand does, in the summary.
DONE = {"segment": "segmented", "detect": "searched", "tag": "tagged"}


@dataclass(frozen=True)
class Job:
    """What was asked for; see the options in :mod:`mmclipdis.commands.photos`."""

    task: str
    sources: tuple[str, ...]
    words: str | Path
    model: str | None = None
    weights: str | None = None
    device: str | None = None
    precision: str = "fp32"
    batch_size: int = 1
    background: str | float | None = None
    threshold: float | None = None
    out: Path | None = None
    formats: tuple[str, ...] = ()
    as_json: bool = False
    quiet: bool = False
    resume: bool = False
    overwrite: bool = False

    def deciding(self) -> dict[str, Any]:
        """The options that decide about results, by their names on the command line."""
        words = self.words.read_text("utf-8") if isinstance(self.words, Path) else self.words
        names = ("model", "weights", "precision", "background", "threshold")
        values = {f"--{name}": getattr(self, name) for name in names}
        return {"subcommand": self.task, "--words": words, **values, "--format": [*self.formats]}


@dataclass
class Counts:
    """Photos that were used now, before an interruption, and that could not be used."""

    done: int = 0
    before: int = 0
    failed: int = 0


def work(job: Job, progress: Progress | None) -> int:
    """Search all photos and write what is found; returns the exit code.

    Raises:
        FileNotFoundError, ValueError: before the first photo: a folder without photos, a model
            that there is not or that is of another task, words that cannot be used.
    """
    counts, start = Counts(), time.monotonic()
    sources = _listed(job, frozenset() if progress is None else progress.pictures)
    total = _count(sources)
    inferencer = _inferencer(job)
    done = {} if progress is None else progress.done
    found = _results(job, sources, inferencer, done, counts)
    hidden = job.quiet or total == 1 or not sys.stderr.isatty()
    columns: list[str] = []
    try:
        for photo, result in tqdm(found, total=total, disable=hidden, unit="photo", leave=False):
            if isinstance(result, str):
                counts.failed += 1
                _say(f"error: {photo}: {result}" if photo not in result else f"error: {result}")
                if progress is not None:
                    progress.add(photo, {"error": result})
            else:
                counts.done += 1
                if progress is not None and job.out is not None:
                    keep(result, photo, job.formats, progress, job.out)
            _print(job, photo, result, columns, total is None)
        if progress is not None:
            progress.finish()
    finally:
        used = counts.done + counts.before + counts.failed
        if progress is not None and job.out is not None and used:
            finish(job.formats, progress, job.out)
        if used and not job.quiet and (job.out is not None or counts.done + counts.failed > 1):
            _say(_summary(job, counts, time.monotonic() - start))
    if counts.failed:
        return SOME_FAILED if counts.done + counts.before else ALL_FAILED
    return 0


def _count(sources: Sequence[str]) -> int | None:
    """How many photos there are, None if a video is among them."""
    from mmclipdis.apis.inferencers.photos import count_of

    counts = [count_of(source) for source in sources]
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None


def _listed(job: Job, own: frozenset[Path]) -> list[str]:
    """The sources, folders and patterns as their files, listed before there are any results.

    Pictures that an earlier run left in ``--out``, ``own``, are none of the photos.

    Raises:
        FileNotFoundError: a folder without photos.
        Mistake: photos lie where pictures go, which replace them or join them; naming one.
    """
    from mmclipdis.apis.inferencers.photos import VIDEO_ENDINGS, files_of

    folders = [] if job.out is None else picture_folders(job.out, job.formats)
    resolved = functools.cache(lambda folder: Path(folder).resolve())
    texts: list[str] = []
    for source in job.sources:
        files = files_of(source)
        where = {file: resolved(os.path.dirname(file)) for file in files}
        files = [f for f in files if where[f] / os.path.basename(f) not in own] or files
        for file in files:
            ending = Path(file).suffix.lower()
            written = ending == ".png" if file == source else ending not in VIDEO_ENDINGS
            if written and where[file] in folders:
                raise Mistake(
                    f"--out {job.out} is where {file} is, which pictures of results would replace "
                    "or join; give another folder"
                )
        texts += files
    return texts


def _inferencer(job: Job) -> Any:
    from mmclipdis import apis

    kind = getattr(apis, apis.INFERENCERS[job.task])
    with contextlib.redirect_stdout(io.StringIO()):  # mmengine says there what it loads
        return kind(job.model, job.weights, device=job.device, precision=job.precision)


def _results(
    job: Job, sources: Sequence[str], inferencer: Any, done: dict[str, str], counts: Counts
) -> Iterator[tuple[str, Any]]:
    """What each photo is called, with its result, or with why there is none."""
    from mmclipdis.apis.inferencers.photos import Failure

    names: deque[str] = deque()
    earlier = frozenset(done)

    def to_do() -> Iterator[Any]:
        for source in _sources(sources):
            if source.name in earlier:
                counts.before += 1
            elif job.out is None or (source.name not in done and source.name not in names):
                names.append(source.name)
                yield source

    results = inferencer.stream(
        to_do(),
        job.words,
        batch_size=job.batch_size,
        background=job.background,
        threshold=job.threshold,
        on_error="yield",
    )
    for result in results:
        yield names.popleft(), result.message if isinstance(result, Failure) else result


def _sources(texts: Sequence[str]) -> Iterator[Any]:
    """Photos that are not read yet; what cannot be opened, such as a video, fails when it is."""
    from mmclipdis.apis.inferencers.photos import Source, photos_of

    def fail(error: Exception) -> Any:
        raise error

    for text in texts:
        photos = photos_of(text)
        while True:
            try:
                yield next(photos)
            except StopIteration:
                break
            except (OSError, ValueError) as error:  # the rest of a folder follows
                yield Source(text, functools.partial(fail, error))


def _print(job: Job, photo: str, result: Any, columns: list[str], frames: bool) -> None:
    """What goes to stdout: a line of JSON, rows of CSV or a table, unless files are written.

    ``columns`` of CSV are made by the first photo; with ``frames``, a video may follow.
    """
    if job.as_json:
        failed = isinstance(result, str)
        line = {"photo": photo, "error": result} if failed else plain(result, photo)
        _show(json_text(line))
    elif job.out is not None or isinstance(result, str):
        return
    elif "csv" in job.formats:
        rows = result.to_rows()
        if not columns:
            columns += columns_of([result.columns(), OF_PHOTO if frames else ()])
            _show("".join(csv_lines(columns, rows)).rstrip("\n"))
        elif rows:
            rows = [{key: row.get(key) for key in columns} for row in rows]
            _show("".join(csv_lines(columns, rows)).partition("\n")[2].rstrip("\n"))
    else:
        _show(as_text(result, photo))


def _show(text: str) -> None:
    coding = sys.stdout.encoding or "utf-8"
    tqdm.write(text.encode(coding, "backslashreplace").decode(coding), file=sys.stdout)
    sys.stdout.flush()


def _say(text: str) -> None:
    tqdm.write(text, file=sys.stderr)


def _summary(job: Job, counts: Counts, seconds: float) -> str:
    """``segmented 12 photos in 3.1 s, 1 failed; results in DIR``."""
    photos = "1 photo" if counts.done == 1 else f"{counts.done} photos"
    text = f"{DONE[job.task]} {photos} in {seconds:.1f} s"
    if counts.before:
        text += f", {counts.before} done before"
    if counts.failed:
        text += f", {counts.failed} could not be used"
    return text if job.out is None else f"{text}; results in {job.out}"

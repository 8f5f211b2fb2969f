"""Tables of the pages are what the results say, in a form a reader can read."""

from __future__ import annotations

import importlib.util
import re

import pytest

from mmclipdis.engine.results import write_results
from tests.paths import ROOT


def load_tool():
    spec = importlib.util.spec_from_file_location("make_tables", ROOT / "tools/make_tables.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


make_tables = load_tool()

ROWS = [
    {"name": "CLIP", "metrics": {"mIoU": 41.26, "seconds": 3.0}},
    {"name": "CAT|Seg", "metrics": {"mIoU": {"mean": 80.04, "std": 0.31}, "iterations": 4000}},
    {"name": "note", "metrics": {"target": "≥ 1.6"}},
]


@pytest.fixture
def repo(tmp_path):
    """A repository with one table of results and a page that shows it."""
    write_results(tmp_path / "results/r.json", ROWS, command="demo")
    (tmp_path / "docs").mkdir()
    page = "# Title\n\n<!-- table: results/r.json mIoU iterations title=Method -->\nold\n"
    (tmp_path / "README.md").write_text(page + "<!-- /table -->\nThe end.\n")
    return tmp_path


def test_the_pages_of_this_repository_agree_with_their_results(capsys):
    assert make_tables.main(["--check"]) == 0, capsys.readouterr()


def test_a_table_is_written_between_its_markers_and_nothing_else_changes(repo):
    assert make_tables.main(["--root", str(repo)]) == 0
    assert (repo / "README.md").read_text() == (
        "# Title\n\n<!-- table: results/r.json mIoU iterations title=Method -->\n\n"
        "| Method | mIoU | iterations |\n| --- | ---: | ---: |\n"
        "| CLIP | 41.3 | - |\n| CAT\\|Seg | 80.0 ± 0.3 | 4,000 |\n\n"
        "<!-- /table -->\nThe end.\n"
    )


def test_check_fails_on_drift_without_writing_and_passes_after_writing(repo, capsys):
    before = (repo / "README.md").read_text()
    assert make_tables.main(["--check", "--root", str(repo)]) == 1
    captured = capsys.readouterr()
    assert "make tables" in captured.err
    assert "+| CLIP | 41.3 | - |" in captured.out
    assert (repo / "README.md").read_text() == before
    make_tables.main(["--root", str(repo)])
    assert make_tables.main(["--check", "--root", str(repo)]) == 0
    write_results(repo / "results/r.json", [{"name": "CLIP", "metrics": {"mIoU": 1.0}}], merge=True)
    assert make_tables.main(["--check", "--root", str(repo)]) == 1


def test_check_fails_when_a_row_or_the_file_is_gone(repo, capsys):
    make_tables.main(["--root", str(repo)])
    write_results(repo / "results/r.json", ROWS[1:])
    assert make_tables.main(["--check", "--root", str(repo)]) == 1
    assert "-| CLIP | 41.3 | - |" in capsys.readouterr().out
    (repo / "results/r.json").unlink()
    assert make_tables.main(["--check", "--root", str(repo)]) == 1
    assert "README.md:3: no results at" in capsys.readouterr().err


def test_pages_in_folders_of_docs_are_made_too(repo):
    page = repo / "docs/methods/one.md"
    page.parent.mkdir()
    page.write_text("<!-- table: results/r.json rows=CLIP|no* target -->\n<!-- /table -->\n")
    make_tables.main(["--root", str(repo)])
    assert "| note | ≥ 1.6 |" in page.read_text()
    assert "CLIP |" not in page.read_text()  # it has no target


@pytest.mark.parametrize(
    ("marker", "message"),
    [
        ("results/none.json", "README.md:1: no results at"),
        ("results/r.json nope", r"has the metrics \['nope'\]"),
        ("results/r.json rows=CLIP|nobody*", r"no row of results/r.json fits \['nobody\*'\]"),
        ("results/r.json colour=red", r"unknown option\(s\) \['colour'\]"),
    ],
)
def test_a_marker_that_cannot_be_served_is_one_clear_error(repo, capsys, marker, message):
    (repo / "README.md").write_text(f"<!-- table: {marker} -->\n<!-- /table -->\n")
    assert make_tables.main(["--root", str(repo)]) == 1
    assert re.search(message, capsys.readouterr().err)


def test_a_misspelt_marker_is_an_error_and_not_a_table_forgotten(repo, capsys):
    (repo / "README.md").write_text("<!--table: results/r.json -->\nold\n<!-- /table -->\n")
    assert make_tables.main(["--check", "--root", str(repo)]) == 1
    assert "README.md:3: <!-- /table --> without a table" in capsys.readouterr().err


@pytest.mark.parametrize("tail", ["text\n", "<!-- table: results/r.json -->\n<!-- /table -->\n"])
def test_a_table_that_is_not_closed_eats_nothing(repo, capsys, tail):
    text = "<!-- table: results/r.json -->\n" + tail
    (repo / "README.md").write_text(text)
    assert make_tables.main(["--root", str(repo)]) == 1
    assert "README.md:1: table without" in capsys.readouterr().err
    assert (repo / "README.md").read_text() == text


@pytest.mark.parametrize(
    ("metric", "value", "head", "cell"),
    [
        ("mIoU_base", 41.26, "mIoU base", "41.3"),
        ("seconds", 12.345, "seconds", "12.3"),
        ("seconds", 0.2345, "seconds", "0.23"),
        ("train_seconds", 240, "train (s)", "240.0"),
        ("last_block_ms", 8.1234, "last block (ms)", "8.12"),
        ("peak_mb", 1234.5, "peak (MB)", "1,234"),
        ("images_per_second", 4.5, "images /s", "4.50"),
        ("accuracy_percent", 97.25, "accuracy (%)", "97.2"),
        ("measured", 0.3521, "measured", "0.352"),
        ("measured", 1234.5, "measured", "1,234"),
        ("iterations", 80000, "iterations", "80,000"),
    ],
)
def test_numbers_and_heads_follow_the_name_of_the_metric(metric, value, head, cell):
    assert make_tables.head(metric) == head
    assert make_tables.number(metric, value) == cell


def test_a_published_table_has_the_numbers_of_the_metafiles():
    lines = make_tables.make_table("published declip/table7 title=features rows=Q|K", ROOT)
    heads = "COCO panoptic mAcc things | COCO panoptic mAcc stuff | Context59 mIoU | ADE20K mIoU"
    assert lines == [
        f"| features | {heads} |",
        "| --- | ---: | ---: | ---: | ---: |",
        "| Q | 77.2 | 52.5 | 38.7 | 21.8 |",
        "| K | 76.5 | 51.0 | 39.4 | 21.6 |",
    ]


def test_published_tables_of_the_same_columns_stand_below_each_other():
    spec = "published catseg/benchmarks infoclip/benchmarks sources"
    lines = make_tables.make_table(spec, ROOT)
    assert lines[0] == "|  | A-847 | PC-459 | A-150 | PC-59 | PAS-20 | PAS-20b | source |"
    assert lines[2].startswith("| CAT-Seg, ViT-B/16 | 12.0 |") and "CVPR 2024" in lines[2]
    assert lines[4].startswith("| InfoCLIP, ViT-B/16 | 12.6 |") and len(lines) == 6


def test_the_average_of_a_published_row_is_that_of_its_columns():
    (row,) = make_tables.make_table("published scclip/benchmarks", ROOT)[2:]
    assert row.endswith("| 43.9 |")  # as the paper's table prints it
    assert "| average |" in make_tables.make_table("published scclip/benchmarks", ROOT)[0]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("published declip/table99", "there is no table 'declip/table99'; did you mean"),
        ("published sources", "names no table, or tables of other columns"),
        ("published declip/table7 declip/table5", "names no table, or tables of other columns"),
        ("published declip/table7 rows=Z", "no row of declip/table7 fits"),
        ("published declip/table7 order=Z", "unknown option"),
    ],
)
def test_a_published_table_that_there_is_not_is_refused(spec, message):
    with pytest.raises(ValueError, match=message):
        make_tables.make_table(spec, ROOT)

"""What the browser sends becomes a question or one friendly line, escaped; never a traceback."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

gradio = pytest.importorskip("gradio", reason="gradio is not installed: pip install '.[web]'")

from mmclipdis.web.asking import friendly, question_of  # noqa: E402

PHOTO = {"path": "/tmp/x/a.png", "orig_name": "../../<b>.png"}


def asked(photo: Any = PHOTO, words: Any = "sand", threshold: Any = 0.2) -> Any:
    return question_of(photo, words, "segment", "clearclip-shapes", None, threshold)


def test_what_the_browser_sends_becomes_a_question():
    question = asked()
    assert question.photo == Path("/tmp/x/a.png")
    assert question.name == "b_.png"
    assert (question.background, question.threshold) == ("", 0.2)


@pytest.mark.parametrize(
    ("sent", "line"),
    [
        ({"photo": None}, "no photo: upload one"),
        ({"photo": "/etc/passwd"}, "no photo: upload one"),
        ({"photo": {"path": 7}}, "no photo: upload one"),
        ({"words": " ;"}, "no words: say what"),
        ({"words": 7}, "no words: say what"),
        ({"words": ",".join("abcdefgh" * 30)}, "240 words; the page looks for 200"),
        ({"threshold": "much"}, "a number from 0 to 1"),
        ({"threshold": 2}, "a number from 0 to 1"),
    ],
)
def test_what_makes_no_question_is_a_line(sent, line):
    with pytest.raises(gradio.Error, match=line):
        asked(**sent)


def test_a_mistake_of_the_visitor_is_its_own_line_escaped():
    def work(_: Any) -> None:
        asked(words="")

    with pytest.raises(gradio.Error, match="no words"):
        friendly(work, None)

    from mmclipdis.web.inputs import read_typed_background, read_uploaded_photo

    assert friendly(read_typed_background, "0.5") == 0.5
    with pytest.raises(gradio.Error) as caught:
        friendly(read_uploaded_photo, Path(__file__), "<img src=x>", 10)
    assert "&lt;img src=x&gt;" in caught.value.message
    assert "<img" not in caught.value.message


def test_a_fault_of_our_own_goes_to_the_log_and_not_to_the_page(capsys):
    def work() -> None:
        {}["secret"]

    with pytest.raises(gradio.Error, match="the log of the server says more") as caught:
        friendly(work)
    assert "secret" not in caught.value.message
    assert "KeyError: 'secret'" in capsys.readouterr().err

"""The page as it is served: in a real browser, and by requests that no browser makes."""

from __future__ import annotations

import io
import json
import os
import shutil
import socket
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

gradio = pytest.importorskip("gradio", reason="gradio is not installed: pip install '.[web]'")

import httpx  # noqa: E402

from mmclipdis.web import launch  # noqa: E402
from mmclipdis.web.server import Running  # noqa: E402

pytestmark = pytest.mark.slow
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
#: Seconds that anything on the page may take on a machine that does other things, too.
PATIENCE = 60
#: Where docs/web.md has its picture from: the file that this variable names is written.
PICTURE = os.environ.get("MMCLIPDIS_WEB_PICTURE")


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    page = launch(port=port, device="cpu", block=False)
    yield page
    page.close()
    assert not page.folder.exists()


@pytest.fixture(scope="module")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="module")
def browser(running: Running, downloads: Path) -> Iterator[Any]:
    webdriver = pytest.importorskip(
        "selenium.webdriver", reason="selenium is not installed: pip install '.[dev]'"
    )
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("there is no browser: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for word in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "disable-gpu"):
        options.add_argument(f"--{word}")
    options.add_argument("--window-size=1280,1150")
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    driver.get(running.url)
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def page(browser: Any) -> Page:
    return Page(browser)


class Page:
    """What a person does on the page."""

    def __init__(self, browser: Any) -> None:
        self.browser = browser

    def wait(self, until: Callable[[], Any]) -> Any:
        from selenium.webdriver.support.ui import WebDriverWait

        return WebDriverWait(self.browser, PATIENCE, 0.1).until(lambda _: until())

    def all(self, selector: str) -> list[Any]:
        return self.browser.find_elements("css selector", selector)

    def one(self, selector: str) -> Any:
        return self.wait(lambda: self.all(selector))[0]

    def text(self, selector: str) -> str:
        """What stands there now."""
        script = "const e = document.querySelector(arguments[0]); return e ? e.innerText : ''"
        return str(self.browser.execute_script(script, selector))

    def upload(self, file: Path) -> None:
        self.one("#photo input[type=file]").send_keys(str(file))
        self.wait(lambda: self.all("#photo img"))

    def search(self, words: str) -> None:
        box = self.one("#words textarea")
        box.clear()
        box.send_keys(words)
        self.one("#go").click()

    def tab(self, name: str) -> None:
        tabs = self.wait(lambda: [t for t in self.all("button[role=tab]") if t.text == name])
        tabs[0].click()

    def is_shown(self, selector: str) -> bool:
        """Whether a picture is there and has pixels."""
        script = "const e = document.querySelector(arguments[0]); return e ? e.naturalWidth : 0"
        return self.browser.execute_script(script, f"{selector} img") > 0

    def requests(self) -> list[str]:
        """Addresses that the browser asked for since the last time."""
        events = [json.loads(e["message"])["message"] for e in self.browser.get_log("performance")]
        sent = [one["params"] for one in events if one["method"] == "Network.requestWillBeSent"]
        return [one["request"]["url"] for one in sent]


def test_words_without_a_photo_are_a_line(page):
    page.search("grass")
    page.wait(lambda: "no photo: upload one" in page.text(".toast-wrap"))


def test_a_photo_and_words_give_a_picture_and_a_legend(page, running):
    page.upload(running.folder / "examples" / "scene_90.png")
    page.search("water, gravel, apple; plum, <b>kite</b>")
    page.wait(lambda: page.text("ul.legend").count("%") >= 2)
    assert "water" in page.text("ul.legend")
    assert "plum" not in page.text("ul.legend")
    page.wait(lambda: page.is_shown("#drawn"))


def test_other_words_are_answered_within_a_second(page):
    start = time.process_time()  # of the server, which is this process
    page.search("sand, sea, fruit, <b>kite</b>")
    page.wait(lambda: "water" not in page.text("ul.legend") and "%" in page.text("ul.legend"))
    page.wait(lambda: page.is_shown("#drawn"))
    assert time.process_time() - start < 1


def test_a_heat_map_is_drawn_for_the_first_word_and_any_other(page):
    page.tab("Heat map")
    page.wait(lambda: page.is_shown("#heat"))
    first = page.one("#heat img").get_attribute("src")
    assert first.startswith("http://127.0.0.1:")
    page.all("#word label")[3].click()
    page.wait(lambda: page.one("#heat img").get_attribute("src") != first)
    page.tab("Table")
    assert page.wait(lambda: "share" in page.text("#rows"))


def test_the_results_are_downloaded(page, downloads):
    page.one("#file").click()
    page.wait(lambda: list(downloads.glob("*.zip")))
    (file,) = downloads.glob("*.zip")
    with zipfile.ZipFile(file) as archive:
        assert [name.rpartition("_")[2] for name in archive.namelist()] == [
            "overlay.png",
            "table.csv",
            "coco.json",
            "labels.png",
        ]


def test_a_click_on_an_example_searches_it_with_a_model_of_its_task(page):
    page.tab("Picture")
    for row, word, model in ((1, "watermelon 1", "fvit-shapes"), (0, "fish", "clearclip-shapes")):
        page.all("tr.tr-body")[row].click()
        page.wait(lambda: word in page.text("ul.legend").replace("\n", " "))  # noqa: B023
        assert page.one("#model input").get_attribute("value").startswith(model)
    page.wait(lambda: page.is_shown("#drawn"))
    if PICTURE:
        time.sleep(1)  # for what fades
        shot = Image.open(io.BytesIO(page.browser.get_screenshot_as_png())).convert("RGB")
        shot.crop((0, 0, 1265, 990)).save(PICTURE, quality=80, optimize=True)


def test_an_upload_that_is_no_image_is_a_line(page, tmp_path):
    file = tmp_path / "<img src=x>.png"
    file.write_text("no image")
    page.browser.refresh()
    page.upload(file)
    page.search("grass, sand")
    page.wait(lambda: "as an image" in page.text(".toast-wrap"))


def test_nothing_is_loaded_from_elsewhere_and_nothing_was_refused(page, running):
    addresses = page.requests()
    assert any(address.startswith(running.url) for address in addresses)
    own = (running.url, "data:", "blob:", "chrome")
    assert [address for address in addresses if not address.startswith(own)] == []
    log = [one["message"] for one in page.browser.get_log("browser")]
    assert [line for line in log if "Failed to load" in line or "Security Policy" in line] == []


@pytest.fixture(scope="module")
def client(running: Running) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=running.url, timeout=PATIENCE) as client:
        yield client


def answer(client: httpx.Client, photo: Any, **other: Any) -> Any:
    """What gradio's API says to a search: what it gives, or the line of its error."""
    asked = dict(words="sand, sea", task="segment", model="clearclip-shapes", background="")
    data = [photo, *{**asked, **other}.values(), 0, 0.6]
    (number, *_) = [
        one["id"] for one in client.get("/config").json()["dependencies"] if len(one["inputs"]) == 7
    ]
    body = {"data": data, "fn_index": number, "session_hash": os.urandom(4).hex()}
    joined = client.post("/gradio_api/queue/join", json=body)
    if joined.status_code != 200:
        return joined.json()["detail"]
    session = {"session_hash": body["session_hash"]}
    with client.stream("GET", "/gradio_api/queue/data", params=session) as lines:
        for line in lines.iter_lines():
            message = json.loads(line.removeprefix("data:")) if line.startswith("data:") else {}
            if message.get("msg") == "process_completed":
                output = message["output"]
                return output["data"] if message["success"] else output["error"]
    return None


def as_upload(path: str) -> dict[str, Any]:
    return {"path": path, "orig_name": "a.png", "meta": {"_type": "gradio.FileData"}}


def test_files_of_the_server_are_neither_sent_nor_searched(client, running, tmp_path):
    secret = tmp_path / "secret.png"
    Image.new("RGB", (8, 8)).save(secret)
    for path in (str(secret), "/etc/passwd", f"{running.folder}/uploads/../../{secret}"):
        assert client.get(f"/gradio_api/file={path}").status_code == 403
        assert answer(client, as_upload(path)) in (None, "")  # gradio refuses it
        assert "was not uploaded to this page" in str(answer(client, {"path": path}))
    assert "files that were uploaded" in answer(client, as_upload("https://example.org/a.png"))


def test_names_of_uploads_lead_nowhere_and_bombs_are_not_decoded(client, running):
    from tests.web.test_inputs import bomb

    files = {"files": ("../../../evil.png", bomb(50_000, 50_000), "image/png")}
    (path,) = client.post("/gradio_api/upload", files=files).json()
    assert Path(path).resolve().is_relative_to(running.folder)
    line = answer(client, as_upload(path))
    assert line.startswith("a.png has 50000 x 50000 = 2,500,000,000 pixels, and this page takes")
    answers = [answer(client, as_upload(path), model=name) for name in ("/etc/passwd", "fvit.py")]
    assert all("this page does not offer the model" in line for line in answers)


def test_what_is_too_large_is_refused(client):
    files = {"files": ("a.png", bytes(21 * 2**20), "image/png")}
    refused = client.post("/gradio_api/upload", files=files)
    assert (refused.status_code, refused.json()["detail"]) == (
        413,
        "too large: this page takes files of 20 MB",
    )


def test_other_sites_are_told_nothing(client):
    assert client.get("/", headers={"Host": "evil.example"}).status_code == 400
    answered = client.get("/config", headers={"Origin": "http://evil.example"})
    assert "access-control-allow-origin" not in answered.headers

"""The page in a real browser: upload, type words, see the legend and a heat map, download."""

from __future__ import annotations

import shutil
import socket
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
gradio = pytest.importorskip("gradio", reason="gradio is not installed: pip install '.[web]'")
webdriver = pytest.importorskip(
    "selenium.webdriver", reason="selenium is not installed: pip install '.[dev]'"
)

from mmclipdis.web import launch  # noqa: E402
from mmclipdis.web.server import Running  # noqa: E402

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        CHROMIUM is None or DRIVER is None,
        reason="there is no browser: apt-get install chromium chromium-driver",
    ),
]
#: Seconds that anything on the page may take on a machine that does other things, too.
PATIENCE = 120


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.MonkeyPatch.context() as patch:
        for name in ("GRADIO_TEMP_DIR", "GRADIO_ANALYTICS_ENABLED", "HF_HUB_DISABLE_TELEMETRY"):
            patch.setenv(name, "")
        page = launch(port=port, device="cpu", block=False)
        yield page
        page.close()
    assert not page.folder.exists()


@pytest.fixture(scope="module")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="module")
def browser(running: Running, downloads: Path) -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for word in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "disable-gpu"):
        options.add_argument(f"--{word}")
    options.add_argument("--window-size=1280,1150")
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
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

        return WebDriverWait(self.browser, PATIENCE, 0.2).until(lambda _: until())

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

    def search(self, words: str) -> None:
        box = self.one("#words textarea")
        box.clear()
        box.send_keys(words)
        self.one("#go").click()

    def tab(self, name: str) -> None:
        tabs = self.wait(lambda: [t for t in self.all("button[role=tab]") if t.text == name])
        tabs[0].click()


def test_words_without_a_photo_are_a_line(page):
    page.search("grass")
    page.wait(lambda: "no photo: upload one" in page.text(".toast-wrap"))


def test_a_photo_and_words_give_a_picture_and_a_legend(page, running):
    page.upload(running.folder / "examples" / "scene_3.png")
    page.wait(lambda: page.all("#photo img"))
    page.search("grass, sand, apple; plum, <b>kite</b>")
    page.wait(lambda: page.text("ul.legend").count("%") >= 1)
    assert page.wait(lambda: page.all("#drawn img"))
    assert "plum" not in page.text("ul.legend")


def test_a_heat_map_is_drawn_for_a_word(page):
    page.tab("Heat map")
    page.one("#word label").click()
    assert page.one("#heat img").get_attribute("src").startswith("http://127.0.0.1:")


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


def test_an_upload_that_is_no_image_is_a_line(page, tmp_path):
    file = tmp_path / "<img src=x>.png"
    file.write_text("no image")
    page.browser.refresh()
    page.upload(file)
    page.wait(lambda: page.all("#photo img"))
    page.search("grass, sand")
    page.wait(lambda: "as an image" in page.text(".toast-wrap"))


def test_nothing_is_loaded_from_elsewhere(page, running):
    script = "return performance.getEntriesByType('resource').map(entry => entry.name)"
    addresses = page.browser.execute_script(script)
    assert addresses
    own = (running.url, "data:", "blob:")
    assert [address for address in addresses if not address.startswith(own)] == []

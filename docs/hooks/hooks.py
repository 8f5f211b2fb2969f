"""What mkdocs calls: see ``mkdocs.yml``."""

from __future__ import annotations

from pathlib import Path

from api_pages import navigation, page, read_modules, rooms
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from pages import Pages, notebook

PACKAGE = "mmclipdis"
#: Files at the top that are pages of the site, too.
TOP = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add the notebooks and the reference to the navigation, and our Markdown."""
    root = Path(config.config_file_path).parent
    if notebooks := [place for _, place in find_notebooks(config)]:
        config.nav.insert(2, {"Notebooks": notebooks})
    modules = read_modules(root, PACKAGE)
    order = rooms((root / "CONTRIBUTING.md").read_text(), PACKAGE)
    (below,) = navigation(PACKAGE, modules, order).values()
    config.nav.append({"API": below})
    config.extra["reference"] = {one.page: page(one, modules, order) for one in modules.values()}
    config.extra["pages"] = Pages({})
    config.markdown_extensions.append(config.extra["pages"])
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are not Markdown below ``docs``, and say where each file is."""
    root = Path(config.config_file_path).parent
    for name, place in TOP.items():
        files.append(File.generated(config, place, abs_src_path=str(root / name)))
    places = {Path(one.abs_src_path): one.src_uri for one in files if one.abs_src_path}
    for file, place in find_notebooks(config):
        files.append(File.generated(config, place, content=notebook(file)))
        places[file] = place
    config.extra["pages"].places.update(places)
    for place, content in config.extra["reference"].items():
        files.append(File.generated(config, place, content=content))
    return files


def find_notebooks(config: MkDocsConfig) -> list[tuple[Path, str]]:
    """The notebooks, and where each is shown."""
    files = sorted(Path(config.docs_dir, "notebooks").glob("*.ipynb"))
    return [(file, f"notebooks/{file.stem}.md") for file in files]


def on_page_markdown(markdown: str, page: Page, **kwargs: object) -> None:
    """Say whose links come next."""
    config, place = kwargs["config"], page.file.src_uri
    pages = config.extra["pages"]
    sources = {there: file for file, there in pages.places.items()}
    pages.begin(sources.get(place), place)

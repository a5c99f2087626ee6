"""The documentation site: it builds without a warning, and its reference has every public name."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest

import frostline
import frostline.errors
import frostline.jax
import frostline.schedules
import frostline.torch

ROOT = Path(__file__).parents[1]
MODULES = [frostline, frostline.errors, frostline.jax, frostline.schedules, frostline.torch]


class Page(HTMLParser):
    """The anchors of a page, and what it links."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        for name, value in attributes:
            if name == "id" and value:
                self.anchors.add(value)
            if name == "href" and value and tag == "a":
                self.links.append(value)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the site, built with warnings as errors."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "--fail-on-warning", "--quiet", "--doctree-dir", str(folder / "trees")]
    built = subprocess.run([*command, "docs", str(folder / "html")], cwd=ROOT, capture_output=True, text=True)
    assert (built.returncode, built.stderr) == (0, "")
    return folder / "html"


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    """The pages by file, without the highlighted sources."""
    return {file: Page(file) for file in site.rglob("*.html") if "_modules" not in file.parts}


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_every_public_name_is_in_the_reference(module: object, pages: dict[Path, Page]) -> None:
    anchors = {anchor for page in pages.values() for anchor in page.anchors}
    names = {name for name in module.__all__ if not name.startswith("_")}
    documented = {f"{module.__name__}.{name}" for name in names} & anchors
    elsewhere = {f"frostline.errors.{name}" for name in names} & anchors
    assert {each.rpartition(".")[2] for each in documented | elsewhere} == names


def test_no_link_inside_the_site_is_broken(site: Path, pages: dict[Path, Page]) -> None:
    broken = []
    for file, page in pages.items():
        for link in page.links:
            if re.match(r"[a-z]+:", link):
                continue
            path, anchor = urldefrag(unquote(link))
            target = (file.parent / path).resolve() if path else file
            known = pages.get(target)
            if not target.exists() or (anchor and known is not None and anchor not in known.anchors):
                broken.append((str(file.relative_to(site)), link))
    assert broken == []


def test_the_search_index_knows_the_verbs(site: Path) -> None:
    index = (site / "searchindex.js").read_text(encoding="utf-8")
    assert [word for word in ("freez", "thaw", "discrimin", "optim") if f'"{word}"' not in index] == []

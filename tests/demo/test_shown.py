"""The demo as people see it: the terminal, the page, the picture."""

import io
import re
from html import unescape
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any
from xml.etree import ElementTree

import pytest
from rich.console import Console

from demo.facts import Facts
from frostline.demo import page, picture
from frostline.demo.outcome import WAYS, Outcome
from frostline.demo.sections import by_hand, proof, sections, summary

EMPTY = {"meta", "br", "link", "img", "hr", "input"}


def on_terminal(outcome: Outcome, width: int) -> str:
    console = Console(file=io.StringIO(), width=width)
    for section in sections(outcome):
        console.print(section.title, section.shown or "", section.text, sep="\n")
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


@pytest.mark.parametrize("width", [80, 120])
def test_a_terminal_shows_every_part_and_cuts_nothing(outcome: Outcome, width: int) -> None:
    text = on_terminal(outcome, width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    for way in WAYS:
        assert len(re.findall(rf"^ ?{way} +\d", text, re.MULTILINE)) == 1
    words = " ".join(text.split())
    for said in (proof(outcome), by_hand(outcome), "645 of 14,773 params are trainable", "MovedError"):
        assert said in words


def test_a_terminal_that_is_too_narrow_is_seen(outcome: Outcome) -> None:
    """The negative control: a cut is visible."""
    assert "…" in on_terminal(outcome, 40)


class Tags(HTMLParser):
    """Notes what a page is made of."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def text(outcome: Outcome) -> str:
    """The page."""
    return page.page(outcome)


def tags_of(text: str) -> Tags:
    tags = Tags()
    tags.feed(text)
    assert tags.open == []
    return tags


def test_a_page_fetches_nothing_and_runs_nothing(text: str) -> None:
    tags = tags_of(text)
    names = [tag for tag, _ in tags.seen]
    assert names.count("svg") == 1
    assert not {"script", "link", "iframe", "object"} & set(names)
    addresses = [
        attributes[key] for _, attributes in tags.seen for key in ("src", "href", "xlink:href") if key in attributes
    ]
    assert addresses
    assert [address for address in addresses if not str(address).startswith(("#", "data:"))] == []
    spaces = {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert set(re.findall(r"https?://[^\"'\s<]+", text)) <= spaces
    assert "@import" not in text
    assert re.findall(r"url\((?!#)", text) == []


def test_a_page_is_dark_where_its_reader_wants_it_dark(text: str) -> None:
    assert "color-scheme: light dark" in text
    assert "currentColor" in text
    # No color that could not be read on one of both, in text or picture: none of the figure's ink, no black or white.
    assert re.findall(rf"{picture.INK}|color: #(?:000000|ffffff)|background", text) == []
    assert "background" not in page.STYLE


def test_a_page_says_everything_and_every_reference_leads_somewhere(text: str, outcome: Outcome, facts: Facts) -> None:
    plain = unescape(re.sub(r"<[^>]*>", "", text))
    alarm = facts.alarm.splitlines()[0]
    said = (summary(outcome), proof(outcome), by_hand(outcome), "14,128", alarm, "14,773", "1,024 of 1,024", *WAYS)
    for each in said:
        assert each in plain
    ids = {attributes["id"] for _, attributes in tags_of(text).seen if "id" in attributes}
    references = {a or b for a, b in re.findall(r"url\(#([^)]+)\)|href=\"#([^\"]+)\"", text)}
    assert references
    assert references <= ids


def test_the_same_numbers_make_the_same_files(text: str, outcome: Outcome) -> None:
    assert page.page(outcome) == text
    for suffix in (".png", ".svg", ".pdf"):
        assert picture.picture(outcome, suffix) == picture.picture(outcome, suffix)


def test_a_picture_is_what_its_suffix_says(outcome: Outcome) -> None:
    png = picture.picture(outcome, ".PNG")
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    assert (int.from_bytes(png[16:20]), int.from_bytes(png[20:24])) == (1920, 1280)
    assert picture.picture(outcome, ".pdf")[:5] == b"%PDF-"
    root = ElementTree.fromstring(picture.picture(outcome, ".svg"))
    texts = {"".join(text.itertext()) for text in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {"time a step", "operations a step", "saved for backward", "optimizer state"} <= texts
    bars = [text for text in texts if text.endswith(("everything trained", "trunk frozen", "the least", "cache"))]
    assert len(bars) == 12


def test_labels_of_curves_that_end_together_do_not_touch(outcome: Outcome) -> None:
    figure: Any = picture.drawn(outcome)
    axes = next(axes for part in figure.subfigs for axes in part.axes if axes.get_xlabel() == "steps")
    figure.draw_without_rendering()
    boxes = sorted((text.get_window_extent() for text in axes.texts), key=lambda box: box.y0)
    assert len(boxes) == 3
    assert all(lower.y1 <= upper.y0 for lower, upper in pairwise(boxes))
    assert all(box.x1 <= figure.bbox.x1 for box in boxes)

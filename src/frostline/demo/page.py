"""The page of the demo: one file, with nothing to fetch and nothing to run."""

from __future__ import annotations

import re
from html import escape
from importlib.resources import files
from string import Template

from matplotlib.figure import Figure

from frostline.demo import picture
from frostline.demo.drawing import COLORS, LIMIT_COLORS, Ink
from frostline.demo.grid import Grid, limit_grid, score_grid, sharing_grid
from frostline.demo.outcome import Outcome
from frostline.demo.story import by_hand, near_the_limit, proof, setting, story

# Colours that stand for others in a drawing until the page says which, by day and by night.
STAND_INS = Ink(dark="#010101", soft="#020202", rule="#030303")
VARIABLES = {
    STAND_INS.dark: "var(--ink)",
    STAND_INS.soft: "var(--soft)",
    STAND_INS.rule: "var(--rule)",
    COLORS["frozen trunk"]: "var(--frozen)",
    COLORS["full fine-tuning"]: "var(--full)",
    COLORS["from scratch"]: "var(--scratch)",
    LIMIT_COLORS["at the limit"]: "var(--limit)",
}
CLASSES = {"frozen trunk": "frozen", "full fine-tuning": "full", "from scratch": "scratch"}


def page(outcome: Outcome) -> str:
    """The page as HTML."""
    texts = {
        "story": story(outcome),
        "proof": proof(outcome),
        "by_hand": by_hand(outcome),
        "near_the_limit": near_the_limit(outcome),
        "line": outcome.words.line,
        "message": outcome.by_hand.message,
        "setting": setting(outcome.budget, outcome.words),
        "report": str(outcome.report),
        "kept": outcome.words.kept,
        "models": outcome.words.models,
        "command": outcome.words.command,
        "runs": str(outcome.budget.runs),
        "batch": str(outcome.budget.batch),
        "unseen": str(outcome.unseen),
        "unseen_old": str(outcome.unseen_old),
    }
    template = Template(files("frostline.demo").joinpath("page.html").read_text(encoding="utf-8"))
    return template.substitute({name: escape(text) for name, text in texts.items()}, **_pieces(outcome))


def _pieces(outcome: Outcome) -> dict[str, str]:
    return {
        "digits": _drawn(picture.digits(outcome, STAND_INS), "One scan of each digit, 0 to 9."),
        "curves": _drawn(picture.curves(outcome, STAND_INS), "Accuracy on unseen scans against the steps."),
        "costs": _drawn(picture.costs(outcome, STAND_INS), "What a step of each way costs, as bars."),
        "limits": _drawn(
            picture.limits(outcome, STAND_INS), "What a step costs, could cost, and costs from the cache."
        ),
        "scores": _table(score_grid(outcome)),
        "limit_table": _table(limit_grid(outcome.limits)),
        "sharing": _table(sharing_grid(outcome.sharing)),
    }


def _drawn(figure: Figure, label: str) -> str:
    text = picture.saved(figure, "svg", transparent=True).decode()
    # A page has no room for the head of a file, and no two things of one name.
    text = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    for color, variable in VARIABLES.items():
        text = text.replace(color, variable)
    return text.replace("<svg", f'<svg role="img" aria-label="{escape(label)}"', 1)


def _table(grid: Grid) -> str:
    head = "".join(f"<th>{escape(title)}</th>" for title in grid.titles)
    rows = "".join(f"<tr>{_cells(row)}</tr>" for row in grid.rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _cells(row: tuple[str, ...]) -> str:
    name, *numbers = row
    color = f' class="{CLASSES[name]}"' if name in CLASSES else ""
    return f"<td{color}>{escape(name)}</td>" + "".join(f"<td>{escape(number)}</td>" for number in numbers)

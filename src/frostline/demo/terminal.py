"""The demo in a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from frostline.demo.budget import Budget
from frostline.demo.contest import Stage, Tick
from frostline.demo.grid import Grid, limit_grid, score_grid, sharing_grid
from frostline.demo.outcome import Outcome
from frostline.demo.story import by_hand, excerpt, near_the_limit, proof, story

COLORS = {"frozen trunk": "cyan", "full fine-tuning": "yellow", "from scratch": "magenta"}


@contextmanager
def progress(budget: Budget, console: Console) -> Iterator[Tick]:
    """Bars that move while the demo works; none where nobody watches."""
    totals: dict[Stage, int] = {
        "learn 0 to 4": budget.runs * budget.epochs,
        "learn 5 to 9, three ways": budget.runs * budget.steps,
        "freeze by hand": budget.steps,
        "learn 5 to 9 from the cache": budget.steps,
    }
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
        tasks = {stage: bars.add_task(stage, total=total, start=False) for stage, total in totals.items()}

        def tick(stage: Stage) -> None:
            bars.start_task(tasks[stage])
            bars.advance(tasks[stage])

        yield tick


def shown(outcome: Outcome) -> RenderableType:
    """All that there is to see."""
    words = outcome.words
    return Group(
        *_part(f"What is frozen: {words.report}", outcome.report),
        *_part("Three ways to learn 5 to 9", _table(score_grid(outcome))),
        *_part("How near the limit it is", _table(limit_grid(outcome.limits)), Text(near_the_limit(outcome))),
        *_part(f"The proof: with {words.guard} around the training", Text(proof(outcome))),
        *_part(
            "The same guard around freezing by hand", Text(by_hand(outcome)), _quoted(excerpt(outcome.by_hand.message))
        ),
        *_part("One layer, trained by one model, constant in another", Text(f"{words.models}\n")),
        _table(sharing_grid(outcome.sharing)),
        *_part("In one sentence", Text(story(outcome), "bold")),
    )


def _part(title: str, *content: RenderableType) -> list[RenderableType]:
    return [Text(), Rule(Text(title, "bold"), align="left", style="dim"), *content]


def _table(grid: Grid) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1))
    for number, title in enumerate(grid.titles):
        table.add_column(title, justify="right" if number else "left", vertical="bottom", no_wrap=True)
    for name, *cells in grid.rows:
        table.add_row(Text(name, COLORS.get(name, "")), *map(Text, cells))
    return table


def _quoted(message: str) -> Panel:
    return Panel(Text(message), title="MovedError", title_align="left", border_style="red")

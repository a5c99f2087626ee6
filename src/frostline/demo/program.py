"""What `frostline demo` does, from the first look at its files to the last line that it prints."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.text import Text

from frostline.demo import destination
from frostline.demo.budget import Budget
from frostline.demo.by_hand import freeze_by_hand
from frostline.demo.contest import Tick, play
from frostline.demo.framework import Framework, Name, framework_of
from frostline.demo.limits import explored
from frostline.demo.outcome import Outcome, summed_up
from frostline.demo.scans import NEW, one_of_each
from frostline.demo.story import setting
from frostline.demo.terminal import progress, shown

DEFAULT = Budget()


def run(
    *,
    framework: Name,
    html: Path | None,
    plot: Path | None,
    as_json: bool,
    console: Console,
    budget: Budget = DEFAULT,
) -> None:
    """Runs the demo and shows what it found out.

    Args:
        framework: in which framework.
        html: where to write a page about it.
        plot: where to write a picture of it.
        as_json: whether to print one JSON document and nothing else.
        console: where to show the rest.
        budget: how much to learn.

    Raises:
        DestinationError: a file cannot be written; raised before the training.
        ModuleNotFoundError: the framework is not installed, or matplotlib is not, and a page or a picture is asked
            for; before it, too.
    """
    found = framework_of(framework)
    makers = _makers(html, plot)
    if not as_json:
        console.print(Text(setting(budget, found.WORDS)))
    with progress(budget, console) as tick:
        outcome = perform(found, budget, tick)
    if as_json:
        sys.stdout.write(json.dumps(outcome.to_dict(), indent=2) + "\n")
    else:
        console.print(shown(outcome))
    for file, made in makers.items():
        destination.write(file, made(outcome))
        if not as_json:
            console.print(Text(f"Wrote {file}"), soft_wrap=True)


def _makers(html: Path | None, plot: Path | None) -> dict[Path, Callable[[Outcome], bytes]]:
    makers: dict[Path, Callable[[Outcome], bytes]] = {}
    # Imported here, because nothing else needs matplotlib, and now, because it may be missing.
    if html is not None:
        from frostline.demo.page import page

        makers[destination.writable(html)] = lambda outcome: page(outcome).encode()
    if plot is not None:
        from frostline.demo.picture import picture

        makers[destination.picture(plot)] = lambda outcome: picture(outcome, plot.suffix)
    return makers


def perform(framework: Framework, budget: Budget, tick: Tick) -> Outcome:
    """Does all of the work; the same numbers each time, but for the seconds.

    Args:
        framework: in which framework.
        budget: how much to learn.
        tick: is called after each bit of work, with its stage.
    """
    with framework.alone():
        runs = [play(framework, budget, seed, tick) for seed in range(budget.runs)]
        by_hand = freeze_by_hand(runs[0], budget, tick)
        limits = explored(runs[0], budget, tick)
        return summed_up(framework.WORDS, budget, runs, by_hand, limits, framework.share(one_of_each(NEW)))

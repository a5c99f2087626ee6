"""What `frostline demo` does, from the first look at its files to the last line that it prints."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from rich.console import Console
from rich.text import Text

from frostline.demo import destination
from frostline.demo.budget import Budget
from frostline.demo.by_hand import freeze_by_hand
from frostline.demo.contest import Tick, play
from frostline.demo.outcome import Outcome, summed_up
from frostline.demo.scans import NEW, one_of_each
from frostline.demo.sharing import share
from frostline.demo.story import setting
from frostline.demo.terminal import progress, shown

DEFAULT = Budget()


def run(*, html: Path | None, plot: Path | None, as_json: bool, console: Console, budget: Budget = DEFAULT) -> None:
    """Runs the demo and shows what it found out.

    Args:
        html: where to write a page about it.
        plot: where to write a picture of it.
        as_json: whether to print one JSON document and nothing else.
        console: where to show the rest.
        budget: how much to learn.

    Raises:
        DestinationError: a file cannot be written; raised before the training.
        ModuleNotFoundError: matplotlib is not installed, and a page or a picture is asked for; before it, too.
    """
    makers = _makers(html, plot)
    if not as_json:
        console.print(Text(setting(budget)))
    with progress(budget, console) as tick:
        outcome = perform(budget, tick)
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


def perform(budget: Budget, tick: Tick) -> Outcome:
    """Does all of the work; the same numbers each time, but for the seconds.

    Args:
        budget: how much to learn.
        tick: is called after each bit of work, with its stage.
    """
    with _alone():
        runs = [play(budget, seed, tick) for seed in range(budget.runs)]
        by_hand = freeze_by_hand(runs[0], budget, tick)
        return summed_up(budget, runs, by_hand, share(one_of_each(NEW)))


@contextmanager
def _alone() -> Iterator[None]:
    """The caller's random numbers stay as they are; one thread, because sums depend on how many share them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        torch.set_num_threads(threads)

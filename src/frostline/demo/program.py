"""What `frostline demo` does, from the first look at its files to the last line that it prints."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.progress import Progress
from rich.rule import Rule
from rich.text import Text

from frostline.demo.experiment import perform
from frostline.demo.learner import Framework
from frostline.demo.outcome import Outcome, Settings
from frostline.demo.sections import Section, sections, setup, summary

FULL_SIZE = Settings()


def run(
    *,
    framework: Literal["torch", "jax"],
    html: Path | None,
    plot: Path | None,
    as_json: bool,
    console: Console,
    settings: Settings = FULL_SIZE,
) -> None:
    """Runs the demo; prints the outcome, or one JSON document; writes a page and a picture if these are asked for.

    Raises:
        ModuleNotFoundError: the framework is not installed, or matplotlib, if a page or a picture is asked for; raised
            before the training.
        OSError: a file cannot be written.
    """
    chosen: Framework = import_module(f"frostline.demo.in_{framework}").FRAMEWORK
    writers: dict[Path, Callable[[Outcome], bytes]] = {}
    # Imported here, because nothing else needs matplotlib, and now, because it may be missing.
    if html is not None:
        from frostline.demo.page import page

        writers[html] = lambda outcome: page(outcome).encode()
    if plot is not None:
        from frostline.demo.picture import picture

        writers[plot] = lambda outcome: picture(outcome, plot.suffix)

    if not as_json:
        console.print(Text(setup(settings, chosen)))
    with Progress(console=console, disable=not console.is_terminal) as bars:
        task = bars.add_task("training", total=settings.runs * (settings.epochs + settings.steps))
        outcome = perform(chosen, settings, lambda: bars.advance(task))

    if as_json:
        sys.stdout.write(outcome.to_json() + "\n")
    else:
        for section in (*sections(outcome), Section("In short", summary(outcome))):
            console.print(Text(), Rule(Text(section.title, "bold"), align="left", style="dim"), sep="\n")
            console.print(*filter(None, (section.shown, Text(section.text))), sep="\n")
    for file, written in writers.items():
        file.write_bytes(written(outcome))
        if not as_json:
            console.print(Text(f"Wrote {file}"), soft_wrap=True)

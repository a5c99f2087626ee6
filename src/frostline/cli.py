"""The command line: ``frostline demo``, ``tree``, ``diff``, ``merge``, ``schedule`` and ``cache``."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import typer

from frostline._core.errors import FrostlineError, NoMatchError
from frostline._core.plan import Plan
from frostline._core.reporting.report import report
from frostline._core.selecting.resolve import resolve
from frostline.checkpoint.comparison import Comparison
from frostline.checkpoint.delta_file import DeltaFile
from frostline.checkpoint.inventory import Guess
from frostline.checkpoint.merging import Merging
from frostline.checkpoint.safetensors_file import SafetensorsFile
from frostline.checkpoint.stored import Checkpoint
from frostline.features import description
from frostline.features.store import Store
from frostline.schedules import Chart, Schedule

BAD_INPUT = 2
# A shell reports this code for a program whose reader closed the pipe: 128 + SIGPIPE.
READER_GONE = 141
PICTURES = (".pdf", ".png", ".svg")
_TORCH_SUFFIXES = {".pt", ".pth"}

app = typer.Typer(
    help="Hold part of a neural network still while the rest learns.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

cache = typer.Typer(help="Show, verify or delete a feature cache.", no_args_is_help=True)
app.add_typer(cache, name="cache")

File = Annotated[str, typer.Argument(metavar="FILE", help="A .safetensors, .pt or .pth file.")]
Folder = Annotated[str, typer.Argument(metavar="DIR", help="The folder of a feature cache.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]


@app.command()
def demo(
    framework: Annotated[Literal["torch", "jax"], typer.Option(help="The framework to train in.")] = "torch",
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write an HTML page about the run.")] = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a plot of the run.")] = None,
    as_json: AsJson = False,
) -> None:
    """Train a real model with a frozen part on scanned digits, in under a minute."""
    if plot is not None and plot.suffix.lower() not in PICTURES:
        better = plot.with_suffix(".png")
        _fail(f"{str(plot)!r} cannot be written: a picture ends in {', '.join(PICTURES)}.\nName it so: {better}")
    for file in (html, plot):
        _check_writable(file)
    try:
        from rich.console import Console

        from frostline import demo as digits

        console = Console(stderr=as_json)
        digits.run(framework=framework, html=html, plot=plot, as_json=as_json, console=console)
    except ModuleNotFoundError as error:
        _fail(_missing("The demo", f"{framework},demo,plot", error))
    except OSError as error:
        if error.filename is None:
            raise
        _fail(f"{str(error.filename)!r} cannot be written: {error.strerror}.\nMake room for it, and try again.")


@app.command()
def tree(
    file: File,
    patterns: Annotated[
        list[str] | None,
        typer.Argument(metavar="PATTERN", help="Patterns to freeze, as in freeze(model, ...); none by default."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show which parameters of a checkpoint some patterns would freeze, without reading the values.

    Quote patterns, or the shell expands them: frostline tree model.safetensors '**' '!head'
    """
    checkpoint = _opened(file)
    guess = Guess.of(checkpoint.tensors.values())
    frozen = resolve(patterns, guess.inventory) if patterns else frozenset()
    plan = Plan(frozen=frozen, trainable=guess.inventory.paths - frozen)
    shown = report(guess.inventory, plan, held=guess.held(frozen))
    if as_json:
        _print_json(
            {
                "file": file,
                "patterns": patterns or [],
                "frozen": sorted(plan.frozen),
                "trainable": sorted(plan.trainable),
                "not_parameters": list(guess.buffers),
                "report": shown.to_dict(),
            }
        )
        return
    rule = "(integers, dtypes of 8 bits or less, running statistics)"
    _print(shown, f"A file does not mark its parameters: {len(guess.buffers)} tensors are taken for buffers {rule}.")


@app.command()
def diff(
    a: Annotated[str, typer.Argument(metavar="A", help="A .safetensors, .pt or .pth file.")],
    b: Annotated[str, typer.Argument(metavar="B", help="The other file; it may have another format.")],
    frozen: Annotated[
        list[str] | None,
        typer.Option("--frozen", metavar="PATTERN", help="Tensors that must not differ; repeat it for more."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the tensors that are not bitwise equal in two checkpoints.

    Exit code 0: no tensor of --frozen differs (without --frozen: no tensor at all). 1: one does. 2: bad input.
    """
    comparison = Comparison.of(_opened(a), _opened(b), frozen or [])
    if as_json:
        _print_json({"a": a, "b": b, **comparison.to_dict()})
    else:
        _write(f"{comparison}\n")
    raise typer.Exit(0 if comparison.is_fine else 1)


@app.command()
def schedule(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A schedule as .toml or .json.")],
    steps: Annotated[int | None, typer.Option(metavar="N", help="How many steps to show.")] = None,
    model: Annotated[str | None, typer.Option(metavar="CHECKPOINT", help="A checkpoint of the model.")] = None,
    plot: Annotated[bool, typer.Option("--plot", help="Write a plot beside FILE: run.png for run.toml.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show what a schedule will freeze, and when, before the run starts.

    With a checkpoint of the model, every selector is resolved in it, so a typo is found before the run.
    """
    inventory = Guess.of(_opened(model).tensors.values()).inventory if model else None
    chart = Chart.of(Schedule.load(file), steps=steps, inventory=inventory)
    if plot:
        _draw(chart, file.with_suffix(".png"))
    if as_json:
        _print_json(chart.to_dict())
    else:
        _print(chart)


@app.command()
def merge(
    base: Annotated[str, typer.Argument(metavar="BASE", help="The full checkpoint from before training.")],
    delta: Annotated[str, typer.Argument(metavar="DELTA", help="The file that save_delta wrote.")],
    out: Annotated[str, typer.Argument(metavar="OUT", help="The .safetensors file to write.")],
) -> None:
    """Write a full checkpoint: the frozen tensors of BASE and the trained tensors of DELTA.

    DELTA must have been trained on BASE. Exit code 0: OUT was written. 2: an error, and OUT is unchanged.
    """
    file = Path(out)
    if file.suffix in _TORCH_SUFFIXES:
        _fail(f"{out!r} is written as safetensors.\nName it so: {file.with_suffix('.safetensors')}")
    merging = Merging.of(f"frostline merge {base} {delta} {out}", _opened(base), DeltaFile(delta))
    merging.write(file)
    _write(f"{out}: {len(merging.tensors)} tensors, {len(merging.trained)} of them from {delta}.\n")


@cache.command()
def info(folder: Folder, as_json: AsJson = False) -> None:
    """Show the model and the dataset of a cache, how many features it holds, and their size."""
    store = Store.opened(folder)
    if as_json:
        _print_json(description.to_dict(store))
    else:
        _write("\n".join(description.summary(store)) + "\n")


@cache.command()
def verify(folder: Folder) -> None:
    """Read every byte of a cache. Exit code 0: no feature is damaged. 1: some are. 2: bad input."""
    store = Store.opened(folder)
    damages = store.verify()
    _write("\n".join(description.verdict(store, damages)) + "\n")
    raise typer.Exit(1 if damages else 0)


@cache.command()
def clear(folder: Folder, yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False) -> None:
    """Delete the shards and the manifest of a cache, and the folder if it is then empty."""
    store = Store.opened(folder)
    _write("\n".join(description.summary(store)) + "\n")
    if not yes:
        typer.confirm("Delete it?", abort=True)
    try:
        store.clear()
    except OSError as error:
        _fail(f"{folder!r} cannot be deleted: {error.strerror}.\nThe remaining files are still a valid cache.")
    _write("Deleted.\n")


def main() -> None:
    """Run the command line; an error in the input prints a message and exits with code 2."""
    for stream in (sys.stdout, sys.stderr):
        # A name in a file may have characters that the terminal cannot show.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        app()
    except FrostlineError as error:
        # The library suggests an argument that no command has.
        quoted = "Fix the pattern, and quote it, or the shell expands it: '**.bias'"
        _fail("\n".join([*str(error).splitlines()[:-1], quoted]) if isinstance(error, NoMatchError) else str(error))


def _draw(chart: Chart, file: Path) -> None:
    try:
        from frostline.integrations.schedule_plot import picture
    except ModuleNotFoundError as error:
        _fail(_missing("A plot", "plot", error))
    try:
        file.write_bytes(picture(chart, file.suffix))
    except OSError as error:
        _fail(f"{str(file)!r} cannot be written: {error.strerror}.\nCopy the schedule to where you may write.")


def _opened(name: str) -> Checkpoint:
    file = Path(name)
    if file.suffix in _TORCH_SUFFIXES:
        try:
            from frostline.integrations.torch_file import TorchFile
        except ModuleNotFoundError as error:
            _fail(_missing(repr(name), "torch", error))
        return TorchFile(file)
    return SafetensorsFile(file)


def _missing(what: str, extras: str, error: ModuleNotFoundError) -> str:
    return f"{what} needs {error.name}, which is not installed.\nInstall it:\n  pip install 'frostline[{extras}]'"


def _check_writable(file: Path | None) -> None:
    """Ends the command at once if a file cannot be written."""
    if file is None:
        return
    shown = f"{str(file)!r} cannot be written"
    try:
        if file.is_dir():
            _fail(f"{shown}: it is a folder.\nName a file in it: {file / 'demo'}")
        if not file.parent.is_dir():
            _fail(f"{shown}: the folder {str(file.parent)!r} does not exist.\nMake it: mkdir -p {file.parent}")
        is_new = not file.exists()
        file.open("ab").close()  # only this covers read-only disks, and a root user's rights
    except OSError as error:
        _fail(f"{shown}: {error.strerror}.\nName a file in a folder that you may write to.")
    if is_new:
        file.unlink()


def _print(*shown: object) -> None:
    # Imported here, because most commands show no table.
    from rich.console import Console

    # A terminal wraps wide lines; a file or a pipe gets them unbroken.
    is_terminal, text = sys.stdout.isatty(), io.StringIO()
    width = None if is_terminal else 10_000
    console = Console(file=text, force_terminal=is_terminal, width=width, highlight=False, markup=False, emoji=False)
    console.print(*shown, sep="\n")
    _write(text.getvalue())


def _print_json(data: object) -> None:
    _write(json.dumps(data, indent=2) + "\n")


def _write(text: str) -> None:
    try:
        # Written by lines: without a buffer (python -u) only the write after one that was cut short raises.
        sys.stdout.writelines(text.splitlines(keepends=True))
        sys.stdout.flush()
    except OSError as error:
        # Python would report the error again when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            sys.exit(READER_GONE)
        _fail(f"The output cannot be written: {error.strerror}.")


def _fail(text: str) -> NoReturn:
    print(text, file=sys.stderr)  # noqa: T201  the output of a command
    sys.exit(BAD_INPUT)


if __name__ == "__main__":
    main()

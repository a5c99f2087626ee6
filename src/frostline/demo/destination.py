"""The files that the demo writes: looked at before the training, so that nothing is lost at its end."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import final

from frostline._core.errors import FrostlineError

PICTURES = (".pdf", ".png", ".svg")


@final
class DestinationError(FrostlineError, ValueError):
    """A file that the demo cannot write.

    Attributes:
        file: its name.
        problem: why not.
        fix: what to do instead.
    """

    def __init__(self, file: str, problem: str, fix: str) -> None:
        super().__init__(file, problem, fix)
        self.file, self.problem, self.fix = file, problem, fix

    def lines(self) -> Iterable[str]:
        """The lines of the text."""
        return [f"{self.file!r} cannot be written: {self.problem}.", self.fix]


def picture(file: Path) -> Path:
    """The file of a picture, if there can be one.

    Raises:
        DestinationError: its suffix names no format of pictures, or it cannot be written.
    """
    if file.suffix.lower() not in PICTURES:
        formats = f"{', '.join(PICTURES[:-1])} and {PICTURES[-1]}"
        problem = f"its suffix is {file.suffix!r}, and there are {len(PICTURES)}: {formats}"
        raise DestinationError(str(file), problem, f"frostline demo --plot {file.with_suffix('.png')}")
    return writable(file)


def writable(file: Path) -> Path:
    """The file, if it can be written.

    Raises:
        DestinationError: it cannot.
    """
    is_new = not file.exists()
    try:
        # The one question whose answer also covers read-only disks, names that are too long, and roots of all rights.
        file.open("ab").close()
        if is_new:
            file.unlink()
    except OSError as error:
        raise _refused(file, error, "Name a file in a folder that you may write to.") from error
    return file


def write(file: Path, data: bytes) -> None:
    """Writes a file.

    Raises:
        DestinationError: it cannot be written, any more.
    """
    try:
        file.write_bytes(data)
    except OSError as error:
        raise _refused(file, error, "Make room for it, and run the demo again.") from error


def _refused(file: Path, error: OSError, fix: str) -> DestinationError:
    return DestinationError(str(file), (error.strerror or str(error)).lower(), fix)

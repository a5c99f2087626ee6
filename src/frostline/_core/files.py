"""Checks and errors of files that a user names."""

from __future__ import annotations

import stat
from pathlib import Path

from frostline._core.errors import FileFormatError


def check_regular(file: Path) -> None:
    """Checks that `file` is a regular file; opening a pipe would block, and opening a device may have effects.

    Raises:
        FileFormatError: it is missing, or not a regular file.
    """
    try:
        mode = file.stat().st_mode
    except (OSError, ValueError) as error:
        raise unreadable(file, error) from None
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a pipe or a device"
        raise FileFormatError(str(file), f"it is {kind}, not a file", f"Give a file: ls {file.parent}")


def unreadable(file: Path, error: Exception) -> FileFormatError:
    """Returns the error for a file that cannot be opened."""
    return FileFormatError(str(file), reason(error), "Check the name and the permissions: ls -l FILE")


def reason(error: Exception) -> str:
    """Returns the message of the system as a part of a sentence."""
    words = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return words[:1].lower() + words[1:]

"""Atomic replacement of files: a reader finds the old content or the new content, never a part of either."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # Windows, where nobody can remove a file that somebody else has open
    fcntl = None  # type: ignore[assignment]


@contextmanager
def replacing(file: Path) -> Iterator[BinaryIO]:
    """Yields a stream whose content replaces a file when the block ends without an error.

    The content goes to a temporary file in the same folder, which is synced and renamed; then the folder is synced. A
    crash at any moment leaves the old or the new content, and perhaps the temporary file, ``.NAME.xxxxxxxx.part``,
    which the next replacement of the same file removes. Replacements of one file by several processes at the same time
    all succeed, and the last one to end decides. If the path is a link, its target is replaced.

    Raises:
        OSError: the file cannot be written, or the path is not a regular file; the old content is unchanged.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "notes"
        >>> for text in (b"one", b"two"):
        ...     with replacing(file) as stream:
        ...         _ = stream.write(text)
        >>> file.read_bytes(), os.listdir(file.parent)
        (b'two', ['notes'])
    """
    target = _target(file)
    mode = _mode(target)
    _remove_leftovers(target)
    part = target.with_name(f".{target.name}.{os.urandom(4).hex()}.part")
    try:
        with _created(part, mode) as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
            if fcntl is not None:
                os.replace(part, target)  # while it is locked, so that nobody takes it for a leftover
        if fcntl is None:
            os.replace(part, target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    _sync_folder(target.parent)


def _target(file: Path) -> Path:
    """Returns the file behind links."""
    try:
        return Path(os.path.realpath(file))
    except ValueError as error:
        raise OSError(errno.EINVAL, str(error)) from error


def _mode(target: Path) -> int:
    """Returns the permissions of the existing file."""
    try:
        mode = target.stat().st_mode
    except FileNotFoundError:
        return 0o666
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "It is a folder")
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "It is a pipe or a device")
    return stat.S_IMODE(mode)


def _remove_leftovers(target: Path) -> None:
    leftover = re.compile(rf"\.{re.escape(target.name)}\.[0-9a-f]{{8}}\.part")
    for name in os.listdir(target.parent):
        if leftover.fullmatch(name):
            _remove_unlocked(target.with_name(name))


def _remove_unlocked(part: Path) -> None:
    """Removes a temporary file, unless a living process writes it: a lock ends with the process that has it."""
    descriptor = None
    try:
        if fcntl is not None:
            with suppress(OSError):  # a link, or what cannot be read
                descriptor = os.open(part, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        if descriptor is None or _takes_lock(descriptor):
            part.unlink(missing_ok=True)
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _takes_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass  # not every file system has locks
    return True


def _created(part: Path, mode: int) -> BinaryIO:
    """Creates and locks a file."""
    while True:
        # O_EXCL, so that a link of somebody else is not followed.
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), mode)
        if fcntl is None:
            break
        with suppress(OSError):  # not every file system has locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            break
        os.close(descriptor)  # somebody has taken it for a leftover before it was locked
    return open(descriptor, "wb")


def _sync_folder(folder: Path) -> None:
    if not hasattr(os, "O_DIRECTORY"):
        return  # Windows cannot sync a folder.
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

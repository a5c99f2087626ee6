"""Writers that are killed at each step which they take on files, one step after the other.

It imports no framework, so that a writer is forked in a millisecond.
"""

from __future__ import annotations

import builtins
import io
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

STEPS = ("listdir", "mkdir", "open", "fsync", "close", "replace", "unlink")
"""Functions of `os` that ask the system something about files."""


class Killed:
    """Kills this process right before it takes its next step when it has taken some.

    Args:
        most: how many steps it may take.
        pipe: where the name of the step that it was about to take goes.
    """

    def __init__(self, most: int, pipe: int) -> None:
        self._left, self._pipe, self._write = most, pipe, os.write

    def step(self, name: str) -> None:
        if self._left == 0:
            self._write(self._pipe, name.encode())
            os.kill(os.getpid(), signal.SIGKILL)
        self._left -= 1

    def before(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """A call that is a step."""

        def stepped(*args: Any, **kwargs: Any) -> Any:
            self.step(name)
            return call(*args, **kwargs)

        return stepped

    def install(self) -> None:
        """Makes steps of all that this process does to files from now on."""
        # A kill loses nothing that a file was given: only a crash of the machine does.
        os.fsync = lambda descriptor: None
        for name in STEPS:
            setattr(os, name, self.before(name, getattr(os, name)))
        builtins.open = io.open = self._opened(io.open)  # type: ignore[assignment]

    def _opened(self, plain: Callable[..., Any]) -> Callable[..., Any]:
        step = self.step

        class Raw(io.FileIO):
            """A file that is written by halves: a kill in the middle of a write leaves a part of it."""

            def write(self, data: Any) -> int:
                data, half = memoryview(data).cast("B"), len(data) // 2
                written = 0
                for part in filter(None, (data[:half], data[half:])):
                    step("write")
                    written += super().write(part)
                return written

            def truncate(self, *args: Any) -> int:
                step("truncate")
                return super().truncate(*args)

        def opened(file: Any, mode: str = "r", buffering: int = -1, *args: Any, **kwargs: Any) -> Any:
            if "w" not in mode:
                return plain(file, mode, buffering, *args, **kwargs)
            if not isinstance(file, int):
                step("open")
            raw = Raw(file, mode)
            # A size of its own: Python's differs from version to version and from disk to disk.
            return raw if buffering == 0 else io.BufferedWriter(raw, 8192)

        return opened


def killed_before(steps: int, write: Callable[[], object]) -> str | None:
    """Lets a writer take some steps and kills it then.

    Args:
        steps: how many.
        write: what the writer does, in a process of its own.

    Returns:
        The step that it was about to take; None if it came to its end before.
    """
    reader, pipe = os.pipe()
    writer = os.fork()
    if writer == 0:
        failed = 1
        try:
            Killed(steps, pipe).install()
            write()
            failed = 0
        finally:
            os._exit(failed)
    os.close(pipe)
    with open(reader, encoding="utf-8") as stream:
        step = stream.read()
    status = os.waitstatus_to_exitcode(os.waitpid(writer, 0)[1])
    if status != (-signal.SIGKILL if step else 0):
        raise RuntimeError(f"a writer ended with {status}")
    return step or None


def each_kill(folder: Path, write: Callable[[], object]) -> Iterator[str]:
    """Kills a writer before its first step, the next one before its second, ... until one comes to its end.

    Args:
        folder: what each of them finds in it is what is there now.
        write: what each of them does.

    Yields:
        The step before which it was killed, when it is dead.
    """
    before = {file: file.read_bytes() for file in folder.iterdir()} if folder.exists() else None
    steps = 0
    while (step := killed_before(steps, write)) is not None:
        yield step
        steps += 1
        restore(folder, before)
    restore(folder, before)


def restore(folder: Path, files: dict[Path, bytes] | None) -> None:
    """Makes these the files in a folder; None is no folder."""
    shutil.rmtree(folder, ignore_errors=True)
    if files is not None:
        folder.mkdir()
    for file, content in (files or {}).items():
        file.write_bytes(content)

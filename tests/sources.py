"""The sources of the package as the tests of its structure read them: files, and who imports whom."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parent.parent
SOURCES = ROOT / "src" / "frostline"


def package_of(file: Path) -> str:
    """The dotted name of the package in which a file lives."""
    return ".".join(file.relative_to(SOURCES.parent).parts[:-1])


def module_of(file: Path) -> str:
    """The dotted name by which a file is imported."""
    return ".".join(file.relative_to(SOURCES.parent).with_suffix("").parts).removesuffix(".__init__")


def imported(source: str, package: str) -> Iterator[str]:
    """Dotted names that `source` imports, also inside functions; `package` is where it lives."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in {"importlib.import_module", "__import__"}:
            yield from (str(word.value) for word in node.args[:1] if isinstance(word, ast.Constant))


def modules_read(source: str, package: str, known: Iterable[str]) -> set[str]:
    """Which of the modules `known` a source imports from: the longest dotted name that is one of them."""
    found = set()
    for name in imported(source, package):
        parts = name.split(".")
        longest = (".".join(parts[:size]) for size in range(len(parts), 0, -1))
        found |= set(filter(None, [next((each for each in longest if each in known), None)]))
    return found


def circles(arrows: Mapping[str, set[str]]) -> list[str]:
    """The modules that can be reached from themselves, sorted."""

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        waiting = [start]
        while waiting:
            new = arrows.get(waiting.pop(), set()) - seen
            seen |= new
            waiting += new
        return seen

    return sorted(each for each in arrows if each in reached(each))

"""The folders of the front ends: the same folders in both, the arrows between them, and their sizes."""

from __future__ import annotations

import ast
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path

import pytest

from sources import ROOT, SOURCES, circles, module_of, modules_read, package_of

# For each folder of a front end, the folders that it imports. The list is exact, so a removed arrow must leave it.
ROOMS: dict[str, dict[str, set[str]]] = {
    "torch": {
        "_autograd": {"_holding", "_tensors", "_uses", "_wrappers"},
        "_cache": {"_freezing", "_tensors"},
        "_cost": {"_autograd", "_freezing", "_holding", "_lean", "_tensors", "_training", "_wrappers"},
        "_freezing": {"_holding", "_tensors", "_uses", "_wrappers"},
        "_holding": {"_wrappers"},
        "_inspection": {"_autograd", "_freezing", "_holding", "_tensors", "_training", "_uses", "_wrappers"},
        "_lean": {"_autograd", "_freezing", "_holding", "_tensors"},
        "_line": {"_autograd", "_holding", "_runtime", "_tensors", "_uses", "_wrappers"},
        "_runtime": {"_tensors"},
        "_tensors": set(),
        "_training": {"_freezing", "_holding", "_tensors", "_wrappers"},
        "_uses": {"_holding", "_tensors", "_wrappers"},
        "_wrappers": set(),
    },
    "jax": {
        "_arrays": set(),
        "_cache": {"_arrays", "_line"},
        "_cost": {"_arrays", "_freezing", "_jaxpr", "_lean", "_training"},
        "_freezing": {"_arrays", "_uses"},
        "_inspection": {"_arrays", "_freezing", "_jaxpr", "_training"},
        "_jaxpr": {"_arrays"},
        "_lean": {"_arrays", "_freezing", "_jaxpr", "_uses"},
        "_line": {"_arrays", "_freezing", "_jaxpr"},
        "_training": {"_arrays", "_freezing", "_uses"},
        "_uses": {"_arrays"},
    },
}
# Folders that only one front end has, with the reasons.
ONLY_ONE = {
    "torch/_holding": "a module of PyTorch has a mode and buffers, which must be held; a tree of JAX is a value",
    "torch/_runtime": "in JAX the part below a line is compiled by XLA in any case",
    "torch/_autograd": "the twin of jax/_jaxpr; each reads what its framework differentiates",
    "jax/_jaxpr": "the twin of torch/_autograd",
}
# The file with the public name and the idea, from which a reader starts.
FIRST = {
    "_cache": "cache",
    "_cost": "cost",
    "_freezing": "freezing",
    "_inspection": "guard",
    "_lean": "lean",
    "_line": "line",
    "_uses": "use",
}
# Each integration has the verbs and the class of the front end, for its own library.
OWN_NAMES = {("Frozen", "integrations"), ("Freezing", "integrations")}
MOST_FILES = 24
MOST_LINES = 300
FILES = sorted(SOURCES.rglob("*.py"))
MODULES = {module_of(file): file for file in FILES}


def arrows_between_files() -> dict[str, set[str]]:
    return {
        name: modules_read(file.read_text(encoding="utf-8"), package_of(file), MODULES) - {name}
        for name, file in MODULES.items()
    }


def arrows_between_rooms(front_end: str) -> dict[str, set[str]]:
    """The rooms that each room of a front end imports; its `__init__` is none."""
    above = f"frostline.{front_end}."
    found: dict[str, set[str]] = defaultdict(set)
    for name, read in arrows_between_files().items():
        if name.startswith(above):
            room = name.removeprefix(above).split(".")[0]
            inside = {each.removeprefix(above).split(".")[0] for each in read if each.startswith(above)}
            found[room] |= inside - {room}
    return dict(found)


@pytest.mark.parametrize("front_end", ROOMS)
def test_the_arrows_between_rooms_are_these(front_end: str) -> None:
    assert arrows_between_rooms(front_end) == ROOMS[front_end]


@pytest.mark.parametrize("front_end", ROOMS)
def test_no_circle_joins_rooms(front_end: str) -> None:
    assert circles(ROOMS[front_end]) == []


def test_no_circle_joins_files_not_even_for_types() -> None:
    assert circles(arrows_between_files()) == []


def test_a_circle_is_found() -> None:
    """The negative control: two files that import each other, a longer way round, and one beside them."""
    assert circles({"a": {"b"}, "b": {"a"}, "c": {"d"}, "d": {"e"}, "e": {"c"}, "f": {"a"}}) == [
        "a",
        "b",
        "c",
        "d",
        "e",
    ]
    source = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from frostline._core.plan import Plan"
    assert modules_read(source, "frostline._core", ["frostline._core", "frostline._core.plan"]) == {
        "frostline._core.plan"
    }


def test_both_front_ends_have_the_same_rooms() -> None:
    def rooms(folder: Path) -> set[str]:
        return {each.name for each in folder.iterdir() if each.is_dir() and any(each.glob("*.py"))}

    torch, jax = rooms(SOURCES / "torch"), rooms(SOURCES / "jax")
    alone = {f"torch/{name}" for name in torch - jax} | {f"jax/{name}" for name in jax - torch}
    assert alone == set(ONLY_ONE)
    for front_end, there in (("torch", torch), ("jax", jax)):
        tested = {"_" + each.name for each in (ROOT / "tests" / f"only_{front_end}").iterdir() if each.is_dir()}
        assert tested - {"___pycache__", "_field"} <= there


@pytest.mark.parametrize("front_end", ROOMS)
def test_a_room_is_read_from_its_first_file(front_end: str) -> None:
    assert [room for room, file in FIRST.items() if not (SOURCES / front_end / room / f"{file}.py").is_file()] == []


def test_no_folder_and_no_file_is_too_large() -> None:
    folders = Counter(
        file.parent for place in ("src", "tests", "benchmarks", "examples") for file in (ROOT / place).rglob("*.py")
    )
    assert {str(folder.relative_to(ROOT)): files for folder, files in folders.items() if files > MOST_FILES} == {}
    assert [str(file) for file in FILES if file.read_text(encoding="utf-8").count("\n") > MOST_LINES] == []


def test_a_class_name_stands_for_one_thing() -> None:
    """Two files may share a name only if they are twins: in the two front ends, or a `Frozen` of an integration."""
    found: dict[str, set[str]] = defaultdict(set)
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                found[node.name].add(str(file.relative_to(SOURCES).with_suffix("")))
    assert shared_names(found) == {}


def test_a_name_for_two_things_is_found() -> None:
    """The negative control."""
    assert shared_names({"Line": {"torch/_line/line", "_core/outline"}}) == {
        "Line": {"torch/_line/line", "_core/outline"}
    }
    assert shared_names({"Guard": {"torch/_inspection/guard", "jax/_inspection/guard"}}) == {}


def shared_names(found: Mapping[str, set[str]]) -> dict[str, set[str]]:
    outside = {
        name: {file for file in files if (name, file.split("/")[0]) not in OWN_NAMES} for name, files in found.items()
    }
    return {name: files for name, files in outside.items() if len({twin(file) for file in files}) > 1}


def twin(file: str) -> str:
    """What a file is called in either front end."""
    front_end, _, rest = file.partition("/")
    return rest if front_end in {"torch", "jax"} else file

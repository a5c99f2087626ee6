"""Deltas without a framework, and the doings of one who writes them by hand."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from cli.made_files import floats
from frostline import Plan
from frostline._core.fingerprint import digest, fingerprint
from frostline.checkpoint.delta import DeltaContents, TensorSource, save
from frostline.checkpoint.delta_document import canonical
from frostline.checkpoint.delta_file import DeltaFile

PLAN = Plan(frozenset({"body.weight"}), frozenset({"head.weight", "head.bias"}))
BASE = fingerprint([("body.weight", "float32", (2,), floats(1, 2))])


def source(dtype: str, shape: tuple[int, ...], data: bytes) -> TensorSource:
    return TensorSource(dtype, shape, len(data), lambda: nullcontext(data))


def small(**changes: Any) -> DeltaContents:
    """A head of two tensors on a body of one."""
    tensors = {
        "head.weight": source("float32", (3, 1), floats(1, 2, 3)),
        "head.bias": source("bfloat16", (1,), b"\x80?"),
    }
    return DeltaContents(
        **{"plan": PLAN, "base": BASE, "tensors": tensors, "aliases": {}, "schedule": {"step": 7}, **changes}
    )


def write(file: Path, delta: DeltaContents) -> Path:
    save("save_delta(file, model)", file, delta)
    return file


def read(file: Path) -> tuple[Any, ...]:
    """All that a file says, compared with its digests, as a model of the two tensors would load it."""
    found = DeltaFile(file)
    assert found.plan_for("load", PLAN.paths) == PLAN
    found.check_base("load", BASE, "fix")
    return found.said, found.tensors, {path: bytes(data) for path, data in found.contents(found.tensors).items()}


def document(file: Path) -> dict[str, Any]:
    """The document in a file."""
    content = file.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return json.loads(header["__metadata__"]["frostline"])


def with_document(file: Path, text: str) -> bytes:
    """The file with another document in it."""
    content = file.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    header["__metadata__"]["frostline"] = text
    changed = json.dumps(header).encode()
    return len(changed).to_bytes(8, "little") + changed + content[8 + size :]


def signed(fields: dict[str, Any]) -> str:
    """The text of a document, with the digest that it should have: as one would write it who means harm."""
    said = {key: value for key, value in fields.items() if key not in ("digest", "format", "version")}
    return canonical({**fields, "digest": digest([canonical(said).encode()])})

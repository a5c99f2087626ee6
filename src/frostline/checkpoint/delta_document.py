"""The JSON document in the metadata of a delta: everything except its tensors."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Self, final

from frostline._core import document
from frostline._core.fingerprint import Fingerprint, digest
from frostline._core.plan import Plan

KEY = "frostline"
"""Its key in the metadata."""

_KIND = "delta"
_FIELDS = ("aliases", "base", "bytes", "digest", "optimizer", "plan", "schedule", "tensors", "weak")


@final
@dataclass(frozen=True)
class DeltaDocument:
    """The content of the document of a delta.

    Attributes:
        plan: the frozen and the trainable paths.
        base: a digest of each frozen tensor.
        tensors: a digest of each tensor in the file.
        kinds: the dtype and shape of each tensor that is stored as bytes, because the format lacks its dtype.
        weak: the tensors with a weak dtype in JAX.
        aliases: the other names of a tensor in the file or in the base.
        schedule: the state of the schedule; any JSON value.
        optimizer: the state of the optimizer other than tensors; any JSON value.

    Example:
        >>> plan = Plan(frozenset({"body"}), frozenset({"head"}))
        >>> said = DeltaDocument(plan, Fingerprint(()), {}, {}, (), {}, {"step": 7}, None)
        >>> DeltaDocument.from_json(said.to_json()) == said
        True
    """

    plan: Plan
    base: Fingerprint
    tensors: dict[str, str]
    kinds: dict[str, tuple[str, tuple[int, ...]]]
    weak: tuple[str, ...]
    aliases: dict[str, tuple[str, ...]]
    schedule: object
    optimizer: object

    def to_json(self) -> str:
        """Returns JSON text; equal documents give equal bytes.

        Raises:
            TypeError, ValueError: JSON cannot hold the schedule or the optimizer.
        """
        fields: dict[str, object] = {
            "aliases": {path: list(others) for path, others in self.aliases.items()},
            "base": self.base.digests,
            "bytes": {path: [dtype, list(shape)] for path, (dtype, shape) in self.kinds.items()},
            "optimizer": self.optimizer,
            "plan": self.plan.to_dict(),
            "schedule": self.schedule,
            "tensors": self.tensors,
            "weak": sorted(self.weak),
        }
        return canonical(document.stamped(_KIND, {**fields, "digest": _digest(fields)}))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Reads the text that `to_json` returned.

        Raises:
            ValueError: the text is not valid; the error says why.
        """
        found = document.fields(document.parse(text), _KIND, _FIELDS)
        given, real = found.pop("digest"), _digest(found)
        if given != real:
            raise ValueError(f"its digest is {given!r}, but its content gives {real!r}")
        return cls(
            plan=Plan.from_dict(found["plan"]),
            base=Fingerprint(tuple(_texts_by_name("base", found["base"]).items())),
            tensors=_texts_by_name("tensors", found["tensors"]),
            kinds={path: _kind(kind) for path, kind in _object("bytes", found["bytes"]).items()},
            weak=tuple(document.texts("weak", found["weak"])),
            aliases={
                path: tuple(document.texts("aliases", others))
                for path, others in _object("aliases", found["aliases"]).items()
            },
            schedule=found["schedule"],
            optimizer=found["optimizer"],
        )


def canonical(value: object) -> str:
    """Returns the canonical JSON text of a value.

    Raises:
        TypeError, ValueError: JSON cannot hold the value, a number is not finite, or it is nested too deeply.
    """
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _digest(fields: dict[str, object]) -> str:
    return digest([canonical(fields).encode()])


def _object(name: str, value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{name!r} is not an object")
    return value


def _texts_by_name(name: str, value: object) -> dict[str, str]:
    found = _object(name, value)
    if not all(isinstance(text, str) for text in found.values()):
        raise ValueError(f"{name!r} has values that are not strings")
    return found


def _kind(value: object) -> tuple[str, tuple[int, ...]]:
    match value:
        case [str(dtype), list(shape)] if all(type(length) is int and length >= 0 for length in shape):
            return dtype, tuple(shape)
    raise ValueError("'bytes' has a value that is not a dtype and a shape")

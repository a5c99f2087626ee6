"""A plan and a change of plans, as values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import final

from frostline._core import document
from frostline._core.errors import PlanError, PlanMismatchError

_OF_BUFFERS = ("still", "moving", "turned")
"""What plans and changes have for buffers, if there are any."""


@final
@dataclass(frozen=True, repr=False)
class Plan:
    """The frozen and the trainable paths of a model.

    Attributes:
        frozen: the frozen paths.
        trainable: all others.
        still: buffers that stand still although their module trains.
        moving: buffers that move although their module is frozen.

    Raises:
        PlanError: a path is both.

    Example:
        >>> plan = Plan(frozenset({"body.weight"}), frozenset({"head.weight"}))
        >>> plan
        Plan(frozen=1, trainable=1)
        >>> print(plan.change_to(plan.thaw(["body.weight"])))
        thaw 1 (body.weight)
        >>> Plan.from_json(plan.to_json()) == plan
        True
    """

    frozen: frozenset[str]
    trainable: frozenset[str]
    still: frozenset[str] = frozenset()
    moving: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        for name in ("frozen", "trainable", "still", "moving"):
            object.__setattr__(self, name, frozenset(getattr(self, name)))
        _check_disjoint(self.frozen, self.trainable, "frozen and trainable")
        _check_disjoint(self.still, self.moving, "still and moving")

    def __repr__(self) -> str:
        buffers = "".join(f", {name}={len(paths)}" for name, paths in self._buffers().items())
        return f"Plan(frozen={len(self.frozen)}, trainable={len(self.trainable)}{buffers})"

    def _buffers(self) -> dict[str, list[str]]:
        return {name: sorted(found) for name in ("still", "moving") if (found := getattr(self, name))}

    @property
    def paths(self) -> frozenset[str]:
        """All paths of the plan."""
        return self.frozen | self.trainable

    def freeze(self, paths: Iterable[str]) -> Plan:
        """The plan in which `paths` are frozen as well.

        Raises:
            PlanMismatchError: one of them is not a path of the plan.
        """
        paths = self._known(paths)
        return replace(self, frozen=self.frozen | paths, trainable=self.trainable - paths)

    def thaw(self, paths: Iterable[str]) -> Plan:
        """The plan in which `paths` are trainable as well.

        Raises:
            PlanMismatchError: one of them is not a path of the plan.
        """
        paths = self._known(paths)
        return replace(self, frozen=self.frozen - paths, trainable=self.trainable | paths)

    def _known(self, paths: Iterable[str]) -> frozenset[str]:
        found = frozenset(paths)
        if unknown := found - self.paths:
            raise PlanMismatchError((), unknown)
        return found

    def change_to(self, other: Plan) -> Change:
        """What to do to get from this plan to `other`.

        Raises:
            PlanMismatchError: they have different paths.
        """
        if self.paths != other.paths:
            raise PlanMismatchError(self.paths - other.paths, other.paths - self.paths)
        turned = (self.still & other.moving) | (self.moving & other.still)
        return Change(
            freeze=other.frozen - self.frozen,
            thaw=self.frozen - other.frozen,
            still=((other.still - self.still) | (self.moving - other.moving)) - turned,
            moving=((other.moving - self.moving) | (self.still - other.still)) - turned,
            turned=turned,
        )

    def check_no_buffers(self) -> None:
        """Checks that the plan fits what has no buffers, such as a pytree.

        Raises:
            PlanMismatchError: buffers deviate in it.
        """
        if self.still or self.moving:
            raise PlanMismatchError(self.still | self.moving, ())

    def to_dict(self) -> dict[str, object]:
        """The plan as JSON-able data."""
        paths = {"frozen": sorted(self.frozen), "trainable": sorted(self.trainable)}
        return document.stamped("plan", paths | self._buffers())

    def to_json(self) -> str:
        """The plan as text: equal plans give equal bytes."""
        return document.write("plan", self.to_dict())

    @classmethod
    def from_dict(cls, data: object) -> Plan:
        """The plan from the data of `to_dict`.

        Raises:
            PlanError: the data is not a plan.
        """
        return cls(**_sets(data, "plan", ("frozen", "trainable")))

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """The plan from the text of `to_json`.

        Raises:
            PlanError: the text is not a plan.
        """
        return cls.from_dict(_parsed(text, "plan"))

    def to_toml(self) -> str:
        """The plan as TOML: equal plans give equal bytes."""
        return document.write_toml(self.to_dict())

    @classmethod
    def from_toml(cls, text: str) -> Plan:
        """The plan from the text of `to_toml`.

        Raises:
            PlanError: the text is not a plan.
        """
        return cls.from_dict(_parsed(text, "plan", document.parse_toml))


@final
@dataclass(frozen=True)
class Change:
    """The difference of two plans; true if there is one.

    Attributes:
        freeze: the paths to freeze.
        thaw: the paths to thaw.
        still: the buffers that are to stand still, apart from their modules.
        moving: the buffers that are to move, apart from their modules.
        turned: the buffers that deviate from their modules in one way, and are to deviate in the other.

    Raises:
        PlanError: a path is both.

    Example:
        >>> change = Change(freeze=frozenset({"head.bias"}), thaw=frozenset())
        >>> print(change, "/", change.inverse())
        freeze 1 (head.bias) / thaw 1 (head.bias)
    """

    freeze: frozenset[str] = frozenset()
    thaw: frozenset[str] = frozenset()
    still: frozenset[str] = frozenset()
    moving: frozenset[str] = frozenset()
    turned: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        for name in ("freeze", "thaw", *_OF_BUFFERS):
            object.__setattr__(self, name, frozenset(getattr(self, name)))
        _check_disjoint(self.freeze, self.thaw, "to freeze and to thaw")
        _check_disjoint(self.still, self.moving, "to freeze and to thaw")

    def __bool__(self) -> bool:
        return bool(self.freeze or self.thaw or self.still or self.moving or self.turned)

    def __str__(self) -> str:
        parts = (
            ("freeze", self.freeze),
            ("thaw", self.thaw),
            ("freeze buffers", self.still),
            ("thaw buffers", self.moving),
            ("turn buffers", self.turned),
        )
        return ", ".join(f"{verb} {len(paths)} ({_some(paths)})" for verb, paths in parts if paths) or "no change"

    def inverse(self) -> Change:
        """The change that undoes this one."""
        return Change(self.thaw, self.freeze, still=self.moving, moving=self.still, turned=self.turned)

    def apply_to(self, plan: Plan) -> Plan:
        """The plan after the change.

        Raises:
            PlanMismatchError: a path of the change is not a path of the plan.
        """
        if unknown := (self.freeze | self.thaw) - plan.paths:
            raise PlanMismatchError((), unknown)
        still = (plan.still - self.moving - self.turned) | (self.still - plan.moving) | (self.turned & plan.moving)
        moving = (plan.moving - self.still - self.turned) | (self.moving - plan.still) | (self.turned & plan.still)
        return replace(plan.freeze(self.freeze).thaw(self.thaw), still=still, moving=moving)

    def to_json(self) -> str:
        """The change as text: equal changes give equal bytes."""
        buffers = {name: sorted(found) for name in _OF_BUFFERS if (found := getattr(self, name))}
        return document.write("change", {"freeze": sorted(self.freeze), "thaw": sorted(self.thaw), **buffers})

    @classmethod
    def from_json(cls, text: str) -> Change:
        """The change from the text of `to_json`.

        Raises:
            PlanError: the text is not a change.
        """
        return cls(**_sets(_parsed(text, "change"), "change", ("freeze", "thaw")))


def _some(paths: frozenset[str]) -> str:
    return ", ".join(sorted(paths)[:3]) + (", ..." if len(paths) > 3 else "")


def _check_disjoint(one: frozenset[str], other: frozenset[str], words: str) -> None:
    if both := sorted(one & other):
        problem = f"{both[0]!r} is both {words}{f', and {len(both) - 1} more' if both[1:] else ''}."
        raise PlanError(problem, "Give each path once.")


def _parsed(text: object, kind: str, parse: Callable[[object], object] = document.parse) -> object:
    try:
        return parse(text)
    except ValueError as error:
        raise _unreadable(kind, error) from error


def _sets(data: object, kind: str, names: tuple[str, str]) -> dict[str, frozenset[str]]:
    optional = _OF_BUFFERS if kind == "change" else _OF_BUFFERS[:2]
    more = [name for name in optional if isinstance(data, dict) and name in data]
    try:
        found: Mapping[str, object] = document.fields(data, kind, (*names, *more))
        return {name: frozenset(document.texts(name, found[name])) for name in (*names, *more)}
    except ValueError as error:
        raise _unreadable(kind, error) from error


def _unreadable(kind: str, error: ValueError) -> PlanError:
    return PlanError(f"This is not a {kind}: {error}.", f"Write it with {kind}.to_json().")

"""A phase of training: what is frozen, and at which rates the rest trains."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, final

from frostline._core.errors import ScheduleError
from frostline._core.inventory import Inventory
from frostline._core.plan import Plan
from frostline._core.selecting.buffers import deviations
from frostline._core.selecting.expressions import Selector
from frostline._core.selecting.resolve import Chosen, choose, resolve
from frostline._core.selecting.text import selector_of, text_of
from frostline.schedules.arguments import mapping, number
from frostline.schedules.source import source

_WORDS = 'a list of selectors: Phase(["**", "!head"])'


@final
@dataclass(frozen=True, repr=False)
class Phase:
    """A phase of training: what is frozen, and at which rates the rest trains; it does not depend on a model.

    Attributes:
        frozen: selectors as in ``freeze(model, *frozen)``: the last one that matches decides, and "!" excludes. An
            empty list freezes nothing, while ``freeze(model)`` freezes everything. A selector value is kept as its
            source, ``"of_type('torch.nn.LayerNorm')"``, which can be written directly, also in a file.
        name: the name of the phase in a log.
        rates: factors of the learning rate by selector: the last one that matches decides, and the default is 1.

    Raises:
        ScheduleError: an entry is not a selector or not a factor.
        SelectorError: a selector cannot be read.

    Example:
        >>> from frostline._core.inventory import Inventory
        >>> from frostline._core.param import Param
        >>> phase = Phase(["**", "!head"], name="probe", rates=[("head", 0.5)])
        >>> phase
        Phase(frozen=('**', '!head'), name='probe', rates=(('head', 0.5),))
        >>> model = Inventory((Param("body.weight", (2, 2), "float32", 4), Param("head.weight", (2,), "float32", 4)))
        >>> sorted(phase.plan(model).trainable), phase.factors(model)["head.weight"]
        (['head.weight'], 0.5)
    """

    frozen: Sequence[str] = ()
    name: str = ""
    rates: Sequence[tuple[str, float]] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "frozen", _selectors(self.frozen))
        object.__setattr__(self, "rates", _factors(self.rates))
        if not isinstance(self.name, str):
            problem = f"is of type {type(self.name).__name__}, and must be a string."
            raise ScheduleError(f"Phase(name={self.name!r})", problem, (), 'Write Phase(..., name="probe").')

    def __repr__(self) -> str:
        return source(self)

    def plan(self, inventory: Inventory) -> Plan:
        """Returns the plan of the phase for a model; integers and parameters of frozen uses stay frozen.

        Raises:
            NoMatchError: a selector matches nothing in the model.
            TiedError: one name of a tensor is frozen and another is not.
        """
        chosen = choose(self.frozen, inventory) if self.frozen else Chosen(frozenset(), {}, frozenset())
        pinned = {param.path for param in inventory.params if param.pinned or not param.can_train}
        pinned |= {module.path for module in inventory.modules if module.pinned and module.stateful}
        frozen = chosen.paths.union(pinned)
        still, moving = deviations(inventory, frozen, chosen.buffers, repr(self))
        return Plan(frozen, inventory.paths - frozen, still, moving)

    def factors(self, inventory: Inventory) -> dict[str, float]:
        """Returns the factor of the learning rate for each parameter of a model, frozen or not.

        Raises:
            NoMatchError: a selector matches nothing in the model.
        """
        found = {param.path: 1.0 for param in inventory.params}
        for selector, factor in self.rates:
            found.update(dict.fromkeys(found.keys() & resolve([selector], inventory), factor))
        return found

    def to_dict(self) -> dict[str, object]:
        """Returns the phase as data for JSON, without empty fields."""
        data: dict[str, object] = {"frozen": list(self.frozen)}
        if self.name:
            data["name"] = self.name
        if self.rates:
            data["rates"] = [list(pair) for pair in self.rates]
        return data

    @classmethod
    def from_dict(cls, data: object) -> Phase:
        """Reads the data that `to_dict` returned.

        Raises:
            ScheduleError: the data is not a phase.
        """
        return cls(**mapping("Phase.from_dict(data)", data, {"frozen"}, {"name", "rates"}))  # type: ignore[arg-type]


def all_but(kept: Iterable[str]) -> tuple[str, ...]:
    """Returns the selectors that freeze the whole model except `kept`.

    Example:
        >>> all_but(["embed", "head"])
        ('**', '!embed', '!head')
    """
    return ("**", *(f"!{each}" for each in kept))


def frozen_beside(frozen: Iterable[str], training: Iterable[str], rest: str | None) -> tuple[str, ...]:
    """Returns the selectors that freeze some blocks, and what no block names if `rest` is "frozen".

    Example:
        >>> frozen_beside(["embed"], ["head"], "train"), frozen_beside(["embed"], ["head"], "frozen")
        (('embed',), ('**', '!head'))
    """
    return all_but(training) if rest == "frozen" else tuple(frozen)


def _selectors(given: object) -> tuple[str, ...]:
    expression = f"Phase(frozen={given!r})"
    if isinstance(given, str):
        raise ScheduleError(expression, f"is a string, and must be {_WORDS}.", (), f"Write Phase([{given!r}]).")
    if not isinstance(given, Sequence) or not all(isinstance(each, str | Selector) for each in given):
        fix = "Write each selector as a string: a schedule is created without a model, and cannot refer to its objects."
        raise ScheduleError(expression, f"is not {_WORDS}.", (), fix)
    if given and isinstance(given[0], str) and given[0].startswith("!"):
        problem = "begins with an exclusion, but nothing is frozen before it."
        rest = ", ".join(map(repr, given))
        raise ScheduleError(expression, problem, (), f'Begin with the whole model: Phase(["**", {rest}]).')
    texts = tuple(text_of(each) if isinstance(each, Selector) else each for each in given)
    for each in texts:
        selector_of(each.removeprefix("!"))
    return texts


def _factors(given: Any) -> tuple[tuple[str, float], ...]:
    pairs = given if isinstance(given, Sequence) and not isinstance(given, str) else [given]
    for pair in pairs:
        if not _is_pair(pair):
            problem = f"holds {pair!r}, which is not a pair of a selector without '!' and a factor."
            raise ScheduleError(f"Phase(rates={given!r})", problem, (), 'Write Phase(..., rates=[("embed", 0.1)]).')
    texts = [(text_of(each) if isinstance(each, Selector) else each, factor) for each, factor in pairs]
    for each, _ in texts:
        selector_of(each)
    return tuple((each, number("Phase", f"rates[{each!r}]", factor)) for each, factor in texts)


def _is_pair(given: Any) -> bool:
    if not isinstance(given, Sequence) or isinstance(given, str) or len(given) != 2:
        return False
    return isinstance(given[0], Selector) or (isinstance(given[0], str) and not given[0].startswith("!"))

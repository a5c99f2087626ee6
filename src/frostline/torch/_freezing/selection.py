"""From selectors to paths: strings, selector values, and modules and parameters of the model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from frostline._core.errors import NoMatchError
from frostline._core.selecting.expressions import Selector
from frostline._core.selecting.named import named
from frostline._core.selecting.refusal import not_a_selector
from frostline._core.selecting.resolve import Chosen, choose, resolve
from frostline._core.selecting.selectors import at
from frostline.torch._freezing.survey import Survey
from frostline.torch._holding.claims import buffer_at, ledger_of

Part = nn.Module | torch.Tensor
Choice = str | Selector | Part | Iterable[Part] | Mapping[str, Part]


def flat(choices: Iterable[Any]) -> tuple[str | Selector | Part, ...]:
    """Returns the choices with the members of lists, tuples, dicts and iterators in their place.

    An empty list stays a choice, of nothing: without it, the other choices might mean the whole model.
    """
    found: list[Any] = []
    for choice in choices:
        if isinstance(choice, str | Selector | Part) or not isinstance(choice, Iterable):
            found.append(choice)
            continue
        members = list(choice.values() if isinstance(choice, Mapping) else choice)
        if any(isinstance(member, str | Selector) for member in members):
            found.append(choice)
        else:
            found.extend(flat(members) or [at(label=repr(choice))])
    return tuple(found)


def select(choices: Sequence[Choice], survey: Survey, *, expect: int | None, allow_empty: bool) -> frozenset[str]:
    """Returns the paths of the model that the choices name.

    Raises:
        NoMatchError: a choice names nothing, or is not a part of the model.
        SelectorError: a choice is of another type, or cannot be read.
    """
    selectors = [_selector(choice, survey) for choice in flat(choices)]
    return resolve(selectors, survey.inventory, expect=expect, allow_empty=allow_empty)


def chosen(choices: Sequence[Choice], survey: Survey, *, expect: int | None, allow_empty: bool) -> Chosen:
    """Returns what the choices name of the model, and what they say about its buffers.

    Raises:
        NoMatchError: a choice names nothing, or is not a part of the model.
        SelectorError: a choice is of another type, or cannot be read.
    """
    named_before = frozenset(path for path, (module, name) in survey.buffers.items() if name in ledger_of(module))
    if not choices and expect is None:  # without the inventory, which nothing else of such a freeze needs
        return Chosen(frozenset(survey.sites), {}, named_before)
    selectors = [_selector(choice, survey) for choice in flat(choices)]
    return choose(selectors, survey.inventory, expect=expect, allow_empty=allow_empty, named_before=named_before)


def named_by(choices: Sequence[Choice], survey: Survey) -> frozenset[str]:
    """Returns the parameters that the choices name each by its own path, or as an object."""
    return named([_selector(choice, survey) for choice in flat(choices)], survey.inventory)


def _selector(choice: str | Selector | Part, survey: Survey) -> str | Selector:
    if isinstance(choice, str | Selector):
        return choice
    if isinstance(choice, nn.Module):
        paths = [path for path, module in survey.modules.items() if module is choice]
    elif isinstance(choice, torch.Tensor):
        paths = [path for path, tensor in survey.parameters.items() if tensor is choice]
        paths += [path for path, site in survey.buffers.items() if buffer_at(site) is choice]
    else:
        raise not_a_selector(choice, whole="model", part="a module or parameter")
    label = _label(choice)
    if not paths:
        note = "It is not part of this model, or no longer: select by path instead."
        raise NoMatchError(label, len(survey.inventory.params), note=note)
    return at(*paths, label=label)


def written(first: str, choices: Sequence[Choice]) -> str:
    """Returns arguments as their author wrote them, as far as that is known."""
    labels = (_label(c) if isinstance(c, nn.Module | torch.Tensor) else repr(c) for c in flat(choices))
    return ", ".join((first, *labels))


def _label(choice: nn.Module | torch.Tensor) -> str:
    if isinstance(choice, nn.Module):
        return f"<{type(choice).__name__}>"
    return f"<{type(choice).__name__} of shape {tuple(choice.shape)}>"

"""Why a model has no frost line, or a line does not take what it is given: the texts of these errors."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

from torch import nn

from frostline._core.errors import LineError
from frostline._core.errors.base import counted
from frostline.features.boundary import Boundary

CUT = 'Say where to cut, by the path of a module: frostline(model, *example, at="layer3").'


def hold(model: nn.Module, path: str) -> str:
    """How to hold a module: by freezing what it belongs to, or in evaluation mode where none of that is frozen."""
    names = path.split(".") if path else []
    for depth in range(1, len(names) + 1):
        outer = ".".join(names[:depth])
        inside = list(model.get_submodule(outer).parameters())
        if inside and not any(parameter.requires_grad for parameter in inside):
            return f'Hold it still by freezing it here: ft.freeze(model, "{outer}").'
    return f'Hold it in evaluation mode: model.get_submodule("{path}").eval().'


def refuse_counts(model: nn.Module, expression: str) -> None:
    """Raises if nothing is frozen, or nothing trains."""
    flags = [parameter.requires_grad for parameter in model.parameters()]
    if not any(flags):
        problem = f"has nothing above its line: 0 of {counted(len(flags), 'parameter')} train."
        raise LineError(expression, problem, (), 'Train what is to be above: ft.thaw(model, "head").')
    if all(flags):
        problem = f"has nothing below its line: 0 of {counted(len(flags), 'parameter')} are frozen."
        raise LineError(expression, problem, (), 'Freeze what is to be below: ft.freeze(model, "encoder").')


def nothing_below(expression: str, trained: Sequence[str]) -> LineError:
    """What trains is the first thing that an input meets."""
    first = trained[0]
    return LineError(
        expression,
        f"has nothing below its line: the input meets {first!r} first, which trains.",
        (),
        f'Freeze what comes first: ft.freeze(model, "{first}").',
    )


def mixes(expression: str, names: Sequence[str]) -> LineError:
    """What is computed for one sample depends on the others."""
    problem = f"mixes samples below its line: {counted(len(names), 'value')} cannot be kept for each sample by itself."
    fix = 'Cut where each sample is by itself: frostline(model, *example, at="layer3").'
    return LineError(expression, problem, tuple(names), fix)


def other_batch(expression: str, batch: int, other: int) -> LineError:
    """The model does something else for another number of samples."""
    problem = f"does something else for {counted(batch, 'sample')} than for {other}."
    return LineError(expression, problem, (), CUT)


def other_line(expression: str, now: Sequence[Boundary], before: Sequence[Boundary]) -> LineError:
    """In another mode, or for another number of samples, the line is somewhere else."""
    found = tuple(
        f"{when}: {', '.join(written(each) for each in some)}" for when, some in (("now", now), ("then", before))
    )
    fix = "Draw the line in the mode in which it is used: line = frostline(model, *example)."
    return LineError(expression, "has another line now than when it was drawn.", found, fix)


def thawed(names: Sequence[str]) -> LineError:
    """Something below the line trains now."""
    problem = f"would leave {counted(len(names), 'parameter')} below it without a gradient."
    fix = "Freeze what is below again, or draw the line anew: line = frostline(model, *example)."
    return LineError("line", problem, tuple(names), fix)


def otherwise(expression: str, what: str, differing: Sequence[str], total: int) -> LineError:
    """The trace does not compute what the model computes."""
    problem = f"computes otherwise in two parts: {len(differing)} of {counted(total, what)} differ."
    return LineError(expression, problem, tuple(differing), CUT)


def no_samples(expression: str, tensors: Sequence[str]) -> LineError:
    """The example does not say how many samples it is."""
    problem = (
        f"has {counted(len(tensors), 'tensor')} in its example, which must all have the same number of samples first."
    )
    fix = "Give it a batch as the model is called with: frostline(model, inputs)."
    return LineError(expression, problem, tuple(tensors), fix)


def no_example(expression: str, error: Exception) -> LineError:
    """The model does not take the example."""
    fix = "Give it a batch as the model is called with: frostline(model, inputs)."
    return LineError(expression, "cannot be drawn: the model does not take the example.", (said(error),), fix)


def said(error: Exception) -> str:
    """The first line of what somebody else's error says."""
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def unknown_output(expression: str, kind: str) -> LineError:
    """The model returns an object that cannot be taken apart."""
    problem = f"cannot be drawn: the model returns a {kind}, in which a trace finds no tensors."
    fix = "If it is a cache of keys and values, switch it off: model.config.use_cache = False."
    return LineError(expression, problem, (), fix)


def misfit(call: str, given: str, wanted: str, fix: str) -> LineError:
    """What is given has other shapes than those that the line is for."""
    return LineError(f"{call}({given})", "is not what the line was drawn for:", (wanted,), fix)


def written(boundary: Boundary) -> str:
    """A value at the boundary, as in an error: ``layer3 float32[256, 10, 10]``."""
    return f"{boundary.name} {boundary.dtype}{list(boundary.shape)}"


def module_at(model: nn.Module, path: str) -> nn.Module:
    """The module at a path.

    Raises:
        LineError: there is none.
    """
    modules = {name: module for name, module in model.named_modules() if name}
    if path not in modules:
        closest = get_close_matches(path, modules, n=3, cutoff=0.5) or list(modules)[:3]
        problem = f"is none of the {counted(len(modules), 'module')}. Closest paths:"
        fix = f'Write the path of one: frostline(model, *example, at="{(closest or [""])[0]}").'
        raise LineError(f"at={path!r}", problem, tuple(closest), fix)
    return modules[path]


def not_once(expression: str, path: str, times: int) -> LineError:
    """The module is called several times, or never."""
    problem = f"calls {path!r} {times} times, and a line is drawn behind one call."
    fix = "Cut behind a module that is called once: frostline(model, *example, at=...)."
    return LineError(expression, problem, (), fix)


def refuse_trained(expression: str, path: str, names: Sequence[str]) -> None:
    """Raises if something before the cut trains."""
    if names:
        trains = "trains" if len(names) == 1 else "train"
        problem = f"has {counted(len(names), 'parameter')} that would be below {path!r}, and {trains}."
        fix = f'Cut before it, or freeze it: ft.freeze(model, "{names[0]}").'
        raise LineError(expression, problem, tuple(names), fix)


def moving(model: nn.Module, expression: str, path: str, operator: str = "") -> LineError:
    """What a module below computes is random, or has a state."""
    problem = f"has {path!r} below its line, which is not the same in each call."
    found = f"{path}: {type(model.get_submodule(path)).__name__}{operator}"
    return LineError(expression, problem, (found,), hold(model, path))


def no_tensors(expression: str, path: str, kinds: Sequence[str]) -> LineError:
    """The module returns something else than tensors."""
    problem = f"returns from {path!r} what is not all tensors, and so cannot be kept."
    fix = "Cut behind a module that returns tensors: frostline(model, *example, at=...)."
    return LineError(expression, problem, tuple(kinds), fix)


def not_all(expression: str, path: str) -> LineError:
    """Something else than the module's output crosses."""
    problem = f"uses more from before {path!r} than its output: what it returns cannot be computed from that alone."
    fix = "Cut behind a module that everything goes through, or leave at= away if the model can be traced."
    return LineError(expression, problem, (), fix)

"""Why a model has no frost line, or a line does not take what it is given: the texts of these errors."""

from __future__ import annotations

from collections.abc import Iterable

from frostline._core.errors import LineError
from frostline._core.errors.base import counted

CALL = "frostline(fn, tree, *example)"
ABOVE = "line.above(tree, *boundary)"
BELOW = "line.below(*inputs)"
_BATCH = "Give it a batch, samples first, as fn takes it after the tree: frostline(fn, tree, x)."


def no_samples(shapes: dict[str, tuple[int, ...]]) -> LineError:
    """The arrays of the example have no common first dimension."""
    numbers = sorted({str(shape[0]) if shape else "none" for shape in shapes.values()})
    found = tuple(f"{name}: shape {shape}" for name, shape in shapes.items())
    problem = f"must have the same number of samples first in every array, and has {', '.join(numbers)} of them."
    fix = "Close over what is no batch: frostline(lambda tree, x: fn(tree, x, mask), tree, x)."
    return LineError(CALL, problem, found, fix)


def no_arrays() -> LineError:
    """The example has no array in it."""
    return LineError(CALL, "is given 0 arrays as an example, and a line is drawn behind one at least.", (), _BATCH)


def traced() -> LineError:
    """A line is to be drawn while something else is traced."""
    problem = "is called while it is traced itself, and a line needs the numbers of the tree and of the example."
    return LineError(CALL, problem, (), f"Draw it outside of jit, once: line = {CALL}; then jit what uses it.")


def untraceable(error: Exception, shapes: dict[str, tuple[int, ...]]) -> LineError:
    """The function does not take the example."""
    found = (_said(error), *(f"{name}: shape {shape}" for name, shape in shapes.items()))
    return LineError(CALL, "cannot be traced with this example.", found, _BATCH)


def fixed_batch(error: Exception | None, samples: int, others: int) -> LineError:
    """The function does something else for another number of samples."""
    found = () if error is None else (_said(error),)
    problem = f"can be traced with {counted(samples, 'sample')}, and is another function for {others}."
    return LineError(CALL, problem, found, "Keep the number of samples free: write x.shape[0] in place of a number.")


def nothing_frozen(params: int) -> LineError:
    """Nothing of the tree is frozen."""
    problem = (
        f"has nothing below its line: 0 of {counted(params, 'parameter')} {'is' if params == 1 else 'are'} frozen."
    )
    return LineError(CALL, problem, (), 'Freeze what is to be below: tree = freeze(tree, "encoder").')


def nothing_below(lowest: Iterable[str]) -> LineError:
    """What trains is the first thing that an input meets."""
    found = tuple(lowest)
    problem = f"has nothing below its line: an input meets {counted(len(found), 'parameter')} that trains first."
    problem = problem.replace("parameters that trains", "parameters that train")
    first = found[0] if found else "embed"
    return LineError(CALL, problem, found, f'Freeze what comes first: tree = freeze(tree, "{first}").')


def nothing_above(trainable: Iterable[str]) -> LineError:
    """Nothing that trains has a part in what is returned."""
    found = tuple(trainable)
    problem = f"returns nothing that depends on what trains, {counted(len(found), 'parameter')}."
    return LineError(CALL, problem, found, 'Train what it uses: tree = thaw(tree, "head").')


def random(names: Iterable[str]) -> LineError:
    """Work below the line depends on something random."""
    found = tuple(names)
    problem = f"is not the same in each call below its line: {counted(len(found), 'step')} there may differ."
    fix = "Switch it off there, as in evaluation, or thaw what comes after it."
    return LineError(CALL, problem, found, fix)


def keyed(names: Iterable[str]) -> LineError:
    """A key of random numbers is among the inputs."""
    found = tuple(names)
    problem = f"takes a key as an input, for {counted(len(found), 'random step')}: it would be the same in each epoch."
    fix = 'Put the key into the tree, a new one for each step: fn({"net": net, "key": key}, x).'
    return LineError(CALL, problem, found, fix)


def mixed(names: Iterable[str]) -> LineError:
    """What is computed for one sample below the line depends on the others."""
    found = tuple(names)
    problem = f"mixes samples below its line: {counted(len(found), 'value')} of one changes with the others."
    problem = problem.replace("values of one changes", "values of one change")
    fix = "Let it use stored statistics, as in evaluation, or move what mixes above: tree = thaw(tree, ...)."
    return LineError(CALL, problem, found, fix)


def placed(names: Iterable[str]) -> LineError:
    """What is computed for one sample below the line depends on where in a batch it is."""
    found = tuple(names)
    problem = f"computes something else for a sample in another place of a batch: {counted(len(found), 'value')}."
    fix = "Give each sample its number as an input, or move above the line what counts samples."
    return LineError(CALL, problem, found, fix)


def numbered(names: Iterable[str]) -> LineError:
    """What is computed for one sample below the line depends on how many there are."""
    found = tuple(names)
    problem = f"computes something else for a sample in a batch of another size: {counted(len(found), 'value')}."
    fix = "Take the number of samples, x.shape[0], out of what is computed below the line."
    return LineError(CALL, problem, found, fix)


def called_outside(names: Iterable[str]) -> LineError:
    """What is below is a function of Python in part."""
    found = tuple(names)
    problem = f"cannot say what is below: {counted(len(found), 'step')} there may do something else tomorrow."
    fix = 'Call it in the dataset, and give it a name: FeatureCache(..., preprocessing="name").'
    return LineError("line.fingerprint()", problem, found, fix)


def trained_below(names: Iterable[str]) -> LineError:
    """What is above is differentiated with respect to something below."""
    found = tuple(names)
    below = f"{counted(len(found), 'parameter')} below the line, where {'they have' if len(found) > 1 else 'it has'}"
    fix = f"Freeze {'them' if len(found) > 1 else 'it'} again, or draw the line anew: line = {CALL}."
    return LineError(ABOVE, f"is differentiated with respect to {below} no part.", found, fix)


def other_tree(found: Iterable[str]) -> LineError:
    """The tree has another structure than the one of the line, or other arrays."""
    arrays = tuple(found)
    what = f"with {counted(len(arrays), 'other leaf')}" if arrays else "of another structure"
    what = what.replace("leafs", "leaves")
    problem = f"got a tree {what} than the one that the line was drawn for."
    fix = f"Hand it that tree, after any number of steps, or draw another line: {CALL}."
    return LineError(ABOVE, problem, arrays, fix)


def donated(names: Iterable[str]) -> LineError:
    """The arrays of the tree that the line was drawn for were given away."""
    found = tuple(names)
    problem = f"needs the tree that the line was drawn for, and {counted(len(found), 'array')} of it were donated."
    problem = problem.replace("1 array of it were", "1 array of it was")
    fix = "Donate what trains alone: trained, rest = split(tree); or draw the line for a copy of the tree."
    return LineError(BELOW, problem, found, fix)


def other_values(call: str, problem: str, found: Iterable[str], fix: str) -> LineError:
    """Values of other shapes than those of the example."""
    return LineError(call, problem, tuple(found), fix)


def _said(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}".rstrip(": ")

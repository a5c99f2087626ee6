"""A frost line behind a module that the user names; the model itself runs, without a trace."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, final

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils import _pytree as pytree

from frostline._core.errors import LineError
from frostline._core.errors.base import counted
from frostline._core.selecting.nearby import closest
from frostline.features.boundary import Boundary
from frostline.torch._holding.patch import bare
from frostline.torch._line.calls import CallsBefore
from frostline.torch._line.cut import SampleDimension
from frostline.torch._line.inputs import Inputs
from frostline.torch._line.proof import untouched
from frostline.torch._line.sides import ABOVE, BELOW, Sides, changing_module, mixed_samples
from frostline.torch._tensors import dtype_name, tensors


@final
class SidesAt(Sides):
    """The sides of a line right behind one module.

    The part below runs the model up to the module. The part above also runs the model, on inputs without data, so that
    everything before the module costs nothing; the modules there return their earlier outputs.

    Args:
        model: the model.
        inputs: an example of its inputs.
        path: the path of the module.
        expression: the user's call, for errors.

    Raises:
        LineError: the module does not exist or is not called exactly once, a module before it trains, is random or has
            a state, or its output has no dimension of samples.
    """

    def __init__(self, model: nn.Module, inputs: Inputs, path: str, expression: str) -> None:
        super().__init__(model, inputs, expression)
        modules = {name: module for name, module in model.named_modules() if name}
        if path not in modules:
            near = closest(path, modules) or list(modules)[:3]
            problem = f"is not one of the {counted(len(modules), 'module')}. Closest paths:"
            fix = f'Write the path of one: frostline(model, *example, at="{(near or [""])[0]}").'
            raise LineError(f"at={path!r}", problem, tuple(near), fix)
        self.path, self._module = path, modules[path]
        calls = CallsBefore(model, inputs, path, expression)
        below, above = calls.held()
        if trained := sorted(calls.trained() | self.trained.intersection(below)):
            trains = "trains" if len(trained) == 1 else "train"
            problem = f"has {counted(len(trained), 'parameter')} that would be below {path!r}, and {trains}."
            fix = f'Cut before it, or freeze it: ft.freeze(model, "{trained[0]}").'
            raise LineError(expression, problem, tuple(trained), fix)
        if calls.changing is not None:
            raise changing_module(model, expression, calls.changing)
        values, self._spec = pytree.tree_flatten(calls.output)
        if not all(isinstance(value, torch.Tensor) for value in values):
            problem = f"has values at {path!r} that are not tensors, and cannot be stored."
            fix = "Cut behind a module that returns tensors: frostline(model, *example, at=...)."
            raise LineError(expression, problem, tuple(type(value).__name__ for value in values), fix)
        with untouched(model):
            others = self._run_to_module(pytree.tree_leaves(inputs.zeros(inputs.batch + 1, inputs.device)))
        self._dimensions: list[SampleDimension] = []
        for place, (value, other) in enumerate(zip(values, others, strict=True)):
            dimension = SampleDimension.of(value, other, inputs.batch, inputs.batch + 1)
            if dimension is None:
                raise mixed_samples(expression, [f"{path}: {list(value.shape)}"])
            self._dimensions.append(dimension)
            name = path if len(values) == 1 else f"{path}:{place}"
            shape = tuple(dimension.by_sample(value).shape[1:])
            self.boundary += (Boundary(name, shape, dtype_name(value.dtype), value.nbytes // inputs.batch),)
        words = (f"{name} {type(module).__qualname__} {module.extra_repr()}" for name, module in calls.called.items())
        self.identity = "\n".join([f"at {path}", *words])
        self.held[BELOW].add(below)
        self.held[ABOVE].add(above)
        self._skipped = calls.skipped
        self._fake = FakeTensorMode(allow_non_fake_inputs=True)
        self._outputs: dict[Any, dict[int, Any]] = {}

    def below(self, leaves: Sequence[Any]) -> list[torch.Tensor]:
        """Computes the boundary from the leaves of a call, samples first."""
        values = self._run_to_module(leaves)
        return [dimension.by_sample(value) for dimension, value in zip(self._dimensions, values, strict=True)]

    def above(self, boundary: Sequence[torch.Tensor]) -> Any:
        """Computes the model's output from the boundary, samples first."""
        values = [dimension.as_batch(value) for dimension, value in zip(self._dimensions, boundary, strict=True)]
        output = pytree.tree_unflatten(values, self._spec)
        device, batch = boundary[0].device, len(boundary[0])
        args, kwargs = pytree.tree_map_only(torch.Tensor, self._fake.from_tensor, self.inputs.zeros(batch, device))
        cause, returned = None, None
        with bare(), self._skipping_below(output, (batch, device)):
            try:
                returned = self.model(*args, **kwargs)
            except Exception as error:
                if "FakeTensor" not in str(error):
                    raise
                cause = error
        if cause is not None or any(isinstance(tensor, FakeTensor) for tensor in tensors(returned)):
            problem = f"uses more from before {self.path!r} than its output, from which alone it cannot go on."
            fix = "Cut behind a module that everything goes through, or leave at= away if the model can be traced."
            raise LineError(self.expression, problem, (), fix) from cause
        return returned

    def _run_to_module(self, leaves: Sequence[Any]) -> list[torch.Tensor]:
        args, kwargs = pytree.tree_unflatten(list(leaves), self.inputs.spec)

        def reached(module: nn.Module, args: Any, output: Any) -> None:
            raise _Reached(output)

        handle = self._module.register_forward_hook(reached)
        try:
            with bare():
                self.model(*args, **kwargs)
        except _Reached as found:
            return pytree.tree_leaves(found.args[0])
        finally:
            handle.remove()
        raise AssertionError("the module was called when the line was drawn")

    @contextmanager
    def _skipping_below(self, output: Any, key: tuple[int, torch.device]) -> Iterator[None]:
        """Replaces forwards: modules below return their earlier results, and the last one returns the boundary."""

        def cross(*args: Any, **kwargs: Any) -> Any:
            self._fake.allow_non_fake_inputs = False  # from here on, tensors without data are used only with each other
            return output

        forwards: dict[nn.Module, Any] = {self._module: cross}
        for path, module in self._skipped.items():
            autocast = torch.is_autocast_enabled(key[1].type)
            forwards[module] = self._skipping(module, self._outputs.setdefault((path, autocast, *key), {}))
        earlier = {module: module.__dict__.get("forward") for module in forwards}
        for module, forward in forwards.items():
            module.__dict__["forward"] = forward
        try:
            yield
        finally:
            self._fake.allow_non_fake_inputs = True
            for module, forward in earlier.items():
                del module.__dict__["forward"]
                if forward is not None:
                    module.__dict__["forward"] = forward

    def _skipping(self, module: nn.Module, outputs: dict[int, Any]) -> Callable[..., Any]:
        """Returns a forward that returns the earlier outputs of a module, call by call, until the line is crossed.

        An output that does not depend on the sample is computed with data, because the part above may use it.
        """
        forward, calls = module.forward, itertools.count()

        def skipped(*args: Any, **kwargs: Any) -> Any:
            if not self._fake.allow_non_fake_inputs:
                return forward(*args, **kwargs)
            call = next(calls)
            if call in outputs:
                return outputs[call]
            output = forward(*args, **kwargs)
            if all(isinstance(leaf, FakeTensor) for leaf in pytree.tree_leaves(output)):
                outputs[call] = output
            return output

        return skipped


class _Reached(Exception):  # noqa: N818 - not an error: it carries the output of a module out of a model
    """Raised when a module is called."""

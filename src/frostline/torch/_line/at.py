"""A frost line behind a module that the user names: no trace, the model itself runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
from frostline.torch._holding.forward import bare
from frostline.torch._line.calls import Reached, calls_before, stopping
from frostline.torch._line.cut import SampleDimension
from frostline.torch._line.inputs import Inputs
from frostline.torch._line.proof import untouched
from frostline.torch._line.sides import Sides, changing_module, mixed_samples
from frostline.torch._tensors import dtype_name, tensors


@final
class SidesAt(Sides):
    """The sides of a line right behind one module.

    Below runs the model up to there. Above runs the model too, with inputs that have no data: what comes before costs
    nothing then, and the modules in it are not even called again but return their earlier outputs.

    Args:
        model: the model.
        inputs: an example of its inputs.
        path: of the module.
        expression: what the user wrote, for errors.

    Raises:
        LineError: there is no such module, it is not called just once, something before it trains, is random or has
            a state, or its output has no dimension that is the sample's.
    """

    def __init__(self, model: nn.Module, inputs: Inputs, path: str, expression: str) -> None:
        super().__init__(model, inputs, expression)
        modules = {name: module for name, module in model.named_modules() if name}
        if path not in modules:
            near = closest(path, modules) or list(modules)[:3]
            problem = f"is none of the {counted(len(modules), 'module')}. Closest paths:"
            fix = f'Write the path of one: frostline(model, *example, at="{(near or [""])[0]}").'
            raise LineError(f"at={path!r}", problem, tuple(near), fix)
        self.path, self._module = path, modules[path]
        calls = calls_before(model, inputs, self._module, path, expression)
        if trained := sorted({*calls.trained, *self.trained.intersection(calls.below)}):
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
        self.identity = "\n".join((f"at {path}", *calls.words))
        for held, names in zip(self.held, (calls.below, calls.above), strict=True):
            held.add(names)
        self._skipped = calls.skipped
        self._fake = FakeTensorMode(allow_non_fake_inputs=True)
        self._outputs: dict[Any, dict[int, Any]] = {}

    def below(self, leaves: Sequence[Any]) -> list[torch.Tensor]:
        """Computes the boundary from the leaves of a call, samples first."""
        values = self._run_to_module(leaves)
        return [dimension.by_sample(value) for dimension, value in zip(self._dimensions, values, strict=True)]

    def above(self, boundary: Sequence[torch.Tensor]) -> Any:
        """Computes what the model returns from the boundary, samples first."""
        values = [dimension.as_batch(value) for dimension, value in zip(self._dimensions, boundary, strict=True)]
        output = pytree.tree_unflatten(values, self._spec)
        device, batch = boundary[0].device, len(boundary[0])
        cause, returned = None, None
        with bare(), self._skipping_below(output, (batch, device)):
            try:
                args, kwargs = pytree.tree_map_only(
                    torch.Tensor, self._fake.from_tensor, self.inputs.zeros(batch, device)
                )
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
        with bare(), stopping(self._module):
            try:
                self.model(*args, **kwargs)
            except Reached as reached:
                return pytree.tree_leaves(reached.output)
        raise AssertionError("the module was called when the line was drawn")

    @contextmanager
    def _skipping_below(self, output: Any, key: tuple[int, torch.device]) -> Iterator[None]:
        """Replaces forwards: modules below return what they returned before, and the last of them the boundary."""
        crossing = _Crossing(self._fake)
        forwards: dict[nn.Module, Any] = {self._module: _LastForward(output, crossing)}
        for path, module in self._skipped.items():
            autocast = torch.is_autocast_enabled(key[1].type)
            outputs = self._outputs.setdefault((path, autocast, *key), {})
            forwards[module] = _SkippedForward(module, outputs, crossing)
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


class _Crossing:
    """Whether the line has been crossed in this call; then nothing from before it may be used."""

    def __init__(self, fake: FakeTensorMode) -> None:
        self.is_below, self.fake = True, fake


class _LastForward:
    """Replaces the forward of the last module below."""

    def __init__(self, output: Any, crossing: _Crossing) -> None:
        self.output, self.crossing = output, crossing

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.crossing.is_below = self.crossing.fake.allow_non_fake_inputs = False
        return self.output


class _SkippedForward:
    """Replaces the forward of a module before it, call after call.

    An output that does not depend on the sample has data: it may be used above, and is computed.
    """

    def __init__(self, module: nn.Module, outputs: dict[int, Any], crossing: _Crossing) -> None:
        self.outputs, self.crossing = outputs, crossing
        self.forward = module.forward
        self.calls = 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not self.crossing.is_below:
            return self.forward(*args, **kwargs)
        self.calls += 1
        if self.calls in self.outputs:
            return self.outputs[self.calls]
        output = self.forward(*args, **kwargs)
        if all(isinstance(leaf, FakeTensor) for leaf in pytree.tree_leaves(output)):
            self.outputs[self.calls] = output
        return output

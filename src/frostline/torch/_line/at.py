"""A frost line behind a module that the user names: no trace, the model itself runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, final

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils import _pytree as pytree

from frostline.features.boundary import Boundary
from frostline.torch._holding.forward import bare
from frostline.torch._line import refusals
from frostline.torch._line.calls import Reached, calls_of, stopping
from frostline.torch._line.inputs import Inputs
from frostline.torch._line.proof import untouched
from frostline.torch._line.tree import Tree
from frostline.torch._line.values import Passage, passage_of
from frostline.torch._tensors import dtype_name


@final
class CutAt:
    """The line right behind one module.

    Below runs the model up to there. Above runs the model too, with inputs that have no data: what comes before costs
    nothing then, and the modules in it are not even called again but give what they once gave.

    Args:
        model: the model.
        inputs: an example.
        path: of the module.
        expression: what the user wrote.

    Raises:
        LineError: there is no such module, it is not called just once, something before it trains, is random or has
            a state, or its output has no dimension that is the samples'.
    """

    def __init__(self, model: nn.Module, inputs: Inputs, path: str, expression: str) -> None:
        self.model, self.path, self.expression = model, path, expression
        self.rewritten: set[str] = set()
        self._module = refusals.module_at(model, path)
        self._calls = calls_of(model, inputs, self._module, path, expression)
        self._inputs = inputs
        values, self._spec = self._once(inputs.leaves)
        others, _ = self._once(pytree.tree_leaves(inputs.zeros(inputs.batch + 1, inputs.device)))
        self._passages = [self._passage(*pair) for pair in zip(values, others, strict=True)]
        self.boundary = tuple(self._crossing(place, value) for place, value in enumerate(self._apart(values)))
        self.identity = "\n".join((f"at {path}", *self._calls.words))
        self.tops = nn.Module(), nn.Module()
        self._trees = Tree(model, self.tops[0]), Tree(model, self.tops[1])
        for tree, names in zip(self._trees, (self._calls.below, self._calls.above), strict=True):
            tree.add(names)
        self._fake = FakeTensorMode(allow_non_fake_inputs=True)
        self._given: dict[Any, Any] = {}

    def below(self, leaves: Sequence[Any]) -> list[torch.Tensor]:
        """The boundary of samples."""
        return self._apart(self._run_below(leaves))

    def above(self, boundary: Sequence[torch.Tensor]) -> Any:
        """What the model returns, from the boundary."""
        values = [passage.together(value) for passage, value in zip(self._passages, boundary, strict=True)]
        output = pytree.tree_unflatten(values, self._spec)
        device, batch = boundary[0].device, len(boundary[0])
        args, kwargs = self._fakes(batch, device)
        with bare(), self._in_place_of_below(output, (batch, device)):
            try:
                returned = self.model(*args, **kwargs)
            except Exception as error:
                if "FakeTensor" in str(error):
                    raise refusals.not_all(self.expression, self.path) from error
                raise
        if any(isinstance(leaf, FakeTensor) for leaf in pytree.tree_leaves(returned)):
            raise refusals.not_all(self.expression, self.path)
        return returned

    def module(self, leaves: Sequence[Any]) -> None:
        """There is no graph of what is below."""

    def tensors(self, side: int) -> Mapping[str, torch.Tensor]:
        """The tensors that the model has now, below (0) or above (1) the line, by name."""
        return self._trees[side].tensors()

    def follow(self) -> None:
        """Sees to it that what is above holds the tensors that the model has now."""
        self._trees[1].follow()

    def _once(self, leaves: Sequence[Any]) -> tuple[list[torch.Tensor], pytree.TreeSpec]:
        with untouched(self.model):
            values, spec = pytree.tree_flatten(self._output(leaves))
        if not all(isinstance(value, torch.Tensor) for value in values):
            raise refusals.no_tensors(self.expression, self.path, [type(value).__name__ for value in values])
        return values, spec

    def _run_below(self, leaves: Sequence[Any]) -> list[torch.Tensor]:
        return pytree.tree_leaves(self._output(leaves))

    def _output(self, leaves: Sequence[Any]) -> Any:
        args, kwargs = pytree.tree_unflatten(list(leaves), self._inputs.spec)
        with bare(), stopping(self._module):
            try:
                self.model(*args, **kwargs)
            except Reached as reached:
                return reached.output
        raise AssertionError("the module was called when the line was drawn")

    def _passage(self, value: torch.Tensor, other: torch.Tensor) -> Passage:
        found = passage_of(value, other, self._inputs.batch, self._inputs.batch + 1)
        if found is None:
            raise refusals.mixes(self.expression, [f"{self.path}: {list(value.shape)}"])
        return found

    def _apart(self, values: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        return [passage.apart(value) for passage, value in zip(self._passages, values, strict=True)]

    def _crossing(self, place: int, value: torch.Tensor) -> Boundary:
        name = self.path if len(self._passages) == 1 else f"{self.path}:{place}"
        dtype = dtype_name(value.dtype)
        return Boundary(name, tuple(value.shape[1:]), dtype, value.nbytes // len(value))

    def _fakes(self, batch: int, device: torch.device) -> Any:
        def fake(leaf: Any) -> Any:
            return self._fake.from_tensor(leaf) if isinstance(leaf, torch.Tensor) else leaf

        return pytree.tree_map(fake, self._inputs.zeros(batch, device))

    @contextmanager
    def _in_place_of_below(self, output: Any, key: Any) -> Iterator[None]:
        """Meanwhile the modules below give what they gave before, and the last of them gives the boundary."""
        crossing = _Crossing(self._fake)
        stand_ins: dict[nn.Module, Any] = {self._module: _Arrival(output, crossing)}
        for path, module in self._calls.skipped.items():
            autocast = torch.is_autocast_enabled(key[1].type)
            stand_ins[module] = _Skipped(module, self._given.setdefault((path, autocast, *key), {}), crossing)
        earlier = {module: module.__dict__.get("forward") for module in stand_ins}
        for module, stand_in in stand_ins.items():
            module.__dict__["forward"] = stand_in
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
        self._fake = fake
        self.is_below = True

    def cross(self) -> None:
        """It is crossed."""
        self.is_below = self._fake.allow_non_fake_inputs = False


class _Arrival:
    """Stands in for the forward of the last module below."""

    def __init__(self, output: Any, crossing: _Crossing) -> None:
        self.output, self.crossing = output, crossing

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.crossing.cross()
        return self.output


class _Skipped:
    """Stands in for the forward of a module before it, call after call.

    What does not depend on the sample has data: it may be used above, and is computed.
    """

    def __init__(self, module: nn.Module, given: dict[int, Any], crossing: _Crossing) -> None:
        self.given, self.crossing = given, crossing
        self.forward = module.forward
        self.calls = 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not self.crossing.is_below:
            return self.forward(*args, **kwargs)
        self.calls += 1
        if self.calls in self.given:
            return self.given[self.calls]
        output = self.forward(*args, **kwargs)
        if all(isinstance(leaf, FakeTensor) for leaf in pytree.tree_leaves(output)):
            self.given[self.calls] = output
        return output

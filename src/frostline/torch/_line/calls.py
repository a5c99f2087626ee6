"""The modules that a model calls before it reaches one of them, and their tensors."""

from __future__ import annotations

from typing import Any, final

import torch
from torch import nn

from frostline._core.errors import LineError
from frostline.torch._line.inputs import Inputs
from frostline.torch._line.proof import untouched
from frostline.torch._tensors import tensors


@final
class CallsBefore:
    """Records one call of a model with the calls of its modules up to one of them; the model does not change.

    Args:
        model: the model.
        inputs: the example for the call.
        path: the path of the module.
        expression: the user's call, for errors.

    Attributes:
        output: the output of the module.
        called: the modules that were called before it, and the module itself, by path.
        changing: the path of one of them that is random or has a state, or None.

    Raises:
        LineError: the module is not called exactly once.
    """

    def __init__(self, model: nn.Module, inputs: Inputs, path: str, expression: str) -> None:
        self._model, self._path, self._cut = model, path, model.get_submodule(path)
        self._paths = {module: name for name, module in model.named_modules()}
        self._outputs: list[Any] = []
        self._after: set[nn.Module] = set()
        self._random_state = torch.get_rng_state()
        self.called: dict[str, nn.Module] = {}
        self.changing: str | None = None
        handles = [module.register_forward_hook(self._note) for module in self._paths]
        args, kwargs = inputs.example
        try:
            with untouched(model) as written, torch.random.fork_rng():
                model(*args, **kwargs)
        finally:
            for handle in handles:
                handle.remove()
        if len(self._outputs) != 1:
            problem = f"calls {path!r} {len(self._outputs)} times, and a line is drawn behind one call."
            fix = "Cut behind a module that is called once: frostline(model, *example, at=...)."
            raise LineError(expression, problem, (), fix)
        (self.output,) = self._outputs
        owners = [name.rpartition(".")[0] for name in written]
        self.changing = next((each for each in (self.changing, *owners) if each in self.called), None)

    def _note(self, module: nn.Module, args: Any, output: Any) -> None:
        if self._outputs:
            self._after.add(module)
        else:
            self.called[self._paths[module]] = module
            now = torch.get_rng_state()
            if self.changing is None and not torch.equal(now, self._random_state):
                self.changing = self._paths[module]
            self._random_state = now
        if module is self._cut:
            self._outputs.append(output)

    @property
    def skipped(self) -> dict[str, nn.Module]:
        """The modules that are called before it and not by another such module, by path."""
        inside = {name for name in self.called for outer in self.called if name.startswith(f"{outer}.")}
        around = {name for name in self.called if f"{self._path}.".startswith(f"{name}.")}
        return {name: module for name, module in self.called.items() if name not in inside | around}

    def held(self) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """Returns the parameters and buffers below and above, by name.

        The tensors below belong to the modules called before and to the modules around them; the tensors above are all
        others, and those that are used again.
        """
        around = {"", *(self._path.rsplit(".", depth)[0] for depth in range(1, self._path.count(".") + 1))}
        below, above = {}, {}
        for name, tensor in [*self._model.named_parameters(), *self._model.named_buffers()]:
            owner = name.rpartition(".")[0]
            if owner in self.called or (owner in around and not tensor.requires_grad):
                below[name] = tensor
            if owner not in self.called or self.called[owner] in self._after:
                above[name] = tensor
        return below, above

    def trained(self) -> set[str]:
        """Returns the names of the trainable parameters that the output depends on."""
        names = {id(parameter): name for name, parameter in self._model.named_parameters()}
        waiting = [tensor.grad_fn for tensor in tensors(self.output)]
        seen, found = set[Any](), set[str]()
        while waiting:
            node = waiting.pop()
            if node is None or node in seen:
                continue
            seen.add(node)
            if (variable := getattr(node, "variable", None)) is not None:
                found.add(names.get(id(variable), "a tensor that is not a parameter"))
            waiting += [following for following, _ in node.next_functions]
        return found

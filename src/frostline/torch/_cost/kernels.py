"""The kernels of a step: their operations by unit, and the storages that they make."""

from __future__ import annotations

import weakref
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import Any, final

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from frostline.torch._autograd.flops import Share, backward_shares, forward_flops
from frostline.torch._autograd.integers import run
from frostline.torch._autograd.workspace import with_workspace
from frostline.torch._cost.places import Places
from frostline.torch._tensors import storages, tensors

FROM_EXAMPLE = "depends on the example"
RANDOM = "random numbers of a dropout, which a seed makes again"
_DRAWS = {torch.ops.aten.bernoulli_, torch.ops.aten.bernoulli, torch.ops.aten.native_dropout}


@final
class Kernels(TorchDispatchMode):
    """Observes each kernel of a step below autograd.

    Attributes:
        forward: operations of the forward pass, by unit.
        repeated: operations of forward kernels that ran again during backward, by unit.
        shares: operations of backward kernels for each gradient, by the number of the node.
        products: operations of plain matrix products in backward, by the number of the node.
        depends: by the number of a node, whether each of its tensor arguments depends on the example.
        used: the parameters, as ``id``, in the order of their first use.
    """

    def __init__(self, places: Places, live: LiveStorages, parameters: Iterable[torch.Tensor]) -> None:
        super().__init__()
        self.places, self.live = places, live
        self.forward: Counter[str] = Counter()
        self.repeated: Counter[str] = Counter()
        self.shares: dict[int, list[Share]] = defaultdict(list)
        self.products: Counter[int] = Counter()
        self.depends: dict[int, list[bool]] = {}
        self.used: dict[int, None] = {}
        self.is_backward = False
        self._parameters = {id(parameter) for parameter in parameters}

    def __torch_dispatch__(self, kernel: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if kernel.namespace == "prim":  # most calls ask for the device of a tensor
            return kernel(*args, **(kwargs or {}))
        made = with_workspace(kernel, args, run(kernel, args, kwargs or {}, self.live.knows))
        self._follow(list(tensors(args)), list(tensors(made)))
        if kernel.overloadpacket in _DRAWS:
            self.live.mark(RANDOM, list(tensors(made))[-1:])
        self._charge(kernel, args, made)
        return made

    def _follow(self, given: list[torch.Tensor], made: list[torch.Tensor]) -> None:
        self.live.see(made)
        self.used.update(dict.fromkeys(id(each) for each in given if id(each) in self._parameters))
        if any(self.live.is_marked(FROM_EXAMPLE, each) for each in given):
            self.live.mark(FROM_EXAMPLE, made)

    def _charge(self, kernel: Any, args: Any, made: Any) -> None:
        node = torch._C._current_autograd_node()
        is_gradient = self.is_backward and node is not None and not torch.is_grad_enabled()
        if is_gradient:
            self.shares[node._sequence_nr()].extend(backward_shares(kernel, args))
        flops = forward_flops(kernel, args, made)
        if not flops:
            return
        if is_gradient:
            self.products[node._sequence_nr()] += flops
            return
        unit = self.places.current if node is None or self.places.is_inside else self.places.of(node._sequence_nr())
        (self.repeated if self.is_backward else self.forward)[unit] += flops
        if torch.is_grad_enabled() and any(each.requires_grad for each in tensors(args)):
            # The node of this kernel was made just before it.
            self.depends[torch.autograd._get_sequence_nr() - 1] = list(self._dependence(args))

    def _dependence(self, args: Any) -> Iterator[bool]:
        """For each leading argument that can have a gradient, in the order of the edges of the node."""
        for value in args:
            if isinstance(value, list | tuple) and any(isinstance(each, torch.Tensor) for each in value):
                yield from self._dependence(value)
            elif value is None:
                yield False
            elif isinstance(value, torch.Tensor):
                if value.is_floating_point() or value.is_complex():  # positions have no edge
                    yield self.live.is_marked(FROM_EXAMPLE, value)
            else:
                return


@final
class LiveStorages:
    """The storages that are alive while a model runs without data, from the kernel that made them to their release.

    Args:
        given: tensors that exist before; their storages do not count.
    """

    def __init__(self, given: Iterable[torch.Tensor]) -> None:
        self.now = self.peak = 0
        self._watched: dict[int, weakref.ref[torch.UntypedStorage]] = {}
        self._given = [storage for tensor in given for storage in storages(tensor)]  # held: ids stay unique
        self._given_ids = {id(storage) for storage in self._given}
        self._marked: dict[str, set[int]] = {}

    @property
    def given_bytes(self) -> int:
        """Bytes of the tensors that existed before."""
        return sum({id(storage): storage.nbytes() for storage in self._given}.values())

    def knows(self, tensor: torch.Tensor) -> bool:
        """Whether a tensor existed before, or was made by a kernel."""
        return all(id(storage) in self._watched or id(storage) in self._given_ids for storage in storages(tensor))

    def see(self, tensors: Iterable[torch.Tensor]) -> None:
        """Adds the results of a kernel."""
        for tensor in tensors:
            for storage in storages(tensor):
                if id(storage) not in self._watched and id(storage) not in self._given_ids:
                    self._watch(storage)
        self.peak = max(self.peak, self.now)

    def mark(self, word: str, tensors: Iterable[torch.Tensor]) -> None:
        """Marks the storages of tensors with a word."""
        marked = self._marked.setdefault(word, set())
        marked.update(id(storage) for tensor in tensors for storage in storages(tensor))

    def is_marked(self, word: str, tensor: torch.Tensor) -> bool:
        """Whether a storage of the tensor is marked with a word."""
        marked = self._marked.get(word, ())
        return any(id(storage) in marked for storage in storages(tensor))

    def _watch(self, storage: torch.UntypedStorage) -> None:
        key, size = id(storage), storage.nbytes()

        def gone(_: object) -> None:
            self.now -= size
            for marked in self._marked.values():
                marked.discard(key)
            del self._watched[key]

        # The Python object of a storage lives as long as the storage itself.
        self._watched[key] = weakref.ref(storage, gone)
        self.now += size

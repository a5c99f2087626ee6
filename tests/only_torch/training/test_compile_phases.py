"""Compiled block by block, a block has two variants, whatever phases come and go."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

import frostline.torch as ft
from frostline.schedules import LISA, HiFT, Phase, Phases, Schedule, Span, ULMFiT
from frostline.torch._training.compiled_blocks import CompiledBlock
from only_torch.bits import bits

# PyTorch's compiler looks at it, and hides its own warning from all but those who make errors of warnings.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")

BLOCKS = ["blocks[0]", "blocks[1]", "blocks[2]"]


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.linear, self.drop = nn.LayerNorm(3), nn.Linear(3, 3), nn.Dropout(0.5)

    def forward(self, x: Tensor, *, mask: Tensor) -> tuple[Tensor, Tensor]:
        return x + self.drop(self.linear(self.norm(x) * mask)), mask


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(5, 3)
        self.blocks = nn.ModuleList(Block() for _ in range(3))
        self.head = nn.Linear(3, 1)

    def forward(self, words: Tensor) -> Tensor:
        x, mask = self.embed(words), torch.ones(3)
        for block in self.blocks:
            x, mask = block(x, mask=mask)
        return self.head(x)


WORDS = torch.tensor([0, 3, 1])


def compiled(counter: Any) -> Net:
    model = Net()
    for block in model.blocks:
        block.compile(backend=counter, fullgraph=True)
    return model


def walked(model: Net, along: Schedule | None, counter: CompileCounterWithBackend, steps: int) -> list[int]:
    """How many variants there are after each step, for all blocks together: they have one code."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    driver = ft.Driver(along, model, optimizer) if along is not None else None
    found = []
    for _ in range(steps):
        model.train()
        optimizer.zero_grad()
        model(WORDS).sum().backward()
        optimizer.step()
        found.append(counter.frame_count)
        if driver is not None:
            driver.step()
    return found


# Everything, one block alone, nothing below it, all of it frozen but the head.
ALL = Phases(
    [
        Span(0, 1, Phase()),
        Span(1, 2, Phase(["**", "!blocks[1]", "!head"])),
        Span(2, 3, Phase(["embed", "blocks[0]"])),
        Span(3, 4, Phase(["**", "!head"])),
        Span(4, 5, Phase(["blocks[1]"])),
        Span(5, 6, Phase(["**", "!embed", "!head"])),
        Span(6, None, Phase(["**", "!blocks[2]"])),
    ]
)
WALKS: dict[str, tuple[Schedule, list[int]]] = {
    "HiFT": (HiFT([*BLOCKS, "head"]), [2, 2, 2, 2, 2, 2, 2, 2]),
    "ULMFiT": (ULMFiT(["embed", *BLOCKS, "head"], period=1), [1, 2, 2, 2, 2, 2]),
    "LISA": (LISA(BLOCKS, sampled=1, period=1, always=["embed", "head"]), [2, 2, 2, 2, 2, 2]),
    "all": (ALL, [1, 2, 2, 2, 2, 2, 2]),
}


@pytest.mark.parametrize("name", WALKS)
def test_two_variants(name: str) -> None:
    along, expected = WALKS[name]
    counter = CompileCounterWithBackend("eager")
    assert walked(compiled(counter), along, counter, len(expected)) == expected


def test_by_hand_there_are_four() -> None:
    """The negative control: the same phases, and nobody sees to the inputs of the blocks."""
    counter = CompileCounterWithBackend("eager")
    model = compiled(counter)
    found = []
    for span in ALL.spans:
        ft.thaw(model)
        if span.phase.frozen:
            ft.freeze(model, *span.phase.frozen)
        found += walked(model, None, counter, 1)
    assert found == [1, 4, 4, 4, 4, 4, 4]


def numbers(model: Net, along: Schedule, steps: int) -> list[Any]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    driver = ft.Driver(along, model, optimizer)
    found: list[Any] = []
    for step in range(steps):
        torch.manual_seed(step)
        model.train()
        optimizer.zero_grad()
        out = model(WORDS)
        out.sum().backward()
        found += [bits(out), {path: p.grad is not None for path, p in model.named_parameters()}]
        optimizer.step()
        found.append([bits(p) for p in model.parameters()])
        driver.step()
    return found


def test_it_computes_and_trains_what_it_does_uncompiled() -> None:
    assert numbers(compiled("aot_eager"), ALL, 7) == numbers(Net(), ALL, 7)


def test_nothing_goes_back_through_what_is_frozen_below() -> None:
    model = compiled("eager")
    ft.Driver(Phases([Span(0, None, Phase(["embed", "blocks[:2]"]))]), model, torch.optim.SGD(model.parameters()))
    outputs = []
    for block in model.blocks:
        block._compiled_call_impl.compiled = _noting(outputs, block._compiled_call_impl.compiled)
    x = model.embed(WORDS)
    first, _ = model.blocks[0](x, mask=torch.ones(3))
    assert (x.requires_grad, outputs, first.requires_grad) == (False, [True], False)
    last, mask = model.blocks[2](first, mask=torch.ones(3))
    assert (last.requires_grad, mask.requires_grad) == (True, False)


def _noting(outputs: list[bool], call: Any) -> Any:
    def noted(*args: Any, **kwargs: Any) -> Any:
        result = call(*args, **kwargs)
        outputs.append(result[0].requires_grad)
        return result

    return noted


def test_evaluation_is_left_alone() -> None:
    model = compiled("eager")
    ft.Driver(Phases([Span(0, None, Phase(["embed"]))]), model, torch.optim.SGD(model.parameters()))
    with torch.no_grad():
        assert not model(WORDS).requires_grad


def test_the_model_itself_and_blocks_that_are_not_compiled_are_left_alone() -> None:
    model = Net()
    model.compile(backend="eager")
    model.blocks[1].compile(backend="eager")
    ft.Driver(ALL, model, torch.optim.SGD(model.parameters()))
    ft.Driver(ALL, Net(), torch.optim.SGD(model.parameters()))
    evened = {path for path, module in model.named_modules() if isinstance(module._compiled_call_impl, CompiledBlock)}
    assert evened == {"blocks.1"}


@pytest.mark.parametrize("again", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_is_not_compiled(again: Any) -> None:
    model = compiled("eager")
    ft.Driver(ALL, model, torch.optim.SGD(model.parameters()))
    assert [block._compiled_call_impl for block in again(model).blocks] == [None, None, None]

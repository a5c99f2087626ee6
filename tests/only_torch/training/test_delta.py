"""Deltas in PyTorch: their content, that it comes back bitwise, and that an error changes nothing."""

from __future__ import annotations

import copy
import json
import math
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import frostline.torch as ft
from checkpoint.deltas import document, signed, with_document
from cli.made_files import mutated
from frostline import FrostlineError, Rule
from frostline.errors import DeltaError, FileFormatError, PinnedError, WrappedError
from only_torch.bits import bits, contents, training

OTHER_BASE = (
    "Load first the weights that it was trained on, or leave the base as it is: load_delta(file, model, any_base=True)."
)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    return "run.safetensors"


def net(seed: int = 0) -> nn.Sequential:
    torch.default_generator.manual_seed(seed)
    return nn.Sequential(
        nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)),
        nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)),
        nn.Linear(3, 2),
    )


def adamw(model: nn.Module) -> torch.optim.AdamW:
    return torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)


def step(model: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
    model.train()
    optimizer.zero_grad()
    model(torch.randn(5, 4, generator=torch.Generator().manual_seed(seed))).square().sum().backward()
    optimizer.step()


def state_bits(state: dict[str, Any]) -> Any:
    """A state by name, tensors as bytes, with the types of all else."""
    match state:
        case torch.Tensor():
            return bits(state)
        case dict():
            return {key: state_bits(value) for key, value in state.items()}
        case list() | tuple():
            return type(state)(map(state_bits, state))
    return type(state), state


def everything(model: nn.Module, binding: ft.Binding | None = None) -> Any:
    """All that an error must leave as it is."""
    flags = {path: p.requires_grad for path, p in model.named_parameters()}
    inside = [] if binding is None else [[id(p) for p in g["params"]] for g in binding.optimizer.param_groups]
    state = None if binding is None else state_bits(binding.state_dict())
    return contents(model), flags, training(model), ft.plan(model), inside, state


class TestWhatIsSaved:
    def names(self, file: str) -> tuple[set[str], set[str]]:
        """Returns the content of the file, and the base that it was made on."""
        return set(load_file(file)), set(document(Path(file))["base"])

    def test_trainable_parameters_and_buffers_that_may_move(self, file: str) -> None:
        model = net()
        ft.freeze(model, "[0]", "[1][0].weight")
        ft.save_delta(file, model)
        assert self.names(file) == (
            {
                "1.0.bias",
                "1.1.weight",
                "1.1.bias",
                "1.1.running_mean",
                "1.1.running_var",
                "1.1.num_batches_tracked",
                "2.weight",
                "2.bias",
            },
            {
                "0.0.weight",
                "0.0.bias",
                "0.1.weight",
                "0.1.bias",
                "0.1.running_mean",
                "0.1.running_var",
                "0.1.num_batches_tracked",
                "1.0.weight",
            },
        )

    def test_the_base_is_what_a_guard_watches_and_the_rest_is_saved(self, file: str) -> None:
        model = net()
        ft.freeze(model, "[1]", "**.bias")
        ft.save_delta(file, model)
        moving, base = self.names(file)
        with ft.guard(model) as watching:
            pass
        assert base == watching.paths
        assert moving == set(model.state_dict()) - base

    def test_a_tied_parameter_once(self, file: str) -> None:
        model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3))
        model[1].weight = model[0].weight
        model[2].bias = model[1].bias
        ft.freeze(model, "**.bias")
        ft.save_delta(file, model)
        assert self.names(file) == ({"0.weight", "2.weight"}, {"0.bias", "1.bias"})
        assert document(Path(file))["aliases"] == {"0.weight": ["1.weight"], "1.bias": ["2.bias"]}

    def test_frozen_uses(self, file: str) -> None:
        """A use of a layer that trains elsewhere is that layer; one of a layer that does not is base."""
        layer, other = nn.BatchNorm1d(3), nn.Linear(3, 3)
        model = nn.Sequential(layer, ft.Frozen(layer), ft.Frozen(other))
        ft.save_delta(file, model)
        moving, base = self.names(file)
        buffers = {"0.running_mean", "0.running_var", "0.num_batches_tracked"}
        assert (moving, base) == ({"0.weight", "0.bias"} | buffers, {"2.weight", "2.bias"})
        before = contents(model)
        with torch.no_grad():
            layer.weight.mul_(2)
        ft.load_delta(file, model)
        assert contents(model) == before

    def test_buffers_that_a_state_dict_leaves_out_are_left_out(self, file: str) -> None:
        model = net()
        model[2].register_buffer("table", torch.ones(2), persistent=False)
        model[0][0].register_buffer("mask", torch.ones(2), persistent=False)
        ft.freeze(model, "[0]")
        ft.save_delta(file, model)
        moving, base = self.names(file)
        assert moving | base == set(model.state_dict())

    def test_integer_parameters_are_base(self, file: str) -> None:
        model = net()
        model[2].codes = nn.Parameter(torch.arange(3), requires_grad=False)
        ft.save_delta(file, model)
        assert self.names(file)[1] == {"2.codes"}
        model[2].codes.data.add_(1)
        with pytest.raises(DeltaError) as caught:
            ft.load_delta(file, model)
        assert caught.value.found == ("differs: 2.codes",)

    def test_modules_without_parameters_by_their_own_name(self, file: str) -> None:
        model = nn.Sequential(nn.BatchNorm1d(3, affine=False), nn.BatchNorm1d(3, affine=False), nn.Linear(3, 2))
        ft.freeze(model, "[0]")
        ft.save_delta(file, model)
        moving, base = self.names(file)
        assert {name for name in moving | base if name.startswith("0")} == base
        other = copy.deepcopy(model)
        ft.thaw(other)
        ft.load_delta(file, other)
        assert ft.plan(other) == ft.plan(model)

    def test_the_names_are_those_of_the_model_inside_a_wrapper(self, file: str) -> None:
        model = net()
        ft.save_delta(file, torch.compile(model, backend="eager"))
        assert set(load_file(file)) == set(model.state_dict())

    def test_the_same_state_gives_the_same_bytes(self, file: str) -> None:
        model = net()
        binding = ft.bind(adamw(model), model)
        step(model, binding.optimizer, 0)
        ft.save_delta(file, model, optimizer=binding, schedule={"b": 1, "a": [2]})
        ft.save_delta("again", model, optimizer=binding, schedule={"a": [2], "b": 1})
        assert Path(file).read_bytes() == Path("again").read_bytes()
        step(model, binding.optimizer, 1)
        ft.save_delta("later", model, optimizer=binding, schedule={"b": 1, "a": [2]})
        assert Path(file).read_bytes() != Path("later").read_bytes()

    def test_nothing_is_moved_by_saving(self, file: str) -> None:
        model = net()
        ft.freeze(model, "[0]")
        binding = ft.bind(adamw(model), model)
        step(model, binding.optimizer, 0)
        before = everything(model, binding)
        ft.save_delta(file, model, optimizer=binding)
        assert everything(model, binding) == before


class TestThereAndBack:
    def test_into_a_fresh_model_that_is_frozen_otherwise(self, file: str) -> None:
        model = net()
        ft.freeze(model, "[0]", "**.bias")
        binding = ft.bind(adamw(model), model)
        for seed in range(3):
            step(model, binding.optimizer, seed)
        ft.save_delta(file, model, schedule={"step": 3})

        other = net()
        handle = ft.freeze(other, "[2]")
        delta = ft.load_delta(Path(file), other)
        assert contents(other) == contents(model)
        assert ft.plan(other) == ft.plan(model) == delta.plan
        assert training(other) == training(model)
        assert delta.schedule == {"step": 3}
        assert delta.names == tuple(sorted(load_file(file)))
        handle.undo()
        assert ft.plan(other) == ft.plan(model)

    def test_a_model_that_is_frozen_so_already_keeps_its_handles(self, file: str) -> None:
        model = net()
        handle = ft.freeze(model, "[0]")
        ft.save_delta(file, model)
        ft.load_delta(file, model)
        handle.undo()
        assert ft.plan(model).frozen == frozenset()

    @pytest.mark.parametrize(
        "dtype",
        [
            torch.float16,
            torch.bfloat16,
            torch.float32,
            torch.float64,
            torch.complex64,
            torch.complex128,
            torch.float8_e4m3fn,
            torch.float8_e5m2,
            torch.float8_e8m0fnu,
        ],
    )
    def test_every_dtype_and_every_bit(self, file: str, dtype: torch.dtype) -> None:
        """Any bits: negative zeros, payloads of NaNs, denormals."""
        raw = torch.randint(0, 256, (3, 4, dtype.itemsize), dtype=torch.uint8)
        made = [raw.flatten().view(dtype).reshape(3, 4), raw[0, 0].view(dtype).reshape(()), torch.empty(0, 3).to(dtype)]
        model = nn.ParameterList(map(nn.Parameter, made))
        model.register_buffer("kept", made[0].clone())
        before = contents(model)
        ft.save_delta(file, model, schedule=None)
        other = copy.deepcopy(model)
        for tensor in (*other.parameters(), *other.buffers()):
            tensor.detach().reshape(-1).view(torch.uint8).zero_()
        assert contents(other) != before
        ft.load_delta(file, other)
        assert contents(other) == before

    def test_tensors_with_gaps_conjugated_and_transposed(self, file: str) -> None:
        base = torch.randn(6, 4)
        complexes = torch.randn(3, dtype=torch.complex64)
        model = nn.ParameterDict(
            {
                "t": nn.Parameter(base.T[:, ::2]),
                "z": nn.Parameter(complexes.conj()),
                "n": nn.Parameter(complexes.conj().imag),
            }
        )
        before = {path: bits(tensor.resolve_conj().resolve_neg()) for path, tensor in model.items()}
        ft.save_delta(file, model)
        with torch.no_grad():
            for tensor in model.values():
                tensor.zero_()
        ft.load_delta(file, model)
        assert {path: bits(tensor.resolve_conj().resolve_neg()) for path, tensor in model.items()} == before

    def test_values_are_written_in_place(self, file: str) -> None:
        model = net()
        ft.save_delta(file, model)
        before = {path: (id(p), p.data_ptr()) for path, p in model.named_parameters()}
        ft.load_delta(file, model)
        assert {path: (id(p), p.data_ptr()) for path, p in model.named_parameters()} == before
        assert all(p.is_leaf and p.grad_fn is None for p in model.parameters())

    def test_another_base_if_told_so(self, file: str) -> None:
        model, other = net(), net(1)
        ft.freeze(model, "[0]")
        ft.save_delta(file, model)
        before = contents(other)
        ft.load_delta(file, other, any_base=True)
        now, wanted = contents(other), contents(model)
        assert {path for path in now if now[path] != wanted[path]} == {"0.0.weight", "0.0.bias"}
        assert all(now[path] == before[path] for path in ("0.0.weight", "0.0.bias"))


OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "AdamW": lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.1),
    "AdamW foreach amsgrad": lambda p: torch.optim.AdamW(p, lr=0.1, amsgrad=True, foreach=True),
    "AdamW fused": lambda p: torch.optim.AdamW(p, lr=0.1, fused=True),
    "AdamW with a tensor for a rate": lambda p: torch.optim.AdamW(p, lr=torch.tensor(0.1)),
    "SGD": lambda p: torch.optim.SGD(p, lr=0.1),
    "SGD with momentum": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, nesterov=True),
    "Adagrad": lambda p: torch.optim.Adagrad(p, lr=0.1),
    "Adafactor": lambda p: torch.optim.Adafactor(p, lr=0.1),
    "NAdam": lambda p: torch.optim.NAdam(p, lr=0.1),
    "RMSprop": lambda p: torch.optim.RMSprop(p, lr=0.01, centered=True),
    "Rprop": lambda p: torch.optim.Rprop(p, step_sizes=(1e-6, math.inf)),
}


class TestTheOptimizer:
    def run(self, kind: str, moments: Any, cut: int | None) -> tuple[Any, Any]:
        """Eight steps, each with another part frozen; at the cut saved, and taken up by a model made anew."""
        model = net()
        binding = ft.bind(OPTIMIZERS[kind](model.parameters()), model, moments=moments)
        for number in range(8):
            ft.thaw(model)
            ft.freeze(model, f"[{number % 3}]")
            if number == cut:
                ft.save_delta("cut", model, optimizer=binding, schedule=number)
                model = on_the_base_of(model, "cut")
                ft.freeze(model, "[1]")
                binding = ft.bind(OPTIMIZERS[kind](model.parameters()), model, moments=moments)
                assert ft.load_delta("cut", model, optimizer=binding).schedule == number
            step(model, binding.optimizer, number)
        return contents(model), state_bits(binding.state_dict())

    @pytest.mark.parametrize("kind", OPTIMIZERS)
    def test_a_resumed_run_is_the_run(self, file: str, kind: str) -> None:
        whole = self.run(kind, "keep", None)
        for cut in (1, 4, 7):
            assert self.run(kind, "keep", cut) == whole

    @pytest.mark.parametrize("moments", ["keep", "cpu", "release"])
    def test_each_treatment_of_the_moments_of_frozen_parameters(self, file: str, moments: str) -> None:
        whole = self.run("AdamW", moments, None)
        for cut in range(8):
            assert self.run("AdamW", moments, cut) == whole

    def test_without_the_state_it_would_be_another_run(self, file: str) -> None:
        """The negative control."""
        model = net()
        binding = ft.bind(adamw(model), model)
        step(model, binding.optimizer, 0)
        ft.save_delta(file, model, optimizer=binding)
        other = net()
        fresh = ft.bind(adamw(other), other)
        ft.load_delta(file, other)
        step(model, binding.optimizer, 1)
        step(other, fresh.optimizer, 1)
        assert contents(model) != contents(other)

    def test_groups_rules_and_rates_come_back(self, file: str) -> None:
        model, other = net(), net()
        rules = [Rule("**.bias", weight_decay=0.0), Rule("[0]", lr_scale=0.5)]
        binding, fresh = (ft.bind(adamw(each), each, rules=rules) for each in (model, other))
        for group in binding.optimizer.param_groups:
            group["lr"] /= 3
        ft.save_delta(file, model, optimizer=binding)
        ft.load_delta(file, other, optimizer=fresh)
        assert state_bits(fresh.state_dict()) == state_bits(binding.state_dict())

    def test_it_is_in_the_file_by_name_and_without_a_pickle(self, file: str) -> None:
        model = net()
        ft.freeze(model, "**", "![2]")
        binding = ft.bind(adamw(model), model)
        step(model, binding.optimizer, 0)
        ft.save_delta(file, model, optimizer=binding)
        assert set(load_file(file)) == {
            "2.weight",
            "2.bias",
            *(f"@optimizer/2.{p}/{slot}" for p in ("weight", "bias") for slot in ("exp_avg", "exp_avg_sq", "step")),
        }

    def test_a_file_with_a_state_loads_without_an_optimizer(self, file: str) -> None:
        model, other = net(), net()
        binding = ft.bind(adamw(model), model)
        step(model, binding.optimizer, 0)
        ft.save_delta(file, model, optimizer=binding)
        ft.load_delta(file, other)
        assert contents(other) == contents(model)


def on_the_base_of(model: nn.Module, file: str) -> nn.Module:
    """Returns a fresh model that shares with another one only what a delta does not hold."""
    fresh, held = net(1), load_file(file).keys()
    base = {name: value for name, value in model.state_dict().items() if name not in held}
    fresh.load_state_dict(base, strict=False)
    return fresh


def saved(model: nn.Module, *, optimizer: ft.Binding | None = None) -> nn.Module:
    ft.save_delta("run.safetensors", model, optimizer=optimizer, schedule=1)
    return model


def _bound(model: nn.Module, **options: Any) -> ft.Binding:
    return ft.bind(adamw(model), model, **options)


def _frozen(model: nn.Module, *selectors: str) -> nn.Module:
    ft.freeze(model, *selectors)
    return model


def _longer(model: nn.Sequential) -> nn.Sequential:
    return model.append(nn.Linear(2, 2))


def _pinned(model: nn.Sequential) -> nn.Sequential:
    model[2] = ft.Frozen(model[2])
    return model


SAME_MODEL = "Build the model as it was when the delta was saved, then load: load_delta(file, model)."
AT = "load_delta('run.safetensors', model)"
STATE_FIX = "Bind the same optimizer with the same rules, or load without it: load_delta(file, model)."

# What is saved, into what it is loaded, with which optimizer, and what is then said.
REFUSED: list[tuple[str, Callable[[], object], Callable[[], nn.Module], Any, list[str]]] = [
    (
        "another base",
        lambda: saved(_frozen(net(), "[0]")),
        lambda: net(1),
        None,
        [
            f"{AT} holds a delta that was made on another base: 2 of 7 frozen tensors differ, 0 are unknown, "
            "0 are missing.",
            "  differs: 0.0.bias",
            "  differs: 0.0.weight",
            OTHER_BASE,
        ],
    ),
    (
        "more than the model has",
        lambda: saved(_longer(net())),
        net,
        None,
        [
            f"{AT} holds a delta that does not fit: 0 of 16 tensors are missing, 2 are unknown, "
            "0 have another shape or dtype.",
            "  unknown: 3.bias",
            "  unknown: 3.weight",
            SAME_MODEL,
        ],
    ),
    (
        "less than the model has",
        lambda: saved(net()),
        lambda: _longer(net()),
        None,
        [
            f"{AT} holds a delta of another model: 2 of its 12 paths are missing, 0 are unknown.",
            "  missing: 3.bias",
            "  missing: 3.weight",
            SAME_MODEL,
        ],
    ),
    (
        "another dtype",
        lambda: saved(_frozen(net(), "[0]")),
        lambda: net().to(torch.float16),
        None,
        [
            f"{AT} holds a delta that does not fit: 0 of 9 tensors are missing, 0 are unknown, "
            "8 have another shape or dtype.",
            "  1.0.weight: float32[3, 3] in the file, float16[3, 3] in the model",
            "  1.0.bias: float32[3] in the file, float16[3] in the model",
            "  1.1.weight: float32[3] in the file, float16[3] in the model",
            "  1.1.bias: float32[3] in the file, float16[3] in the model",
            "  2.weight: float32[2, 3] in the file, float16[2, 3] in the model",
            "  ... and 3 more",
            SAME_MODEL,
        ],
    ),
    (
        "buffers that the model has not",
        lambda: saved(net()),
        lambda: _without_buffers(net()),
        None,
        [
            f"{AT} holds a delta that does not fit: 0 of 13 tensors are missing, 3 are unknown, "
            "0 have another shape or dtype.",
            "  unknown: 1.1.num_batches_tracked",
            "  unknown: 1.1.running_mean",
            "  unknown: 1.1.running_var",
            SAME_MODEL,
        ],
    ),
    (
        "a model without values",
        lambda: saved(net()),
        lambda: net().to("meta"),
        None,
        [
            f"{AT} has 16 of 16 tensors on the meta device, where they have no values:",
            "  0.0.weight",
            "  0.0.bias",
            "  0.1.weight",
            "  0.1.bias",
            "  1.0.weight",
            "  ... and 11 more",
            'Give them a place first: model.to_empty(device="cpu").',
        ],
    ),
    (
        "no state of an optimizer",
        lambda: saved(net()),
        net,
        _bound,
        [
            f"{AT} holds no state of an optimizer.",
            "Load without it, load_delta(file, model), or save it: save_delta(file, model, optimizer=binding).",
        ],
    ),
    (
        "the state of another optimizer",
        lambda: (lambda model: saved(model, optimizer=ft.bind(torch.optim.SGD(model.parameters()), model)))(net()),
        net,
        _bound,
        [
            f"{AT} holds the state of another optimizer: this one got the state of SGD for AdamW.",
            STATE_FIX,
        ],
    ),
    (
        "a state of other rules",
        lambda: (lambda model: saved(model, optimizer=_bound(model, rules=[Rule("[2]", lr_scale=0.1)])))(net()),
        net,
        _bound,
        [
            f"{AT} holds the state of another optimizer: this one got 2 groups for 1, and 2 of 10 parameters are in "
            "another one.",
            "  2.weight",
            "  2.bias",
            STATE_FIX,
        ],
    ),
    (
        "an optimizer that is not bound",
        lambda: saved(net()),
        net,
        adamw,
        [
            "load_delta(file, model, optimizer=AdamW) takes what bind(optimizer, model) returns: it knows the "
            "parameters by name.",
            "Bind it first: binding = bind(optimizer, model); load_delta(file, model, optimizer=binding).",
        ],
    ),
]


def _without_buffers(model: nn.Sequential) -> nn.Sequential:
    model[1][1] = nn.BatchNorm1d(3, track_running_stats=False)
    return model


each_refused = pytest.mark.parametrize(
    ("save", "make", "bind", "lines"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED]
)


@each_refused
def test_the_whole_text_of_each_refusal_and_nothing_changes(
    file: str, save: Any, make: Any, bind: Any, lines: list[str]
) -> None:
    save()
    model = make()
    if not any(p.is_meta for p in model.parameters()):
        ft.freeze(model, "[1]")
    optimizer = bind(model) if bind else None
    binding = optimizer if isinstance(optimizer, ft.Binding) else None
    if binding is not None:
        step(model, binding.optimizer, 0)
    before = None if lines[0].count("meta device") else everything(model, binding)
    with pytest.raises(DeltaError) as caught:
        ft.load_delta(file, model, optimizer=optimizer)
    assert str(caught.value).split("\n") == lines
    assert before is None or everything(model, binding) == before


def test_a_parameter_of_a_frozen_use_is_not_trained(file: str) -> None:
    saved(net())
    model = _pinned(net())
    before = everything(model)
    with pytest.raises(PinnedError):
        ft.load_delta(file, model)
    assert everything(model) == before


def test_a_wrapper_that_would_ignore_the_change(file: str) -> None:
    saved(_frozen(net(), "[0]"))
    model = nn.Sequential(*net())
    model.register_forward_pre_hook(lambda *_: None)
    wrapped = _Ddp.around(model)
    before = everything(model)
    with pytest.raises(WrappedError):
        ft.load_delta(file, wrapped)
    assert everything(model) == before


class _Ddp(nn.parallel.DistributedDataParallel):
    """One that needs no other processes."""

    @classmethod
    def around(cls, model: nn.Module) -> nn.Module:
        made = cls.__new__(cls)
        nn.Module.__init__(made)
        made.module = model
        return made


SAVING: list[tuple[str, Callable[[nn.Sequential], object], list[str]]] = [
    (
        "tensors without values",
        lambda model: ft.save_delta("new", model.to("meta")),
        [
            "save_delta('new', model) has 16 of 16 tensors on the meta device, where they have no values:",
            "  0.0.weight",
            "  0.0.bias",
            "  0.1.weight",
            "  0.1.bias",
            "  1.0.weight",
            "  ... and 11 more",
            'Give them a place first: model.to_empty(device="cpu").',
        ],
    ),
    (
        "an optimizer that is not bound",
        lambda model: ft.save_delta("new", model, optimizer=adamw(model)),  # type: ignore[arg-type]
        [
            "save_delta(file, model, optimizer=AdamW) takes what bind(optimizer, model) returns: it knows the "
            "parameters by name.",
            "Bind it first: binding = bind(optimizer, model); save_delta(file, model, optimizer=binding).",
        ],
    ),
    (
        "a state that is not JSON",
        lambda model: ft.save_delta("new", model, optimizer=_with_an_object_in_its_state(model)),
        [
            "save_delta(file, model, optimizer=binding) finds a set in the state of the optimizer, at '/0/seen': "
            "it is neither a tensor nor JSON.",
            "Save without the optimizer: save_delta(file, model).",
        ],
    ),
    (
        "a place that is not there",
        lambda model: ft.save_delta(Path("absent/new"), model),
        [
            "save_delta('absent/new', model) cannot write the file: no such file or directory.",
            "Check the folder and the room on the disk: ls -ld absent; df -h absent",
        ],
    ),
]


def _with_an_object_in_its_state(model: nn.Module) -> ft.Binding:
    binding = _bound(model)
    binding.optimizer.param_groups[0]["seen"] = {1}
    return binding


@pytest.mark.parametrize(("act", "lines"), [row[1:] for row in SAVING], ids=[row[0] for row in SAVING])
def test_the_whole_text_of_each_save_that_fails(
    file: str, act: Callable[[nn.Sequential], object], lines: list[str]
) -> None:
    with pytest.raises(DeltaError) as caught:
        act(net())
    assert str(caught.value).split("\n") == lines
    assert os.listdir() == []


class TestDamage:
    def test_no_damage_is_loaded_even_in_part(self, file: str) -> None:
        model = net()
        ft.freeze(model, "[0]")
        binding = _bound(model)
        step(model, binding.optimizer, 0)
        ft.save_delta(file, model, optimizer=binding, schedule={"step": 1})
        content = Path(file).read_bytes()
        other = on_the_base_of(model, file)
        fresh = _bound(other)
        before = everything(other, fresh)
        for seed in range(150):
            Path("bad").write_bytes(mutated(content, random.Random(seed)))
            try:
                ft.load_delta("bad", other, optimizer=fresh)
            except FrostlineError:
                assert everything(other, fresh) == before, seed
            else:
                assert (contents(other), state_bits(fresh.state_dict())) == (
                    contents(model),
                    state_bits(binding.state_dict()),
                ), seed
                other = on_the_base_of(model, file)
                fresh = _bound(other)
                before = everything(other, fresh)

    @pytest.mark.parametrize(
        "optimizer",
        [
            7,
            {},
            {"format": "frostline.optimizer", "version": 1},
            {"format": "frostline.optimizer", "version": 2},
            {"format": "frostline.optax", "version": 1, "keys": {}},
        ],
    )
    def test_a_state_that_is_none(self, file: str, optimizer: object) -> None:
        self.refused(file, lambda fields: {**fields, "optimizer": optimizer})

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("optimizer", 7),
            ("groups", {"dict": {}}),
            ("groups", [7]),
            ("groups", [{"dict": {"params": []}}]),
            ("groups", []),
            ("group_of", {"dict": {}}),
            ("group_of", []),
            ("shapes", {"dict": {}}),
            ("state", []),
            ("state", {"2.weight": 7}),
            ("state", {"2.weight": {"dict": {"step": {"tensor": "@optimizer/none"}}}}),
            ("state", {"2.weight": {"tensor": "@optimizer/2.weight/step"}}),
            ("state", {"2.weight": {"dict": {"step": {"tensor": "2.weight"}}}}),
            ("state", {"3.weight": {"dict": {}}}),
            ("state", {}),
            ("state", {"2.weight": {"strange": 1}}),
            ("state", {"2.weight": {"float": "7"}}),
        ],
    )
    def test_a_state_of_another_form(self, file: str, key: str, value: object) -> None:
        self.refused(file, lambda fields: {**fields, "optimizer": {**fields["optimizer"], key: value}})

    @pytest.mark.parametrize("dtype", ["quint8", "complex256", "Tensor", "float16"])
    def test_moments_of_an_unknown_dtype(self, file: str, dtype: str) -> None:
        model = net()
        binding = ft.bind(torch.optim.SGD(model.parameters(), momentum=0.9), model)
        step(model, binding.optimizer, 0)
        binding.optimizer.state[model[2].bias]["momentum_buffer"] = torch.zeros(2, dtype=torch.complex128)
        ft.save_delta(file, model, optimizer=binding)
        fields = document(Path(file))
        fields["bytes"]["@optimizer/2.bias/momentum_buffer"][0] = dtype
        from frostline._core.fingerprint import digest_of

        fields["tensors"]["@optimizer/2.bias/momentum_buffer"] = digest_of(dtype, (2,), [bytes(32)])
        Path(file).write_bytes(with_document(Path(file), signed(fields)))
        with pytest.raises(DeltaError, match="is of the unknown dtype"):
            ft.load_delta(file, model, optimizer=binding)

    def refused(self, file: str, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        model = net()
        binding = _bound(model)
        step(model, binding.optimizer, 0)
        ft.save_delta(file, model, optimizer=binding)
        Path(file).write_bytes(with_document(Path(file), signed(change(document(Path(file))))))
        step(model, binding.optimizer, 1)
        before = everything(model, binding)
        with pytest.raises(DeltaError):
            ft.load_delta(file, model, optimizer=binding)
        assert everything(model, binding) == before
        ft.load_delta(file, model)

    def test_one_bit_of_a_moment(self, file: str) -> None:
        model = net()
        binding = _bound(model)
        step(model, binding.optimizer, 0)
        ft.save_delta(file, model, optimizer=binding)
        content = bytearray(Path(file).read_bytes())
        content[-1] ^= 1
        Path(file).write_bytes(content)
        # Also where the moments are not asked for: a damaged file is damaged.
        for optimizer in (binding, None):
            with pytest.raises(FileFormatError, match="1 of its 46 tensors are not what was saved"):
                ft.load_delta(file, model, optimizer=optimizer)


def test_a_plan_in_the_file_is_json(file: str) -> None:
    model = _frozen(net(), "[0]")
    saved(model)
    assert document(Path(file))["plan"] == json.loads(ft.plan(model).to_json())

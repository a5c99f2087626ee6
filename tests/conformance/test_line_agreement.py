"""The frost line and its feature cache agree in PyTorch and in JAX."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import torch

import frostline.jax as fj
import frostline.torch as ft
from conformance.twins import Twins, numbers
from frostline import NothingTrainableError
from frostline.cli import main
from frostline.errors import CacheError, LineError

# What crosses the line, shape and bytes of a sample in float32, and operations below it a sample.
#
# mlp: 2 · 4 · 8 = 64 for the first layer, 2 · 8 · 8 = 128 for the second.
# conv: 2 · 64 · 4 · 27 = 13824 for the first layer, 2 · 16 · 8 · 36 = 9216 for the second; pooled is less than what is
# pooled.
# attention, of 4 rows: 2 · 4 · 8 · 8 = 512 for a projection, 2 · 2 · 4 · 4 · 4 = 256 for the scores and for mixing; a
# block is 4 · 512 + 2 · 256 = 2560. What skips the second block crosses beside it.
LINES = {
    ("mlp", ("first",)): ([((8,), 32)], 64),
    ("mlp", ("first", "second")): ([((8,), 32)], 64 + 128),
    ("mlp", ("first", "third.weight", "last.bias")): ([((8,), 32)], 64),
    ("conv", ("first",)): ([((4, 4, 4), 256)], 13824),
    ("conv", ("first", "second")): ([((8, 4, 4), 512)], 13824 + 9216),
    ("attention", ("one",)): ([((4, 8), 128)], 2560),
    # Queries and keys give 32 numbers as probabilities, and 64 by themselves.
    ("attention", ("one", "two.{q,k}")): ([((4, 8), 128), ((2, 4, 4), 128)], 2560 + 2 * 512 + 256),
    ("attention", ("one", "two.{k,v}")): ([((4, 8), 128), ((2, 4, 4), 128), ((2, 4, 4), 128)], 2560 + 2 * 512),
    # The input itself skips the first block.
    ("attention", ("one.{q,k}", "two.v")): ([((4, 8), 128), ((2, 4, 4), 128)], 2 * 512 + 256),
}
each = pytest.mark.parametrize(("net", "frozen"), LINES, ids=["-".join((net, *some)) for net, some in LINES])


def lines(twins: Twins) -> tuple[ft.FrostLine, fj.FrostLine]:
    return ft.frostline(twins.model, twins.tensor), fj.frostline(twins.fn, twins.tree, twins.array)


@each
def test_the_boundary_is_equal(net: str, frozen: tuple[str, ...]) -> None:
    crossing, flops = LINES[net, frozen]
    for line in lines(Twins.of(net, *frozen)):
        assert [(value.shape, value.bytes) for value in line.boundary] == crossing
        assert {value.dtype for value in line.boundary} == {"float32"}
        assert line.flops == flops


@each
def test_the_boundary_has_equal_numbers(net: str, frozen: tuple[str, ...]) -> None:
    twins = Twins.of(net, *frozen)
    ours, theirs = lines(twins)
    one = [value.numpy() for value in ours.below(twins.tensor)]
    other = [np.asarray(value) for value in theirs.below(twins.array)]
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6)
    output = np.asarray(theirs.above(twins.tree, *map(jax.numpy.asarray, one)))
    np.testing.assert_allclose(output, twins.model(twins.tensor).detach(), rtol=2e-5, atol=2e-6)


REFUSALS: dict[str, tuple[tuple[str, ...], type[Exception], str, str]] = {
    "nothing is frozen": (
        (),
        LineError,
        """frostline(Mlp, float32[16, 4]) has nothing below its line: 0 of 8 parameters are frozen.
Freeze what is to be below: ft.freeze(model, "encoder").""",
        """frostline(fn, tree, *example) has nothing below its line: 0 of 8 parameters are frozen.
Freeze what is to be below: tree = freeze(tree, "encoder").""",
    ),
    "everything is frozen": (
        ("**",),
        NothingTrainableError,
        """frostline(Mlp, float32[16, 4]) has nothing above its line: 0 of 8 parameters train.
Train what is to be above: ft.thaw(model, "head").""",
        """frostline(fn, tree, *example) has nothing to train.
All 8 parameters are frozen, 0 of them inside frozen uses.
Thaw what is to be trained: tree = thaw(tree, "head").""",
    ),
    "the first layer trains": (
        ("second", "third"),
        LineError,
        "frostline(Mlp, float32[16, 4]) has nothing below its line: "
        """the input meets 'first.weight' first, which trains.
Freeze what comes first: ft.freeze(model, "first.weight").""",
        """frostline(fn, tree, *example) has nothing below its line: the input first meets 1 trainable parameter.
  first.weight
Freeze what comes first: tree = freeze(tree, "first.weight").""",
    ),
}


@pytest.mark.parametrize("why", REFUSALS)
def test_both_refuse(why: str) -> None:
    frozen, in_jax, ours, theirs = REFUSALS[why]
    twins = Twins.of("mlp", *frozen)
    with pytest.raises(LineError) as one:
        ft.frostline(twins.model, twins.tensor)
    with pytest.raises(in_jax) as other:
        fj.frostline(twins.fn, twins.tree, twins.array)
    assert (str(one.value), str(other.value)) == (ours, theirs)


Said = Callable[..., str]
INPUTS = numbers(20, 4, salt=5)
SAMPLES = [(INPUTS[number], number % 3) for number in range(20)]


class Caches:
    """Caches of both front ends, of the same network and samples."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.twins = Twins.of("mlp", "first", "second")
        self.ours, self.theirs = lines(self.twins)
        self.settings = settings
        self.folder = folder

    def torch(self, name: str = "torch") -> ft.FeatureCache:
        return ft.FeatureCache(self.folder / name, self.ours, **self.settings)

    def jax(self, name: str = "jax") -> fj.FeatureCache:
        return fj.FeatureCache(self.folder / name, self.theirs, **self.settings)

    def fill(self) -> None:
        samples = [(torch.from_numpy(x), label) for x, label in SAMPLES]
        self.torch().fill(samples, progress=False)
        self.jax().fill(SAMPLES, progress=False)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Said:
    """Returns a function that returns the output of `frostline cache ARGUMENTS`."""

    def call(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["frostline", "cache", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main()
        assert not caught.value.code
        return capsys.readouterr().out

    return call


@pytest.mark.parametrize("dtype", ["exact", "bfloat16", "int8"])
def test_stores_have_equal_descriptions(tmp_path: Path, said: Said, dtype: str) -> None:
    """A row has 32 bytes of features in float32, 16 in bfloat16, and 8 with two bounds of 4 in int8."""
    caches = Caches(tmp_path, dtype=dtype)
    caches.fill()
    found = [json.loads(said("info", str(tmp_path / name), "--json")) for name in ("torch", "jax")]
    names, prints, folders = zip(*map(_own, found), strict=True)
    assert found[0] == found[1]
    assert (found[0]["rows"], found[0]["samples"], found[0]["shards"]) == (20, 20, 1)
    assert names == ("relu_1", "custom_jvp_call")
    assert prints == (caches.ours.fingerprint(), caches.theirs.fingerprint())
    assert folders == (str(tmp_path / "torch"), str(tmp_path / "jax"))


def _own(found: dict[str, Any]) -> tuple[str, str, str]:
    """Removes and returns the values that only one front end has: a name in its trace, a fingerprint and a folder."""
    # The name is a part of what a shard says of itself.
    del found["bytes"]
    return found["values"][0].pop("name"), found.pop("fingerprint"), found.pop("directory")


def test_both_caches_are_verified(tmp_path: Path, said: Said) -> None:
    Caches(tmp_path).fill()
    for name in ("torch", "jax"):
        folder = str(tmp_path / name)
        assert said("verify", folder) == f"{folder!r}: 0 of 1 shard damaged, 20 rows read.\n"


def test_rows_have_equal_content(tmp_path: Path) -> None:
    """The labels are equal, and the features are equal up to the last bits."""
    caches = Caches(tmp_path)
    caches.fill()
    ours = caches.torch().dataset([(torch.from_numpy(x), label) for x, label in SAMPLES])
    theirs = caches.jax().dataset(SAMPLES)
    for number in range(20):
        ((one,), label), ((other,), same) = ours[number], theirs[number]
        assert label == same == number % 3
        np.testing.assert_allclose(one.numpy(), np.asarray(other), rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("filled", ["torch", "jax"])
def test_a_cache_of_the_other_is_refused(tmp_path: Path, filled: str) -> None:
    """Their numbers and steps differ in the last bits, so it is another model."""
    caches = Caches(tmp_path)
    caches.fill()
    prints = {"torch": caches.ours.fingerprint(), "jax": caches.theirs.fingerprint()}
    opened: Callable[[str], object] = caches.jax if filled == "torch" else caches.torch
    before = {file.name: file.read_bytes() for file in (tmp_path / filled).iterdir()}
    with pytest.raises(CacheError) as caught:
        opened(filled)
    folder, asked = str(tmp_path / filled), prints["jax" if filled == "torch" else "torch"]
    assert str(caught.value) == (
        f"FeatureCache({folder!r}, line) holds the features of another model, or of other weights below the line.\n"
        f"  fingerprint: {prints[filled]!r} in the cache, {asked!r} asked for\n"
        f"Use another folder, FeatureCache('{folder}-2', line), or delete it: frostline cache clear {folder}"
    )
    assert {file.name: file.read_bytes() for file in (tmp_path / filled).iterdir()} == before


def test_each_accepts_its_own_cache(tmp_path: Path) -> None:
    """Positive control: the same line is drawn again."""
    Caches(tmp_path).fill()
    again = Caches(tmp_path)
    assert [repr(cache).split(", ")[1] for cache in (again.torch(), again.jax())] == ["20 of 20 samples"] * 2

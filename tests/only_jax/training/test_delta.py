"""Deltas in JAX: saving them, loading them bitwise, and refusals."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from safetensors.numpy import load_file

import frostline.jax as fj
from checkpoint.deltas import document, signed, with_document
from cli.made_files import mutated
from conformance.plain_net import BatchNorm1d, Linear, Sequential
from frostline import FrostlineError, UnsupportedError
from frostline.errors import DeltaError, FileFormatError, PinnedError
from only_jax.bits import bits

OTHER_BASE = (
    "Load the weights that it was trained on first, or accept another base: load_delta(file, tree, any_base=True)."
)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    return "run.safetensors"


def net(seed: float = 0.0) -> dict[str, Any]:
    return {
        "trunk": {"w": jnp.arange(4.0).reshape(2, 2) + seed, "b": jnp.ones(2) + seed, "steps": jnp.array(3)},
        "neck": {"w": jnp.arange(4.0).reshape(2, 2) - seed, "b": jnp.zeros(2) + seed, "steps": jnp.array(4)},
        "head": jnp.ones((2, 3)) * (1 + seed),
        "name": "net",
        "rate": 0.5,
    }


def loss(tree: Any, x: jax.Array) -> jax.Array:
    hidden = jnp.tanh(x @ tree["trunk"]["w"] + tree["trunk"]["b"])
    hidden = jnp.tanh(hidden @ tree["neck"]["w"] + tree["neck"]["b"])
    return jnp.square(hidden @ tree["head"]).mean()


def step(tree: Any, tx: Any, state: Any, number: int) -> tuple[Any, Any]:
    grads = fj.grad(loss)(tree, jnp.sin(jnp.arange(6.0) + number).reshape(3, 2))
    updates, state = tx.update(grads, state, tree)
    trained, rest = fj.split(tree)
    return fj.join(optax.apply_updates(trained, updates), rest), state


def raw(tree: Any) -> list[tuple[str, str, bool, bytes]]:
    """Every leaf of a tree: its path, its dtype, whether the dtype is weak, and its bytes."""
    leaves = [(jax.tree_util.keystr(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]
    return [
        (path, str(getattr(leaf, "dtype", type(leaf))), getattr(leaf, "weak_type", False), plain(leaf).tobytes())
        for path, leaf in leaves
        if not isinstance(leaf, str)
    ]


def plain(leaf: Any) -> np.ndarray:
    is_key = isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(leaf) if is_key else leaf)


class TestSaving:
    def names(self, file: str) -> tuple[set[str], set[str]]:
        return set(document(Path(file))["tensors"]), set(document(Path(file))["base"])

    def test_trainable_arrays_and_all_others_that_may_move_are_saved(self, file: str) -> None:
        fj.save_delta(file, fj.freeze(net(), "trunk", "neck.b"))
        assert self.names(file) == ({"neck.w", "neck.steps", "head"}, {"trunk.w", "trunk.b", "trunk.steps", "neck.b"})

    def test_the_base_contains_the_arrays_that_a_guard_watches(self, file: str) -> None:
        tree = fj.freeze(net(), "trunk", "neck.b")
        fj.save_delta(file, tree)
        with fj.guard(tree) as watching:
            watching.verify(tree)
        assert self.names(file)[1] == watching.paths

    def test_a_tied_array_is_saved_once(self, file: str) -> None:
        shared, still = jnp.ones(2), jnp.zeros(2)
        tree = {"a": shared, "b": shared, "c": still, "d": still}
        for each in (fj.tie(tree | {"x": 1}), fj.freeze(fj.tie(tree), "c")):
            fj.save_delta(file, fj.freeze(each, "c", "d"))
            assert self.names(file) == ({"a"}, {"c"})
            assert document(Path(file))["aliases"] == {"a": ["b"], "c": ["d"]}

    def test_frozen_uses(self, file: str) -> None:
        layer = {"w": jnp.ones(2)}
        tree = {"free": layer, "use": fj.Frozen(layer), "other": fj.Frozen({"w": jnp.zeros(2)})}
        fj.save_delta(file, fj.tie(tree))
        assert self.names(file) == ({"free.w"}, {"other.w"})
        assert document(Path(file))["aliases"] == {"free.w": ["use.w"]}
        moved = {"w": jnp.full(2, 7.0)}
        loaded = fj.load_delta(file, fj.tie({**tree, "free": moved, "use": fj.Frozen(moved)})).tree
        assert loaded["free"]["w"] is loaded["use"]["w"]
        assert bits(loaded) == bits(tree)

    def test_buffers_of_a_norm(self, file: str) -> None:
        norms = [BatchNorm1d(*(jnp.full(2, float(i)) for i in range(4))) for _ in range(2)]
        fj.save_delta(file, fj.freeze(Sequential(*norms), "[0]"))
        parts = {"weight", "bias", "running_mean", "running_var"}
        assert self.names(file) == ({f"1.{part}" for part in parts}, {f"0.{part}" for part in parts})

    def test_the_same_state_gives_the_same_bytes(self, file: str) -> None:
        tree, tx = fj.freeze(net(), "trunk"), fj.optimizer(optax.adamw(0.1))
        for name in (file, "again"):
            fj.save_delta(name, tree, optimizer=tx, state=tx.init(tree), schedule=[1, {"a": None}])
        assert Path(file).read_bytes() == Path("again").read_bytes()


class TestRoundTrip:
    def test_a_delta_loads_into_a_new_tree_with_another_frozen_set(self, file: str) -> None:
        tree, tx = fj.freeze(net(), "trunk", "neck.b"), fj.optimizer(optax.adamw(0.1))
        state = tx.init(tree)
        for number in range(3):
            tree, state = step(tree, tx, state, number)
        fj.save_delta(file, tree, schedule={"step": 3})
        fresh = fj.freeze(net(), "head")
        before = raw(fresh)
        delta = fj.load_delta(Path(file), fresh)
        assert raw(delta.tree) == raw(tree)
        assert jax.tree.structure(delta.tree) == jax.tree.structure(tree)
        assert (delta.plan, delta.state, delta.schedule) == (fj.plan(tree), None, {"step": 3})
        assert delta.names == ("head", "neck.steps", "neck.w")
        assert raw(fresh) == before

    @pytest.mark.parametrize(
        "dtype",
        [
            jnp.float16,
            jnp.bfloat16,
            jnp.float32,
            jnp.complex64,
            jnp.float8_e4m3fn,
            jnp.float8_e5m2,
            jnp.float8_e8m0fnu,
            jnp.float8_e4m3b11fnuz,
            np.float64,
            np.complex128,
            np.int64,
            np.bool_,
            ">f4",
        ],
    )
    @pytest.mark.parametrize("in_jax", [True, False])
    def test_every_dtype_is_restored_bitwise(self, file: str, dtype: Any, in_jax: bool) -> None:
        kind = np.dtype(dtype)
        dice = np.random.default_rng(0).integers(0, 2 if kind == np.bool_ else 256, 12 * kind.itemsize, np.uint8)
        made = dice.view(kind).reshape(3, 4)
        with jax.enable_x64(kind.itemsize > 4):
            put = jnp.asarray if in_jax and kind.isnative else np.asarray
            tree = {
                "a": put(made),
                "b": put(made[0, 0]),
                "c": put(made[:0]),
                "t": put(made.T),
                "w": put(np.ones(1, np.float32)),
            }
            fj.save_delta(file, tree)
            empty = {name: put(np.zeros_like(np.asarray(leaf))) for name, leaf in tree.items()}
            loaded = fj.load_delta(file, empty).tree
        assert [type(leaf) for leaf in loaded.values()] == [type(leaf) for leaf in tree.values()]
        assert raw(loaded) == raw(tree)

    def test_small_integers_keys_and_scalars(self, file: str) -> None:
        def make(number: int) -> dict[str, Any]:
            return {
                "four": jnp.array([number, 2], jnp.int4),
                "key": jax.random.key(number),
                "keys": jax.random.split(jax.random.key(number, impl="rbg"), 2),
                "old": jax.random.PRNGKey(number),
                "scalar": np.float32(number),
                "w": jnp.ones(1),
            }

        fj.save_delta(file, make(1))
        loaded = fj.load_delta(file, make(3)).tree
        assert loaded["four"].tolist() == [1, 2]
        assert (loaded["key"], loaded["scalar"]) == (jax.random.key(1), np.float32(1))
        assert isinstance(loaded["scalar"], np.float32)
        assert bool((loaded["keys"] == make(1)["keys"]).all())
        assert loaded["keys"].dtype == make(1)["keys"].dtype

    def test_weak_types_are_restored(self, file: str) -> None:
        """A weak float32 times a bfloat16 is a bfloat16, a strong one is a float32."""
        weak, strong = {"w": jnp.full(2, 1.0)}, {"w": jnp.full(2, 1.0, jnp.float32)}
        assert (weak["w"].weak_type, strong["w"].weak_type) == (True, False)
        for saved in (weak, strong):
            for fresh in (weak, strong):
                fj.save_delta(file, saved)
                assert fj.load_delta(file, fresh).tree["w"].weak_type == saved["w"].weak_type

    def test_arrays_are_loaded_to_the_devices_of_the_tree(self, file: str) -> None:
        mesh = jax.make_mesh((2,), ("x",), devices=jax.devices()[:2])
        spread = NamedSharding(mesh, PartitionSpec("x"))
        fj.save_delta(file, {"a": jnp.arange(4.0), "b": jnp.arange(4.0)})
        fresh = {"a": jax.device_put(jnp.zeros(4), spread), "b": jnp.zeros(4)}
        loaded = fj.load_delta(file, fresh).tree
        assert loaded["a"].sharding == spread
        assert loaded["a"].tolist() == [0, 1, 2, 3]
        assert not loaded["b"].committed

    def test_a_sharded_tree_is_saved_like_any(self, file: str) -> None:
        mesh = jax.make_mesh((2,), ("x",), devices=jax.devices()[:2])
        fj.save_delta(file, {"a": jnp.arange(4.0)})
        fj.save_delta("spread", {"a": jax.device_put(jnp.arange(4.0), NamedSharding(mesh, PartitionSpec("x")))})
        assert Path(file).read_bytes() == Path("spread").read_bytes()

    def test_ties_stay_ties(self, file: str) -> None:
        shared = jnp.ones(2)
        fj.save_delta(file, fj.tie({"a": shared, "b": shared, "c": jnp.zeros(2)}))
        fresh = jnp.zeros(2)
        loaded = fj.load_delta(file, fj.tie({"a": fresh, "b": fresh, "c": jnp.ones(2)})).tree
        assert loaded["a"] is loaded["b"]
        assert raw(fj.strip(loaded)) == raw({"a": shared, "b": shared, "c": jnp.zeros(2)})

    def test_another_base_is_accepted_on_request(self, file: str) -> None:
        fj.save_delta(file, fj.freeze(net(), "trunk"))
        loaded = fj.load_delta(file, net(1), any_base=True).tree
        assert bits(loaded["trunk"]) == bits(net(1)["trunk"])
        assert bits(loaded["neck"]) == bits(net()["neck"])

    def test_a_tree_whose_frozen_part_is_only_described(self, file: str) -> None:
        fj.save_delta(file, fj.freeze(net(), "trunk", "neck"))
        described = jax.eval_shape(lambda: {k: v for k, v in net().items() if k != "name"})
        tree = {**described, "head": jnp.zeros((2, 3)), "name": "net", "rate": 0.5}
        assert fj.load_delta(file, tree, any_base=True).tree["head"].tolist() == [[1, 1, 1], [1, 1, 1]]


TRANSFORMATIONS: dict[str, Callable[[], Any]] = {
    "adamw": lambda: optax.adamw(0.1),
    "clipped, scheduled": lambda: optax.chain(
        optax.clip_by_global_norm(0.5), optax.adam(optax.cosine_decay_schedule(0.1, 20))
    ),
    "injected": lambda: optax.inject_hyperparams(optax.sgd)(learning_rate=0.1, momentum=0.9),
    "adafactor": lambda: optax.adafactor(0.1),
    "noise": lambda: optax.chain(optax.add_noise(0.1, 0.5, jax.random.key(1)), optax.adam(0.1)),
}


class TestTheOptimizer:
    def run(self, kind: str, moments: Any, cut: int | None) -> Any:
        tree, tx = net(), fj.optimizer(TRANSFORMATIONS[kind](), moments=moments)
        state = tx.init(tree)
        for number in range(4):
            tree = fj.freeze(fj.thaw(tree), ["trunk", "neck", "**.b"][number % 3])
            if number == cut:
                fj.save_delta("cut", tree, optimizer=tx, state=state, schedule=number)
                tx = fj.optimizer(TRANSFORMATIONS[kind](), moments=moments)
                delta = fj.load_delta("cut", on_the_base_of(tree, "cut"), optimizer=tx)
                tree, state = delta.tree, delta.state
                assert delta.schedule == number
            tree, state = step(tree, tx, state, number)
        return raw(tree), raw(state), jax.tree.structure((tree, state))

    @pytest.mark.parametrize("kind", TRANSFORMATIONS)
    def test_a_resumed_run_equals_an_uninterrupted_one(self, file: str, kind: str) -> None:
        whole = self.run(kind, "release", None)
        assert self.run(kind, "release", 2) == whole

    @pytest.mark.parametrize("moments", ["keep", "cpu"])
    def test_each_treatment_of_the_state_of_frozen_parameters(self, file: str, moments: str) -> None:
        whole = self.run("adamw", moments, None)
        for cut in range(1, 4):
            assert self.run("adamw", moments, cut) == whole

    def test_without_the_state_the_run_differs(self, file: str) -> None:
        """The negative control."""
        tree, tx = net(), fj.optimizer(optax.adam(0.1))
        tree, state = step(tree, tx, tx.init(tree), 0)
        fj.save_delta(file, tree)
        loaded = fj.load_delta(file, net()).tree
        assert raw(step(loaded, tx, tx.init(loaded), 1)[0]) != raw(step(tree, tx, state, 1)[0])

    def test_the_state_is_in_the_file_by_name(self, file: str) -> None:
        tree, tx = fj.freeze(net(), "trunk", "neck"), fj.optimizer(optax.sgd(0.1, momentum=0.9))
        fj.save_delta(file, tree, optimizer=tx, state=tx.init(tree))
        names = {name for name in load_file(file) if not name.endswith("/cohort")}
        assert names == {"head", "@optimizer/head/0.trace"}

    def test_a_file_with_a_state_loads_without_one(self, file: str) -> None:
        tree, tx = net(), fj.optimizer(optax.adam(0.1))
        fj.save_delta(file, tree, optimizer=tx, state=tx.init(tree))
        assert fj.load_delta(file, net(1)).state is None


def on_the_base_of(tree: Any, file: str) -> Any:
    """A new tree that has only those leaves of another one that a delta does not contain."""
    held = document(Path(file))["tensors"].keys()
    leaves, structure = jax.tree_util.tree_flatten_with_path(fj.strip(tree))
    names = [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in leaves]
    return structure.unflatten(
        leaf * 0 if name in held else leaf for name, (_, leaf) in zip(names, leaves, strict=True)
    )


SAME_MODEL = "Build the model as it was when the delta was saved, then load: load_delta(file, model)."
AT = "load_delta('run.safetensors', tree)"
STATE_FIX = "Make the optimizer that was saved, or load without it: load_delta(file, tree)."


def _saved(tree: Any, tx: Any = None) -> None:
    tx = tx and fj.optimizer(tx)
    fj.save_delta("run.safetensors", tree, optimizer=tx, state=tx and tx.init(tree))


REFUSED: list[tuple[str, Callable[[], object], Callable[[], Any], Any, list[str]]] = [
    (
        "another base",
        lambda: _saved(fj.freeze(net(), "trunk")),
        lambda: net(1),
        None,
        [
            f"{AT} holds a delta that was made on another base: 2 of 3 frozen tensors differ, 0 are unknown, "
            "0 are missing.",
            "  differs: trunk.b",
            "  differs: trunk.w",
            OTHER_BASE,
        ],
    ),
    (
        "another tree",
        lambda: _saved(net()),
        lambda: {"trunk": net()["trunk"], "tail": jnp.ones(1)},
        None,
        [
            f"{AT} holds a delta of another model: 1 of its 3 paths are missing, 0 are unknown.",
            "  missing: tail",
            SAME_MODEL,
        ],
    ),
    (
        "other shapes and dtypes, and a counter less",
        lambda: _saved(net()),
        lambda: {**net(), "head": jnp.ones((3, 2)), "neck": {"w": jnp.ones((2, 2), jnp.bfloat16), "b": jnp.ones(2)}},
        None,
        [
            f"{AT} holds a delta that does not fit: 0 of 6 tensors are missing, 1 are unknown, "
            "2 have another shape or dtype.",
            "  head: float32[2, 3] in the file, float32[3, 2] in the model",
            "  neck.w: float32[2, 2] in the file, bfloat16[2, 2] in the model",
            "  unknown: neck.steps",
            SAME_MODEL,
        ],
    ),
    (
        "arrays that are only described",
        lambda: _saved(net()),
        lambda: {**net(), "head": jax.ShapeDtypeStruct((2, 3), jnp.float32)},
        None,
        [
            f"{AT} has 1 of 7 arrays without values:",
            "  head",
            "Make the arrays first: tree = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), tree).",
        ],
    ),
    (
        "no state",
        lambda: _saved(net()),
        net,
        lambda: fj.optimizer(optax.adam(0.1)),
        [
            f"{AT} holds no optimizer state.",
            "Load without it, load_delta(file, tree), or save it: save_delta(file, tree, optimizer=tx, state=state).",
        ],
    ),
    (
        "the state of another optimizer",
        lambda: _saved({"w": jnp.ones(2)}, optax.sgd(0.1, momentum=0.9)),
        lambda: {"w": jnp.ones(2)},
        lambda: fj.optimizer(optax.sgd(0.1)),
        [
            f"{AT} holds the state of another optimizer: this one got the state of another transformation: "
            "0 arrays missing, 1 unknown.",
            "  unknown: w/0.trace",
            STATE_FIX,
        ],
    ),
    (
        "an optimizer without names",
        lambda: _saved(net()),
        net,
        lambda: optax.adam(0.1),
        [
            "load_delta(file, tree, optimizer=tx) takes the result of optimizer(tx), but got "
            "a GradientTransformationExtraArgs, which knows no names.",
            "Wrap it, and make the state with the wrapped one: tx = optimizer(tx); state = tx.init(tree).",
        ],
    ),
]


@pytest.mark.parametrize(("save", "make", "tx", "lines"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_the_whole_text_of_a_refused_delta(file: str, save: Any, make: Any, tx: Any, lines: list[str]) -> None:
    save()
    with pytest.raises(DeltaError) as caught:
        fj.load_delta(file, make(), optimizer=tx and tx())
    assert str(caught.value).split("\n") == lines


SAVING: list[tuple[str, Callable[[], object], list[str]]] = [
    (
        "a bare array",
        lambda: fj.save_delta("new", jnp.ones(2)),
        [
            "save_delta('new', tree) has 1 of 1 names that a file cannot have:",
            "  '' is empty",
            "Rename them, or give a bare array a name: {'weight': array}.",
        ],
    ),
    (
        "keys that no file takes",
        lambda: fj.save_delta("new", {"a\n": jnp.ones(2), "b..c": jnp.ones(1)}),
        [
            "save_delta('new', tree) has 2 of 2 names that a file cannot have:",
            "  'a\\n' has unprintable characters",
            "  'b..c' has an empty part",
            "Rename them, or give a bare array a name: {'weight': array}.",
        ],
    ),
    (
        "objects of Python",
        lambda: fj.save_delta("new", {"a": np.array([object()]), "b": jnp.ones(1)}),
        [
            "save_delta('new', tree) has 1 of 2 arrays without values:",
            "  a",
            "Make the arrays first: tree = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), tree).",
        ],
    ),
    (
        "an optimizer without a state",
        lambda: fj.save_delta("new", net(), optimizer=fj.optimizer(optax.adam(0.1))),
        [
            "save_delta(file, tree, optimizer=tx) got an optimizer, but no state.",
            "Pass both: save_delta(file, tree, optimizer=tx, state=state).",
        ],
    ),
    (
        "a state without an optimizer",
        lambda: fj.save_delta("new", net(), state=fj.optimizer(optax.adam(0.1)).init(net())),
        [
            "save_delta(file, tree, optimizer=tx, state=state) takes the result of optimizer(tx), but got None, "
            "which knows no names.",
            "Wrap it, and make the state with the wrapped one: tx = optimizer(tx); state = tx.init(tree).",
        ],
    ),
]


@pytest.mark.parametrize(("act", "lines"), [row[1:] for row in SAVING], ids=[row[0] for row in SAVING])
def test_the_whole_text_of_a_delta_that_cannot_be_saved(file: str, act: Callable[[], object], lines: list[str]) -> None:
    with pytest.raises(DeltaError) as caught:
        act()
    assert str(caught.value).split("\n") == lines
    assert not Path("new").exists()


@pytest.mark.parametrize("act", [fj.save_delta, fj.load_delta])
def test_a_delta_is_refused_in_compiled_code(file: str, act: Any) -> None:
    with pytest.raises(UnsupportedError) as caught:
        jax.jit(lambda tree: act(file, tree) and None)({"w": jnp.ones(2)})
    assert str(caught.value).split("\n") == [
        f"{act.__name__}(file, tree) is called inside jit, where arrays have no bytes yet.",
        "Call it outside the compiled step: tree = step(tree, batch); save_delta(file, tree).",
    ]


def test_parameters_of_a_frozen_use_are_not_saved_as_trained(file: str) -> None:
    fj.save_delta(file, {"w": jnp.ones(2), "use": {"w": jnp.ones(2)}})
    with pytest.raises(PinnedError):
        fj.load_delta(file, {"w": jnp.ones(2), "use": fj.Frozen({"w": jnp.ones(2)})})


def test_numbers_of_64_bits_that_jax_would_narrow(file: str) -> None:
    with jax.enable_x64(True):
        tree = {"w": jnp.ones(2, jnp.float64)}
        fj.save_delta(file, tree)
    with pytest.raises(DeltaError) as caught:
        fj.load_delta(file, tree)
    assert str(caught.value).split("\n") == [
        "load_delta(file, tree) cannot make 'w' of float64: JAX makes it float32.",
        'Have JAX make arrays of 64 bits: jax.config.update("jax_enable_x64", True).',
    ]


class TestDamage:
    def test_a_damaged_file_is_refused(self, file: str) -> None:
        tree, tx = fj.freeze(net(), "trunk"), fj.optimizer(optax.adam(0.1))
        tree, state = step(tree, tx, tx.init(tree), 0)
        fj.save_delta(file, tree, optimizer=tx, state=state, schedule={"step": 1})
        content, good = Path(file).read_bytes(), (raw(tree), raw(state))
        refused = 0
        for seed in range(60):
            Path("bad").write_bytes(mutated(content, random.Random(seed)))
            try:
                delta = fj.load_delta("bad", net(), optimizer=tx)
                assert (raw(delta.tree), raw(delta.state)) == good, seed
            except FrostlineError:
                refused += 1
        assert refused > 50

    @pytest.mark.parametrize(
        "optimizer",
        [
            7,
            {},
            {"format": "frostline.optax", "version": 1},
            {"format": "frostline.optax", "version": 1, "keys": []},
            {"format": "frostline.optax", "version": 1, "keys": {"head": "rbg"}},
            {"format": "frostline.optax", "version": 1, "keys": {"@optimizer/head/0.mu": "rbg"}},
            {"format": "frostline.optax", "version": 1, "keys": {"@optimizer/head/0.mu": {}}},
            {"format": "frostline.optax", "version": 1, "keys": {"@optimizer/head/0.mu": "strange"}},
            {"format": "frostline.optimizer", "version": 1, "keys": {}},
        ],
    )
    def test_a_state_that_is_not_a_state(self, file: str, optimizer: object) -> None:
        tree, tx = net(), fj.optimizer(optax.adam(0.1))
        fj.save_delta(file, tree, optimizer=tx, state=tx.init(tree))
        fields = {**document(Path(file)), "optimizer": optimizer}
        Path(file).write_bytes(with_document(Path(file), signed(fields)))
        with pytest.raises(DeltaError, match="holds a state that cannot be used: "):
            fj.load_delta(file, net(), optimizer=tx)
        fj.load_delta(file, net())

    def test_one_bit(self, file: str) -> None:
        fj.save_delta(file, net())
        content = bytearray(Path(file).read_bytes())
        content[-1] ^= 1
        Path(file).write_bytes(content)
        with pytest.raises(FileFormatError, match="1 of its 7 tensors are not what was saved: "):
            fj.load_delta(file, net())


def test_modules(file: str) -> None:
    model = Sequential(Linear(jnp.ones((2, 2)), jnp.ones(2)), BatchNorm1d(*(jnp.ones(2) for _ in range(4))))
    fj.save_delta(file, fj.freeze(model, "[0]"))
    assert isinstance(fj.load_delta(file, model).tree, Sequential)

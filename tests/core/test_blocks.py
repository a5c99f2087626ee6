"""The parts of a model by depth."""

from collections.abc import Iterable

import pytest

from core.models import MODEL, TIED, Net
from frostline._core.inventory import Inventory
from frostline._core.param import Module, Param
from frostline._core.selecting.blocks import blocks
from frostline._core.selecting.resolve import resolve


class Block: ...


class Other: ...


def model(paths: Iterable[str], owners: dict[str, type]) -> Inventory:
    """A model of modules with registration order: a path that ends in a slash is a list."""
    params = tuple(Param(path, (2,), "float32", 4) for path in paths)
    above = {path[:end] for path in paths for end, letter in enumerate(path) if letter == "."} | {""}
    modules = []
    for path in sorted(above, key=lambda each: next(n for n, p in enumerate(paths) if f"{p}.".startswith(each))):
        below = {each.removeprefix(f"{path}.").partition(".")[0] for each in paths if each.startswith(f"{path}.")}
        members = tuple(sorted(below, key=int)) if below and all(map(str.isdecimal, below)) else None
        modules.append(Module(path, owners.get(path, Net), members=members))
    return Inventory(params, tuple(modules))


def test_repeated_blocks_come_between_what_precedes_and_what_follows() -> None:
    layers = [f"enc.layers.{n}.{part}.w" for n in range(3) for part in ("attn", "mlp")]
    found = blocks(model(["cls", "tok.w", "pos.w", *layers, "norm.w", "head.w"], {}))
    assert found == ["{cls,tok,pos}", "enc.layers.0", "enc.layers.1", "enc.layers.2", "norm", "head"]


def test_experts_are_no_blocks_and_stages_are_looked_into() -> None:
    experts = [f"layers.{n}.mlp.experts.{e}.{part}.w" for n in range(2) for e in range(2) for part in "abc"]
    assert blocks(model([*experts, "head.w"], {})) == ["layers.0", "layers.1", "head"]
    parts = [f"{block}.{part}.w" for block in ("0.blocks.0", "1.blocks.0", "1.blocks.1") for part in "abc"]
    found = blocks(model([*(f"stages.{part}" for part in parts), "stages.1.down.w", "head.w"], {}))
    assert found == ["stages.0.blocks", "stages.1.blocks.0", "stages.1.blocks.1", "stages.1.down", "head"]


def test_members_without_modules_are_blocks_where_there_are_no_others() -> None:
    assert blocks(model(["body.0.w", "body.0.b", "body.2.w", "head.w"], {})) == ["body.0", "body.2", "head"]
    assert blocks(model(["body.0.w", "head.w"], {})) == ["body", "head"]
    classes = {"body.0": Block, "body.1": Other}
    assert blocks(model(["body.0.w", "body.1.w", "head.w"], classes)) == ["body", "head"]


def test_a_wrapper_with_one_child_is_looked_through() -> None:
    assert blocks(model(["module.net.body.w", "module.net.head.w"], {})) == ["module.net.body", "module.net.head"]
    assert blocks(model(["fc.w", "fc.b"], {})) == ["fc"]
    assert blocks(model(["w", "b"], {})) == ["w", "b"]
    assert blocks(Inventory(())) == []


def test_a_mapping_is_ordered_by_numbers_and_by_words() -> None:
    keys = ["block_10", "block_9", "decoder", "encoder", "final_norm", "head", "pos_embed", "stem"]
    found = blocks(Inventory(tuple(Param(f"{key}.w", (2,), "float32", 4) for key in keys)))
    assert found == ["pos_embed", "stem", "block_9", "block_10", "encoder", "decoder", "final_norm", "head"]


def test_a_tied_parameter_is_in_the_block_of_its_first_name() -> None:
    assert blocks(TIED) == ["embed", "body", "head.bias"]


def test_modules_with_buffers_alone_are_in_the_block_of_a_neighbour() -> None:
    net = model(["layers.0.a.w", "layers.1.a.w", "norm.w", "head.w"], {})
    rotary = Module("rotary", Other, 8, stateful=True)
    assert blocks(Inventory(net.params, (*net.modules, rotary))) == ["layers.0", "layers.1", "norm", "{head,rotary}"]


@pytest.mark.parametrize("inventory", [MODEL, TIED], ids=["model", "tied"])
def test_each_name_is_in_exactly_one_block(inventory: Inventory) -> None:
    found = [path for block in blocks(inventory) for path in resolve([block], inventory)]
    assert sorted(found) == sorted(inventory.paths)

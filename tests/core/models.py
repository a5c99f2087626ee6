"""Small models, as data."""

from __future__ import annotations

from frostline._core.inventory import Inventory
from frostline._core.param import Module, Param


class Net: ...


class Linear: ...


class LowRankLinear(Linear): ...


class Norm: ...


class Activation: ...


class ModuleList: ...


def param(path: str, *shape: int, owners: tuple[type, ...] = (Net,), **rest: object) -> Param:
    return Param(path, shape or (2,), "float32", 4, owners, **rest)  # type: ignore[arg-type]


LAYERS = tuple(param(f"layers.{number}.weight", owners=(Net, ModuleList, Linear)) for number in range(11))

# One of each that a path can run into: a parameter of the root, a list of more than ten, a sequence with names, keys
# that are no identifiers, a module without parameters, and one with buffers only.
MODEL = Inventory(
    params=(
        param("scale"),
        param("embed.weight", 50, 4),
        *LAYERS,
        param("stem.conv.weight", owners=(Net, LowRankLinear)),
        param("stem.norm.weight", owners=(Net, Norm)),
        param("stem.norm.bias", owners=(Net, Norm)),
        param("stem.out.weight", owners=(Net, Linear)),
        param("table.mlp/~/linear.w"),
        param("table.my key.w"),
        param("table.a.b.w", keys=("table", "a.b", "w")),
        param("head.q_proj.weight", owners=(Net, Linear)),
        param("head.q_proj.bias", owners=(Net, Linear)),
        param("head.v_proj.weight", owners=(Net, Linear)),
        param("head.o_proj.weight", owners=(Net, Linear)),
        param("gains.0"),
        param("gains.1"),
    ),
    modules=(
        Module("", Net),
        Module("embed", Net),
        Module("layers", ModuleList),
        *(Module(f"layers.{number}", Linear) for number in range(11)),
        Module("stem", ModuleList, members=("conv", "norm", "act", "out")),
        Module("stem.conv", LowRankLinear),
        Module("stem.norm", Norm),
        Module("stem.act", Activation),
        Module("stem.out", Linear),
        Module("stats", Norm, buffer_bytes=24, stateful=True),
    ),
)

# head.weight is embed.weight; both biases are their own.
TIED = Inventory(
    params=(
        param("embed.weight", 50, 4, aliases=("head.weight",), owners=(Net, Norm, Linear)),
        param("body.weight", 4, 4, owners=(Net, Linear)),
        param("body.bias", 4, owners=(Net, Linear)),
        param("head.bias", 50, owners=(Net, Linear)),
    ),
    modules=(Module("", Net), Module("embed", Norm), Module("body", Linear), Module("head", Linear)),
)

# The six parameters that the texts of errors speak of.
SMALL = Inventory(
    params=tuple(
        param(path, owners=(Net, owner))
        for path, owner in (
            ("embed.table", Norm),
            ("body.weight", Linear),
            ("body.bias", Linear),
            ("norm.weight", Norm),
            ("head.projection", Linear),
            ("head.shift", Linear),
        )
    ),
    modules=(
        Module("", Net),
        Module("embed", Norm),
        Module("body", Linear),
        Module("act", Activation),
        Module("norm", Norm),
        Module("head", Linear),
    ),
)

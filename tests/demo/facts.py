"""What the two frameworks call the same things, and how many there are."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Facts:
    """What is known of the quick demo in one framework.

    Attributes:
        parameters: the names of those of the trunk.
        statistics: the names of the running statistics of its batch norm.
        moved: the names of what moves in a trunk that is frozen by hand.
        alarm: how the guard begins to say so.
        proof: what it proves.
        by_hand: how the demo tells of two tensors that moved.
    """

    parameters: frozenset[str]
    statistics: frozenset[str]
    moved: frozenset[str]
    alarm: str
    proof: str
    by_hand: str


_BUFFERS = frozenset(
    f"trunk.{layer}.{name}" for layer in (1, 4, 8) for name in ("running_mean", "running_var", "num_batches_tracked")
)
_ARRAYS = frozenset(f"trunk.{block}.{name}" for block in (0, 1, 2) for name in ("weight", "scale", "shift"))
_STATISTICS = frozenset(f"trunk_statistics.{block}" for block in (0, 1, 2))

FACTS = {
    "torch": Facts(
        parameters=frozenset(f"trunk.{layer}.weight" for layer in (0, 1, 3, 4, 7, 8))
        | frozenset(f"trunk.{layer}.bias" for layer in (1, 4, 8)),
        statistics=_BUFFERS,
        # No gradient reaches the optimizer, so that weight decay does not either.
        moved=_BUFFERS,
        alarm="9 of 18 frozen tensors moved.\n'trunk.1.running_mean' (buffer) moved.",
        proof=(
            "In each of 2 runs all 18 frozen tensors are bitwise what they were, 9 parameters and 9 running statistics "
            "of batch norm, after 6 steps of AdamW with weight decay, all in training mode."
        ),
        by_hand=(
            "The same training after trunk.requires_grad_(False) alone: 6 steps move 2 tensors. With the old head back "
            "on, 150 of 200 test images of 0 to 4 get other scores than before."
        ),
    ),
    "jax": Facts(
        parameters=_ARRAYS,
        statistics=_STATISTICS,
        # A gradient of zeros reaches the optimizer, and with it weight decay.
        moved=_ARRAYS | _STATISTICS,
        alarm="12 of 12 frozen tensors moved.\n'trunk.0.scale' (parameter) moved.",
        proof=(
            "In each of 2 runs all 12 frozen tensors are bitwise what they were, 9 parameters and 3 running statistics "
            "of batch norm, after 6 steps of AdamW with weight decay, all in training mode."
        ),
        by_hand=(
            "The same training after jax.lax.stop_gradient(trunk) alone: 6 steps move 2 tensors. With the old head "
            "back on, 150 of 200 test images of 0 to 4 get other scores than before."
        ),
    ),
}

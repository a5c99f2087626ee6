"""What the two frameworks call the same things, and how many there are."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Facts:
    """What is known of the demo in one framework.

    Attributes:
        parameters: the names of those of the trunk.
        statistics: where its batch norm keeps what it has seen.
        moved: the names of what moves in a trunk that is frozen by hand.
        alarm: how the guard begins to say so.
        proof: what it proves in the quick demo.
        by_hand: how the demo begins to tell of two arrays that moved.
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
_ARRAYS = frozenset(
    f"trunk.{block}.{name}"
    for block in ("first", "second", "third")
    for name in ("conv.weight", "norm.weight", "norm.bias")
)
_STATISTICS = frozenset(f"trunk_statistics.{block}.{name}" for block in (0, 1, 2) for name in ("mean", "var"))

FACTS = {
    "torch": Facts(
        parameters=frozenset(f"trunk.{layer}.weight" for layer in (0, 1, 3, 4, 7, 8))
        | frozenset(f"trunk.{layer}.bias" for layer in (1, 4, 8)),
        statistics=_BUFFERS,
        # No gradient reaches the optimizer, so that weight decay does not either.
        moved=_BUFFERS,
        alarm="9 of 18 frozen tensors moved.\n'trunk.1.running_mean' (buffer) moved.",
        proof=(
            "In each of 2 runs all 18 frozen tensors are bitwise what they were, 9 parameters and 9 buffers of batch "
            "norm, after 6 steps of AdamW with weight decay and 3 calls of train()."
        ),
        by_hand="The same routine after trunk.requires_grad_(False) alone: 6 steps move 2 tensors.",
    ),
    "jax": Facts(
        parameters=_ARRAYS,
        statistics=_STATISTICS,
        # A gradient of zeros reaches it, and so does weight decay.
        moved=_ARRAYS | _STATISTICS,
        alarm="15 of 15 frozen tensors moved.\n'trunk.first.conv.weight' (parameter) moved.",
        proof=(
            "In each of 2 runs all 15 frozen arrays are bitwise what they were, 9 parameters and 6 running statistics "
            "of batch norm, after 6 steps of AdamW with weight decay and as many forward passes in training mode."
        ),
        by_hand="The same routine after jax.lax.stop_gradient(trunk) alone: 6 steps move 2 arrays.",
    ),
}

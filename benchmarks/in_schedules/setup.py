"""The sizes of what is measured."""

from __future__ import annotations

from dataclasses import dataclass

VALUE = 4
MOMENTS = 2 * VALUE


@dataclass(frozen=True)
class Setup:
    """A small decoder in float32, and for how long it is trained.

    Attributes:
        length: of a text, in words.
        steps: of each run.
        period: how many steps LISA draws for, and BAdam stays with a block.
    """

    layers: int = 8
    width: int = 128
    vocabulary: int = 256
    length: int = 64
    batch: int = 4
    steps: int = 200
    period: int = 20

    @property
    def blocks(self) -> dict[str, int]:
        """What a schedule tells apart, from input to output, with its parameters: by arithmetic, without a model."""
        d, words = self.width, self.vocabulary
        layer = 12 * d * d + 13 * d
        return {
            "embed": (words + self.length) * d,
            **{f"layers[{number}]": layer for number in range(self.layers)},
            "head": 2 * d + words * d,
        }

    @property
    def parameters(self) -> int:
        """Of the model."""
        return sum(self.blocks.values())

    def __str__(self) -> str:
        return (
            f"{self.layers} layers of width {self.width}, {self.parameters:,} parameters in {len(self.blocks)} "
            f"blocks; {self.steps} steps of {self.batch} x {self.length} words"
        )


SETUPS = {
    "torch": Setup(),
    # Nothing is timed there, so it is enough to see each set, and each change of sets.
    "jax": Setup(layers=3, steps=10, period=2),
}
QUICK = Setup(layers=3, width=32, batch=2, steps=10, period=2)

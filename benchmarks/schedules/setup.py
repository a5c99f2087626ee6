"""The sizes of the model, the texts that it learns, the ways to train it, and the bytes that each of them must hold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Literal

from frostline.schedules import LISA, BAdam, HiFT, Schedule

FULL, AGAIN = "full training", "full training again"
Moments = Literal["release", "keep"]
RELEASE: Moments = "release"
KEEP: Moments = "keep"
SAMPLED, FOLLOWERS = 2, 4
RATE, DECAY = 1e-3, 0.1
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
        """The blocks of a schedule, from input to output, with their parameters: by arithmetic, without a model."""
        d, words = self.width, self.vocabulary
        layer = 12 * d * d + 13 * d
        return {
            "embed": (words + self.length) * d,
            **{f"layers[{number}]": layer for number in range(self.layers)},
            "head": 2 * d + words * d,
        }

    @property
    def parameters(self) -> int:
        """All parameters of the model."""
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


def language(setup: Setup, *, changed: bool) -> list[list[int]]:
    """The words that may follow each word; changed, half of the words have other followers."""
    random = Random("language")
    first, second = (
        [random.choices(range(setup.vocabulary), k=FOLLOWERS) for _ in range(setup.vocabulary)] for _ in range(2)
    )
    return [second[word] if changed and word % 2 else first[word] for word in range(setup.vocabulary)]


def batches(setup: Setup, *, changed: bool) -> Iterator[list[list[int]]]:
    """For each step, texts in which each follower comes with the same chance."""
    random, spoken = Random(f"texts/{changed}"), language(setup, changed=changed)
    for _ in range(setup.steps):
        yield [text(setup, spoken, random) for _ in range(setup.batch)]


def text(setup: Setup, spoken: list[list[int]], random: Random) -> list[int]:
    """One word more than the model sees: the last one is only predicted."""
    words = [random.randrange(setup.vocabulary)]
    for _ in range(setup.length):
        words.append(random.choice(spoken[words[-1]]))
    return words


def schedules(setup: Setup) -> dict[str, Schedule]:
    """The three, with blocks that together are all of the model."""
    every = list(setup.blocks)
    return {
        "LISA": LISA(every[1:-1], sampled=SAMPLED, period=setup.period, always=["embed", "head"]),
        "BAdam": BAdam(every, period=setup.period),
        "HiFT": HiFT(every, size=1),
    }


def ways(setup: Setup) -> Iterator[tuple[str, Moments, Schedule | None]]:
    """The name of each, what it does with moments, and its schedule; full training twice, which shows the noise."""
    yield FULL, RELEASE, None
    yield AGAIN, RELEASE, None
    for name, schedule in schedules(setup).items():
        for moments in (RELEASE, KEEP):
            yield name, moments, schedule


def trained_at(setup: Setup, schedule: Schedule | None, step: int) -> list[str]:
    """The blocks that train at a step: those that the phase takes back from "**"."""
    if schedule is None:
        return list(setup.blocks)
    return [selector.removeprefix("!") for selector in schedule.at(step).frozen[1:]]


@dataclass(frozen=True)
class Held:
    """Bytes that are held at a step, or predicted to be; counters of steps are left out.

    Attributes:
        optimizer: moments of what trains, after the step.
        shelved: moments of what is frozen.
        gradients: as backward leaves them.
    """

    optimizer: int
    shelved: int
    gradients: int


def predicted(setup: Setup, schedule: Schedule | None, moments: Moments) -> list[Held]:
    """Predicts the bytes that are held at each step from the sizes of the blocks and the schedule alone."""
    held, seen = [], set[str]()
    for step in range(setup.steps):
        now = set(trained_at(setup, schedule, step))
        trains, idle = (sum(setup.blocks[name] for name in names) for names in (now, seen - now))
        held.append(Held(MOMENTS * trains, MOMENTS * idle if moments == KEEP else 0, VALUE * trains))
        seen |= now
    return held

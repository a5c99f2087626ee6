"""How much is learnt: the same for every way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True)
class Budget:
    """The set-up of the demo.

    The learning rate is one at which the scores of all three ways have all but levelled off when the steps are over.

    Attributes:
        runs: how often all is done, each time with another seed, other labelled scans and another network.
        epochs: how often the trunk goes through its scans of 0 to 4.
        labelled: how many scans of each of 5 to 9 are labelled.
        looks: after which steps of learning 5 to 9 there is a look at the unseen scans; the last step is the last look.
        batch: how many scans there are in a step.
        lr: the learning rate, everywhere.
    """

    runs: int = 5
    epochs: int = 5
    labelled: int = 10
    looks: tuple[int, ...] = (5, 10, 20, 40, 60, 90, 120)
    batch: int = 32
    lr: float = 3e-3

    @property
    def steps(self) -> int:
        """How many steps each way takes to learn 5 to 9."""
        return self.looks[-1]

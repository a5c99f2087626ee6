"""Several processes at once: the laws, data-parallel wrappers, shards, tensor-parallel layers, files, and kills.

What the processes check is in the other files of this folder. All of them run once, and each check is a test here.
They use gloo on this machine; nothing here was run with NCCL or on a GPU.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from conformance.ranks.processes import PASSED, STAGES, checks, outcomes

CHECKS = [(subject, world, check.__name__) for subject, world in STAGES for check in checks(subject, world)]


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int, str], str]:
    return outcomes(tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize(("subject", "world", "name"), CHECKS, ids=lambda value: str(value))
def test_check(ended: dict[tuple[str, int, str], str], subject: str, world: int, name: str) -> None:
    assert ended[subject, world, name] == PASSED


def test_what_fails_on_one_rank_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: checks that fail on one rank, that a process does not survive, and that never run."""
    monkeypatch.setattr("conformance.ranks.processes.STAGES", (("broken", 2),))
    found = {name: text for (_, _, name), text in outcomes(tmp_path).items()}
    assert found["fine"] == PASSED
    assert found["fails_on_rank_1"].startswith("rank 1: Traceback")
    assert found["fails_on_rank_1"].endswith("AssertionError: on purpose\n")
    assert found["is_after_it"].startswith("rank 0: did not run")

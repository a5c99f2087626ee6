"""timm: groups of what thaws later, averages, its checkpoints; all in one process, as importing timm takes seconds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).with_name("timm_run.py")


@pytest.fixture(scope="module")
def found() -> Any:
    run = subprocess.run([sys.executable, "-W", "error", SCRIPT], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


def test_what_thaws_later_gets_the_layer_decay_that_it_would_have_had(found: Any) -> None:
    assert found["groups"] == {
        "probe": {"head.weight": [1.0, 0.05], "head.bias": [1.0, 0.0]},
        "as if made before": True,
        "rates at half": [[0.0625, 0.003125], [0.125, 0.00625], [0.25, 0.0125], [0.5, 0.025], [1.0, 0.05]],
    }


def test_a_scheduler_that_would_not_know_the_groups_is_refused(found: Any) -> None:
    assert found["scheduler first"] == (
        "bind(optimizer, model, rules=...) needs 8 more parameter groups, and a scheduler of this optimizer knows of 2 "
        "only.\n"
        "Bind first, then make the scheduler: bind(optimizer, model, rules=rules); StepLR(optimizer, n)."
    )


def test_a_run_that_was_stopped_is_bitwise_the_one_that_was_not(found: Any) -> None:
    assert found["resumes"] == {"probe": [], "gradual": [], "lisa": []}


@pytest.mark.parametrize("form", ["foreach", "one by one", "without buffers", "warm"])
def test_the_average_of_a_frozen_part_does_not_move(found: Any, form: str) -> None:
    frozen, thawed = found["averages"][form]
    assert frozen == ["fc", "layer4"]
    assert thawed == ["bn1", "conv1", "fc", "layer1", "layer2", "layer3", "layer4"]


def test_an_optimizer_around_another_one_follows(found: Any) -> None:
    assert found["wrapped"] == [
        ["head.bias", "head.weight"],
        ["blocks", "cls_token", "head", "norm", "patch_embed", "pos_embed"],
    ]


def test_the_example_runs(found: Any) -> None:
    assert found["example"] == {"trained": [2, 28, 52], "average": True}

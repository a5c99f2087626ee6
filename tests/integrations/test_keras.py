"""Keras 3: its models are refused, with the reason; its values train on JAX; on PyTorch they are parts of modules."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).with_name("keras_run.py")


@pytest.fixture(scope="module")
def found(request: pytest.FixtureRequest) -> Any:
    run = subprocess.run([sys.executable, SCRIPT, request.param], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


@pytest.mark.parametrize("found", ["torch"], indirect=True)
def test_on_torch(found: Any) -> None:
    refused = (
        "Sequential is a model of Keras, which trains by flags of its own: statistics would move in what is frozen "
        "here, and dropout be active.\n"
        'Set those, before compile(): model.get_layer("body").trainable = False. ft.Frozen(model) works in a module of '
        "PyTorch."
    )
    assert found == {
        "refusals": dict.fromkeys(["freeze", "thaw", "driver", "report"], refused),
        "flags": True,
        "moved": ["bias", "kernel"],
        "use": [True, False],
        "inside": ["1.bias", "1.weight"],
    }


@pytest.mark.parametrize("found", ["jax"], indirect=True)
def test_on_jax(found: Any) -> None:
    def refused(kind: str) -> str:
        return (
            f"{kind} is an object of Keras and not a pytree: JAX sees no parameters in it.\n"
            "Take the values: params = {v.path: v.value for v in model.trainable_variables}, and call "
            "model.stateless_call([params[v.path] for v in model.trainable_variables], rest, x)."
        )

    assert found == {
        "refusals": {"freeze": refused("Sequential"), "plan": refused("Variable"), "grad": refused("Sequential")},
        "example": {"loss falls": True, "resumed bitwise": True},
        "resumes": {name: [[]] * 6 for name in ("probe", "gradual", "lisa")},
        "moves": ["head.bias", "head.kernel"],
    }

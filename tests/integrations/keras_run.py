"""What Keras 3 does with frozen parts on one backend, which it chooses once for a process.

The backend is the argument. What it finds is printed as JSON.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ |= {"KERAS_BACKEND": sys.argv[1], "TF_CPP_MIN_LOG_LEVEL": "3"}
import keras
import numpy as np

X = np.linspace(-1.0, 1.0, 32, dtype="float32").reshape(8, 4)


def model() -> Any:
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(4, name="body"), keras.layers.BatchNormalization(name="norm")]
    return keras.Sequential([keras.layers.Input((4,)), *layers, keras.layers.Dropout(0.5), keras.layers.Dense(2)])


def refusals(verbs: dict[str, Callable[[], Any]]) -> dict[str, str]:
    found = {}
    for name, verb in verbs.items():
        try:
            found[name] = f"gave {verb()!r}"
        except NotImplementedError as error:
            found[name] = str(error)
    return found


def on_torch() -> dict[str, Any]:
    import torch
    from torch import nn

    import frostline.torch as ft
    from frostline.schedules import LinearProbe
    from only_torch.bits import contents, moved

    keras_model = model()
    flags = [parameter.requires_grad for parameter in keras_model.parameters()]
    optimizer = torch.optim.AdamW(keras_model.parameters())
    verbs = {
        "freeze": lambda: ft.freeze(keras_model, "body"),
        "thaw": lambda: ft.thaw(keras_model),
        "driver": lambda: ft.Driver(LinearProbe(["body"], steps=2), keras_model, optimizer),
        "report": lambda: ft.report(keras_model),
    }
    found: dict[str, Any] = {"refusals": refusals(verbs)}
    found["flags"] = flags == [parameter.requires_grad for parameter in keras_model.parameters()]

    # What the error says to do does it.
    for name in ("body", "norm"):
        keras_model.get_layer(name).trainable = False
    before = {variable.path: variable.numpy().copy() for variable in keras_model.variables}
    keras_model.compile(optimizer=keras.optimizers.AdamW(0.1, weight_decay=0.1), loss="mse")
    keras_model.fit(X, X[:, :2], verbose=0, epochs=2)
    still = {variable.path for variable in keras_model.variables if (variable.numpy() == before[variable.path]).all()}
    found["moved"] = sorted(path.split("/")[-1] for path in before.keys() - still if "seed" not in path)

    # In a module of PyTorch it is a module like any other.
    inputs = torch.tensor(X, requires_grad=True)
    whole = nn.Sequential(model(), nn.Linear(2, 2))
    use = ft.Frozen(model())
    use(inputs, training=True).sum().backward()
    found["use"] = [inputs.grad is not None, any(parameter.grad is not None for parameter in use.parameters())]
    handle = ft.freeze(whole, "[0]")
    optimizer = torch.optim.AdamW(whole.parameters(), lr=0.1, weight_decay=0.1)
    start = contents(whole)
    for _ in range(2):
        optimizer.zero_grad()
        whole.train()(inputs).square().sum().backward()
        optimizer.step()
    found["inside"] = sorted(moved(start, whole))
    handle.undo()
    return found


def on_jax() -> dict[str, Any]:
    import frostline.jax as fj
    from frostline.schedules import LISA, LinearProbe, ULMFiT
    from only_jax.bits import moved

    keras_model = model()
    verbs = {
        "freeze": lambda: fj.freeze(keras_model, "body"),
        "plan": lambda: fj.plan(keras_model.trainable_variables, "[0]"),
        "grad": lambda: fj.grad(lambda model: model(X).sum())(keras_model),
    }
    example = runpy.run_path(str(Path(__file__).parents[2] / "examples" / "keras_finetuning.py"))
    found = {"refusals": refusals(verbs), "example": example["main"](), "resumes": {}}
    schedules = {
        "probe": LinearProbe(["head"], steps=3),
        "gradual": ULMFiT(["low", "high", "head"], period=2, decay=1),
        "lisa": LISA(["low", "high"], sampled=1, period=2, always=["head"]),
    }
    for name, schedule in schedules.items():
        whole = example["train"](schedule, 7)
        halves = [example["train"](schedule, 7, saved=example["train"](schedule, stop)) for stop in range(1, 7)]
        found["resumes"][name] = [sorted(moved(whole["params"], half["params"])) for half in halves]
    found["moves"] = sorted(moved(example["START"], example["train"](schedules["probe"], 3)["params"]))
    return found


if __name__ == "__main__":
    sys.path.append(str(Path(__file__).parents[1]))
    sys.stdout.write(json.dumps(on_torch() if sys.argv[1] == "torch" else on_jax()))

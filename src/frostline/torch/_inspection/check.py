"""Look a model and its optimizers over for what is wrong, or soon will be."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import nn
from torch.optim import Optimizer

from frostline._core.findings import Findings
from frostline.torch._freezing.survey import survey
from frostline.torch._inspection import model_findings as _model_findings
from frostline.torch._inspection import optimizer_findings as _optimizer_findings


def check(model: nn.Module, optimizer: Optimizer | Iterable[Optimizer] | None = None) -> Findings:
    """What is wrong with what is frozen, and with what the optimizers make of it.

    Nothing is changed and nothing is run. Each finding says what, where, why it matters, and the
    fix as code; ``.raise_if_any()`` makes an error of them.

    Args:
        model: the model.
        optimizer: the optimizer that trains it, or all of them. Without one, only the model is
            looked at.

    Returns:
        The findings, the gravest first.

    Raises:
        TypeError: `optimizer` is neither an optimizer nor several.
        UnsupportedError: a parameter is lazy.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))
        >>> optimizer = torch.optim.SGD(model[0].parameters(), lr=0.1)
        >>> print(check(model, optimizer))
        unowned: 1.weight, 1.bias
          2 trainable parameters are in no optimizer that was given.
          They get gradients and never move.
          Fix: optimizer.add_param_group({"params": [...]}) with these parameters, or freeze them.
    """
    read = survey(model)
    optimizers = _optimizers(optimizer)
    findings = Findings()
    for look in _model_findings.LOOKS:
        findings.extend(look(model, read))
    if optimizers:
        for look_at_optimizers in _optimizer_findings.LOOKS:
            findings.extend(look_at_optimizers(read, optimizers))
    return findings


def _optimizers(given: Optimizer | Iterable[Optimizer] | None) -> Sequence[Optimizer]:
    several = [] if given is None else [given] if isinstance(given, Optimizer) else list(given)
    for one in several:
        if not isinstance(one, Optimizer):
            raise TypeError(
                "check(model, optimizer) takes a torch.optim.Optimizer or several; "
                f"this is of type {type(one).__name__}."
            )
    return several

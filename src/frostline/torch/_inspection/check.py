"""The check of a model and its optimizers."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn
from torch.optim import Optimizer

from frostline._core.findings import Findings
from frostline.torch._freezing.survey import survey
from frostline.torch._inspection.claim_findings import CLAIM_FINDINGS
from frostline.torch._inspection.model_findings import MODEL_FINDINGS
from frostline.torch._inspection.optimizer_findings import OPTIMIZER_FINDINGS
from frostline.torch._training.binding import LIVE


def check(model: nn.Module, optimizer: Optimizer | Iterable[Optimizer] | None = None) -> Findings:
    """Finds mistakes in the frozen set of a model and in its optimizers.

    It changes and runs nothing; bound optimizers take note of flags that were set by hand, as before each step. Each
    finding has a description, the paths, the reason why it matters, and the fix as code; ``.raise_if_any()`` raises
    them as an error.

    Args:
        model: the model.
        optimizer: the optimizer that trains it, or several. Without one, only the model is checked.

    Returns:
        The findings, the most serious first.

    Raises:
        TypeError: `optimizer` is neither an optimizer nor several of them.
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
    optimizers = [] if optimizer is None else [optimizer] if isinstance(optimizer, Optimizer) else list(optimizer)
    for each in optimizers:
        if not isinstance(each, Optimizer):
            raise TypeError(
                "check(model, optimizer) takes a torch.optim.Optimizer or several; "
                f"this is of type {type(each).__name__}."
            )
    for binding in LIVE if optimizers else ():
        binding.sync()  # a flag may have been set by hand, and the next step would heed it
    findings = Findings()
    for find_in_model in (*MODEL_FINDINGS, *CLAIM_FINDINGS):
        findings.extend(find_in_model(model, read))
    for find_in_optimizers in OPTIMIZER_FINDINGS if optimizers else ():
        findings.extend(find_in_optimizers(read, optimizers))
    return findings

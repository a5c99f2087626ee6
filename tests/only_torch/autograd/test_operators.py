"""The table of reads against the operators that PyTorch has: none is missing, and none claims too much."""

from __future__ import annotations

import math

import pytest

from frostline.torch._autograd import reads as _reads
from frostline.torch._autograd.reads import KNOWN, UNREAD, WHOLE, SavedTensorRule
from only_torch.autograd.operators import Kind, reads

# Tensors that no sample read, and that are read all the same.
READ_ELSEWHERE = {
    "only if the numbers are complex": {"AngleBackward0", "SgnBackward0"},
    "only at some values or exponents": {
        "CdistBackward0",
        "CopysignBackward0",
        "FmaxBackward0",
        "FminBackward0",
        "LdexpBackward0",
        "MaximumBackward0",
        "MinimumBackward0",
        "NextafterBackward0",
        "PowBackward1",
        "SpecialXlog1PyBackward0",
        "XlogyBackward0",
    },
    "only if a matrix is singular, or by a solver that is chosen by shape": {
        "CholeskySolveBackward0",
        "LinalgDetBackward0",
        "LinalgLstsqBackward0",
        "LinalgLuSolveBackward0",
        "LinalgSlogdetBackward0",
        "LinalgSolveExBackward0",
        "LinalgSolveTriangularBackward0",
        "OrmqrBackward0",
        "TriangularSolveBackward0",
    },
    "sparse, and the values of another argument are enough": {
        "SparseMmReduceImplBackward0",
        "SparseSampledAddmmBackward0",
    },
}
# Tensors that are as small as the number of channels, or are parameters and buffers: what they keep is nothing.
SMALL = {"bias", "result1", "result2", "running_mean", "running_var", "weight"}


@pytest.fixture(scope="module")
def found() -> dict[Kind, bool]:
    return reads(KNOWN)


def missing(found: dict[Kind, bool]) -> list[Kind]:
    elsewhere = {name for names in READ_ELSEWHERE.values() for name in names}
    return [
        kind
        for kind, is_read in found.items()
        if not is_read and kind.bits == math.inf and kind.node not in elsewhere and kind.name not in SMALL
    ]


def wrong(found: dict[Kind, bool]) -> list[Kind]:
    return [kind for kind, is_read in found.items() if is_read and kind.bits == 0]


def test_no_operator_is_missing_in_the_table(found: dict[Kind, bool]) -> None:
    assert missing(found) == []
    # The walk has been through PyTorch: about two hundred kinds of nodes save tensors.
    assert len({kind.node for kind in found}) > 150


def test_no_rule_claims_that_a_tensor_is_unread_which_is_read(found: dict[Kind, bool]) -> None:
    assert wrong(found) == []
    assert len({kind.node for kind in found if kind.bits == 0}) > 20


def test_a_missing_rule_and_a_wrong_one_are_found(found: dict[Kind, bool], monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: a table without pools, and with a sigmoid whose result is said to be unread."""
    from only_torch.autograd import operators

    chosen = [each for each in operators.op_db if each.name in {"nn.functional.avg_pool2d", "sigmoid"}]
    monkeypatch.setattr(operators, "op_db", chosen)
    sigmoid = _reads.torch._C._functions.SigmoidBackward0
    careless = {kind: rule for kind, rule in KNOWN.items() if "AvgPool" not in kind.__name__}
    careless[sigmoid] = SavedTensorRule(("SigmoidBackward0",), {"result": lambda *_: UNREAD})
    broken = reads(careless)
    assert {(kind.node, kind.name) for kind in missing(broken)} == {("AvgPool2DBackward0", "self")}
    assert {(kind.node, kind.name) for kind in wrong(broken)} == {("SigmoidBackward0", "result")}
    assert WHOLE.bits == math.inf

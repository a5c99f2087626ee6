"""The kinds of layers that a frozen use must work for, each with an input and a call."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.ao.quantization import FakeQuantize
from torch.nn import utils as old
from torch.nn.utils import parametrizations

import frostline.torch as ft
from only_torch import foreign_layers, odd_layers

TOKENS = torch.tensor([[2, 0, 5], [1, 5, 3]])


def called(layer: nn.Module, x: Tensor) -> Tensor:
    """The first output of the layer."""
    out = layer(x)
    return out[0] if isinstance(out, tuple) else out


def attended(layer: nn.Module, x: Tensor) -> Tensor:
    return layer(x, x, x, need_weights=False)[0]


def decoded(layer: nn.Module, x: Tensor) -> Tensor:
    return layer(x, x.flip(1))


def looked_up(layer: nn.Module, x: Tensor) -> Tensor:
    return layer(TOKENS) * x


def summed_up(layer: nn.Module, x: Tensor) -> Tensor:
    return layer(TOKENS, per_sample_weights=x)


def by_name(layer: nn.Module, x: Tensor) -> Tensor:
    out = layer(hidden=x, scale=0.5)
    assert out["scale"] == 0.5
    return out["hidden"]


@dataclass(frozen=True)
class Kind:
    """One kind of layer: how to build it, what it takes, and how to call it."""

    name: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...] = (3, 4)
    call: Callable[[nn.Module, Tensor], Tensor] = called

    def layer(self) -> nn.Module:
        """A new layer; all layers of one kind are bitwise equal, and in training mode."""
        torch.default_generator.manual_seed(3)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the old weight norm, quantisation: deprecated, and in use
            return self.build()

    def constant(self, like: nn.Module | None = None) -> nn.Module:
        """What the laws compare with: a layer of its own, in evaluation mode, that requires no gradient.

        It is built and not copied, because some kinds cannot be copied.
        """
        plain = self.layer()
        if like is not None:
            plain = plain.double() if is_double(like) else plain
            plain.load_state_dict(like.state_dict(), strict=True)
        return plain.requires_grad_(False).eval()

    def input(self, seed: int = 5, dtype: torch.dtype = torch.float32) -> Tensor:
        """A batch that requires a gradient."""
        return torch.randn(self.shape, generator=torch.Generator().manual_seed(seed)).to(dtype).requires_grad_()


def is_double(layer: nn.Module) -> bool:
    return any(p.dtype == torch.float64 for p in layer.parameters())


def loss(y: Tensor) -> Tensor:
    """A number to differentiate; its second derivatives are not zero, nor the gradient behind a norm."""
    return (y.flatten() * torch.linspace(-1, 2, y.numel(), dtype=y.dtype)).cos().sum()


def _norm_net() -> nn.Module:
    layers = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(16, 4)
    return nn.Sequential(*layers)


def _fake_quantised() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 4), FakeQuantize())


def _nested() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 4), ft.Frozen(nn.Linear(4, 4)), nn.Linear(4, 4))


KINDS = [
    Kind("linear", lambda: nn.Linear(4, 4)),
    Kind("norm_net", _norm_net, (3, 1, 4, 4)),
    Kind("lstm", lambda: nn.LSTM(4, 4, num_layers=2, batch_first=True, dropout=0.5), (2, 3, 4)),
    Kind("two_way_lstm", lambda: nn.LSTM(4, 4, bidirectional=True), (2, 3, 4)),
    Kind("gru", lambda: nn.GRU(4, 4), (2, 3, 4)),
    Kind("attention", lambda: nn.MultiheadAttention(4, 2, dropout=0.5, batch_first=True), (2, 3, 4), attended),
    Kind("encoder", lambda: nn.TransformerEncoderLayer(4, 2, 8, dropout=0.5, batch_first=True), (2, 3, 4)),
    Kind("decoder", lambda: nn.TransformerDecoderLayer(4, 2, 8, dropout=0.5, batch_first=True), (2, 3, 4), decoded),
    Kind("embedding", lambda: nn.Embedding(6, 4), (2, 3, 4), looked_up),
    Kind("embedding_bag", lambda: nn.EmbeddingBag(6, 4, mode="sum"), (2, 3), summed_up),
    Kind("weight_norm", lambda: parametrizations.weight_norm(nn.Linear(4, 4))),
    Kind("spectral_norm", lambda: parametrizations.spectral_norm(nn.Linear(4, 4))),
    Kind("orthogonal", lambda: parametrizations.orthogonal(nn.Linear(4, 4))),
    Kind("old_weight_norm", lambda: old.weight_norm(nn.Linear(4, 4))),
    Kind("old_spectral_norm", lambda: old.spectral_norm(nn.Linear(4, 4))),
    Kind("instance_norm", lambda: nn.InstanceNorm1d(2, affine=True, track_running_stats=True), (3, 2, 5)),
    Kind("group_norm", lambda: nn.Sequential(nn.GroupNorm(2, 4), nn.Linear(4, 4))),
    Kind("plain_norm", lambda: nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, affine=False))),
    Kind("fake_quantize", _fake_quantised),
    Kind("cached_bias", odd_layers.CachedBias),
    Kind("listed_children", odd_layers.ListedChildren),
    Kind("listed_parameters", odd_layers.ListedParameters),
    Kind("codebook", odd_layers.Codebook),
    Kind("stochastic_depth", odd_layers.StochasticDepth),
    Kind("checkpointed", lambda: odd_layers.Checkpointed(use_reentrant=False)),
    Kind("checkpointed_reentrant", lambda: odd_layers.Checkpointed(use_reentrant=True)),
    Kind("nested", _nested),
    Kind("tied", odd_layers.TiedPair),
    Kind("integer_weight", odd_layers.IntegerWeight),
    Kind("scalar_gain", odd_layers.ScalarGain),
    Kind("named_result", odd_layers.NamedResult, call=by_name),
    Kind("bound_forward", odd_layers.BoundForward),
    Kind("delegating", odd_layers.Delegating),
    Kind("back_reference", odd_layers.BackReference),
    Kind("complex_filter", odd_layers.ComplexFilter),
    Kind("merging_adapter", foreign_layers.Merging),
    Kind("branches_as_kernel", foreign_layers.Reparametrized),
    Kind("still_stem", foreign_layers.StemStill),
    Kind("momentum_contrast", foreign_layers.Contrast),
    Kind("momentum_contrast_by_data", foreign_layers.ContrastByData),
    Kind("vector_quantiser", foreign_layers.Quantised),
    Kind("fused_fake_quantiser", foreign_layers.FakeQuantised),
    Kind("prepared_for_quantisation", foreign_layers.Observed, (3, 4, 5)),
    Kind("detection_head", foreign_layers.DetectionHead),
    Kind("empty_containers", foreign_layers.EmptyContainers),
    Kind("checkpointed_block", foreign_layers.Block),
    Kind("checkpointed_around", foreign_layers.BlockAround),
    Kind("meta_clone", lambda: foreign_layers.cloned(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)))),
]


def each_kind(*, without: tuple[str, ...] = ()) -> pytest.MarkDecorator:
    """Runs a test for every kind but those that PyTorch itself cannot do it with."""
    return some_kinds(*(kind.name for kind in KINDS if kind not in _named(without)))


def some_kinds(*names: str) -> pytest.MarkDecorator:
    """Runs a test for some kinds."""
    return pytest.mark.parametrize("kind", _named(names), ids=lambda kind: kind.name)


def _named(names: tuple[str, ...]) -> list[Kind]:
    by_name = {kind.name: kind for kind in KINDS}
    return [by_name[name] for name in names]

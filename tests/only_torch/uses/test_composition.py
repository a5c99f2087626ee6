"""Frozen uses under function transforms, second derivatives, checkpoints, autocast and hooks (L11)."""

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, hessian, jacrev, stack_module_state, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

import frostline.torch as ft
from only_torch.bits import bits, contents, moved, without_gradient
from only_torch.kinds import Kind, each_kind, loss, some_kinds
from only_torch.uses.test_compile import Around

# Inside torch.func PyTorch computes neither a checkpoint nor a write to a tensor from outside.
WRITERS = "momentum_contrast", "momentum_contrast_by_data", "vector_quantiser", "fused_fake_quantiser"
NO_FUNCTIONS = (
    *("checkpointed", "checkpointed_reentrant", "codebook", "fake_quantize", "prepared_for_quantisation"),
    *("checkpointed_block", "checkpointed_around", "merging_adapter", "detection_head"),
    *WRITERS,
)
pytestmark = [
    # PyTorch's own first use of forward mode, and its batching of weight norm.
    pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning"),
]


@each_kind(without=NO_FUNCTIONS)
def test_grad_of_the_input(kind: Kind) -> None:
    layer = kind.layer()
    use, plain, x = ft.Frozen(layer), kind.constant(), kind.input().detach()
    found = grad(lambda x: loss(kind.call(use, x)))(x)
    assert bits(found) == bits(grad(lambda x: loss(kind.call(plain, x)))(x))
    assert without_gradient(layer.parameters())
    assert bits(kind.call(use, x)) == bits(kind.call(kind.constant(), x))


@each_kind(without=NO_FUNCTIONS)
def test_grad_of_the_parameters(kind: Kind) -> None:
    """Zero at frozen ones: torch.func has no word for absent. The scale before the layer has the plain one."""
    layer = kind.layer()
    model, x = Around(kind, ft.Frozen(layer)), kind.input().detach()
    floating = {n: p.detach() for n, p in model.named_parameters() if p.is_floating_point() or p.is_complex()}
    found = grad(lambda parameters: loss(functional_call(model, parameters, (x,))))(floating)
    plain = Around(kind, kind.constant())
    expected = grad(lambda scale: loss(functional_call(plain, {"scale": scale}, (x,))))(plain.scale.detach())
    assert bits(found.pop("scale")) == bits(expected)
    assert [name for name, g in found.items() if g.count_nonzero()] == []
    assert without_gradient(layer.parameters())


@each_kind(without=(*NO_FUNCTIONS, "listed_parameters", "tied", "old_weight_norm"))
def test_functional_call_computes_with_the_tensors_it_is_given(kind: Kind) -> None:
    """And afterwards the use computes with the layer's values again."""
    layer, x = kind.layer(), kind.input()
    use = ft.Frozen(layer)
    given = {n: t * 0.5 if t.dtype.is_floating_point or t.is_complex() else t for n, t in layer.state_dict().items()}
    source = kind.layer()
    source.load_state_dict(given)
    plain, other = kind.constant(source), kind.constant()
    before = contents(layer)
    if kind.name not in ("attention", "decoder", "embedding", "embedding_bag", "named_result"):
        out = functional_call(use, given, (x,))
        assert bits(out[0] if isinstance(out, tuple) else out) == bits(kind.call(plain, x))
    assert bits(kind.call(use, x)) == bits(kind.call(other, x))
    assert moved(before, layer) == set()


BATCHED = ("linear", "group_norm", "spectral_norm", "weight_norm", "tied", "listed_children", "scalar_gain", "nested")


@some_kinds(*BATCHED)
def test_vmap_over_the_input(kind: Kind) -> None:
    layer = kind.layer()
    use, plain = ft.Frozen(layer), kind.constant()
    x = torch.stack([kind.input(seed).detach() for seed in range(3)])
    out = vmap(lambda x: kind.call(use, x))(x)
    expected = vmap(lambda x: kind.call(plain, x))(x)
    assert bits(out) == bits(expected)


@some_kinds(*BATCHED)
def test_an_ensemble_shares_its_frozen_part(kind: Kind) -> None:
    layer = kind.layer()
    models = [nn.Sequential(nn.Linear(4, 4), ft.Frozen(layer)) for _ in range(3)]
    parameters, buffers = stack_module_state(models)
    x = kind.input().detach()
    out = vmap(lambda p, b: functional_call(models[0], (p, b), (x,)))(parameters, buffers)
    assert out.shape == (3, 3, 4)
    torch.testing.assert_close(out[2], models[2](x))
    out.sum().backward()
    assert parameters["0.weight"].grad is not None
    assert without_gradient(layer.parameters())


@some_kinds(*BATCHED)
def test_jacobian_and_hessian_of_the_input(kind: Kind) -> None:
    use, plain, x = ft.Frozen(kind.layer()), kind.constant(), kind.input().detach()
    assert bits(jacrev(lambda x: kind.call(use, x))(x)) == bits(jacrev(lambda x: kind.call(plain, x))(x))
    found = hessian(lambda x: loss(kind.call(use, x)))(x)
    assert bits(found) == bits(hessian(lambda x: loss(kind.call(plain, x)))(x))
    assert found.count_nonzero() > 0


@each_kind(without=("checkpointed_reentrant", "fake_quantize", "embedding_bag"))  # which have no second derivative
@sdpa_kernel(SDPBackend.MATH)  # the one that has
def test_second_derivatives(kind: Kind) -> None:
    """A gradient penalty on the input: the way a critic of a Wasserstein GAN is used."""
    layer, found = kind.layer(), []
    for one in (ft.Frozen(layer), kind.constant()):
        x = kind.input()
        (first,) = torch.autograd.grad(loss(kind.call(one, x)), x, create_graph=True)
        first.square().sum().backward()
        found.append(bits(x.grad))
    assert found[0] == found[1]
    assert without_gradient(layer.parameters())


# One refuses to be computed again inside another, and the quantiser by hand computes something else the second time.
@each_kind(without=("checkpointed_reentrant", "vector_quantiser"))
@pytest.mark.parametrize("use_reentrant", [True, False])
def test_inside_a_checkpoint(kind: Kind, use_reentrant: bool) -> None:
    layer, x = kind.layer(), kind.input()
    model, plain = Around(kind, ft.Frozen(layer)), Around(kind, kind.constant())
    before = contents(layer)
    out = checkpoint(model.train(), x, use_reentrant=use_reentrant)
    loss(out).backward()
    loss(checkpoint(plain, kind.input(), use_reentrant=use_reentrant)).backward()
    assert bits(model.scale.grad) == bits(plain.scale.grad)
    assert without_gradient([*layer.parameters(), *model.inner.parameters()])
    assert moved(before, layer) == set()


def test_checkpoint_around_the_same_layer_frozen_and_trained() -> None:
    """A flag that is toggled around the call would be wrong when the call is computed again."""
    torch.manual_seed(0)
    layer = nn.Linear(2, 2)
    use, x = ft.Frozen(layer), torch.ones(1, 2, requires_grad=True)
    layer(use(x)).sum().backward()
    expected = bits(layer.weight.grad)
    layer.weight.grad = None
    checkpoint(lambda x: layer(use(x)), x, use_reentrant=False).sum().backward()
    assert bits(layer.weight.grad) == expected


# Autocast leaves complex numbers alone, quantised layers take single precision only, and not every CPU has an LSTM in
# bfloat16.
@each_kind(without=("complex_filter", "fake_quantize", "vector_quantiser", "lstm", "two_way_lstm", "gru"))
def test_autocast(kind: Kind) -> None:
    layer, plain, x, same = kind.layer(), kind.constant(), kind.input(), kind.input()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out, expected = kind.call(ft.Frozen(layer), x), kind.call(plain, same)
    assert bits(out) == bits(expected)
    loss(out.float()).backward()
    loss(expected.float()).backward()
    assert bits(x.grad) == bits(same.grad)
    assert without_gradient(layer.parameters())


def test_autocast_caches_the_casts_of_the_layer_and_not_of_its_use() -> None:
    """Both uses in one autocast region: the cached cast of the trainable weight carries a gradient."""
    layer = nn.Linear(2, 2)
    use, x = ft.Frozen(layer), torch.ones(1, 2, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        trained = layer(x)
        still = use(x)
    assert bits(trained) == bits(still)
    still.float().sum().backward()
    assert without_gradient(layer.parameters())
    trained.float().sum().backward()
    assert layer.bias.grad.tolist() == [1.0, 1.0]


def test_data_parallel() -> None:
    layer = nn.Linear(2, 2)
    model = nn.DataParallel(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), ft.Frozen(layer)))
    model(torch.ones(3, 2)).sum().backward()
    assert without_gradient(layer.parameters())
    assert model.module[0].weight.grad is not None
    assert sorted(ft.frozen(model)) == ["2.bias", "2.weight"]


def test_inference_mode() -> None:
    layer = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    use = ft.Frozen(layer)
    with torch.inference_mode():
        use(torch.ones(1, 2))
    x = torch.ones(1, 2, requires_grad=True)
    use(x).sum().backward()
    assert x.grad is not None


def test_made_in_inference_mode_of_a_layer_of_training() -> None:
    layer = nn.Linear(2, 2)
    with torch.inference_mode():
        use = ft.Frozen(layer)
    x = torch.ones(1, 2, requires_grad=True)
    use(x).sum().backward()
    assert bits(x.grad) == bits(layer.weight.sum(0, keepdim=True))


def test_made_without_gradients() -> None:
    layer = nn.Linear(2, 2)
    with torch.no_grad():
        use = ft.Frozen(layer)
    x = torch.ones(1, 2, requires_grad=True)
    use(x).sum().backward()
    assert bits(x.grad) == bits(layer.weight.sum(0, keepdim=True))


def test_saved_tensors_on_their_way() -> None:
    layer = nn.Linear(2, 2)
    x = torch.ones(1, 2, requires_grad=True)
    with torch.autograd.graph.save_on_cpu():
        out = ft.Frozen(layer)(x)
    out.sum().backward()
    assert bits(x.grad) == bits(layer.weight.sum(0, keepdim=True))


class Recorded:
    """A hook that counts."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self, *args: object) -> None:
        self.times += 1


@pytest.mark.parametrize("kind", ["register_forward_hook", "register_forward_pre_hook", "register_full_backward_hook"])
def test_hook_on_the_layer_runs_in_its_frozen_uses(kind: str) -> None:
    layer, hook = nn.Linear(2, 2), Recorded()
    use = ft.Frozen(layer)
    handle = getattr(layer, kind)(hook)
    use(torch.ones(1, 2, requires_grad=True)).sum().backward()
    assert hook.times == 1
    handle.remove()
    use(torch.ones(1, 2, requires_grad=True)).sum().backward()
    assert hook.times == 1


@pytest.mark.parametrize("kind", ["register_forward_hook", "register_forward_pre_hook", "register_full_backward_hook"])
def test_hook_on_a_use_runs_in_that_use_alone(kind: str) -> None:
    layer, hook = nn.Linear(2, 2), Recorded()
    use = ft.Frozen(layer)
    handle = getattr(use, kind)(hook)
    layer(torch.ones(1, 2, requires_grad=True)).sum().backward()
    assert hook.times == 0
    use(torch.ones(1, 2, requires_grad=True)).sum().backward()
    assert hook.times == 1
    handle.remove()
    use(torch.ones(1, 2, requires_grad=True)).sum().backward()
    assert hook.times == 1


def test_gradient_hook_of_a_parameter_does_not_run() -> None:
    layer, hook = nn.Linear(2, 2), Recorded()
    layer.weight.register_hook(hook)
    layer.weight.register_post_accumulate_grad_hook(hook)
    ft.Frozen(layer)(torch.ones(1, 2, requires_grad=True)).sum().backward()
    assert hook.times == 0


def test_exception_inside_the_layer_leaves_it_as_it_was() -> None:
    layer = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 2))
    use, before = ft.Frozen(layer, mode="follow").train(), contents(layer)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        ft.Frozen(nn.Linear(3, 3))(torch.ones(1, 2))
    layer[1] = nn.Linear(3, 3)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        use(torch.ones(4, 2))
    assert {n for n in before if n.startswith("0.") and before[n] != contents(layer)[n]} == set()
    layer[1] = nn.Linear(2, 2)
    x: Tensor = torch.ones(4, 2, requires_grad=True)
    use(x).sum().backward()
    assert x.grad is not None

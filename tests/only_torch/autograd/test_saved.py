"""What autograd keeps, in bytes, watched while it is kept."""

import pytest
import torch
from torch import Tensor, nn

import frostline.torch as ft
from frostline.torch._autograd.saved import SavedTensor, saving
from frostline.torch._autograd.workspace import lstm_workspace
from frostline.torch._tensors import distinct_bytes


def test_what_the_graph_has_let_go_is_not_held() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
    with saving(model) as saved:
        kept = model(torch.ones(3, 4))
        model(torch.ones(3, 4))  # nobody holds what it returns
    assert saved.nbytes == 4 * (3 * 4 + 3 * 8)
    kept.sum().backward()
    assert saved.nbytes == 0


def test_parameters_and_buffers_do_not_count_and_other_weights_do() -> None:
    norm, x = nn.BatchNorm1d(4).eval(), torch.ones(3, 4)
    with saving(norm) as saved:
        kept = norm(x)
    assert (saved.nbytes, len(saved.held) > 1) == (x.nbytes, True)
    with saving(nn.Module()) as all_of_it:
        again = norm(x)
    # The weight and two statistics.
    assert all_of_it.nbytes == x.nbytes + 3 * 16
    assert torch.equal(kept, again)


def test_a_view_counts_as_what_it_keeps_and_once() -> None:
    whole = torch.ones(10, 4)
    assert distinct_bytes([whole[:1], whole.T, whole]) == 160


@pytest.mark.parametrize("sparse", [Tensor.to_sparse_coo, Tensor.to_sparse_csr, Tensor.to_sparse_csc])
@pytest.mark.filterwarnings("ignore:Sparse")
def test_a_sparse_tensor_counts_as_its_parts(sparse: type) -> None:
    made = sparse(torch.eye(3))
    # The positions of compressed rows are a view of two columns.
    places = 2 * 3 if made.layout is torch.sparse_coo else 4 + 2 * 3
    assert distinct_bytes([made]) == 8 * places + 4 * 3


def test_a_smaller_form_counts_as_what_it_is() -> None:
    kept = SavedTensor(torch.tensor([0.0, 2.0, 0.0, 3.0]))
    assert (kept.hook, distinct_bytes(kept.tensors)) == (None, 16)
    kept.replace(lambda tensor: (tensor.bool(), tensor.dtype), lambda packed: packed[0].to(packed[1]))
    assert distinct_bytes(kept.tensors) == 4
    assert kept.unpack().tolist() == [0.0, 1.0, 0.0, 1.0]


SHAPES = [(1, 1, 1, 1), (5, 3, 20, 40), (10, 4, 32, 64), (20, 8, 256, 128), (7, 2, 64, 256)]


def is_one_kernel(dtype: torch.dtype) -> bool:
    """Whether oneDNN runs a layer of an LSTM on this processor: bfloat16 needs instructions that not each one has."""
    return torch.backends.mkldnn.is_available() and (
        dtype == torch.float32 or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_workspace_is_as_large_as_the_kernel_makes_it(shape: tuple[int, int, int, int], dtype: torch.dtype) -> None:
    steps, samples, features, width = shape
    sizes = [(4 * width, features), (4 * width, width), (4 * width,), (4 * width,)]
    weights = [torch.zeros(*size, dtype=dtype) for size in sizes]
    states = [torch.zeros(1, samples, width, dtype=dtype)] * 2
    data = torch.zeros(steps, samples, features, dtype=dtype)
    kernel = torch.ops.aten.mkldnn_rnn_layer
    args = (data, *weights, *states, False, [], 2, width, 1, True, False, False, True)
    if is_one_kernel(dtype):
        assert kernel(*args)[3].nbytes == lstm_workspace(data, width)
    else:
        with pytest.raises(RuntimeError):
            kernel(*args)


@pytest.mark.filterwarnings("ignore:TF32 acceleration")  # the flags speak of Intel GPUs, too
@pytest.mark.parametrize("with_onednn", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES)
def test_an_lstm_keeps_what_the_run_without_data_predicts(
    shape: tuple[int, int, int, int], dtype: torch.dtype, with_onednn: bool
) -> None:
    """In one kernel with a workspace, or in operators that keep what each needs, as on a processor without it."""
    steps, samples, features, width = shape
    layer, data = nn.LSTM(features, width, dtype=dtype), torch.zeros(steps, samples, features, dtype=dtype)
    with torch.backends.mkldnn.flags(enabled=with_onednn):
        with saving(layer) as saved:
            made = layer(data)[0]
        assert made.grad_fn.name().startswith("Mkldnn") is (with_onednn and is_one_kernel(dtype))
        assert saved.nbytes == ft.cost(layer, data).now.saved_bytes

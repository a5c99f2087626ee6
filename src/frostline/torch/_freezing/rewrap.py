"""Data-parallel wrappers that follow what is frozen."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from frostline._core.errors import UnsupportedError
from frostline.torch._freezing.held_modules import hold_frozen_modules
from frostline.torch._freezing.survey import survey
from frostline.torch._freezing.wrapped import check_agreed
from frostline.torch._holding.moved_claims import settle
from frostline.torch._tensors import tensors
from frostline.torch._wrappers import FOLLOWING, is_compiled

_NOTED = "_frostline_noted"
"""The attribute of a wrapper that follows: its parameters, and which of them trained when it was last built."""


def rewrap(ddp: nn.Module) -> nn.Module:
    """Makes a data-parallel wrapper follow what is frozen inside of it, from now on; every rank must call it.

    ``DistributedDataParallel`` notes the trainable parameters when it is made. This builds what it made of them again,
    now and before the first call after each change. So freezing, thawing, undoing and drivers work inside of it, by
    the wrapper or the bare model, and every rank averages the gradients of what trains. Each rank must make the same
    changes. What you hold stays right: the wrapper, its hooks, the model and the optimizer are the same objects.

    Parameters and buffers are copied from rank 0 now, as the wrapper did when it was made.

    Args:
        ddp: the wrapper, or the result of ``torch.compile(ddp)``.

    Returns:
        The same object.

    Raises:
        TypeError: it is not a ``DistributedDataParallel``.
        UnsupportedError: it was made with an option under which it cannot be built again.
        RankError: the ranks have frozen different parameters.

    Example:
        >>> import tempfile, torch.distributed as dist
        >>> file = f"file://{tempfile.mkdtemp()}/meeting"
        >>> dist.init_process_group("gloo", init_method=file, rank=0, world_size=1)
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))
        >>> ddp = rewrap(nn.parallel.DistributedDataParallel(model))
        >>> handle = freeze(model, "0")
        >>> ddp(torch.ones(1, 4)).sum().backward()
        >>> model[0].weight.grad is None, model[1].weight.grad is None
        (True, False)
        >>> dist.destroy_process_group()
    """
    inner = ddp.get_submodule("_orig_mod") if is_compiled(ddp) else ddp
    if not isinstance(inner, DistributedDataParallel):
        raise TypeError(
            f"rewrap takes a DistributedDataParallel; this is of type {type(inner).__name__}.\n"
            "fully_shard (FSDP2) needs no rewrap; FullyShardedDataParallel is made after freezing."
        )
    _refuse_options(inner)
    read = survey(inner.module)
    trained = {path: tensor.requires_grad for path, tensor in read.parameters.items()}
    check_agreed("rewrap(ddp)", inner, trained)
    settle(read.modules.values())
    hold_frozen_modules(read)
    with torch.no_grad():
        dist.utils._sync_module_states(  # as its constructor does
            module=inner.module,
            process_group=inner.process_group,
            broadcast_bucket_size=inner.broadcast_bucket_size,
            src=0,
            params_and_buffers_to_ignore=inner.parameters_to_ignore,
            broadcast_buffers=inner.broadcast_buffers,
        )
    if inner not in FOLLOWING:
        FOLLOWING.add(inner)
        inner.register_forward_pre_hook(_follow)
        inner.register_forward_hook(_watch_backward)
    _build(inner)
    return ddp


@torch.compiler.disable
def _follow(ddp: DistributedDataParallel, _: Any) -> None:
    """Takes up what is frozen now. Only here, where all ranks are: the backward of an earlier call is over by now."""
    parameters, trained = ddp.__dict__[_NOTED]
    if not (torch.is_grad_enabled() and ddp.require_backward_grad_sync):
        return
    if [parameter.requires_grad for parameter in parameters] != trained:
        check_agreed("ddp(...)", ddp, {n: p.requires_grad for n, p in ddp.module.named_parameters()})
        _build(ddp)


@torch.compiler.disable
def _watch_backward(ddp: DistributedDataParallel, _: Any, output: Any) -> None:
    """Drops gradients that the wrapper gives to what was frozen between a call and its backward, with zeros in them."""

    def drop() -> None:
        for parameter in ddp.__dict__[_NOTED][0]:
            if not parameter.requires_grad:
                parameter.grad = None

    def begin(_: torch.Tensor) -> None:
        # The wrapper queues its own last step during the backward, so that what is queued by then comes before it.
        queue = torch.autograd.Variable._execution_engine.queue_callback
        queue(lambda: queue(drop))

    for tensor in tensors(output):
        if tensor.requires_grad:
            tensor.register_hook(begin)


def _build(ddp: DistributedDataParallel) -> None:
    """Makes a new reducer for the parameters that train now, in place."""
    parameters = list(ddp.module.parameters())
    trained = [parameter.requires_grad for parameter in parameters]
    if any(trained):  # otherwise there is nothing to reduce, and the present one is never asked
        # The old ones go first: they take their hooks off the parameters.
        ddp.__dict__.update(reducer=None, logger=None)
        found, are_sparse = ddp._build_params_for_reducer()
        is_static, ddp.static_graph = ddp.static_graph, False
        ddp._ddp_init_helper(found, are_sparse, ddp._build_debug_param_to_name_mapping(found), is_static)
        ddp._has_rebuilt_buckets = False
        if is_static:
            ddp._set_static_graph()
        hooks, ddp._comm_hooks = ddp._comm_hooks, []
        for hook, state in hooks:
            ddp.register_comm_hook(state, hook)
    ddp.__dict__[_NOTED] = parameters, trained


def _refuse_options(ddp: DistributedDataParallel) -> None:
    said: Any = ddp._get_ddp_logging_data()
    options = {
        "mixed_precision": ddp.mixed_precision is not None,
        "delay_all_reduce_named_params": bool(ddp._delay_all_reduce_params),
        "the Python reducer of the compiler": ddp._use_python_reducer,
        "an optimizer in backward": any(hasattr(p, "_in_backward_optimizers") for p in ddp.parameters()),
        "a built-in communication hook": bool(said.get("comm_hook")) and not ddp._comm_hooks,
    }
    if found := [name for name, is_there in options.items() if is_there]:
        raise UnsupportedError(
            "rewrap(ddp)",
            f"cannot build a DistributedDataParallel again that has {' and '.join(found)}.",
            "Make it without, or make another wrapper after each change: ddp = DistributedDataParallel(model).",
        )

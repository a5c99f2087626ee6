"""Reading files of ``torch.save`` without running the code that such a file may contain."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Hashable, Iterator, Mapping
from pathlib import Path
from typing import Any, final

import torch

from frostline._core.errors import FileFormatError
from frostline._core.files import check_regular
from frostline.checkpoint.stored import CHUNK, Checkpoint, StoredTensor, begins

_FIX = 'Write the file again: torch.save(model.state_dict(), "model.pt")'
# The keys under which training scripts save the model, beside the optimizer and the step.
_NESTS = ("state_dict", "model", "model_state_dict")


@final
class TorchFile(Checkpoint):
    """A ``.pt`` file of a state dict, plain or under "state_dict", "model" or "model_state_dict", in its own order.

    Tensors of a zip file (the default of ``torch.save`` since 1.6) stay on disk until their bytes are asked for.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "model.pt"
        >>> torch.save({"state_dict": torch.nn.Linear(3, 2).state_dict(), "step": 7}, file)
        >>> [str(tensor) for tensor in TorchFile(file).tensors.values()]
        ['float32[2, 3]', 'float32[2]']
    """

    def __init__(self, file: Path) -> None:
        check_regular(file)
        self._values = _state_dict(file, _load(file))
        super().__init__(file, [_stored(path, value) for path, value in self._values.items()])

    def chunks(self, path: str) -> Iterator[bytes]:
        """Yields the bytes of one tensor, `CHUNK` at a time."""
        value = self._values[path].resolve_conj().resolve_neg().contiguous()
        # A single element may keep any stride and still be contiguous.
        flat = value.as_strided((value.numel(),), (1,)).view(torch.uint8)
        for begin in range(0, len(flat), CHUNK):
            yield flat[begin : begin + CHUNK].numpy().tobytes()


def _load(file: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(file, weights_only=True, map_location="cpu", mmap=zipfile.is_zipfile(file))
    except Exception as error:  # noqa: BLE001  a damaged file can raise anything at all in here
        raise FileFormatError(str(file), f"{_reason(error)}.\n{begins(file)}", _FIX) from None


def _reason(error: Exception) -> str:
    text = str(error)
    if "Unsupported" in text or "weights_only" in text or "WeightsUnpickler" in text:
        return "it holds more than tensors, and loading that may run code of its author"
    return f"PyTorch finds no tensors in it ({type(error).__name__})"


def _state_dict(file: Path, loaded: Any) -> dict[str, torch.Tensor]:
    for nested in (loaded, *(loaded.get(name) for name in _NESTS if isinstance(loaded, Mapping))):
        values = nested if isinstance(nested, Mapping) else {}
        tensors = {str(path): value for path, value in values.items() if isinstance(value, torch.Tensor)}
        if tensors:
            return {path: _plain(file, path, value) for path, value in tensors.items()}
    keys = ", ".join(sorted(map(ascii, loaded))[:5]) if isinstance(loaded, Mapping) else type(loaded).__name__
    raise FileFormatError(str(file), f"it holds no tensors by name.\nIt holds: {keys or 'nothing'}", _FIX)


def _plain(file: Path, path: str, value: torch.Tensor) -> torch.Tensor:
    is_dense = value.layout == torch.strided and not value.is_quantized and not value.is_meta
    # An expanded tensor may claim any size with a few bytes of storage.
    if not is_dense or value.untyped_storage().nbytes() < value.numel() * value.element_size():
        raise FileFormatError(str(file), f"its tensor {path!a} is sparse, quantised or repeated", _FIX)
    return value.detach()


def _stored(path: str, value: torch.Tensor) -> StoredTensor:
    place: Hashable = (value.data_ptr(), value.shape, value.stride()) if value.numel() else None
    return StoredTensor(
        path, tuple(value.shape), str(value.dtype).removeprefix("torch."), value.numel() * value.element_size(), place
    )

"""Reading safetensors files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, final

from safetensors import SafetensorError, safe_open

from frostline._core.errors import FileFormatError
from frostline._core.files import check_regular, unreadable
from frostline.checkpoint.stored import CHUNK, Checkpoint, StoredTensor, begins

# The name of a dtype in the format, and its name in PyTorch and NumPy.
DTYPES = {
    "BF16": "bfloat16",
    "BOOL": "bool",
    "C64": "complex64",
    "F16": "float16",
    "F32": "float32",
    "F64": "float64",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2": "float8_e5m2",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F8_E8M0": "float8_e8m0fnu",
    "I16": "int16",
    "I32": "int32",
    "I64": "int64",
    "I8": "int8",
    "U16": "uint16",
    "U32": "uint32",
    "U64": "uint64",
    "U8": "uint8",
}
FIX = 'Write the file again: safetensors.torch.save_file(model.state_dict(), "model.safetensors")'


@final
class SafetensorsFile(Checkpoint):
    """A safetensors file; its tensors are sorted by name, because the format has no order.

    Args:
        file: its path.
        fix: the fix in the error for a damaged file.

    Example:
        >>> import tempfile
        >>> header = b'{"head.codes": {"dtype": "U8", "shape": [3], "data_offsets": [0, 3]}}'
        >>> file = Path(tempfile.mkdtemp()) / "model.safetensors"
        >>> file.write_bytes(len(header).to_bytes(8, "little") + header + b"abc")
        80
        >>> opened = SafetensorsFile(file)
        >>> opened.tensors["head.codes"].dtype, list(opened.chunks("head.codes"))
        ('uint8', [b'abc'])
    """

    def __init__(self, file: Path, fix: str = FIX) -> None:
        check_regular(file)
        self._fix = fix
        try:
            _validate(file)
            start, header = _read_header(file)
        except FileFormatError as error:
            raise FileFormatError(error.file, error.problem, fix) from None
        except (OSError, ValueError) as error:
            raise unreadable(file, error) from None
        metadata = header.pop("__metadata__", None)
        spans = ((path, *entry["data_offsets"]) for path, entry in header.items())
        self._spans = {path: (start + begin, start + end) for path, begin, end in spans}
        super().__init__(file, sorted(map(_stored, header.items()), key=_natural), metadata)

    def chunks(self, path: str) -> Iterator[bytes]:
        """Yields the bytes of one tensor, `CHUNK` at a time."""
        begin, end = self._spans[path]
        try:
            with self.file.open("rb") as stream:
                stream.seek(begin)
                for at in range(begin, end, CHUNK):
                    chunk = stream.read(min(CHUNK, end - at))
                    if len(chunk) < min(CHUNK, end - at):
                        raise FileFormatError(str(self.file), "it became shorter while it was read", self._fix)
                    yield chunk
        except OSError as error:
            raise unreadable(self.file, error) from None


def _validate(file: Path) -> None:
    try:
        safe_open(file, framework="np")
    except SafetensorError as error:
        problem = str(error).removeprefix("Error while deserializing header: ")
        raise FileFormatError(str(file), f"{problem}.\n{begins(file)}", FIX) from None
    except ModuleNotFoundError:
        # The library checks the header before it imports NumPy, and no array is read here.
        pass


def _read_header(file: Path) -> tuple[int, dict[str, Any]]:
    """Returns the first byte of the data, and the entries of a valid header."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        entries = dict(pairs)
        if len(entries) < len(pairs):
            # The library takes the last entry; another reader may take the first.
            twice = next(key for i, (key, _) in enumerate(pairs) if key in dict(pairs[:i]))
            raise FileFormatError(str(file), f"its header names {twice!a} twice", FIX)
        return entries

    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header: dict[str, Any] = json.loads(stream.read(length), object_pairs_hook=once)
    return 8 + length, header


def _stored(item: tuple[str, dict[str, Any]]) -> StoredTensor:
    path, entry = item
    begin, end = entry["data_offsets"]
    dtype = DTYPES.get(entry["dtype"], entry["dtype"].lower())
    return StoredTensor(path, tuple(entry["shape"]), dtype, end - begin)


def _natural(tensor: StoredTensor) -> list[tuple[bool, int, str]]:
    """Returns the sort key that puts layer 10 after layer 9."""
    keys = tensor.path.split(".")
    # By length first, because Python refuses to convert a very long number.
    return [(not key.isdecimal(), len(key) if key.isdecimal() else 0, key) for key in keys]

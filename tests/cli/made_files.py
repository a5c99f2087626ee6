"""Files by hand, so that a test can also write what no library would."""

import json
import struct
from random import Random
from typing import Any

# What a path holds: dtype, shape, bytes.
Made = dict[str, tuple[str, list[int], bytes]]


def safetensors_bytes(tensors: Made) -> bytes:
    header: dict[str, Any] = {}
    data = b""
    for path, (dtype, shape, values) in tensors.items():
        header[path] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(values)]}
        data += values
    return with_length(json.dumps(header).encode()) + data


def with_length(header: bytes) -> bytes:
    return struct.pack("<Q", len(header)) + header


def floats(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


def mutated(content: bytes, random: Random) -> bytes:
    changed = bytearray(content)
    for _ in range(random.randint(1, 3)):
        at = random.randrange(len(changed))
        kind = random.choice(["flip", "letter", "cut", "double", "zero"])
        if kind == "flip":
            changed[at] ^= 1 << random.randrange(8)
        elif kind == "letter":
            changed[at] = random.choice(b'{}[]",:0123456789.\\ue')
        elif kind == "cut":
            del changed[at : at + random.randint(1, 40)]
        elif kind == "double":
            changed[at:at] = changed[at : at + random.randint(1, 40)]
        else:
            changed[at] = 0
        if not changed:
            break
    return bytes(changed)

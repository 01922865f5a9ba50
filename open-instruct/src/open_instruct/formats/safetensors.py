"""The header of a `.safetensors` file, read without the library: 8 bytes of length, JSON, then the tensors' bytes."""

import hashlib
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from .errors import FormatError

__all__ = ["Tensor", "hash_tensor", "read_header"]

_ITEM_BYTES = {"BOOL": 1, "BF16": 2} | {
    f"{kind}{bits}": bits // 8
    for kind, sizes in (("F", (16, 32, 64)), ("I", (8, 16, 32, 64)), ("U", (8, 16, 32, 64)))
    for bits in sizes
}
_ITEM_BYTES |= {"F8_E4M3": 1, "F8_E5M2": 1}
_LENGTH_BYTES = 8


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """Where one tensor lies: `start` is its first byte in the file `path`."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    path: Path
    start: int
    size_bytes: int

    @property
    def items(self) -> int:
        """Count the numbers in it."""
        count = 1
        for size in self.shape:
            count *= size
        return count


def read_header(path: Path) -> dict[str, Tensor]:
    """Read the names, dtypes, shapes and places of a file's tensors.

    Raises:
        FormatError: `missing_file`, `truncated`, `not_json`, `wrong_dtype` where bytes and shape disagree.
    """
    if not path.is_file():
        raise FormatError("missing_file", path, "not found; expected a tensor file")
    size_bytes = path.stat().st_size
    with path.open("rb") as stream:
        prefix = stream.read(_LENGTH_BYTES)
        header_bytes = struct.unpack("<Q", prefix)[0] if len(prefix) == _LENGTH_BYTES else size_bytes
        if _LENGTH_BYTES + header_bytes > size_bytes:
            raise FormatError("truncated", path, f"has {size_bytes} bytes; expected a whole header")
        try:
            header = msgspec.json.decode(stream.read(header_bytes))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise FormatError("not_json", path, f"its header is not JSON ({error}); expected an object") from None
    if not isinstance(header, dict):
        raise FormatError("not_json", path, "its header is no object; expected an object")
    content = _LENGTH_BYTES + header_bytes
    tensors = {name: _tensor(name, entry, path, content) for name, entry in header.items() if name != "__metadata__"}
    end = max((tensor.start + tensor.size_bytes for tensor in tensors.values()), default=content)
    if end > size_bytes:
        raise FormatError("truncated", path, f"has {size_bytes} bytes; expected {end}, as its header says")
    return tensors


def _tensor(name: str, entry: Any, path: Path, content: int) -> Tensor:
    try:
        dtype, (start, end) = entry["dtype"], entry["data_offsets"]
        shape = tuple(int(size) for size in entry["shape"])
        item_bytes = _ITEM_BYTES[dtype]
        tensor = Tensor(name=name, dtype=dtype, shape=shape, path=path, start=content + start, size_bytes=end - start)
    except (TypeError, KeyError, ValueError):
        sentence = f'the header entry of "{name}" is {entry!r:.80}; expected dtype, shape and data_offsets'
        raise FormatError("not_json", path, sentence, field=name) from None
    if tensor.items * item_bytes != tensor.size_bytes:
        sentence = f'"{name}" has {tensor.size_bytes} bytes; expected {tensor.items} items of {dtype}'
        raise FormatError("wrong_dtype", path, sentence, field=name)
    return tensor


def hash_tensor(tensor: Tensor) -> str:
    """Give the sha256 of the tensor's little-endian bytes."""
    digest = hashlib.sha256()
    with tensor.path.open("rb") as stream:
        stream.seek(tensor.start)
        left = tensor.size_bytes
        while left:
            block = stream.read(min(left, 1 << 20))
            if not block:
                raise FormatError("truncated", tensor.path, f'ends within "{tensor.name}"; expected all its bytes')
            digest.update(block)
            left -= len(block)
    return digest.hexdigest()

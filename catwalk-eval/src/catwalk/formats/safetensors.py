"""Headers and bytes of safetensors files, parsed by hand: 8-byte little-endian length, JSON header, data."""

import hashlib
import struct
from dataclasses import dataclass
from pathlib import Path

from catwalk.formats.errors import FormatError
from catwalk.formats.fields import Record
from catwalk.formats.json_lines import decode_object

__all__ = ["Tensor", "read_header", "tensor_sha256"]

_ITEM_BYTES = {
    "F64": 8,
    "I64": 8,
    "U64": 8,
    "F32": 4,
    "I32": 4,
    "U32": 4,
    "F16": 2,
    "BF16": 2,
    "I16": 2,
    "U16": 2,
    "I8": 1,
    "U8": 1,
    "BOOL": 1,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
}
_READ_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """A tensor's entry in a header; `start` counts bytes from the beginning of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    start: int
    size_bytes: int

    @property
    def items(self) -> int:
        """Number of elements."""
        product = 1
        for extent in self.shape:
            product *= extent
        return product


def read_header(path: Path) -> list[Tensor]:
    """The tensors of a file, without reading their data.

    Raises:
        FormatError: `truncated` when the file is shorter than its header says, `not_json`, `wrong_dtype`, …
    """
    if not path.is_file():
        raise FormatError("missing_file", path, "the file is absent; expected weights")
    file_bytes = path.stat().st_size
    with path.open("rb") as stream:
        prefix = stream.read(8)
        header_bytes = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else None
        if header_bytes is None or 8 + header_bytes > file_bytes:
            message = f"the file has {file_bytes} bytes and ends within its header"
            raise FormatError("truncated", path, message, hint="copy or make the checkpoint again")
        header = decode_object(stream.read(header_bytes), path)
    data_start = 8 + header_bytes
    record = Record(value={key: value for key, value in header.items() if key != "__metadata__"}, path=path)
    tensors = [_tensor(record.record(name), name, path, data_start) for name in record.value]
    end = max((tensor.start + tensor.size_bytes for tensor in tensors), default=data_start)
    if end > file_bytes:
        message = f"the file has {file_bytes} bytes; its header describes {end}"
        raise FormatError("truncated", path, message, hint="copy or make the checkpoint again")
    return tensors


def _tensor(entry: Record, name: str, path: Path, data_start: int) -> Tensor:
    dtype = entry.text("dtype")
    if dtype not in _ITEM_BYTES:
        raise entry.error("wrong_dtype", "dtype", f'is "{dtype}"; expected one of {", ".join(_ITEM_BYTES)}')
    shape, offsets = entry.array("shape"), entry.array("data_offsets")
    for key, values in (("shape", shape), ("data_offsets", offsets)):
        if not all(isinstance(value, int) and not isinstance(value, bool) and value >= 0 for value in values):
            raise entry.error("invalid_value", key, "holds something else than whole numbers ≥ 0")
    if len(offsets) != 2:
        raise entry.error("invalid_value", "data_offsets", f"has {len(offsets)} items; expected [start, end]")
    start, end = offsets
    tensor = Tensor(
        name=name, dtype=dtype, shape=tuple(shape), file=path, start=data_start + start, size_bytes=end - start
    )
    if tensor.items * _ITEM_BYTES[dtype] != end - start:
        message = (
            f'"{name}" has {end - start} bytes; {dtype} of shape {shape} needs {tensor.items * _ITEM_BYTES[dtype]}'
        )
        raise FormatError("wrong_dtype", path, message, field=name)
    return tensor


def tensor_sha256(tensor: Tensor) -> str:
    """sha256 of a tensor's little-endian bytes, as they stand in the file."""
    digest = hashlib.sha256()
    with tensor.file.open("rb") as stream:
        stream.seek(tensor.start)
        rest = tensor.size_bytes
        while rest:
            chunk = stream.read(min(rest, _READ_BYTES))
            if not chunk:
                raise FormatError("truncated", tensor.file, f'the file ends within "{tensor.name}"')
            digest.update(chunk)
            rest -= len(chunk)
    return digest.hexdigest()

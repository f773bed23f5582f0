"""How values are written in a trace: JSON that plain SQL can read, in which every SQLite value survives exactly.

Integers, text, null and finite floats are themselves. Bytes are {"b": base64}; infinities are {"f": "inf"}. Digests are eight bytes of
BLAKE2b over MessagePack, which keeps apart what JSON confuses (1 and 1.0, text and bytes), in base64 without padding.

This module must not know what the values mean.
"""

from __future__ import annotations

import binascii
import math
from collections.abc import Iterable, Sequence
from typing import Any, cast

import msgspec

from retroact.digest import blake2b
from retroact.trace.record import Cell

encode_json = msgspec.json.Encoder().encode
decode_json = msgspec.json.Decoder().decode
_pack = msgspec.msgpack.Encoder().encode

_base64 = binascii.b2a_base64


def encode_cell(value: Cell) -> Any:
    """One value, ready for JSON."""
    kind = type(value)
    if kind is bytes:
        return {"b": binascii.b2a_base64(cast("bytes", value), newline=False).decode()}
    if kind is float and not math.isfinite(cast("float", value)):
        return {"f": repr(value)}
    return value


def encode_cells(values: Iterable[Cell]) -> list[Any]:
    """Values, ready for JSON."""
    return [encode_cell(v) if type(v) in (bytes, float) else v for v in values]


def decode_cell(value: Any) -> Cell:
    """The value that `encode_cell` was given."""
    if type(value) is dict:
        coded = cast("dict[str, str]", value)
        return binascii.a2b_base64(coded["b"]) if "b" in coded else float(coded["f"])
    return value


def digest(data: bytes) -> str:
    """Eleven characters that stand for `data`."""
    return _base64(blake2b(data, digest_size=8).digest(), newline=False)[:11].decode()


def digest_rows(rows: Sequence[tuple[Cell, ...]]) -> tuple[str, str]:
    """The ordered and the unordered digest of a result; equal when it has fewer than two rows."""
    if len(rows) <= 1:
        both = digest(_pack(rows))
        return both, both
    packed = [_pack(row) for row in rows]
    ordered = digest(b"".join(packed))
    packed.sort()
    return ordered, digest(b"".join(packed))


def chain(previous: int, fields: tuple[Any, ...]) -> int:
    """The link of a record to the one before it: a signed 64-bit digest of both."""
    return int.from_bytes(blake2b(_pack((previous, fields)), digest_size=8).digest(), "little", signed=True)

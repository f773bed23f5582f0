"""The container of a portable trace: named sections, compressed, with a digest over every byte.

    magic     24 bytes   "retroact portable trace" and a line feed
    format    2 bytes    what the rest means; big-endian, like all numbers here
    length    4 bytes    of the header
    header               JSON: [[name, bytes as stored, bytes as they are], ...], the sections in the order in which they follow
    sections             each an xz stream
    digest    32 bytes   BLAKE2b of everything before it

Magic and digest are the same in every format, so a damaged file is told from a newer one: the digest is checked first, and only a
file that is whole is asked for its format. A file appears under its name whole or not at all.

This module must not know what is in the sections.
"""

from __future__ import annotations

import contextlib
import hashlib
import lzma
import os
import struct
import tempfile
from collections.abc import Container, Mapping
from pathlib import Path

import msgspec

from retroact.engine.sqlite.portable.magic import MAGIC
from retroact.errors import AlreadyThere, DamagedFile, NewerDatabase, NoProject

FORMAT = 1
_NUMBERS = struct.Struct(">HI")
_DIGEST = 32
#: xz at its usual level is a fifth smaller here than at the lowest, and ten times as slow: worth it while a section is small.
_SMALL, _THOROUGH, _QUICK = 2_000_000, 6, 1
_header = msgspec.json.Decoder(list[tuple[str, int, int]]).decode


def pack(sections: Mapping[str, bytes]) -> bytes:
    """The bytes of a file with these sections: the same for the same sections."""
    packed = {name: _compressed(data) for name, data in sections.items()}
    header = msgspec.json.encode([(name, len(packed[name]), len(data)) for name, data in sections.items()])
    content = b"".join((MAGIC, _NUMBERS.pack(FORMAT, len(header)), header, *packed.values()))
    return content + hashlib.blake2b(content, digest_size=_DIGEST).digest()


def _compressed(data: bytes) -> bytes:
    return lzma.compress(data, preset=_THOROUGH if len(data) < _SMALL else _QUICK, check=lzma.CHECK_NONE)


def unpack(path: Path, content: bytes, only: Container[str] | None = None) -> dict[str, bytes]:
    """The sections of a file, or some of them. Raises DamagedFile, NewerDatabase."""
    if content[: len(MAGIC)] != MAGIC:
        raise DamagedFile(path=path, problem="it does not begin like one")
    body = content[:-_DIGEST]
    if len(body) < len(MAGIC) + _NUMBERS.size or hashlib.blake2b(body, digest_size=_DIGEST).digest() != content[-_DIGEST:]:
        raise DamagedFile(path=path, problem="its digest does not fit its content, so it was changed or cut off")
    found, length = _NUMBERS.unpack_from(body, len(MAGIC))
    if found > FORMAT:
        raise NewerDatabase(path=path, found=found, known=FORMAT)
    at = len(MAGIC) + _NUMBERS.size
    listed = _header(body[at : at + length])
    at += length
    sections: dict[str, bytes] = {}
    for name, stored, size in listed:
        if only is None or name in only:
            sections[name] = lzma.decompress(body[at : at + stored])
            assert len(sections[name]) == size, f"section {name} has the size that was written"
        at += stored
    return sections


def read(path: Path, only: Container[str] | None = None) -> dict[str, bytes]:
    """The sections of the file at `path`, or some of them. Raises NoProject, DamagedFile, NewerDatabase."""
    try:
        return unpack(path, path.read_bytes(), only)
    except FileNotFoundError:
        raise NoProject(problem=f"there is no file {path}", remedy="`retroact export RUN... -o FILE` makes one.") from None


def must_be_free(path: Path, *, overwrite: bool) -> None:
    """Say that a file could not be written before any work is done for it. Raises AlreadyThere, NoProject."""
    if path.exists() and (not overwrite or path.is_dir()):
        raise AlreadyThere(path=path)
    if not path.parent.is_dir():
        raise NoProject(problem=f"the folder {path.parent} does not exist", remedy="Create it, or give another path.")


def write(path: Path, content: bytes, *, overwrite: bool) -> None:
    """Put a file in its place, whole and durable. Raises AlreadyThere."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if overwrite:
            Path(name).replace(path)
        else:
            os.link(name, path)  # unlike renaming, this refuses a name that was taken meanwhile
    except FileExistsError:
        raise AlreadyThere(path=path) from None
    finally:
        with contextlib.suppress(FileNotFoundError):
            Path(name).unlink()
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):  # not every system lets a folder be opened
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

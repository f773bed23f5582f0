"""SQLite's pages, as far as their bytes must be understood: what an inner page points to, which tree a page is of, and which bytes of
a page are in use. The rest may hold what was deleted long ago.

This module must not know where pages come from.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping

INNER_INDEX, INNER_TABLE, LEAF_INDEX, LEAF_TABLE = 2, 5, 10, 13
INNER = (INNER_INDEX, INNER_TABLE)
_TRUNKS = 32  # where page 1 says which page the list of free pages begins with
_u16 = struct.Struct(">H")
_u32 = struct.Struct(">I")


def header_of(page: int) -> int:
    """Where the header of a b-tree page begins: page 1 has that of the database before it."""
    return 100 if page == 1 else 0


def children(image: bytes, page: int) -> list[int]:
    """The pages that an inner page points to, in order; none for any other."""
    at = header_of(page)
    if image[at] not in INNER:
        return []
    cells = _u16.unpack_from(image, at + 3)[0]
    pointers = struct.unpack_from(f">{cells}H", image, at + 12)
    return [*(_u32.unpack_from(image, pointer)[0] for pointer in pointers), _u32.unpack_from(image, at + 8)[0]]


def is_leaf(image: bytes, page: int) -> bool:
    """Whether it looks like a leaf. Pages that are of no b-tree begin with a zero."""
    return image[header_of(page)] in (LEAF_INDEX, LEAF_TABLE)


def first_trunk(first_page: bytes) -> int:
    """The first page of the list of free pages, 0 when none is free."""
    return _u32.unpack_from(first_page, _TRUNKS)[0]


def next_trunk(trunk: bytes) -> int:
    """The page of the list that follows, 0 after the last."""
    return _u32.unpack_from(trunk, 0)[0]


def root_of(images: Mapping[int, bytes], page: int) -> int:
    """The root of the b-tree that a page, at hand or not, is of, as far as inner pages at hand lead up."""
    above = {child: number for number, image in images.items() for child in children(image, number)}
    seen: set[int] = set()
    while page in above and page not in seen:
        seen.add(page)
        page = above[page]
    return page


# --- what is in use -----------------------------------------------------------------------------------------------------------


def scrubbed(images: Mapping[int, bytes], roots: Iterable[int]) -> dict[int, bytes]:
    """Pages of one state without the bytes that are in no use: what is left of rows that are no longer there is zeroed.

    A page that cannot be reached from a root, by an overflow chain or from the list of free pages is zeroed as a whole.
    """
    first = images[1]
    usable = len(first) - first[20]
    clean: dict[int, bytes] = {}
    waiting = [root for root in roots if root in images]
    while waiting:
        page = waiting.pop()
        if page in clean:
            continue
        cells = _Cells(images[page], page, usable)
        clean[page] = cells.scrubbed()
        waiting += (child for child in children(images[page], page) if child in images)
        for start, length in cells.overflows:
            clean |= _chain(images, start, length, usable)
    trunk = first_trunk(first)
    while trunk in images and trunk not in clean:
        used = 8 + 4 * min(_u32.unpack_from(images[trunk], 4)[0], usable // 4 - 2)
        clean[trunk] = images[trunk][:used].ljust(len(first), b"\0")
        trunk = next_trunk(images[trunk])
    if _u32.unpack_from(first, _LARGEST_ROOT)[0]:  # it can shrink, and keeps maps of where each page is pointed to from
        step = usable // 5 + 1
        clean |= {page: images[page] for page in range(2, max(images) + 1, step) if page in images and page not in clean}
    return {page: clean.get(page, bytes(len(first))) for page in images}


_LARGEST_ROOT = 52
_MORE = 0x80  # the bit of a byte that says that another follows


def _chain(images: Mapping[int, bytes], page: int, length: int, usable: int) -> dict[int, bytes]:
    """The pages of an overflow chain, as far as they are at hand, without what is behind the end of its value."""
    clean: dict[int, bytes] = {}
    while page in images and page not in clean and length > 0:
        image = images[page]
        clean[page] = image[: 4 + min(length, usable - 4)].ljust(len(image), b"\0")
        length -= usable - 4
        page = _u32.unpack_from(image, 0)[0]
    return clean


class _Cells:
    """The cells of one b-tree page: where they are, and which overflow chains begin in them."""

    def __init__(self, image: bytes, page: int, usable: int) -> None:
        self._image = image
        self._at = header_of(page)
        self._usable = usable
        self._kind = image[self._at]
        count = _u16.unpack_from(image, self._at + 3)[0]
        self._body = self._at + (12 if self._kind in INNER else 8)
        pointers = struct.unpack_from(f">{count}H", image, self._body)
        self.overflows: list[tuple[int, int]] = []
        self._ranges = [(0, self._body + 2 * count), *((pointer, pointer + max(self._size(pointer), 4)) for pointer in pointers)]

    def scrubbed(self) -> bytes:
        """The page with zeros wherever nothing is."""
        clean = bytearray(len(self._image))
        for start, end in self._ranges:
            clean[start:end] = self._image[start:end]
        block = _u16.unpack_from(self._image, self._at + 1)[0]
        while block:  # free blocks are chained by their first four bytes
            clean[block : block + 4] = self._image[block : block + 4]
            block = _u16.unpack_from(self._image, block)[0]
        return bytes(clean)

    def _size(self, pointer: int) -> int:
        """How many bytes the cell there takes; its overflow chain is noted."""
        at = pointer + (4 if self._kind in INNER else 0)
        payload, at = _varint(self._image, at)
        if self._kind == INNER_TABLE:
            return at - pointer
        if self._kind == LEAF_TABLE:
            _, at = _varint(self._image, at)
        local = self._local(payload)
        if local < payload:
            self.overflows.append((_u32.unpack_from(self._image, at + local)[0], payload - local))
            local += 4
        return at + local - pointer

    def _local(self, payload: int) -> int:
        """How much of a payload stands on the page itself."""
        usable = self._usable
        most = usable - 35 if self._kind == LEAF_TABLE else (usable - 12) * 64 // 255 - 23
        if payload <= most:
            return payload
        least = (usable - 12) * 32 // 255 - 23
        kept = least + (payload - least) % (usable - 4)
        return kept if kept <= most else least


def _varint(image: bytes, at: int) -> tuple[int, int]:
    """A number of one to nine bytes, and where it ends."""
    value = 0
    for place in range(at, at + 8):
        value = value << 7 | image[place] & (_MORE - 1)
        if not image[place] & _MORE:
            return value, place + 1
    return value << 8 | image[at + 8], at + 9

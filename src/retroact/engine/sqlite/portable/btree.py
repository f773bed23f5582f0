"""SQLite's b-tree pages, as far as their bytes must be understood: what an inner page points to, and which tree a page is of.

This module must not know where pages come from.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

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

"""Replaces values by others that look like them: the same value always by the same, different ones by different ones.

A value is taken as a number in a mixed radix, one digit for each of its characters, and put through a keyed permutation of all such
numbers (a Feistel network with modular addition). So nothing can collide: unique columns stay unique and equal values stay equal.

  * text keeps its length, where its letters are capitals, its digits, and every sign of ASCII that is neither letter nor digit; other
    characters become some of the same length in UTF-8;
  * integers keep their sign and number of digits, floats besides that their exponent, blobs their length, null is null.

Who has the key can turn it back, who has not cannot; it is made for one export and not kept. What can still be guessed is what the
shape tells, which values are equal, and how often each occurs; of very short values there are few.

This module must not know where values come from.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

from retroact.trace.record import Cell

_ROUNDS = 10
#: Symbols that are permuted together; longer values are taken in parts, each depending on all before it.
_BLOCK = 48
_ALPHABETS = ("abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "0123456789")
#: A character of ASCII that is replaced: its place, how many there are, and all of them.
_ASCII = {character: (place, len(alphabet), alphabet) for alphabet in _ALPHABETS for place, character in enumerate(alphabet)}
_DIGITS = _ALPHABETS[-1]
_LARGEST = 2**63 - 1
#: Ranges of characters beyond ASCII, closed: each has one length in UTF-8 and no surrogates.
_RANGES = ((0x80, 0x7FF), (0x800, 0xD7FF), (0xE000, 0xFFFF), (0x10000, 0x10FFFF))
#: One symbol: its value, how many values there are.
Symbol = tuple[int, int]


class Disguise:
    """The replacement of values under one key."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def cell(self, value: Cell) -> Cell:
        """What stands for a value."""
        match value:
            case None:
                return None
            case str():
                return self.text(value)
            case bytes():
                return bytes(self._permuted([(byte, 256) for byte in value], "b"))
            case float():
                return self._float(value)
            case int():
                return self._integer(value)

    def text(self, value: str) -> str:
        """What stands for a text."""
        places: list[int] = []
        symbols: list[Symbol] = []
        alphabets: list[str | int] = []
        for place, character in enumerate(value):
            known = _ASCII.get(character)
            if known is None:
                code = ord(character)
                span = next(((low, high) for low, high in _RANGES if low <= code <= high), None)
                if span is None:
                    continue
                known = (code - span[0], span[1] - span[0] + 1, span[0])
            places.append(place)
            symbols.append(known[:2])
            alphabets.append(known[2])
        found = list(value)
        for place, alphabet, moved in zip(places, alphabets, self._permuted(symbols, "t"), strict=True):
            found[place] = alphabet[moved] if isinstance(alphabet, str) else chr(alphabet + moved)
        return "".join(found)

    def _integer(self, value: int) -> int:
        if 0 <= value < len(_DIGITS):
            return self._permuted([(value, len(_DIGITS))], "i")[0]
        size, most = abs(value), _LARGEST + (value < 0)
        while True:  # until it fits: of the largest numbers not all do
            size = self._digits(size)
            if size <= most:
                return -size if value < 0 else size

    def _digits(self, value: int) -> int:
        digits = [int(digit) for digit in str(value)]
        first, *rest = self._permuted([(digits[0] - 1, 9), *((digit, 10) for digit in digits[1:])], "i")
        return int("".join(map(str, (first + 1, *rest))))

    def _float(self, value: float) -> float:
        if not math.isfinite(value):
            return value
        digits, mark, exponent = repr(value).partition("e")
        return float(self.text(digits) + mark + exponent)

    def _permuted(self, symbols: Sequence[Symbol], kind: str) -> list[int]:
        found: list[int] = []
        before = hashlib.blake2b(kind.encode(), key=self._key)
        for at in range(0, len(symbols), _BLOCK):
            part = symbols[at : at + _BLOCK]
            found += self._block(part, before.digest())
            before.update(repr(part).encode())
        return found

    def _block(self, symbols: Sequence[Symbol], tweak: bytes) -> list[int]:
        half = (len(symbols) + 1) // 2
        radices = [radix for _, radix in symbols]
        tweak += repr(radices).encode()
        left, right = _joined(symbols[:half]), _joined(symbols[half:])
        left_size, right_size = math.prod(radices[:half]), math.prod(radices[half:])
        for number in range(_ROUNDS):
            left = (left + self._mixed(number, right, tweak, left_size)) % left_size
            right = (right + self._mixed(number, left, tweak, right_size)) % right_size
        return [*_apart(left, radices[:half]), *_apart(right, radices[half:])]

    def _mixed(self, number: int, other: int, tweak: bytes, size: int) -> int:
        length = size.bit_length() // 8 + 16  # so much longer that the remainder favours nothing
        return int.from_bytes(hashlib.shake_256(b"%b%d/%d/%b" % (self._key, number, other, tweak)).digest(length)) % size


def _joined(symbols: Sequence[Symbol]) -> int:
    number = 0
    for value, radix in symbols:
        number = number * radix + value
    return number


def _apart(number: int, radices: Sequence[int]) -> list[int]:
    found: list[int] = []
    for radix in reversed(radices):
        number, value = divmod(number, radix)
        found.append(value)
    return found[::-1]

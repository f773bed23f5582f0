"""The values that are to be told to nobody, what stands for each, and where they occur in whatever the trace says.

A value of a redacted column is replaced wherever it stands by itself, and inside of other texts where it is long enough not to be
there by chance: from 8 characters anywhere, from 4 as a word. Numbers are replaced only where they stand by themselves.

This module must not know where texts come from.
"""

from __future__ import annotations

import binascii
from collections.abc import Callable, Iterable
from typing import Any, cast

from retroact.trace.codec import decode_json, encode_json
from retroact.trace.record import Cell

#: From so many characters on a value is looked for inside of texts, as a word; and anywhere.
AS_A_WORD, ANYWHERE = 4, 8
_KEYS = (int, float, str, bytes)


class Secrets:
    """Values and what stands for each."""

    def __init__(self, replace: Callable[[Cell], Cell]) -> None:
        self._replace = replace
        self._known: dict[tuple[type, Cell], Cell] = {}
        #: Where values are short, one may stand for another: then it tells nothing.
        self._stand_ins: set[tuple[type, Cell]] = set()
        #: What the runs computed from secrets, and what they now compute: by the run at the root, because a value that comes out of
        #: one call goes into others of the same run, while an equal one elsewhere need have nothing to do with it.
        self._computed: dict[str, dict[str, str]] = {}
        self._run: dict[str, str] = {}
        self._texts: dict[str, str] = {}
        self._lengths: set[int] = set()
        self._starts: set[str] = set()

    def hide(self, value: Cell) -> Cell:
        """What stands for a value of a redacted column, which is known from now on."""
        if value is None:
            return None
        known = self._known.get((type(value), value))
        if known is None:
            known = self._replace(value)
            self.learn(value, known)
        return known

    def learn(self, value: Cell, instead: Cell) -> None:
        """From now on `instead` stands for a value."""
        if (type(value), value) in self._known or value == instead:
            return
        self._known[type(value), value] = instead
        self._stand_ins.add((type(instead), instead))
        if isinstance(value, str) and isinstance(instead, str):
            self._look_for(value, instead)
        elif isinstance(value, bytes) and isinstance(instead, bytes):
            # Arguments and results have bytes as base64.
            self.learn(binascii.b2a_base64(value, newline=False).decode(), binascii.b2a_base64(instead, newline=False).decode())

    def enter(self, run: str) -> None:
        """What follows is of that run."""
        self._run = self._computed.setdefault(run.partition(".")[0], {})

    def derive(self, then: Any, now: Any) -> None:
        """Learn what a computed value became in this run, part by part: what is computed from it later must agree."""
        if isinstance(then, dict) and isinstance(now, dict):
            old, new = cast("dict[Any, Any]", then), cast("dict[Any, Any]", now)
            for key in old.keys() & new.keys():
                self.derive(old[key], new[key])
        elif isinstance(then, list) and isinstance(now, list):
            for one, other in zip(cast("list[Any]", then), cast("list[Any]", now), strict=False):
                self.derive(one, other)
        elif isinstance(then, str) and isinstance(now, str) and self.text(then) != now and (str, then) not in self._known:
            self._run[then] = now

    def cell(self, value: Cell) -> Cell:
        """A value, replaced if it is a secret or has one in it."""
        if type(value) not in _KEYS:
            return value
        known = self._known.get((type(value), value))
        if known is not None:
            return known
        return self.text(value) if isinstance(value, str) else value

    def text(self, text: str) -> str:
        """A text, with what stands for the secrets in it."""
        known = self._known.get((str, text))
        if known is None:
            known = self._run.get(text)
        if known is not None:
            return cast("str", known)
        parts: list[str] = []
        done = 0
        for start, end in self._found(text):
            parts += (text[done:start], self._texts[text[start:end]])
            done = end
        return "".join((*parts, text[done:])) if parts else text

    def json(self, stored: str | None, *, named: bool = False) -> str | None:
        """A JSON text with all values in it replaced. `named`: the outermost keys are names of parameters and stay."""
        if stored is None:
            return None
        value = decode_json(stored)
        replaced = self.value(value, named=named)
        return stored if replaced == value else encode_json(replaced).decode()

    def value(self, value: Any, *, named: bool = False) -> Any:
        """The same for a value made of lists and dictionaries."""
        if isinstance(value, dict):
            given = cast("dict[str, Any]", value)
            return {key if named else self.text(key): self.value(inner) for key, inner in given.items()}
        if isinstance(value, list):
            return [self.value(inner) for inner in cast("list[Any]", value)]
        return self.cell(value)

    def left_in(self, text: str) -> str | None:
        """A secret that stands in a text."""
        if self.tells(text):
            return text
        return next((text[start:end] for start, end in self._found(text) if self.tells(text[start:end])), None)

    def in_bytes(self) -> list[bytes]:
        """The secrets that are long enough to be looked for in any bytes, in the encodings that a database may have."""
        found: list[bytes] = []
        for text in self._texts:
            if len(text) >= ANYWHERE and self.tells(text):
                found += (text.encode(), text.encode("utf-16-le"), text.encode("utf-16-be"))
        return found + [value for _, value in self._known if isinstance(value, bytes) and len(value) >= ANYWHERE and self.tells(value)]

    def tells(self, value: Cell) -> bool:
        """Whether a value is a secret and cannot be there in place of another."""
        known = (type(value), value)
        return known in self._known and known not in self._stand_ins

    def _look_for(self, text: str, instead: str) -> None:
        if len(text) >= AS_A_WORD:
            self._texts[text] = instead
            self._lengths.add(len(text))
            self._starts.add(text[:AS_A_WORD])

    def _found(self, text: str) -> Iterable[tuple[int, int]]:
        """Where secrets stand in a text, the longest first at each place, without overlap."""
        at = 0
        lengths = sorted(self._lengths, reverse=True)
        while at + AS_A_WORD <= len(text):
            end = at
            if text[at : at + AS_A_WORD] in self._starts:
                end = next((at + n for n in lengths if text[at : at + n] in self._texts and self._counts(text, at, at + n)), at)
            if end > at:
                yield at, end
            at = max(end, at + 1)

    @staticmethod
    def _counts(text: str, start: int, end: int) -> bool:
        if end > len(text):
            return False
        word = not text[start - 1 : start].isalnum() and not text[end : end + 1].isalnum()
        return word or end - start >= ANYWHERE


def finder(secrets: Iterable[bytes]) -> Callable[[bytes], bool]:
    """Tells whether one of the secrets stands in some bytes. They are looked for by their first bytes, so that many cost little more
    than one."""
    known = set(secrets)
    lengths: dict[bytes, set[int]] = {}
    for secret in known:
        lengths.setdefault(secret[:ANYWHERE], set()).add(len(secret))

    def found_in(data: bytes) -> bool:
        for at in range(len(data) - ANYWHERE + 1):
            possible = lengths.get(data[at : at + ANYWHERE])
            if possible is not None and any(data[at : at + length] in known for length in possible):
                return True
        return False

    return found_in if known else lambda _: False

"""What is printed: JSON, aligned tables, and colour where a person looks at a terminal.

This module must not know what the values mean.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TextIO

from retroact.diagram.phrase import shorten_middle

_STYLES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "blue": "34", "cyan": "36"}
#: Where nobody says how wide the output is.
WIDTH = 120
NARROWEST = 40
_LEFT_ALONE = 12


def coloured(stream: TextIO) -> bool:
    """Whether colour is wanted there."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def paint(text: str, style: str) -> str:
    """Text in a style (`red`, `bold`, `dim`, ...) where standard output is a terminal."""
    if not style or not text or not coloured(sys.stdout):
        return text
    return f"\x1b[{_STYLES[style]}m{text}\x1b[0m"


def width() -> int:
    """How many characters a line may have: what COLUMNS says, or the terminal, or else WIDTH."""
    said = os.environ.get("COLUMNS", "")
    if said.isdigit():
        return max(int(said), NARROWEST)
    try:
        return max(os.get_terminal_size(sys.__stdout__.fileno() if sys.__stdout__ else 1).columns, NARROWEST)
    except (OSError, ValueError):
        return WIDTH


def out(text: str = "") -> None:
    """A line on standard output, whatever its encoding can show."""
    try:
        print(text)
    except UnicodeEncodeError:
        encoding = sys.stdout.encoding
        print(text.encode(encoding, "replace").decode(encoding))


def note(text: str) -> None:
    """A line on standard error: about the answer, not part of it."""
    print(text, file=sys.stderr, flush=True)


def print_json(value: Any) -> None:
    """One JSON value."""
    out(json.dumps(value, ensure_ascii=False, indent=2, default=str))


@dataclasses.dataclass(frozen=True, slots=True)
class Cell:
    """A field of a table, with the style it is painted in."""

    text: str
    style: str = ""


def table(
    heads: Sequence[str], rows: Iterable[Sequence[Cell | str]], *, right: Sequence[int] = (), give: int = -1, indent: str = ""
) -> None:
    """Print rows in aligned columns under their heads. `right` numbers the columns that end flush; column `give` is shortened
    to fit a terminal."""
    cells = [[c if isinstance(c, Cell) else Cell(c) for c in row] for row in rows]
    widths = [max([len(head), *(len(row[i].text) for row in cells)]) for i, head in enumerate(heads)]
    give %= len(heads)
    spare = width() - len(indent) - sum(widths) - 2 * (len(heads) - 1)
    if spare < 0:
        widths[give] = max(widths[give] + spare, _LEFT_ALONE)
    if any(heads):
        out((indent + _line([Cell(head, "dim") for head in heads], widths, right)).rstrip())
    for row in cells:
        out((indent + _line(row, widths, right)).rstrip())


def _line(row: Sequence[Cell], widths: Sequence[int], right: Sequence[int]) -> str:
    parts: list[str] = []
    for i, (field, size) in enumerate(zip(row, widths, strict=True)):
        text = shorten_middle(field.text, size)
        pad = " " * (size - len(text))
        parts.append(pad + paint(text, field.style) if i in right else paint(text, field.style) + pad)
    return "  ".join(parts)


class Progress:
    """How far something is, on standard error, once it has taken a second and only where a person looks."""

    def __init__(self, what: str, unit: str = "", *, clock: Callable[[], float] | None = None) -> None:
        from retroact.engine.clock import monotonic

        self._what, self._unit = what, unit
        self._clock = clock or monotonic
        self._shown = sys.stderr.isatty()
        self._next = self._clock() + 1.0
        self._began = self._clock()
        self._wrote = False

    def __call__(self, done: int, total: int) -> None:
        """So many of so many are done."""
        if self._shown and self._clock() >= self._next:
            share = f"{100 * done // total} %" if total else ""
            self._write(f"{self._what}: {done:,} of {total:,} {self._unit} ({share})")

    def tick(self) -> None:
        """It is still under way."""
        if self._shown and self._clock() >= self._next:
            self._write(f"{self._what} … {self._clock() - self._began:.0f} s")

    def done(self) -> None:
        """Leave the line as it was."""
        if self._wrote:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def _write(self, text: str) -> None:
        self._next = self._clock() + 0.1
        self._wrote = True
        sys.stderr.write(f"\r\x1b[K{shorten_middle(text, width() - 1)}")
        sys.stderr.flush()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.done()

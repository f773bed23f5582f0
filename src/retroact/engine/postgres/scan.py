"""Takes SQL texts of Postgres apart: where a parameter stands, which words there are, and whether there is more than one statement.

Strings of every form, quoted names, dollar quotes, comments (which nest) and casts are skipped as Postgres itself skips them, with
standard_conforming_strings on. A colon inside brackets that follows a value is a slice (`a[lo:hi]`), not a parameter.

This module must not know what a statement may do, nor any driver.
"""

from __future__ import annotations

import dataclasses
import re

_CONTINUED = r"(?:(?:[ \t\f\v]|--[^\n\r]*)*[\n\r](?:\s|--[^\n\r]*[\n\r])*'(?:[^'\\]|''|\\.)*')*"
_TOKEN = re.compile(
    rf"""
    (?P<space>\s+|--[^\n\r]*)
    |(?P<block>/\*)
    |(?P<escaped>[eE]'(?:[^'\\]|''|\\.)*'{_CONTINUED})
    |(?P<string>(?:[uU]&|[bBxXnN])?'(?:[^']|'')*')
    |(?P<quoted>(?:[uU]&)?"(?:[^"]|"")*")
    |(?P<word>[^\W\d][\w$]*)
    |(?P<dollar>\$(?:[^\W\d]\w*)?\$)
    |(?P<position>\$\d+)
    |(?P<number>\d[\w.]*)
    |(?P<cast>::|:=)
    |(?P<name>:[^\W\d]\w*)
    |(?P<other>.)
    """,
    re.VERBOSE | re.DOTALL,
)
_COMMENT_EDGE = re.compile(r"/\*|\*/")


@dataclasses.dataclass(frozen=True, slots=True)
class Scanned:
    """One SQL text, taken apart."""

    #: The text between parameters; one more than there are parameters. What ends the statement is left out.
    pieces: tuple[str, ...]
    #: The parameters, in the order of the text.
    parameters: tuple[str, ...]
    #: Words and quoted names as Postgres compares them, in order.
    words: tuple[str, ...]
    more: bool
    #: What cannot be understood, if anything.
    problem: str | None = None

    def numbered(self) -> tuple[str, tuple[str, ...]]:
        """The text with $1, $2, ... and the name that each number stands for."""
        names = tuple(dict.fromkeys(self.parameters))
        text = [self.pieces[0]]
        for name, piece in zip(self.parameters, self.pieces[1:], strict=True):
            text += [f"${names.index(name) + 1}", piece]
        return "".join(text), names

    def filled(self, literals: dict[str, str]) -> str:
        """The text with literals in place of its parameters. Raises KeyError."""
        text = [self.pieces[0]]
        for name, piece in zip(self.parameters, self.pieces[1:], strict=True):
            text += [literals[name], piece]
        return "".join(text)


class _Scanner:
    """Where a scan stands."""

    def __init__(self, sql: str) -> None:
        self.sql = sql
        self.pieces: list[str] = []
        self.parameters: list[str] = []
        self.words: list[str] = []
        self.problem: str | None = None
        self.more = False
        #: Where the text ends that belongs to the statement.
        self.end: int | None = None
        self.piece_began = 0
        self.brackets = 0
        self.after_value = False

    def run(self) -> Scanned:
        at = 0
        while at < len(self.sql) and self.problem is None:
            found = _TOKEN.match(self.sql, at)
            assert found is not None, "the last alternative matches any character"
            at = self._take(found)
        end = len(self.sql) if self.end is None else self.end
        self.pieces.append(self.sql[self.piece_began : max(end, self.piece_began)])
        return Scanned(tuple(self.pieces), tuple(self.parameters), tuple(self.words), self.more, self.problem)

    def _take(self, found: re.Match[str]) -> int:
        kind, text = found.lastgroup or "other", found[0]
        if kind == "space":
            return found.end()
        if kind == "block":
            return self._comment(found.end())
        if text == ";" and not self._atomic():
            self.end = found.start() if self.end is None else self.end
            return found.end()
        if self.end is not None:
            self.more = True
        if kind == "dollar":
            close = self.sql.find(text, found.end())
            if close < 0:
                self.problem = f"the text that {text} opens is not closed"
            return close + len(text)
        if kind == "name":
            self._colon(found)
        elif kind == "position":
            self.problem = "parameters are named (:item) and given by keyword, not by position ($1)"
        elif text in "'\"":
            self.problem = f"the text that {text} opens is not closed"
        self._note(kind, text)
        return found.end()

    def _note(self, kind: str, text: str) -> None:
        if kind == "word":
            self.words.append(text.lower())
        elif kind == "quoted":
            self.words.append(text.removeprefix("U&").removeprefix("u&")[1:-1].replace('""', '"'))
        self.brackets += (text == "[") - (text == "]")
        self.after_value = kind in ("word", "quoted", "number", "name", "string") or text in (")", "]")

    def _colon(self, found: re.Match[str]) -> None:
        if self.brackets and self.after_value and not self.sql[found.start() - 1].isspace():
            return
        self.pieces.append(self.sql[self.piece_began : found.start()])
        self.parameters.append(found[0][1:])
        self.piece_began = found.end()

    def _comment(self, at: int) -> int:
        depth = 1
        while depth:
            edge = _COMMENT_EDGE.search(self.sql, at)
            if edge is None:
                self.problem = "a comment is not closed"
                return len(self.sql)
            depth += 1 if edge[0] == "/*" else -1
            at = edge.end()
        return at

    def _atomic(self) -> bool:
        """Inside a body that is written in SQL itself: `create function ... begin atomic ...; end`."""
        return "atomic" in self.words and self.words[0] == "create" and self.words[-1] != "end"


def scan(sql: str) -> Scanned:
    """Take a SQL text apart."""
    return _Scanner(sql).run()

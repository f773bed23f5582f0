"""Draws timelines in a terminal, as wide as it is, with what went wrong in red.

This module must not know where moments come from.
"""

from __future__ import annotations

from collections.abc import Sequence

from retroact.cli.output import out, paint, width
from retroact.diagram.moments import lanes_of
from retroact.diagram.timeline import Moment, timeline


def draw(moments: Sequence[Moment], title: str = "", *, head: str = "version") -> None:
    """Print a timeline and an empty line. `head` says what its numbers are."""
    if not moments:
        return
    if title:
        out(paint(title, "bold"))
    first, *lines = timeline(lanes_of(moments), moments, width=width(), head=head).splitlines()
    out(paint(first, "dim"))
    for line, moment in zip(lines, moments, strict=True):
        out(paint(line, "red") if moment.alarm else line)
    out()

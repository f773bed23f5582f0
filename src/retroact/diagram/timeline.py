"""An interleaving that can be read at a glance: one column for each run, one line for each transaction, time goes down.

    version  order-1                     order-2
         12  ● check_inventory -> true
         13  │                           ● check_inventory -> true
         14  ● update_inventory 1 -> 0   │
         15                              ● update_inventory 0 -> -1   ✗ never_oversold

Pure: values in, text out. This module must not know runs, records or terminals, only what is to be drawn where.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from retroact.diagram.phrase import shorten_end, shorten_middle

#: A lane is not drawn narrower than this: the runs are then named on each line instead.
NARROWEST = 22
WIDEST_NOTE = 48
_GAP = "   "
_HERE, _ON = "● ", "│ "
_PLACE = "version"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """One transaction on the timeline."""

    #: Its version.
    place: int
    #: The run that it belongs to.
    lane: str
    label: str
    #: Written at the right end of its line.
    note: str | None = None
    #: The note tells of something bad.
    alarm: bool = False
    #: Written instead of the label where that does not fit.
    short: str | None = None


def timeline(lanes: Sequence[str], moments: Sequence[Moment], *, width: int = 100, head: str = _PLACE) -> str:
    """Draw moments in the order given, at most `width` characters wide, without trailing spaces or a final newline. `head` says what
    the numbers are."""
    if not moments:
        return ""
    names = list(dict.fromkeys([*lanes, *(moment.lane for moment in moments)]))
    place = max(len(head), *(len(str(moment.place)) for moment in moments))
    note = min(max(len(_note(moment)) for moment in moments), WIDEST_NOTE, max(width // 3, 12))
    room = width - place - 2 - (note + len(_GAP) if note else 0)
    widths = _lane_widths(names, moments, room)
    if widths is None:
        drawn = _one_column(names, moments, place, note, width)
    else:
        drawn = _columns(dict(zip(names, widths, strict=True)), moments, place, note)
    return f"{head:>{place}}{drawn[max(place, len(_PLACE)) :]}"


def _lane_widths(names: Sequence[str], moments: Sequence[Moment], room: int) -> list[int] | None:
    """How wide each lane is drawn, None when they do not fit: the widest give way first."""
    wanted = [max([len(name), *(len(m.label) + len(_HERE) for m in moments if m.lane == name)]) for name in names]
    room -= len(_GAP) * (len(names) - 1)
    limit = max(wanted)
    while sum(min(w, limit) for w in wanted) > room:
        limit -= 1
        if limit < NARROWEST:
            return None
    return [_needed(name, moments, min(w, limit)) for name, w in zip(names, wanted, strict=True)]


def _needed(name: str, moments: Sequence[Moment], most: int) -> int:
    """How wide a lane is with what is really written in it."""
    texts = [len(_fitted(m, most - len(_HERE))) + len(_HERE) for m in moments if m.lane == name]
    return min(max([len(name), *texts]), most)


def _columns(widths: dict[str, int], moments: Sequence[Moment], place: int, note: int) -> str:
    first, last = _extent(moments)
    lines = [f"{_PLACE:>{place}}  {_GAP.join(shorten_middle(name, width).ljust(width) for name, width in widths.items())}"]
    for number, moment in enumerate(moments):
        cells: list[str] = []
        for name, width in widths.items():
            if name == moment.lane:
                text = _HERE + _fitted(moment, width - len(_HERE))
            else:
                text = _ON if first.get(name, number) < number < last.get(name, number) else ""
            cells.append(text.ljust(width))
        lines.append(f"{moment.place:>{place}}  {_GAP.join(cells)}{_GAP}{shorten_end(_note(moment), note)}")
    return "\n".join(line.rstrip() for line in lines)


def _one_column(names: Sequence[str], moments: Sequence[Moment], place: int, note: int, width: int) -> str:
    room = width - place - 2 - 2 - len(_HERE) - (len(_GAP) if note else 0)
    lane = min(max(len(name) for name in names), max(room // 3, 1))
    least = max(len(moment.short or moment.label) for moment in moments)
    note = min(note, max(room // 3, room - lane - least))
    label = max(min(max(len(moment.label) for moment in moments), room - lane - note), 1)
    label = max(len(_fitted(moment, label)) for moment in moments)
    lines = [f"{_PLACE:>{place}}  run"]
    for moment in moments:
        name = shorten_middle(moment.lane, lane).ljust(lane)
        text = _fitted(moment, label).ljust(label)
        lines.append(f"{moment.place:>{place}}  {name}  {_HERE}{text}{_GAP}{shorten_end(_note(moment), note)}")
    return "\n".join(line.rstrip() for line in lines)


def _extent(moments: Sequence[Moment]) -> tuple[dict[str, int], dict[str, int]]:
    """The first and the last line of each lane."""
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    for number, moment in enumerate(moments):
        first.setdefault(moment.lane, number)
        last[moment.lane] = number
    return first, last


def _fitted(moment: Moment, width: int) -> str:
    fits = len(moment.label) <= width or moment.short is None
    return shorten_middle(moment.label if fits else moment.short or "", width)


def _note(moment: Moment) -> str:
    if not moment.note:
        return ""
    return f"✗ {moment.note}" if moment.alarm else moment.note

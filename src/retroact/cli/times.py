"""Times, as people write them and as they are shown: always local time.

    30s  10m  2h  3d        so long ago
    14:00  14:00:05         today
    2026-03-01              that day: its beginning, or, as an end, its last moment
    2026-03-01T14:00:05     that moment (a zone such as +02:00 or Z may follow)

This module must not know what time it is: it is told.
"""

from __future__ import annotations

import datetime
import re

from retroact.cli.failure import BadRequest

_AGO = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|h|d)")
_OCLOCK = re.compile(r"\d{1,2}:\d{2}(:\d{2}(\.\d{1,6})?)?")
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DAY_US = 86_400_000_000
FORMS = "30s, 10m, 2h, 3d (ago), 14:00, 14:00:05, 2026-03-01 or 2026-03-01T14:00:05"


def local(at_us: int) -> datetime.datetime:
    """A moment in local time."""
    return datetime.datetime.fromtimestamp(at_us / 1e6, tz=datetime.UTC).astimezone()


def parse(text: str, now_us: int, *, end: bool = False) -> int:
    """Microseconds since the epoch. `end`: a day stands for its last moment. Raises BadRequest."""
    text = text.strip()
    ago = _AGO.fullmatch(text)
    if ago:
        return now_us - int(float(ago[1]) * _SECONDS[ago[2]] * 1e6)
    try:
        if _OCLOCK.fullmatch(text):
            hour, _, rest = text.partition(":")
            clock = datetime.time.fromisoformat(f"{hour:0>2}:{rest}")
            return _us(datetime.datetime.combine(local(now_us).date(), clock))
        moment = _us(datetime.datetime.fromisoformat(text))
    except (ValueError, OverflowError, OSError):
        raise BadRequest(problem=f"{text!r} is not a time", remedy=f"Times are written as {FORMS}") from None
    return moment + _DAY_US - 1 if end and _DAY.fullmatch(text) else moment


def _us(moment: datetime.datetime) -> int:
    return round(moment.astimezone().timestamp() * 1e6)


def show(at_us: int) -> str:
    """`2026-03-01 14:00:05`."""
    return f"{local(at_us):%Y-%m-%d %H:%M:%S}"


def iso(at_us: int | None) -> str | None:
    """With its zone, for programs."""
    return None if at_us is None else local(at_us).isoformat(timespec="microseconds")


def duration(us: int) -> str:
    """`0.35 ms`, `12 ms`, `1.25 s`, `2 m 05 s`, `1 h 02 m`."""
    seconds, whole = us / 1e6, us // 1_000_000
    for limit, text in (
        (0.01, f"{us / 1000:.2f} ms"),
        (1, f"{us / 1000:.0f} ms"),
        (60, f"{seconds:.2f} s"),
        (3600, f"{whole // 60} m {whole % 60:02} s"),
    ):
        if seconds < limit:
            return text
    return f"{whole // 3600} h {whole % 3600 // 60:02} m"

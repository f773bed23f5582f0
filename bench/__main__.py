"""The command line of the benchmarks.

python -m bench                      the default set with short rounds, as a table
python -m bench --list               what there is
python -m bench NAME ... --json      one JSON object a line
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.catalogue import BENCHMARKS
from bench.harness import Options, fsync_ms

SHORT = Options(seconds=0.5, rounds=3, commits=20_000)
COLUMNS = (("name", 16), ("callers", 7), ("ours", 10), ("limit", 10), ("unit", 14), ("ratio", 7), ("asked", 13), ("met?", 5))


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="What Retroact costs, against hand-written programs.")
    parser.add_argument("names", metavar="NAME", nargs="*", help="benchmarks to run (default: all, with short rounds)")
    parser.add_argument("--list", action="store_true", help="name all benchmarks")
    parser.add_argument("--engine", choices=["sqlite", "postgres"], default="sqlite")
    parser.add_argument("--callers", type=int, help="concurrent callers (default: those a figure is asked for)")
    parser.add_argument("--seconds", type=float, help=f"length of a round (default {Options.seconds:g}, short {SHORT.seconds:g})")
    parser.add_argument("--rounds", type=int, help=f"rounds after the warm-up (default {Options.rounds}, short {SHORT.rounds})")
    parser.add_argument("--commits", type=int, help=f"past commits for `open` (default {Options.commits}, short {SHORT.commits})")
    parser.add_argument("--folder", type=Path, help="where to make the databases (default: the system's temporary folder)")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    given = parser.parse_args(argv)
    unknown = [name for name in given.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"no benchmark named {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    for name in ("callers", "seconds", "rounds", "commits"):
        if getattr(given, name) is not None and getattr(given, name) <= 0:
            parser.error(f"--{name} must be positive")
    return given


def main(argv: list[str] | None = None) -> int:
    """Run what was asked for. 0: it ran; 1: something failed while it ran; 2: it cannot be run."""
    given = arguments(argv)
    if given.list:
        for benchmark in BENCHMARKS.values():
            callers = ", ".join(map(str, benchmark.callers))
            print(f"{benchmark.name:<10} {benchmark.about} (callers: {callers})")
        return 0
    names = given.names or [b.name for b in BENCHMARKS.values() if given.engine == "sqlite" or b.on_a_server]
    refused = [name for name in names if given.engine == "postgres" and not BENCHMARKS[name].on_a_server]
    if refused:
        print(f"bench: {', '.join(refused)} cannot be measured on Postgres yet: the past is not kept there.", file=sys.stderr)
        return 2
    asked = {
        name: getattr(given, name) for name in ("engine", "seconds", "rounds", "commits", "folder") if getattr(given, name) is not None
    }
    options = dataclasses.replace(Options() if given.names else SHORT, **asked)
    with options.workspace() as folder:
        fsync = fsync_ms(Path(folder))
    if not given.json:
        print(f"rounds of {options.seconds:g} s, {options.rounds} after the warm-up; an fsync takes {fsync:g} ms here")
        print("ratio: how many times as fast as the limit, the smallest hand-written program of the same durability\n")
        print(line({name: name for name, _ in COLUMNS}))
    failed = False
    for found in figures(names, given.callers, options):
        failed = failed or "error" in found
        print(json.dumps({**found, "fsync_ms": fsync}) if given.json else line(found), flush=True)
    return 1 if failed else 0


def figures(names: list[str], callers: int | None, options: Options) -> Iterator[dict[str, Any]]:
    """All figures of some benchmarks. One that fails is reported as such and does not keep the others from running."""
    for benchmark in map(BENCHMARKS.__getitem__, names):
        usual = benchmark.on_a_server if options.engine == "postgres" else benchmark.callers
        for count in (callers,) if callers else usual:
            try:
                for found in benchmark.run(count, options):
                    yield {**found, "engine": options.engine}
            except Exception as error:  # noqa: BLE001 - reported, with exit code 1
                blank = dict.fromkeys(("ours", "limit", "ratio", "asked"))
                problem = f"{type(error).__name__}: {error}"
                yield {"name": benchmark.name, "engine": options.engine, "callers": count, **blank, "met": False, "error": problem}


def line(found: dict[str, Any]) -> str:
    """One line of the table."""
    shown = {**found, "met?": found.get("met?") or {True: "yes", False: "NO", None: "-"}[found.get("met")]}
    text = " ".join(_cell(shown.get(name), width, left=index in (0, 4, 6)) for index, (name, width) in enumerate(COLUMNS))
    notes = [
        f"{key} {shown[key]}"
        for key in ("overhead_percent", "lost_updates", "consistent", "duplicated", "missing", "diverged")
        if key in shown
    ]
    notes += [str(shown[key]) for key in ("note", "error") if key in shown]
    return f"{text}  {', '.join(notes)}".rstrip()


def _cell(value: Any, width: int, *, left: bool) -> str:
    text = (
        "-"
        if value is None
        else f"{value:.3f}"
        if isinstance(value, float) and value < 100
        else f"{value:.0f}"
        if isinstance(value, float)
        else str(value)
    )
    return text.ljust(width) if left else text.rjust(width)


if __name__ == "__main__":
    sys.exit(main())

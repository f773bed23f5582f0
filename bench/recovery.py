"""W6: workflows interrupted by SIGKILL; how long from the restart until all of them are done.

The parent starts a child that starts the workflows, kills it part-way by its process id, and starts another that goes on. A child
says one JSON object a line: {"ready": ...}, {"started": n} or {"recovering": n}, {"done": n}. No connection of the parent is open
from the kill until the end, so each system finds its file as the crash left it.

    python -m bench.recovery SYSTEM start|resume DATABASE WORKFLOWS PAUSE_MS
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench import workload
from bench.harness import Options, at_least, figure
from bench.server import databases

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = 200
PAUSE_MS = 200
#: All of the workflows run beside one another, on both sides.
THREADS = 256
#: The kill comes when so much of the ledger is written.
SHARE = 0.4
DEADLINE = 120
SYSTEMS = {"sqlite": ("ours", "lock"), "postgres": ("ours", "plain")}


def w6(callers: int, options: Options) -> Iterator[dict[str, Any]]:
    """Kill and restart, ours and the hand-written program in turn. `callers` is how many workflows run: all at once."""
    systems = SYSTEMS[options.engine]
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in systems}
    with ExitStack() as stack:
        made = stack.enter_context(databases()) if options.engine == "postgres" else None
        for number in range(max(1, min(options.rounds, 5))):
            for name in systems:
                if made is not None:
                    found[name].append(_interrupt(name, made.make(f"bench_{name}_{number}"), callers))
                    continue
                with options.workspace() as folder:
                    path = Path(folder) / f"{number}.db"
                    workload.create(path)
                    found[name].append(_interrupt(name, path, callers))
    ours, limit = (round(statistics.median(one["seconds"] for one in found[name]), 3) for name in systems)
    other = systems[1]
    wrong = {key: sum(one[key] for one in found["ours"]) for key in ("duplicated", "missing")}
    more = {
        "limit_wrong": sum(one["duplicated"] + one["missing"] for one in found[other]),
        "interrupted": [one["interrupted"] for one in found["ours"]],
        "ready_s": round(statistics.median(one["ready_s"] for one in found["ours"]), 3),
        "limit_ready_s": round(statistics.median(one["ready_s"] for one in found[other]), 3),
        "rounds": [one["seconds"] for one in found["ours"]],
        "limit_rounds": [one["seconds"] for one in found[other]],
    }
    yield figure("w6", callers, ours, limit, at_least(1), less_is_better=True, unit="s", **wrong, **more)


def _interrupt(system: str, path: Path | str, workflows: int) -> dict[str, Any]:
    child = Child(system, "start", path, workflows)
    try:
        child.read("ready")
        child.read("started")
        _wait_for_ledger(path, int(3 * workflows * SHARE), child)
    finally:
        child.kill()
    began = time.perf_counter()
    child = Child(system, "resume", path, workflows)
    try:
        child.read("ready")
        ready = time.perf_counter()
        interrupted = child.read("recovering")
        child.read("done")
        ended = time.perf_counter()
    finally:
        child.kill()
    rows = workload.ask(path, "select count(*) from ledger")[0]
    distinct = workload.ask(path, "select count(*) from (select distinct wf, step from ledger) as once")[0]
    return {
        "seconds": round(ended - began, 3),
        "ready_s": round(ready - began, 3),
        "interrupted": interrupted,
        "duplicated": rows - distinct,
        "missing": 3 * workflows - distinct,
    }


def _wait_for_ledger(path: Path | str, rows: int, child: Child) -> None:
    if isinstance(path, str):
        deadline = time.monotonic() + DEADLINE
        while workload.ask(path, "select count(*) from ledger")[0] < rows:
            assert child.process.poll() is None, f"{child.system} ended before it was killed"
            assert time.monotonic() < deadline, f"{child.system} makes no progress"
            time.sleep(0.005)
        return
    database = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)
    try:
        deadline = time.monotonic() + DEADLINE
        while database.execute("select count(*) from ledger").fetchone()[0] < rows:
            assert child.process.poll() is None, f"{child.system} ended before it was killed"
            assert time.monotonic() < deadline, f"{child.system} makes no progress"
            time.sleep(0.005)
    finally:
        database.close()


class Child:
    """A process that runs workflows until it is killed."""

    def __init__(self, system: str, phase: str, path: Path | str, workflows: int) -> None:
        self.system = system
        command = [sys.executable, "-m", "bench.recovery", system, phase, str(path), str(workflows), str(PAUSE_MS)]
        self.process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._overdue = threading.Timer(DEADLINE, self.process.kill)
        self._overdue.daemon = True
        self._overdue.start()

    def read(self, key: str) -> Any:
        """The child's next line, which must be about `key`."""
        assert self.process.stdout is not None, "a pipe was asked for"
        line = self.process.stdout.readline()
        if not line:
            message = f"the {self.system} process ended before it was {key}"
            raise RuntimeError(message)
        return json.loads(line)[key]

    def kill(self) -> None:
        """SIGKILL, by process id, and wait until it is gone."""
        self._overdue.cancel()
        if self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


def _adapter(system: str, path: str) -> Any:
    url = path if "://" in path else f"sqlite:///{path}"
    if system == "ours":
        from bench.adapters.retroact import Adapter  # noqa: PLC0415 - the hand-written program does not pay for our import

        return Adapter(url, THREADS)
    if system == "plain":
        from bench.limits_postgres import Handwritten as OnPostgres  # noqa: PLC0415

        return OnPostgres(url, THREADS, form=system)
    from bench.limits import Handwritten  # noqa: PLC0415 - nor we for its

    return Handwritten(url, THREADS, form=system)


def main(system: str, phase: str, path: str, workflows: str, pause_ms: str) -> None:
    """The child."""
    adapter = _adapter(system, path)
    adapter.setup(fresh=False)
    _say("ready", 1)
    if phase == "start":
        for i in range(int(workflows)):
            adapter.start_wf(f"wf-{i}", "recoverable", f"wf-{i}", str(os.getpid()), int(pause_ms))
        _say("started", int(workflows))
    else:
        _say("recovering", adapter.recover())
        adapter.drain()
        _say("done", int(workflows))
    sys.stdin.readline()
    os._exit(0)


def _say(key: str, value: int) -> None:
    print(json.dumps({key: value}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Processes with a hash seed that is known: one begins anew to have one, and a replay is done by one that has the recorded seed.

Whoever records for the command line does so under a seed that is the same for all processes of this user on this machine, so that they
hash alike and the record tells how. Where PYTHONHASHSEED is set already, it stays.

This module must not know what the verbs do, but for a replay, which it divides among processes.
"""

from __future__ import annotations

import os
import sys
import zlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from retroact.engine.sqlite.history import History
    from retroact.engine.sqlite.portable.history import PortableHistory
    from retroact.replay.divergence import Verdict
    from retroact.replay.replayer import Progress, Replayed, Report
    from retroact.trace.record import Record, Run

    Past = History | PortableHistory

VARIABLE = "PYTHONHASHSEED"


def begin_anew(seed: str | None = None) -> int | None:
    """Begin this process anew under a hash seed. Does nothing where one is set, or where Python may not look at it; the exit code where
    a process cannot be replaced."""
    if sys.flags.ignore_environment or (seed is None and os.environ.get(VARIABLE, "").isdigit()) or not sys.orig_argv:
        return None
    environment = {**os.environ, VARIABLE: seed or own_seed()}
    command = [sys.executable, *sys.orig_argv[1:]]
    if os.name == "nt":  # pragma: no cover - Windows: execve would let the shell go on before the command has ended
        import subprocess

        return subprocess.run(command, env=environment, check=False).returncode  # noqa: S603 - our own command line
    sys.stdout.flush()
    sys.stderr.flush()
    return os.execve(sys.executable, command, environment)  # noqa: S606 - our own command line


def own_seed() -> str:
    """A number for this user on this machine: between 1 and 2**32 - 1, as Python takes them."""
    machine = os.uname().nodename if hasattr(os, "uname") else os.environ.get("COMPUTERNAME", "")
    owner = os.getuid() if hasattr(os, "getuid") else os.environ.get("USERNAME", "")
    return str(zlib.crc32(f"{machine}/{owner}".encode()) or 1)


def replay_by_seed(history: Past, runs: Sequence[Run], progress: Progress) -> Report:
    """Replay runs, what was recorded under another known hash seed by a process that has it. Raises what `replay_runs` raises."""
    from retroact.replay.replayer import chosen_records
    from retroact.replay.workflows import replay_chosen

    seed_of = _other_seed(history)
    records: dict[str | None, list[Record]] = {None: []}
    bodies: dict[str | None, list[Run]] = {None: []}
    for record in chosen_records(history, [run.run for run in runs]):
        records.setdefault(seed_of(record.version), []).append(record)
    for run in runs:
        # A workflow that went on in another process was run there from its beginning.
        bodies.setdefault(seed_of(history.trace.run(run.run).last), []).append(run)
    reports = [replay_chosen(history, records.pop(None), [run.run for run in bodies.pop(None)], progress=progress)]
    for seed in dict.fromkeys([*records, *bodies]):
        assert seed is not None, "what needs no other seed was replayed here"
        reports.append(_elsewhere(history, seed, records.get(seed, []), bodies.get(seed, [])))
    return _joined(reports) if len(reports) > 1 else reports[0]


def the_other_seed(history: Past, runs: Sequence[Run]) -> str | None:
    """The hash seed under which all of the runs were recorded, if it is known and this process has another."""
    seed_of = _other_seed(history)
    seeds = {seed_of(history.trace.run(run.run).last) for run in runs}
    return seeds.pop() if len(seeds) == 1 else None


def _other_seed(history: Past) -> Callable[[int | None], str | None]:
    """Asks for the hash seed that a version needs, None where this process will do: it hashes alike, or nobody knows the seed."""
    from retroact.engine.hashing import present_hashing

    present = present_hashing()

    def seed_of(version: int | None) -> str | None:
        hashing = None if version is None else history.trace.hashing(version)
        return None if hashing is None or hashing.probe == present.probe or hashing.seed == present.seed else hashing.seed

    return seed_of


def _elsewhere(history: Past, seed: str, records: Sequence[Record], runs: Sequence[Run]) -> Report:
    """Have a process with that hash seed replay. Raises ReplayerLost."""
    import subprocess

    import msgspec

    from retroact.errors import ReplayerLost
    from retroact.replay.divergence import Verdict
    from retroact.replay.replayer import Report, WorkflowReplayed

    request = {"database": str(history.path), "path": sys.path, "versions": [r.version for r in records], "runs": [r.run for r in runs]}
    done = subprocess.run(
        [sys.executable, "-P", "-m", "retroact.cli.seeded"],
        input=msgspec.json.encode(request),
        stdout=subprocess.PIPE,
        env={**os.environ, VARIABLE: seed, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)},
        check=False,
    )
    if done.returncode != 0:
        raise ReplayerLost(seed=seed, code=done.returncode)
    answer: dict[str, Any] = msgspec.json.decode(done.stdout)
    verdicts = {version: (Verdict(verdict), divergence, reason) for version, verdict, divergence, reason in answer["transactions"]}
    found = {run: (Verdict(verdict), reason) for run, verdict, reason in answer["workflows"]}
    return Report(
        transactions=tuple(_replayed(record, *verdicts[record.version]) for record in records if record.version in verdicts),
        answered=answer["answered"],
        seconds=answer["seconds"],
        original_seconds=answer["original_seconds"],
        workflows=tuple(WorkflowReplayed(run=r, verdict=found[r.run][0], reason=found[r.run][1]) for r in runs if r.run in found),
    )


def _replayed(record: Record, verdict: Verdict, divergence: dict[str, Any] | None, reason: str | None) -> Replayed:
    from retroact.replay.divergence import Divergence
    from retroact.replay.replayer import Replayed

    return Replayed(record=record, verdict=verdict, divergence=Divergence(**divergence) if divergence else None, reason=reason)


def _joined(reports: Sequence[Report]) -> Report:
    import dataclasses

    transactions = sorted((t for report in reports for t in report.transactions), key=lambda t: (t.record.snapshot, t.record.version))
    first = min((t.record.began_us for t in transactions), default=0)
    last = max((t.record.began_us + t.record.elapsed_us for t in transactions), default=0)
    return dataclasses.replace(
        reports[0],
        transactions=tuple(transactions),
        answered=sum(report.answered for report in reports),
        seconds=sum(report.seconds for report in reports),
        original_seconds=(last - first) / 1e6,
        workflows=tuple(w for report in reports for w in report.workflows),
    )


def main() -> int:
    """Replay what standard input asks for, and answer on standard output."""
    import msgspec

    request: dict[str, Any] = msgspec.json.decode(sys.stdin.buffer.read())
    sys.path[:] = request["path"]
    from pathlib import Path

    from retroact.cli.opening import history_of, silenced
    from retroact.replay.workflows import replay_chosen

    with history_of(Path(request["database"])) as history, silenced():
        records = [record for version in request["versions"] for record in history.trace.records_between(version - 1, version)]
        report = replay_chosen(history, records, request["runs"])
    answer = {
        "transactions": [(t.record.version, t.verdict, t.divergence, t.reason) for t in report.transactions],
        "workflows": [(w.run.run, w.verdict, w.reason) for w in report.workflows],
        "answered": report.answered,
        "seconds": report.seconds,
        "original_seconds": report.original_seconds,
    }
    sys.stdout.buffer.write(msgspec.json.encode(answer))
    sys.stdout.buffer.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""All benchmarks, by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from bench import determinism, exploration, export, past, recording, recovery, retro, throughput
from bench.harness import Options


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """One benchmark: what it is, with how many callers it is run when nothing is said, and how."""

    name: str
    about: str
    callers: tuple[int, ...]
    run: Callable[[int, Options], Iterator[dict[str, Any]]]
    #: The same on Postgres; none: it cannot be measured there.
    on_a_server: tuple[int, ...] = ()


BENCHMARKS = {
    b.name: b
    for b in (
        Benchmark(
            "w1", "one recorded transaction a call, against single commits by hand with a record", (1, 8, 64), throughput.w1, (1, 8, 32)
        ),
        Benchmark("w1hot", "the same, all callers on one row: no update may be lost", (8,), throughput.w1hot, (8,)),
        Benchmark("recording", "the page log on against off; bytes of trace and page log a transaction", (1, 64), recording.recording),
        Benchmark("w2", "a workflow of three transactions, against the hand-written merge form", (1, 32), throughput.w2, (1, 32)),
        Benchmark("w3", "a workflow of five steps that do nothing, against the hand-written merge form", (1, 8), throughput.w3, (1, 8)),
        Benchmark("w5", "latency of a trivial durable workflow", (1,), throughput.w5, (1,)),
        Benchmark("w6", "200 workflows interrupted by SIGKILL: from the restart until all are done", (200,), recovery.w6, (200,)),
        Benchmark("open", "open any of many past commits and read a row, against opening the present", (1,), past.open_past),
        Benchmark("export", "size of a portable trace, by database and by transactions exported", (1,), export.export_sizes),
        Benchmark("explore", "schedules of the demo's orders a second, against a copy of the database for each", (3,), exploration.explore),
        Benchmark("replay", "transactions replayed a second, against the rate they were run at", (8,), past.replay),
        Benchmark("given", "what time.time() and its like cost more outside of functions", (1,), determinism.substitutes),
        Benchmark("verify", "one run in a hundred executed a second time, against none", (1, 8), determinism.verify),
        Benchmark(
            "retro", "changed code over 10,000 transactions of which it touches 8 %, against the time they took", (1, 8), retro.retro
        ),
    )
}

"""What a system must offer to be measured.

A workload names functions of `bench.workload`; an adapter runs them exactly once under an idempotency key, durably.
"""

from __future__ import annotations

from typing import Any, Protocol


class Adapter(Protocol):
    """A system on one SQLite file that holds the business schema and the seed rows."""

    def setup(self, *, fresh: bool = True) -> None:
        """Create what the system needs of its own, and start; nothing is taken up again before `recover`."""
        ...

    def close(self) -> None:
        """Finish and let the file go."""
        ...

    def run_tx(self, key: str, name: str, *args: Any) -> Any:
        """Run one transactional function; return its result."""
        ...

    def run_wf(self, key: str, name: str, *args: Any) -> Any:
        """Run a workflow to completion; return its result."""
        ...

    def start_wf(self, key: str, name: str, *args: Any) -> Any:
        """Start a workflow in the background; return a handle with `.result()`."""
        ...

    def recover(self) -> int:
        """Make interrupted workflows run again; return how many."""
        ...

    def drain(self) -> None:
        """Wait for everything that `recover` took up."""
        ...

    def count_done(self) -> int:
        """Workflows that reached their end."""
        ...

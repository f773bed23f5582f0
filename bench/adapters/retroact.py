"""Retroact on its embedded engine, with its defaults."""

from __future__ import annotations

from typing import Any

from bench.functions import ALL
from retroact import App, Handle


class Adapter:
    """See `base.Adapter`. Options: `recording=0` keeps no page log; `verify_rate=0.01` executes that share of runs a second time."""

    records = True
    backends = ("sqlite", "pg")

    def __init__(self, url: str, conc: int = 1, **opts: Any) -> None:
        self.url, self.conc, self.opts = url, conc, opts
        self.retries = 0
        self._recovering: list[Handle[Any]] = []

    def setup(self, *, fresh: bool = True, worker: bool = False) -> None:  # noqa: ARG002 - creates only what is missing
        """Open the database."""
        recording = bool(int(self.opts.get("recording", "1")))
        rate = float(self.opts.get("verify_rate", "0"))
        self.app = App(self.url, ALL.values(), recover=False, recording=recording, verify_rate=rate)

    def close(self) -> None:
        """Close the database."""
        self.app.close()

    @property
    def commits(self) -> int:
        """Database transactions so far."""
        return self.app.engine.commits

    def run_tx(self, key: str, name: str, *args: Any) -> Any:
        """Run one transaction."""
        return self.app.run(ALL[name], *args, run=key)

    def run_wf(self, key: str, name: str, *args: Any) -> Any:
        """Run a workflow."""
        return self.app.run(ALL[name], *args, run=key)

    def start_wf(self, key: str, name: str, *args: Any) -> Handle[Any]:
        """Start a workflow."""
        return self.app.start(ALL[name], *args, run=key)

    def recover(self) -> int:
        """Take up what was interrupted."""
        self._recovering = self.app.recover()
        return len(self._recovering)

    def drain(self) -> None:
        """Wait for what was taken up."""
        for handle in self._recovering:
            handle.result()

    def count_done(self) -> int:
        """Workflows that committed."""
        return sum(run.state.value == "committed" for run in self.app.runs(most=1_000_000))

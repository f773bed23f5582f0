"""The process that is killed while it compacts: one thread counts, one drops the past as fast as it can.

It says a line on standard output when it is open, and one for each count that was acknowledged.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "engine" / "sqlite"))

import body

import retroact


def main(database: str, size: str) -> None:
    app = retroact.App(database, body)
    app.run(body.create, run="create")
    # Run in the first generation, and in none after it, however often its details have been dropped.
    assert app.run(body.increment, "a", run="first") == 1
    os.write(1, b"open\n")

    def count() -> None:
        while True:
            os.write(1, f"{app.run(body.increment, 'a')}\n".encode())

    threading.Thread(target=count, daemon=True).start()
    while True:
        app.compact(retroact.Retention(age="0.02s", size=size))


if __name__ == "__main__":
    main(*sys.argv[1:])

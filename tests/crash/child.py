"""The process that is killed. It imports everything once and forks a child for each line it reads, so that a kill is cheap.

A line is: what the child does, the database, its generation, how many threads, how many runs. The child writes the ids of what was
acknowledged to it, a line each, to standard output.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import shop

import retroact
from retroact.errors import RetroactError

WORKFLOWS = (shop.buy, shop.buy, shop.buy_at_once, shop.buy_twice)


def say(word: str) -> None:
    os.write(1, f"{word}\n".encode())


def orders(app: retroact.App, generation: int, thread: int, count: int) -> None:
    for i in range(count):
        order = f"{generation}-{thread}-{i}"
        with contextlib.suppress(shop.Declined):
            app.run(WORKFLOWS[(thread + i) % len(WORKFLOWS)], order, (generation + thread + i) % 3 == 0, run=order)
        say(order)


def pairs(app: retroact.App, generation: int, thread: int, count: int) -> None:
    for i in range(count):
        app.run(shop.pair, f"{generation}-{thread}-{i}", run=f"{generation}-{thread}-{i}")
        say(f"{generation}-{thread}-{i}")


def live(what: str, database: str, generation: int, threads: int, count: int) -> None:
    work = orders if what == "orders" else pairs
    with retroact.App(database, shop) as app:
        say("open")
        assert app.engine.historian is not None
        if generation % 2:  # as it does by itself when it is busy
            threading.Thread(target=app.engine.historian.move_out).start()
        app.run(shop.create, run="create")
        callers = [threading.Thread(target=work, args=(app, generation, n, count)) for n in range(threads)]
        for caller in callers:
            caller.start()
        for handle in app.recovered:
            with contextlib.suppress(shop.Declined):
                handle.result()
        for caller in callers:
            caller.join()
    say("closed")


def main() -> None:
    for line in sys.stdin:
        what, database, *numbers = line.split()
        pid = os.fork()
        if pid == 0:
            try:
                live(what, database, *map(int, numbers))
            except RetroactError as error:
                say(f"failed {error!r}")
            os._exit(0)
        say(f"pid {pid}")
        _, status = os.waitpid(pid, 0)
        say(f"ended {status}")


if __name__ == "__main__":
    main()

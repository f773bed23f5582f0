"""A process that counts until it is killed: says each run that was acknowledged, one a line."""

from __future__ import annotations

import sys
import threading

from tests.engine.postgres import body

from retroact import App


def main(url: str, threads: int) -> None:
    app = App(url, body.FUNCTIONS)

    def work(number: int) -> None:
        for i in range(10_000):
            run = f"{number}-{i}"
            app.run(body.counts if i % 2 else body.increment, "ab"[number % 2], run=run)
            sys.stdout.write(f"{run}\n")
            sys.stdout.flush()

    for number in range(threads):
        threading.Thread(target=work, args=(number,)).start()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))

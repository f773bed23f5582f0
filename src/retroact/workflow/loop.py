"""The event loop that `async def` functions run on.

Loaded when the first of them is called: asyncio takes longer to import than the rest of the platform. This module must not know
workflows, nor what a coroutine does.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Coroutine
from typing import Any


class Loop:
    """An event loop in a thread of its own, begun when the first `async def` needs it."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._closing = False
        self._lock = threading.Lock()

    def run(self, coroutine: Coroutine[Any, Any, Any], timeout: float | None = None) -> Any:
        """Run a coroutine to its end and return its result. Raises TimeoutError after `timeout` seconds."""
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._serve, args=(self._loop,), name="retroact-loop", daemon=True)
                self._thread.start()
        future = asyncio.run_coroutine_threadsafe(_bounded(coroutine, timeout), self._loop)
        return future.result()

    def close(self) -> None:
        """Stop the loop and let it go."""
        with self._lock:
            if self._loop is None or self._thread is None or self._closing:
                return
            self._closing = True
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        """Run the loop. A task that raises SystemExit or KeyboardInterrupt stops it: who waits for that task gets it, the others
        go on."""
        while not self._closing:
            try:
                loop.run_forever()
            except (KeyboardInterrupt, SystemExit):
                continue
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        with contextlib.suppress(KeyboardInterrupt, SystemExit):
            if left:
                loop.run_until_complete(asyncio.wait(left))
        loop.close()


async def _bounded(coroutine: Coroutine[Any, Any, Any], timeout: float | None) -> Any:
    return await asyncio.wait_for(coroutine, timeout)

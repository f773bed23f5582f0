"""How another process asks the one that writes to compact: a request in a file beside the database, and an answer in another.

Each file appears whole, by being renamed into place, and is taken by being renamed away, so that no request is carried out twice at once.
A request that nobody takes is withdrawn by whoever made it.

This module must not know what is asked for.
"""

from __future__ import annotations

import contextlib
import os
import threading
import uuid
from pathlib import Path
from typing import Any, cast

from retroact.errors import Unanswered
from retroact.trace.codec import decode_json, encode_json

#: How long the process that writes may take to notice a request, and how often an answer is looked for (seconds).
NOTICE_SECONDS = 15.0
_LOOK_SECONDS = 0.05


class Mailbox:
    """The requests of one database."""

    def __init__(self, database: Path) -> None:
        self._database = database
        self._request = database.with_name(database.name + "-request")

    def take(self) -> dict[str, Any] | None:
        """The request that waits, if one does. To be asked by the process that writes; cheap."""
        if not self._request.exists():
            return None
        taken = self._request.with_name(self._request.name + "-taken")
        try:
            self._request.replace(taken)
            request = decode_json(taken.read_bytes())
            taken.unlink()
        except (OSError, ValueError):
            return None  # withdrawn, or no request at all
        return cast("dict[str, Any]", request) if isinstance(request, dict) and "answer" in request else None

    def answer(self, request: dict[str, Any], answer: dict[str, Any]) -> None:
        """Give the answer to a request that was taken."""
        name = Path(str(request["answer"])).name
        _appear(self._request.with_name(name), answer)

    def ask(self, request: dict[str, Any], *, pid: str, seconds: float = NOTICE_SECONDS) -> dict[str, Any]:
        """Ask the process that writes, and wait for its answer for as long as it is at it. Raises Unanswered."""
        answer = self._request.with_name(f"{self._request.name}-{uuid.uuid4().hex[:12]}")  # noqa: TID251 - a file's name
        _appear(self._request, {**request, "answer": answer.name})
        patience = threading.Event()
        waited = 0.0
        while not answer.exists():
            patience.wait(_LOOK_SECONDS)
            waited += _LOOK_SECONDS
            # What was taken is being done, however long it takes, unless the process has died.
            if waited > seconds and (self._request.exists() or not _alive(pid)):
                with contextlib.suppress(OSError):
                    self._request.unlink()
                raise Unanswered(path=self._database, pid=pid, seconds=f"{seconds:g}", what=request.get("what", "act"))
        found: dict[str, Any] = decode_json(answer.read_bytes())
        answer.unlink()
        return found


def _appear(path: Path, content: dict[str, Any]) -> None:
    draft = path.with_name(f"{path.name}-{os.getpid()}-draft")
    draft.write_bytes(encode_json(content))
    draft.replace(path)


def _alive(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, ValueError):
        return False
    except OSError:
        return True
    return True

"""The one function that is tortured: it runs the statements that it is given. In a file of its own, so that its code is recorded."""

from __future__ import annotations

from typing import Any

import apsw

from retroact import transaction
from retroact.errors import BadStatement


class Refused(Exception):
    """The body changes its mind at the end."""


@transaction
def do(conn: Any, statements: list[tuple[str, dict[str, Any]]], fails: bool = False) -> list[str]:
    """Each statement by itself; what one refuses is forgiven, and told."""
    told: list[str] = []
    for sql, parameters in statements:
        try:
            if "returning" in sql or sql.startswith("select"):
                told.append(str(len(conn.rows(sql, parameters))))
            else:
                told.append(str(conn.execute(sql, parameters)))
        except (apsw.Error, BadStatement) as error:
            told.append(type(error).__name__)
    if fails:
        raise Refused(len(told))
    return told

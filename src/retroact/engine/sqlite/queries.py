"""Reads the .sql files beside it: each statement under its name.

This module must not know what the statements mean.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import apsw


def fetch(database: apsw.Connection, sql: str, parameters: tuple[Any, ...] | Mapping[str, Any] = ()) -> list[tuple[Any, ...]]:
    """The rows of a statement of ours, whose types we know better than the driver."""
    rows: list[Any] = database.execute(sql, parameters).fetchall()
    return rows


@functools.cache
def queries(file: str = "queries.sql") -> dict[str, str]:
    """The statements of a .sql file of this package by name, without their comments."""
    text = script(file)
    found: dict[str, str] = {}
    for block in text.split("-- name: ")[1:]:
        name, _, body = block.partition("\n")
        found[name.strip()] = "\n".join(line for line in body.splitlines() if not line.startswith("--")).strip()
    return found


@functools.cache
def script(file: str) -> str:
    """A whole .sql file of this package."""
    return Path(__file__).with_name(file).read_text("utf-8")

"""Reads the .sql files beside it: each statement under its name.

This module must not know what the statements mean.
"""

from __future__ import annotations

import functools
from importlib import resources


@functools.cache
def queries(file: str = "queries.sql") -> dict[str, str]:
    """The statements of a .sql file of this package by name, without their comments."""
    found: dict[str, str] = {}
    for block in script(file).split("-- name: ")[1:]:
        name, _, body = block.partition("\n")
        found[name.strip()] = "\n".join(line for line in body.splitlines() if not line.startswith("--")).strip()
    return found


@functools.cache
def script(file: str) -> str:
    """A whole .sql file of this package."""
    return resources.files("retroact.engine.postgres").joinpath(file).read_text(encoding="utf-8")

"""Whether the driver for Postgres is at hand. It is an extra: who works on SQLite does not install it.

This module must not know anything else of the engine, which cannot be imported without the driver.
"""

from __future__ import annotations

from retroact.errors import NoProject


def need() -> None:
    """Raises NoProject, which says what to install, when the driver is missing."""
    try:
        import psycopg  # noqa: PLC0415 - that it may be missing is the point
    except ImportError as error:
        problem = f"the driver for Postgres, psycopg 3, is not at hand ({' '.join(str(error).split())})"
        remedy = "Install it: `pip install 'retroact[postgres]'`, or `pip install 'psycopg[binary]'`."
        raise NoProject(problem=problem, remedy=remedy) from None
    del psycopg

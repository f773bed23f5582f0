"""What a portable trace is known by, without reading it: cheap to ask before anything of it is loaded.

This module must not know what is in the file.
"""

from __future__ import annotations

from pathlib import Path

MAGIC = b"retroact portable trace\n"
SUFFIX = ".retro"


def is_portable(path: Path) -> bool:
    """Whether a file is meant as a portable trace: by its name, because its bytes may be damaged, or by its first bytes."""
    if path.suffix == SUFFIX:
        return True
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False

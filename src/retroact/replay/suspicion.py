"""What else may have made a replay part from its record: that it was made by a process which hashed otherwise.

The order of a set of strings comes from the hash seed of its process. This module must not know where a seed is recorded, nor how a
process is given one.
"""

from __future__ import annotations

from retroact.trace.record import Hashing

_SET = "a set of strings is gone through in another order"


def suspicion(recorded: Hashing | None, present: Hashing) -> str | None:
    """A sentence for who looks for the cause of a divergence; None when this process hashes as the one did that recorded."""
    if recorded is None:
        return f"The record does not tell under which hash seed it was made: if the function goes through a set, {_SET} here."
    if recorded.probe == present.probe:
        return None
    if recorded.seed is None:
        return (
            f"It was recorded under a hash seed that Python chose and nobody can read: {_SET} here. Sort the set, "
            "or start the application with PYTHONHASHSEED=<number>, which is recorded."
        )
    if recorded.seed == present.seed:
        return f"It was recorded by a Python that hashes otherwise under the same hash seed ({recorded.seed}): {_SET} here."
    other = f"It was recorded under PYTHONHASHSEED={recorded.seed} and this process has another"
    return f"{other}: {_SET} here. `retroact replay` uses the recorded one."

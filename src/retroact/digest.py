"""BLAKE2b, the one hash of the platform: of code, of results, of the chain of records.

`hashlib` has the same function, but loads OpenSSL with it, which takes longer than all of the command line needs to start.

This module must not know what is hashed.
"""

from __future__ import annotations

try:
    from _blake2 import blake2b
except ImportError:  # pragma: no cover - a Python that is built another way
    from hashlib import blake2b

__all__ = ["blake2b"]

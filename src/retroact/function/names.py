"""Names of modules: as the developer knows them, and as they are while several versions are loaded side by side.

This module must not know how code is loaded.
"""

from __future__ import annotations


def plain_name(name: str) -> str:
    """The name a module is imported under, without the tag of its load: `shop.models` for `shop@3f2a91.models`."""
    top, dot, rest = name.partition(".")
    return top.partition("@")[0] + dot + rest

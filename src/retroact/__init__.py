"""Functions that are transactions: run them exactly once, go back to any of them, change the code and run the past again."""

from retroact.app import App, Handle
from retroact.errors import RetroactError, RunCancelled, RunFailed
from retroact.function.context import Connection, gather, gather_async, key, now, rng, sleep, uuid
from retroact.function.declare import Function, invariant, step, transaction, workflow
from retroact.function.registry import Registry

__all__ = [
    "App",
    "Connection",
    "Function",
    "Handle",
    "Registry",
    "RetroactError",
    "RunCancelled",
    "RunFailed",
    "gather",
    "gather_async",
    "invariant",
    "key",
    "now",
    "rng",
    "sleep",
    "step",
    "transaction",
    "uuid",
    "workflow",
]

"""The command line: `retroact VERB ...`. Each verb is a module, imported when it is called."""

from retroact.cli.entry import main

__all__ = ["main"]

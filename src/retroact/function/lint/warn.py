"""Says what lint finds in functions that are being registered, as Python warnings at the line that is meant.

This module must not know when functions are registered.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Container, Mapping
from pathlib import Path, PurePosixPath
from types import ModuleType

from retroact.function.code import Code
from retroact.function.lint.linter import grave, lint
from retroact.function.lint.rule import Finding

#: More than this are counted only.
MOST = 20


class DeterminismWarning(UserWarning):
    """What a function does may not be undone, or not be the same when it is run again."""


def sentence(finding: Finding) -> str:
    """A finding in one line."""
    return f"{finding.rule} {finding.function}: {finding.message}. {finding.remedy}"


def warn(codes: Mapping[str, Code], functions: Container[str]) -> None:
    """Warn of what the functions of these names run into. `codes` are those of their modules, by the module's name."""
    for name, code in codes.items():
        module = sys.modules.get(name)
        found = [finding for finding in lint((code,)) if grave(finding) and finding.function in functions]
        if module is not None and found:
            _warn(module, code, found)


def _warn(module: ModuleType, code: Code, found: list[Finding]) -> None:
    main = next(source.path for source in code.sources if source.name == code.main)
    root = Path(getattr(module, "__file__", None) or main)
    for _ in PurePosixPath(main).parts:
        root = root.parent
    told = vars(module).setdefault("__warningregistry__", {})
    for finding in found[:MOST]:
        warnings.warn_explicit(sentence(finding), DeterminismWarning, str(root / finding.file), finding.line, registry=told)
    if len(found) > MOST:
        text = f"{len(found) - MOST} more findings: `retroact lint` shows them all"
        warnings.warn_explicit(text, DeterminismWarning, str(root / main), 1, registry=told)

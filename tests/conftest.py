"""What holds for all tests: what lint says of the functions in them is not what they are about, except in those of lint itself."""

from __future__ import annotations

import pytest


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("filterwarnings", "ignore::retroact.function.lint.warn.DeterminismWarning")

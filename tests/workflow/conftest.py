"""Workflows behave the same on every engine."""

import pytest
from tests.conftest import every_engine


@pytest.fixture(autouse=True)
def everywhere(on_every_engine: None) -> None:
    """Each test of this folder runs on each engine."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    every_engine(metafunc)

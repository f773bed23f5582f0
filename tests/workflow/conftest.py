"""Workflows behave the same on every engine."""

from tests.conftest import every_engine

pytest_generate_tests = every_engine

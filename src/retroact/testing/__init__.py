"""What tests of an application need: time that passes when the test says so."""

from retroact.testing.clock import ManualClock

__all__ = ["ManualClock"]

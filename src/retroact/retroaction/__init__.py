"""Run other code over the trace: what would have happened, had it been there."""

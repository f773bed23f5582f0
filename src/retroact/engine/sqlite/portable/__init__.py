"""The portable trace: some runs in one file, with everything that replay and retroaction need of their past."""

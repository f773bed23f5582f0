"""Run the trace again, faithfully: the recorded code, each transaction at the state that it saw, compared with its record."""

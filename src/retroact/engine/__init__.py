"""Run one function as one transaction, on a real database, and record it in the same transaction."""

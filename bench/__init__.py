"""What Retroact costs, against the smallest hand-written programs that do the same work. See `python -m bench --list`."""

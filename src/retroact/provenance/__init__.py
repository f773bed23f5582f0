"""Which transactions, through which functions and reads, made a datum, and who has read it since."""

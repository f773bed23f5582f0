"""Many functions, to completion: every call of a workflow is a durable step, and its record is what it resumes from."""

"""Draws what happened, as text: values in, text out, the same for the same values."""

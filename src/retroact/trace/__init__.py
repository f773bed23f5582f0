"""The waist: what happened, as immutable values. Engines write it, every other part only reads it."""

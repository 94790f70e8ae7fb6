"""A checkpoint, read and checked, with its linear pieces folded into each other."""

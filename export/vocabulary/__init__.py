"""A part of the vocabulary: which pieces a file keeps, and what changes in it."""

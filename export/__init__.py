"""Checkpoint in, model file out. See FORMAT.md for what a model file is."""

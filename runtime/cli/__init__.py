"""The `embgemma` command: one module for each of its commands."""

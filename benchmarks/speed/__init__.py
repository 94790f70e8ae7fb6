"""How fast our own runtime is, and what it holds."""

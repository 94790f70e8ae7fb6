"""Models by name: downloaded from the Hugging Face hub, converted once, and kept in a cache."""

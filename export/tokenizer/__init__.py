"""The tokenizer of a checkpoint, as the table that the C engine tokenizes with."""

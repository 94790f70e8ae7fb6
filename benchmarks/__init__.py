"""How fast, how small and how exact: `embgemma-bench` and its parts. Each folder imports only those above it.

harness/    timing in turns, the machine, memory, pages, pictures, a cache of models
peers/      every runtime that can be measured, ours among them, each in a process of its own
speed/      our own runtime; the tokenizer
compare/    ours beside others            roofline/   operations of a call beside the machine's limits
quality/    the error of every format
results.py  all tables in RESULTS.md      cli.py      the command
"""

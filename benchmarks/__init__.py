"""How fast, how small and how exact: `embgemma-bench` (cli.py) and what it is made of.

cli.py       the command: arguments in, report out
model.py     which model file is measured: one given, a converted checkpoint, or synthetic weights
workload.py  token ids to encode, and the work that encoding them needs
process.py   one runtime in a process of its own, spoken to through worker.py
measure.py   timing: warm-up, turns, medians
machine.py   the machine: environment and measured limits
report.py    the result as text, Markdown or JSON
peers/       every runtime that can be measured, ours among them
"""

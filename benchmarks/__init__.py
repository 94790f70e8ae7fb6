"""How fast, how small and how exact: `embgemma-bench` (cli.py) and what it is made of.

cli.py              the command: arguments in, report out
bench.py            one run on our own runtime              compare.py          one run against other runtimes
result.py           what it found                           exactness.py        how near to float32 they come
report.py           as text, Markdown or JSON               compare_report.py   as text, Markdown or JSON
                                                            plot.py             as a picture
workload.py         token ids to encode, and the least work that encoding them takes
measure.py          timing: warm-up, turns, medians
process.py          one runtime in a process of its own, which worker.py is the other end of
machine.py          the machine: what it is, and its limits
memory.py           what a process holds
model.py            which model file is measured; cache.py keeps those that are made
limit.py            keeps other runtimes from instructions that ours was kept from
first_vector.c, .py a process from its start to the first vector: time and memory
tokenizer_speed.py  the C tokenizer beside sentencepiece
peers/              every runtime that can be measured, ours among them
"""

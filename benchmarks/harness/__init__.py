"""What every measurement needs: workloads, turns, the machine, memory, a cache of models, tables."""

"""Our runtime beside others, in turn: speed, memory, exactness."""

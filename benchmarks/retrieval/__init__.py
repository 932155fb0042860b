"""The parts of `benchmarks/xquadr.py`: the data set, ways to rank, and the figures of a ranking."""

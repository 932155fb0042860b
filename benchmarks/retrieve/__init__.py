"""The parts of `benchmarks/search.py`: the data, what is measured, and the workers of the peers."""

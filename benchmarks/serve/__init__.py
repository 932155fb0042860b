"""The parts of `benchmarks/serving.py`: servers, load, texts, and one module per kind of question."""

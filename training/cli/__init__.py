"""The commands that `embedsvc` has of this package: the entry points of pyproject.toml. One file each."""

from training.cli.evaluate import evaluate
from training.cli.export import export
from training.cli.negatives import negatives
from training.cli.train import train

__all__ = ["evaluate", "export", "negatives", "train"]

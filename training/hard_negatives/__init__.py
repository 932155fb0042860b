"""Texts that lie near another's translation and mean something else, mined for training."""

from training.hard_negatives.miner import Models, mine_negatives
from training.hard_negatives.options import NegativeOptions
from training.hard_negatives.records import NegativeRecord, read_negatives, write_negatives

__all__ = [
    "Models",
    "NegativeOptions",
    "NegativeRecord",
    "mine_negatives",
    "read_negatives",
    "write_negatives",
]

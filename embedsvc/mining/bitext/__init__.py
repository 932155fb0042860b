"""Files of pairs that somebody made: read, scored, and written again with all they have."""

from embedsvc.mining.bitext.score_file import ScoreSummary, ScoringOptions, score_file
from embedsvc.mining.bitext.source import Bitext, BitextFields

__all__ = ["Bitext", "BitextFields", "ScoreSummary", "ScoringOptions", "score_file"]

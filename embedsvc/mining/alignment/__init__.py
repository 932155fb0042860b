"""Alignment of two documents, translations of each other: sentences in order, beads out.

Text goes through `documents` and `blocks` to vectors; from there on everything is arrays:

    blocks   vectors of every run of one to five consecutive sentences
    coarse   where the path runs, from averages of many sentences, in linear time
    band     the cells near that path
    scoring  how well two blocks match: cosine against chance, lengths, kind of bead
    path     the best monotonic chain of beads within the band
"""

from embedsvc.mining.alignment.vectors import align_vectors

__all__ = ["align_vectors"]

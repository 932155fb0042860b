"""The error tree of `indexing`.

IndexingError (a ValueError)
├── VectorError       an array that breaks the vector convention, or of another width
└── IndexFileError    an index folder that is missing, damaged or from an incompatible version
"""

from __future__ import annotations


class IndexingError(ValueError):
    """Base of all errors raised on purpose: the message names the value, its position and the limit."""


class VectorError(IndexingError):
    """An array is not float32 ``(n, dim)`` with finite unit rows, or has another dimension."""


class IndexFileError(IndexingError):
    """An index folder cannot be trusted: the message names the file and what is wrong with it."""

"""Multilingual embeddings: encode, search and mine across languages.

>>> from embedsvc import load_encoder
>>> load_encoder().encode(["Guten Morgen", "صباح الخير"]).shape
(2, 256)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from embedsvc.collections.collection import Collection
    from embedsvc.encoder import Encoder, load_encoder
    from embedsvc.mining.alignment.align import align
    from embedsvc.mining.mine import mine
    from embedsvc.mining.score import score_pairs
    from embedsvc.server.app import create_app
    from embedsvc.settings import Settings

__version__ = "0.1.0"

# Imported on first use: `import embedsvc` and `embedsvc --help` stay instant.
_PUBLIC = {
    "Collection": "embedsvc.collections.collection",
    "Encoder": "embedsvc.encoder",
    "Settings": "embedsvc.settings",
    "align": "embedsvc.mining.alignment.align",
    "create_app": "embedsvc.server.app",
    "load_encoder": "embedsvc.encoder",
    "mine": "embedsvc.mining.mine",
    "score_pairs": "embedsvc.mining.score",
}
__all__ = ["Collection", "Encoder", "Settings", "align", "create_app", "load_encoder", "mine", "score_pairs"]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'embedsvc' has no attribute {name!r}")

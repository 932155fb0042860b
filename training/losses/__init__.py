"""Losses, one file each; every loss is a plain function of embeddings."""

from training.losses.translation_ranking import translation_ranking

__all__ = ["translation_ranking"]

"""Texts that lie near another's translation and mean something else: mined, kept in a file, trained with."""

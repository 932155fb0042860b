"""One process per peer, in the peer's own environment: none of these imports another peer."""

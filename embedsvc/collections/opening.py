"""What has to fit when a collection is opened: its model and its options."""

from __future__ import annotations

import json
from dataclasses import asdict

from embedsvc.collections.options import CollectionOptions
from embedsvc.collections.schema import Identity
from embedsvc.encoder import Encoder
from embedsvc.errors import InvalidInputError, ModelMismatchError


def check_model(name: str, identity: Identity, encoder: Encoder) -> None:
    """Raise ModelMismatchError, naming both fingerprints, unless the vectors are those of ``encoder``."""
    if identity.fingerprint and encoder.fingerprint != identity.fingerprint:
        raise ModelMismatchError(
            f"collection {name!r} was made with model {identity.model!r} (fingerprint "
            f"{identity.fingerprint}), not with {encoder.name!r} (fingerprint {encoder.fingerprint}); "
            "open it with its own model, or re-embed it (embedsvc collections reindex)"
        )


def check_options(name: str, stored: CollectionOptions, given: CollectionOptions) -> None:
    """Raise InvalidInputError naming the options in which a collection differs from those given."""
    wanted = asdict(given)
    differ = {key: (old, wanted[key]) for key, old in asdict(stored).items() if wanted[key] != old}
    if differ:
        told = ", ".join(
            f"{key} = {json.dumps(old)}, not {json.dumps(new)}" for key, (old, new) in differ.items()
        )
        raise InvalidInputError(
            f"collection {name!r} was made with {told}; options are fixed when a collection is made",
            param="options",
        )

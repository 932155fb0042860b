"""What has to fit when a collection is opened: its model and its options."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import asdict
from functools import lru_cache

from embedsvc.collections.options import CollectionOptions
from embedsvc.collections.schema import Identity
from embedsvc.encoder import Encoder, load_encoder
from embedsvc.errors import InvalidInputError, ModelMismatchError

_log = logging.getLogger(__name__)
FindEncoder = Callable[[str], Encoder | None]


def encoder_of(
    name: str, identity: Identity, given: Encoder | None, find_encoder: FindEncoder | None
) -> Encoder:
    """Return the encoder that made a collection's vectors: ``given``, one that is found, or the bundled one.

    Raises InvalidInputError for a collection without a model, ModelMismatchError when it is none of them.
    """
    if not identity.fingerprint:
        raise InvalidInputError(
            f"collection {name!r} has no model: documents and queries bring a vector of "
            f"{identity.dimension} numbers",
            param="vector",
        )
    if given is not None and given.fingerprint == identity.fingerprint:
        return given
    found = find_encoder(identity.fingerprint) if find_encoder else None
    if found is None:
        found = given or load_encoder()
    check_model(name, identity, found)
    return found


def check_model(name: str, identity: Identity, encoder: Encoder) -> None:
    """Raise ModelMismatchError, naming both fingerprints, unless the vectors fit those of ``encoder``.

    That of another fingerprint which fits all the same is told in the log, once.
    """
    if identity.fingerprint in ("", encoder.fingerprint):
        return
    made = f"collection {name!r} was made with model {identity.model!r} (fingerprint {identity.fingerprint})"
    given = f"{encoder.name!r}{_graph(encoder)} (fingerprint {encoder.fingerprint})"
    if not encoder.folder.fits(identity.fingerprint):
        raise ModelMismatchError(
            f"{made}, not with {given}; open it with its own model (a server: one more --model), or re-embed "
            "it (embedsvc collections reindex)"
        )
    _tell(f"{made}; {given} is used, whose vectors are in the same space")


def _graph(encoder: Encoder) -> str:
    precision = encoder.folder.precision
    return "" if precision == "float32" else f" in {precision}"


@lru_cache(maxsize=1024)  # a collection asks for its encoder at every search
def _tell(what: str) -> None:
    _log.info(what)


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

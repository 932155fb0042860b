"""Does a converted model give the vectors of its source? Checked on texts of many lengths and scripts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embedsvc.encoder import Encoder
from embedsvc.encoders.onnx_runtime import graph_inputs, open_session
from embedsvc.encoders.sequence import SequenceInputs
from embedsvc.errors import ModelError
from embedsvc.options import EncodeOptions
from embedsvc.self_check import probe_texts

MAX_DIFFERENCE = 1e-4  # of any number of a unit vector, where nothing should be lost
MIN_COSINE = 0.985  # where numbers are rounded to int8
MAX_BATCH_DIFFERENCE = 1e-5  # between a text alone and the same text in a batch


@dataclass(frozen=True)
class Parity:
    """How far the unit vectors of two models are apart on the probe texts.

    batch_difference: how far a vector of the copy changes with the texts that are encoded beside it.
    """

    max_difference: float
    min_cosine: float
    mean_cosine: float
    batch_difference: float


def check_parity(source: Encoder, copy: Encoder, *, lossless: bool) -> Parity:
    """Compare a copy with its source, at the copy's dimension; raise ModelError when it is too far away."""
    texts = probe_texts(source)
    expected = source.encode(texts, dimensions=copy.dimension, truncate="end")
    found = copy.encode(texts, truncate="end")
    known: NDArray[np.bool_] = np.linalg.norm(expected, axis=1) > 0.5  # the others have no known token
    cosines = np.einsum("nd,nd->n", expected, found)[known]
    alone = np.concatenate([copy.encode([text], truncate="end") for text in texts])
    parity = Parity(
        max_difference=float(np.abs(expected - found).max()),
        min_cosine=float(cosines.min(initial=1.0)),
        mean_cosine=float(cosines.mean()) if len(cosines) else 1.0,
        batch_difference=float(np.abs(alone - found).max()),
    )
    if lossless and not parity.max_difference <= MAX_DIFFERENCE:
        raise ModelError(
            f"the export's vectors differ from the source's by {parity.max_difference:.2g}; "
            f"at most {MAX_DIFFERENCE:g} is allowed; nothing was written"
        )
    if not parity.min_cosine >= MIN_COSINE:
        raise ModelError(
            f"the export's cosine to its source falls to {parity.min_cosine:.4f}; "
            f"at least {MIN_COSINE} is required; nothing was written"
        )
    if not parity.batch_difference <= MAX_BATCH_DIFFERENCE:
        raise ModelError(
            f"a vector of the export changes by {parity.batch_difference:.2g} with the texts beside it; "
            f"at most {MAX_BATCH_DIFFERENCE:g} is allowed; nothing was written"
        )
    return parity


def check_graph_vectors(path: Path, encoder: Encoder, output: str) -> None:
    """Compare what a graph itself says a text's vector is with what the encoder makes of the same graph.

    Raises ModelError when a unit vector differs by more than where nothing should be lost.
    """
    prepared = encoder.prepare(probe_texts(encoder), EncodeOptions(prompt="", truncate="end"))
    padded = SequenceInputs(encoder.folder).padded(prepared.texts)
    session = open_session(path, 1)
    inputs = graph_inputs(padded)
    (found,) = session.run([output], {node.name: inputs[node.name] for node in session.get_inputs()})
    expected = encoder.runtime.embed(prepared.texts)
    difference = float(np.abs(_unit(found) - _unit(expected)).max())
    if not difference <= MAX_DIFFERENCE:
        raise ModelError(
            f"{output} of the graph {path.name} differs from the pooled vectors by {difference:.2g}; "
            f"at most {MAX_DIFFERENCE:g} is allowed; nothing was written"
        )


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    unit: NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit

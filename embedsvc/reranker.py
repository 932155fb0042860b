"""The reranker: how well does each text answer a query, read together by a cross-encoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embedsvc.encoder import locate_model
from embedsvc.encoders.pairs import Pair, PairInputs, PairRuntime
from embedsvc.errors import (
    DeadlineError,
    EmbedsvcError,
    InvalidInputError,
    MissingExtraError,
    ModelError,
    ModelFailedError,
)
from embedsvc.model_folder import Precision
from embedsvc.reranker_folder import Activation, RerankerFolder, open_reranker_folder
from embedsvc.runtime import RuntimeName, RuntimeOptions, torch_installed
from embedsvc.scheduling.plan import plan_batches
from embedsvc.tokens import Truncate, check_unicode

_PROCESSOR = (None, "cpu")


@dataclass(frozen=True)
class ScoreOptions:
    """How pairs are scored: where a text that is too long is cut ("none" refuses it), after how many tokens
    of its own at most, and whether the scores are the model's logits, without its activation.
    """

    truncate: Truncate = "end"
    max_text_tokens: int | None = None
    raw: bool = False


@dataclass(frozen=True)
class Scoring:
    """Scores (n,) with the true token count of each pair, query included, and whether its text was cut."""

    scores: NDArray[np.float32]
    tokens: list[int]
    truncated: list[bool]


class Reranker:
    """Score texts against a query with one cross-encoder. Safe to call from several threads."""

    def __init__(self, folder: RerankerFolder, runtime: PairRuntime) -> None:
        """Score one pair too, so that a model that cannot is found now; raises ModelError."""
        self.folder = folder
        self.runtime = runtime
        self._inputs = PairInputs(folder)
        try:
            self.scores("a", ["a"])
        except ModelError:
            raise
        except EmbedsvcError as error:
            raise ModelError(f"{folder.path} cannot score a pair: {error.message}") from error

    @property
    def name(self) -> str:
        return self.folder.model.name

    @property
    def fingerprint(self) -> str:
        """16 hex digits over all that decides the scores."""
        return self.folder.model.fingerprint

    @property
    def max_tokens(self) -> int | None:
        """The longest pair, special tokens included; None: no limit."""
        return self._inputs.max_tokens

    def scores(self, query: str, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return how relevant each text is to the query, (n,), in order: larger is better.

        The scores are the model's own: from 0 to 1 with the usual sigmoid, any number without one. A text
        that does not fit beside the query is read from its beginning to the model's limit;
        `score_with_usage` tells which were cut, and can refuse them. An empty text has a score, too.
        Raises InvalidInputError naming what is wrong, TextTooLongError for a query that leaves no room.
        """
        return self.score_with_usage(query, texts).scores

    def score_with_usage(
        self,
        query: str,
        texts: Sequence[str],
        options: ScoreOptions | None = None,
        *,
        given_up: Callable[[], bool] | None = None,
    ) -> Scoring:
        """Like `scores`, and also say how many tokens each pair has and which texts were cut.

        ``given_up`` is asked before each batch; DeadlineError when nobody waits for the scores any more.
        """
        options = options or ScoreOptions()
        _check(query, texts, options)
        prepared = self._inputs.prepare(query, texts, options.truncate, options.max_text_tokens)
        logits = self._logits(prepared.pairs, given_up)
        bad = np.flatnonzero(~np.isfinite(logits))
        if len(bad):
            raise ModelFailedError(f"the reranker gave a score that is not finite for texts[{bad[0]}]")
        scores = logits if options.raw else activated(logits, self.folder.activation)
        return Scoring(scores, prepared.tokens, prepared.truncated)

    def _logits(self, pairs: Sequence[Pair], given_up: Callable[[], bool] | None) -> NDArray[np.float32]:
        logits = np.empty(len(pairs), np.float32)
        lengths = [len(pair.ids) for pair in pairs]
        for rows in plan_batches(lengths, self.runtime.batch_tokens):
            if given_up is not None and given_up():
                raise DeadlineError("nobody waits for the scores any more")
            answer = self.runtime.logits(self._inputs.padded([pairs[row] for row in rows]))
            if answer.shape != (len(rows), 1):
                raise ModelError(
                    f"{self.folder.path}: the model gave shape {answer.shape} for {len(rows)} pairs; one "
                    "number for each is expected"
                )
            logits[rows] = answer[:, 0]
        return logits


def activated(logits: NDArray[np.float32], activation: Activation) -> NDArray[np.float32]:
    """Return the scores (n,) of logits (n,): 1 / (1 + exp(-x)), or the logits themselves."""
    if activation == "identity":
        return logits
    small = np.exp(-np.abs(logits))  # never overflows
    scores: NDArray[np.float32] = np.where(logits >= 0, 1, small) / (1 + small)
    return scores


def load_reranker(
    model: str | Path,
    *,
    runtime: RuntimeName = "auto",
    device: str | None = None,
    precision: Precision = "float32",
    revision: str | None = None,
) -> Reranker:
    """Open a cross-encoder with one label: a folder of sentence-transformers or transformers, or a hub id.

    runtime: "auto" takes ONNX Runtime where the folder has an ONNX file of this precision and the device is
    the processor, then torch. device is for torch ("cpu", "cuda"); revision is for hub ids.
    Raises NotFoundError, ModelError, or MissingExtraError naming what to install.
    """
    folder = open_reranker_folder(locate_model(model, revision))
    options = RuntimeOptions(runtime, device, precision)
    return opened_reranker(folder, options)


def opened_reranker(folder: RerankerFolder, options: RuntimeOptions) -> Reranker:
    """Open what runs an opened folder's model; raise ModelError or MissingExtraError saying what to do."""
    runtime = _open_runtime(folder, options)
    return Reranker(replace(folder, model=replace(folder.model, precision=options.precision)), runtime)


def _open_runtime(folder: RerankerFolder, options: RuntimeOptions) -> PairRuntime:
    """Open what runs the folder's model; raise ModelError or MissingExtraError naming what to install."""
    if _choose(folder, options) == "onnx":
        if options.device not in _PROCESSOR:
            raise InvalidInputError(
                f"device {options.device!r} is for the torch runtime; {folder.model.name!r} runs on onnx, on "
                "the processor",
                param="device",
            )
        from embedsvc.encoders.cross_onnx import CrossOnnxRuntime

        return CrossOnnxRuntime(folder, options.precision)
    from embedsvc.encoders.cross_torch import CrossTorchRuntime

    return CrossTorchRuntime(folder, options.device)


def _choose(folder: RerankerFolder, options: RuntimeOptions) -> RuntimeName:
    """Return "onnx" or "torch"; raise an error for a runtime that cannot be."""
    wanted, has_onnx = options.runtime, options.precision in folder.model.onnx_files
    if wanted not in ("auto", "onnx", "torch"):
        raise InvalidInputError(
            f"runtime {wanted!r} runs no reranker; choose auto, onnx or torch", param="runtime"
        )
    if wanted == "onnx" and not has_onnx:
        raise ModelError(f"{folder.path} has no {options.precision} ONNX file; runtime torch needs none")
    if wanted == "onnx" or (wanted == "auto" and has_onnx and options.device in _PROCESSOR):
        return "onnx"
    if options.precision != "float32":
        raise InvalidInputError(
            f"precision {options.precision} needs an ONNX file; {folder.path} has none for it",
            param="precision",
        )
    if not torch_installed():
        raise MissingExtraError(f"{folder.path} has no ONNX file; running it with torch", "torch")
    return "torch"


def _check(query: str, texts: Sequence[str], options: ScoreOptions) -> None:
    if not isinstance(query, str) or not query.strip():
        raise InvalidInputError("query is empty", param="query")
    check_unicode(query, "query")
    if isinstance(texts, str):
        raise InvalidInputError("texts must be a list of texts, not one text", param="texts")
    for position, text in enumerate(texts):
        if not isinstance(text, str):
            raise InvalidInputError(f"texts[{position}] is {type(text).__name__}, not a text", param="texts")
        check_unicode(text, f"texts[{position}]", param="texts")
    if options.max_text_tokens is not None and options.max_text_tokens < 1:
        raise InvalidInputError(
            f"max_text_tokens = {options.max_text_tokens}; it must be at least 1", param="max_text_tokens"
        )

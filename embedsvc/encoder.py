"""The encoder: texts in, vectors out, the same for every runtime. `load_encoder` opens one."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedsvc.errors import InvalidInputError, ModelFailedError, NotFoundError
from embedsvc.model_folder import BUNDLED, ModelFolder, Precision, open_model_folder
from embedsvc.options import EncodeOptions, InputType, OutputDtype
from embedsvc.postprocess import finish_vectors
from embedsvc.quantize import CALIBRATED, Calibration, learn_calibration, read_calibration, typical_texts
from embedsvc.runtime import (
    PreparedText,
    Runtime,
    RuntimeName,
    RuntimeOptions,
    choose_runtime,
    open_runtime,
    torch_installed,
)
from embedsvc.scheduling.plan import plan_batches
from embedsvc.tokens import TextTokenizer, Truncate, check_unicode, fit_tokens

_WINDOW_TEXTS = 16_384  # texts tokenized and sorted together: bounds memory, long enough to sort well
_MAX_PROMPT_CHARACTERS = 8192  # it is put before every text of a request
_PROGRESS_TEXTS = 20_000  # fewer texts than this show no bar unless asked
# What models call the prompts of the two roles, best first.
_ROLES = {
    "query": ("query", "search_query", "retrieval.query"),
    "document": ("document", "passage", "search_document", "retrieval.passage"),
}

__all__ = [
    "Encoder",
    "Encoding",
    "Prepared",
    "PreparedText",
    "Timings",
    "check_texts",
    "load_encoder",
    "locate_model",
    "torch_installed",
]


@dataclass(frozen=True)
class Timings:
    """Where the time of one request went, in seconds; total_s runs from its arrival to its vectors."""

    tokenize_s: float = 0.0
    queue_s: float = 0.0
    inference_s: float = 0.0
    total_s: float = 0.0


@dataclass(frozen=True)
class Encoding:
    """Vectors (n, width) with the true token count of each text and whether it was cut."""

    vectors: NDArray[Any]
    tokens: list[int]
    truncated: list[bool]
    timings: Timings = Timings()


@dataclass(frozen=True)
class TokenEncoding:
    """Vectors (tokens, dim) of each text, with its true token count and whether it was cut."""

    vectors: list[NDArray[np.float32]]
    tokens: list[int]
    truncated: list[bool]


@dataclass(frozen=True)
class Prepared:
    """Tokenized texts, cut to the limit, with their true token counts before that."""

    texts: list[PreparedText]
    tokens: list[int]
    truncated: list[bool]


class Encoder:
    """Encode texts with one model. Safe to call from several threads."""

    def __init__(self, folder: ModelFolder, runtime: Runtime) -> None:
        self.folder = folder
        self.runtime = runtime

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def dimension(self) -> int:
        return self.runtime.dimension

    @property
    def query_prompt_name(self) -> str | None:
        """The model's prompt for search queries; None where it has none: its default applies."""
        return self._role_prompt("query")

    @property
    def document_prompt_name(self) -> str | None:
        """The model's prompt for passages; None where it has none: its default applies."""
        return self._role_prompt("document")

    def _role_prompt(self, role: InputType) -> str | None:
        return next((name for name in _ROLES[role] if name in self.folder.prompts), None)

    @property
    def fingerprint(self) -> str:
        """Identifies the vectors this encoder makes; stored with every index."""
        return self.folder.fingerprint

    @cached_property
    def calibration(self) -> Calibration:
        """The scale of int8 vectors: the one in the model folder, else learnt now from typical passages."""
        shipped = read_calibration(self.folder.path)
        return shipped or learn_calibration(self.encode(typical_texts(), truncate="end", progress=False))

    @cached_property
    def tokenizer(self) -> TextTokenizer:
        """The folder's tokenizer, for looking at tokens; the runtime has its own."""
        lowercase = bool(self.folder.modules[0].config.get("do_lower_case", False))
        return TextTokenizer(self.folder.tokenizer_file, lowercase=lowercase)

    def encode(
        self,
        texts: Sequence[str],
        *,
        input_type: InputType | None = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        dimensions: int | None = None,
        force_dimensions: bool = False,
        normalize: bool = True,
        truncate: Truncate = "none",
        max_tokens: int | None = None,
        output_dtype: OutputDtype = "float32",
        batch_tokens: int | None = None,
        progress: bool | None = None,
    ) -> NDArray[Any]:
        """Return one vector per text, in order: (n, dimensions or dimension), unit rows by default.

        What is put before every text: input_type "query" or "document" takes the model's prompt for
        that role, prompt_name any of its prompts, prompt gives the text itself. dimensions cuts
        Matryoshka vectors (then renormalises); force_dimensions allows it, to any length, for a model
        that was not trained for it. truncate says what happens to a text longer than the model
        takes, or than max_tokens (special tokens included): "none" raises, "end" and "start" cut there.
        output_dtype: float32, float16, or quantised: int8, uint8; binary and ubinary pack eight
        dimensions into a byte. batch_tokens is the padded-token budget of one batch. progress shows
        a bar on standard error (default: for long work on a terminal).
        Raises InvalidInputError naming the position of the first bad text.
        """
        options = EncodeOptions(
            input_type=input_type,
            prompt_name=prompt_name,
            prompt=prompt,
            dimensions=dimensions,
            force_dimensions=force_dimensions,
            normalize=normalize,
            truncate=truncate,
            max_tokens=max_tokens,
            output_dtype=output_dtype,
        )
        return self.encode_with_usage(texts, options, batch_tokens=batch_tokens, progress=progress).vectors

    def encode_with_usage(
        self,
        texts: Sequence[str],
        options: EncodeOptions | None = None,
        *,
        batch_tokens: int | None = None,
        progress: bool | None = None,
    ) -> Encoding:
        """Like `encode`, and also say how many tokens each text has and which were cut."""
        options = options or EncodeOptions()
        check_texts(texts)
        self.check(options)
        if batch_tokens is not None and batch_tokens < 1:
            raise InvalidInputError(
                f"batch_tokens = {batch_tokens}; it must be at least 1", param="batch_tokens"
            )
        parts = [self.finish(np.empty((0, self.dimension), np.float32), options)]
        tokens: list[int] = []
        truncated: list[bool] = []
        with _progress_bar(len(texts), progress) as bar:
            for begin in range(0, len(texts), _WINDOW_TEXTS):
                prepared = self.prepare(texts[begin : begin + _WINDOW_TEXTS], options, first=begin)
                tokens += prepared.tokens
                truncated += prepared.truncated
                raw = np.empty((len(prepared.texts), self.dimension), np.float32)
                budget, pads = batch_tokens or self.runtime.batch_tokens, self.runtime.pads
                for rows in plan_batches(self.lengths(prepared), budget, pads=pads):
                    raw[rows] = self.runtime.embed([prepared.texts[row] for row in rows])
                    bar.update(len(rows))
                parts.append(self.finish(raw, options, first=begin))
        return Encoding(np.concatenate(parts), tokens, truncated)

    def encode_tokens(
        self, texts: Sequence[str], options: EncodeOptions | None = None, *, most_tokens: int | None = None
    ) -> TokenEncoding:
        """Return the vectors of each text's tokens before pooling, special ones included.

        Of the options those count that decide what the model reads. Raises InvalidInputError for more
        than ``most_tokens`` in all, and ModelError for a model with vectors of whole texts only.
        """
        options = options or EncodeOptions()
        check_texts(texts)
        self.check(options)
        prepared = self.prepare(texts, options)
        lengths = self.lengths(prepared)
        if most_tokens is not None and sum(lengths) > most_tokens:
            raise InvalidInputError(
                f"the texts have {sum(lengths)} tokens; the limit for token vectors is {most_tokens}",
                param="input",
            )
        vectors = self.runtime.embed_tokens(prepared.texts)
        for position, states in enumerate(vectors):
            if not np.isfinite(states).all():
                raise ModelFailedError(f"the model gave a vector that is not finite for input[{position}]")
        return TokenEncoding(vectors, prepared.tokens, prepared.truncated)

    def prepare(self, texts: Sequence[str], options: EncodeOptions, *, first: int = 0) -> Prepared:
        """Tokenize checked texts and cut them to the limit; errors count positions from ``first``."""
        lead = self.lead(options)
        ids = self.runtime.tokenize([lead + text for text in texts] if lead else texts)
        prompt_tokens = len(self.runtime.tokenize([lead])[0]) if lead else 0
        special, limit = self.runtime.special_tokens, self.limit(options)
        counts = [len(row) for row in ids]
        if limit is None:
            cut = [False] * len(counts)
        else:
            if prompt_tokens >= limit:
                raise InvalidInputError(
                    f"the prompt has {prompt_tokens} tokens; the limit is {limit}, text included",
                    param="prompt",
                )
            ids = [
                fit_tokens(row, limit, options.truncate, first + position, keep=prompt_tokens)
                for position, row in enumerate(ids)
            ]
            cut = [count > limit for count in counts]
        prepared = [PreparedText(row, prompt_tokens) for row in ids]
        return Prepared(prepared, [count + special for count in counts], cut)

    def lengths(self, prepared: Prepared) -> list[int]:
        """Return the tokens that the model sees of each text, special ones included."""
        return [len(text.ids) + self.runtime.special_tokens for text in prepared.texts]

    def finish(self, raw: NDArray[np.float32], options: EncodeOptions, *, first: int = 0) -> NDArray[Any]:
        """Return what was asked for, from the runtime's vectors (n, dimension)."""
        return finish_vectors(
            raw,
            dimensions=options.dimensions,
            normalize=options.normalize,
            output_dtype=options.output_dtype,
            calibration=self.calibration if options.output_dtype in CALIBRATED else None,
            positions=range(first, first + len(raw)),
        )

    def check(self, options: EncodeOptions) -> None:
        """Raise InvalidInputError for options that this model does not take."""
        self.check_dimensions(options.dimensions, force=options.force_dimensions)
        self.lead(options)
        if options.output_dtype in CALIBRATED and not options.normalize:
            raise InvalidInputError(
                f"output_dtype {options.output_dtype} is for unit vectors; leave normalize = true",
                param="normalize",
            )
        least = self.runtime.special_tokens + 1
        if options.max_tokens is not None and options.max_tokens < least:
            raise InvalidInputError(
                f"max_tokens = {options.max_tokens}; at least {least} expected", param="max_tokens"
            )

    def limit(self, options: EncodeOptions) -> int | None:
        """Return the most tokens of a text without special ones: the model's limit or a lower one."""
        limits = [self.runtime.max_tokens]
        if options.max_tokens is not None:
            limits.append(options.max_tokens - self.runtime.special_tokens)
        return min((limit for limit in limits if limit is not None), default=None)

    def lead(self, options: EncodeOptions) -> str:
        """Return the text to put before each input; raise InvalidInputError for an unknown name."""
        exclusive = ("input_type", "prompt_name", "prompt")
        given = [name for name in exclusive if getattr(options, name) is not None]
        if len(given) > 1:
            raise InvalidInputError(f"give {given[0]} or {given[1]}, not both", param=given[1])
        if options.prompt is not None:
            if len(options.prompt) > _MAX_PROMPT_CHARACTERS:
                raise InvalidInputError(
                    f"prompt has {len(options.prompt)} characters; the limit is {_MAX_PROMPT_CHARACTERS}",
                    param="prompt",
                )
            check_unicode(options.prompt, "prompt")
            return options.prompt
        name = options.prompt_name
        if options.input_type is not None:
            name = self._role_prompt(options.input_type)
        if name is None:
            name = self.folder.default_prompt_name
        if name is None:
            return ""
        if name not in self.folder.prompts:
            known = ", ".join(sorted(self.folder.prompts)) or "none"
            raise InvalidInputError(
                f"prompt_name {name!r} is unknown to model {self.name!r}; it has: {known}",
                param="prompt_name",
            )
        return self.folder.prompts[name]

    def check_dimensions(self, dimensions: int | None, *, force: bool = False) -> None:
        """Raise InvalidInputError unless the model can give vectors of this length."""
        if dimensions is None or dimensions == self.dimension:
            return
        if not 1 <= dimensions <= self.dimension:
            raise InvalidInputError(
                f"dimensions = {dimensions}; model {self.name!r} has 1 to {self.dimension}",
                param="dimensions",
            )
        shorter = any(size < self.dimension for size in self.folder.matryoshka_dimensions)
        if not force and not shorter:
            raise InvalidInputError(
                f"dimensions = {dimensions}: model {self.name!r} was not trained for shorter vectors "
                f"(Matryoshka); ask for {self.dimension}, or set force_dimensions to cut anyway",
                param="dimensions",
            )


def check_texts(texts: Sequence[str], *, name: str = "input") -> None:
    """Raise InvalidInputError naming the first element that is not a text with visible content."""
    if isinstance(texts, str):
        raise InvalidInputError(f"{name} must be a list of texts, not one text", param=name)
    for position, text in enumerate(texts):
        if not isinstance(text, str):
            raise InvalidInputError(f"{name}[{position}] is {type(text).__name__}, not a text", param=name)
        if not text or text.isspace():
            raise InvalidInputError(f"{name}[{position}] is empty", param=name)
        check_unicode(text, f"{name}[{position}]", param=name)


def load_encoder(
    model: str | Path | None = None,
    *,
    runtime: RuntimeName = "auto",
    device: str | None = None,
    precision: Precision = "float32",
    revision: str | None = None,
) -> Encoder:
    """Open a model: the bundled one (None), a sentence-transformers folder, or a hub id.

    runtime: "auto" takes the static table for static models, then ONNX Runtime where the folder
    has an ONNX file, then torch; "onnx" exports a model without such a file once, into the user's
    cache. device is for torch ("cpu", "cuda"); precision picks the ONNX file;
    revision is for hub ids.
    Raises NotFoundError, ModelError, or MissingExtraError naming what to install.
    """
    options = RuntimeOptions(runtime, device, precision)
    folder = find_folder(model, options, revision)
    return Encoder(folder, open_runtime(folder, options))


def find_folder(
    model: str | Path | None, options: RuntimeOptions, revision: str | None = None
) -> ModelFolder:
    """Return the folder that is run: the model's own, or for runtime onnx its export in the cache."""
    folder = open_model_folder(locate_model(model, revision))
    if choose_runtime(folder, options) != "onnx":
        return folder
    if options.precision not in folder.onnx_files:
        from embedsvc.onnx_cache import exported_folder

        folder = exported_folder(folder, options.precision)
    return replace(folder, precision=options.precision)


def locate_model(model: str | Path | None, revision: str | None = None) -> Path:
    """Return the folder of a model given as None (bundled), a path, or a hub id; download it if need be."""
    if model is None:
        return BUNDLED
    path = Path(model).expanduser()
    if path.exists() or isinstance(model, Path) or model.startswith((".", "/", "~")) or model.count("/") != 1:
        if not path.is_dir():
            raise NotFoundError(f"no model folder at {path}")
        return path
    from embedsvc.hub import download_model

    return download_model(model, revision)


class _SilentBar:
    """Stands in for a bar that nobody wants to see; making a tqdm costs more than a short text."""

    def __enter__(self) -> _SilentBar:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, _: int) -> None:
        pass


def _progress_bar(total: int, wanted: bool | None) -> Any:
    if not (wanted if wanted is not None else total >= _PROGRESS_TEXTS and sys.stderr.isatty()):
        return _SilentBar()
    from tqdm import tqdm

    return tqdm(total=total, desc="encode", unit="text")

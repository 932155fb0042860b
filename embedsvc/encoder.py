"""The encoder: texts in, vectors out, the same for every runtime. `load_encoder` opens one."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from embedsvc.errors import InvalidInputError, MissingExtraError, ModelError, NotFoundError
from embedsvc.model_folder import BUNDLED, ModelFolder, open_model_folder
from embedsvc.postprocess import VectorDtype, finish_vectors
from embedsvc.scheduling.plan import plan_batches
from embedsvc.tokens import Truncate, check_unicode, fit_tokens

RuntimeName = Literal["auto", "static", "onnx", "torch"]
_WINDOW_TEXTS = 16_384  # texts tokenized and sorted together: bounds memory, long enough to sort well
_PROGRESS_TEXTS = 20_000  # fewer texts than this show no bar unless asked


@dataclass(frozen=True)
class PreparedText:
    """One tokenized text: ids without special tokens; the first ``prompt_tokens`` of them are the prompt."""

    ids: list[int]
    prompt_tokens: int = 0


class Runtime(Protocol):
    """What a runtime must provide; one file each under `encoders`."""

    name: str
    dimension: int
    max_tokens: int | None  # limit for a text without special tokens; None = no limit
    special_tokens: int  # added to each text by `embed`, counted in usage
    batch_tokens: int  # default padded-token budget of one batch

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text, without special tokens and without any limit."""

    def embed(self, batch: Sequence[PreparedText]) -> NDArray[np.float32]:
        """Return (n, dimension) pooled vectors, before the final normalisation."""


@dataclass(frozen=True)
class Encoding:
    """Vectors (n, dim) with the true token count of each text and whether it was cut."""

    vectors: NDArray[Any]
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
        return self._first_prompt("query")

    @property
    def document_prompt_name(self) -> str | None:
        """The model's prompt for passages; None where it has none: its default applies."""
        return self._first_prompt("document", "passage")

    def _first_prompt(self, *names: str) -> str | None:
        return next((name for name in names if name in self.folder.prompts), None)

    @property
    def fingerprint(self) -> str:
        """Identifies the vectors this encoder makes; stored with every index."""
        return self.folder.fingerprint

    def encode(
        self,
        texts: Sequence[str],
        *,
        prompt_name: str | None = None,
        prompt: str | None = None,
        dimensions: int | None = None,
        normalize: bool = True,
        dtype: VectorDtype = "float32",
        truncate: Truncate = "none",
        batch_tokens: int | None = None,
        progress: bool | None = None,
    ) -> NDArray[Any]:
        """Return one vector per text, in order: (n, dimensions or dimension), unit rows by default.

        prompt_name picks one of the model's prompts, prompt gives the text itself; it is put
        before every text. dimensions cuts Matryoshka vectors (then renormalises). truncate says
        what happens to a text longer than the model takes: "none" raises, "end" and "start" cut
        there. batch_tokens is the padded-token budget of one batch. progress shows a bar on
        standard error (default: for long work on a terminal).
        Raises InvalidInputError naming the position of the first bad text.
        """
        return self.encode_with_usage(
            texts,
            prompt_name=prompt_name,
            prompt=prompt,
            dimensions=dimensions,
            normalize=normalize,
            dtype=dtype,
            truncate=truncate,
            batch_tokens=batch_tokens,
            progress=progress,
        ).vectors

    def encode_with_usage(
        self,
        texts: Sequence[str],
        *,
        prompt_name: str | None = None,
        prompt: str | None = None,
        dimensions: int | None = None,
        normalize: bool = True,
        dtype: VectorDtype = "float32",
        truncate: Truncate = "none",
        batch_tokens: int | None = None,
        progress: bool | None = None,
    ) -> Encoding:
        """Like `encode`, and also say how many tokens each text has and which were cut."""
        check_texts(texts)
        self.check_dimensions(dimensions)
        if batch_tokens is not None and batch_tokens < 1:
            raise InvalidInputError(
                f"batch_tokens = {batch_tokens}; it must be at least 1", param="batch_tokens"
            )
        lead = self.resolve_prompt(prompt_name, prompt)
        vectors = np.empty((len(texts), dimensions or self.dimension), dtype=dtype)
        tokens: list[int] = []
        truncated: list[bool] = []
        with _progress_bar(len(texts), progress) as bar:
            for begin in range(0, len(texts), _WINDOW_TEXTS):
                window = texts[begin : begin + _WINDOW_TEXTS]
                prepared, counts = self._prepare(window, lead, truncate, first=begin)
                tokens += counts
                limit = self.runtime.max_tokens
                truncated += [limit is not None and count > limit for count in counts]
                lengths = [len(text.ids) + self.runtime.special_tokens for text in prepared]
                for rows in plan_batches(lengths, batch_tokens or self.runtime.batch_tokens):
                    raw = self.runtime.embed([prepared[row] for row in rows])
                    vectors[begin + rows] = finish_vectors(
                        raw,
                        dimensions=dimensions,
                        normalize=normalize,
                        dtype=dtype,
                        positions=begin + rows,
                    )
                    bar.update(len(rows))
        return Encoding(vectors, [count + self.runtime.special_tokens for count in tokens], truncated)

    def _prepare(
        self, texts: Sequence[str], lead: str, truncate: Truncate, *, first: int
    ) -> tuple[list[PreparedText], list[int]]:
        """Tokenize a window; return the texts cut to the limit and their true lengths."""
        ids = self.runtime.tokenize([lead + text for text in texts] if lead else texts)
        prompt_tokens = len(self.runtime.tokenize([lead])[0]) if lead else 0
        limit = self.runtime.max_tokens
        counts = [len(row) for row in ids]
        if limit is not None:
            if prompt_tokens >= limit:
                raise InvalidInputError(
                    f"the prompt has {prompt_tokens} tokens; the limit is {limit}, text included",
                    param="prompt",
                )
            ids = [
                fit_tokens(row, limit, truncate, first + position, keep=prompt_tokens)
                for position, row in enumerate(ids)
            ]
        return [PreparedText(row, prompt_tokens) for row in ids], counts

    def resolve_prompt(self, prompt_name: str | None, prompt: str | None) -> str:
        """Return the text to put before each input; raise InvalidInputError for an unknown name."""
        if prompt is not None and prompt_name is not None:
            raise InvalidInputError("give prompt or prompt_name, not both", param="prompt")
        if prompt is not None:
            check_unicode(prompt, "prompt")
            return prompt
        name = prompt_name if prompt_name is not None else self.folder.default_prompt_name
        if name is None:
            return ""
        if name not in self.folder.prompts:
            known = ", ".join(sorted(self.folder.prompts)) or "none"
            raise InvalidInputError(
                f"prompt_name {name!r} is unknown to model {self.name!r}; it has: {known}",
                param="prompt_name",
            )
        return self.folder.prompts[name]

    def check_dimensions(self, dimensions: int | None) -> None:
        """Raise InvalidInputError unless the model can give vectors of this length."""
        if dimensions is None or dimensions == self.dimension:
            return
        if not 1 <= dimensions <= self.dimension:
            raise InvalidInputError(
                f"dimensions = {dimensions}; model {self.name!r} has 1 to {self.dimension}",
                param="dimensions",
            )
        if not self.folder.matryoshka_dimensions:
            raise InvalidInputError(
                f"dimensions = {dimensions}: model {self.name!r} was not trained for shorter vectors "
                f"(Matryoshka); ask for {self.dimension}",
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
    revision: str | None = None,
) -> Encoder:
    """Open a model: the bundled one (None), a sentence-transformers folder, or a hub id.

    runtime: "auto" takes the static table for static models, then ONNX Runtime where the folder
    has an ONNX file, then torch. device is for torch ("cpu", "cuda"); revision for hub ids.
    Raises NotFoundError, ModelError, or MissingExtraError naming what to install.
    """
    folder = open_model_folder(locate_model(model, revision))
    chosen = _choose_runtime(folder, runtime)
    if chosen != "torch" and device not in (None, "cpu"):
        raise InvalidInputError(
            f"device {device!r} is for the torch runtime; {folder.name!r} runs on {chosen}, on the CPU",
            param="device",
        )
    if chosen == "static":
        from embedsvc.encoders.static_table import StaticTableRuntime

        return Encoder(folder, StaticTableRuntime(folder))
    if chosen == "onnx":
        from embedsvc.encoders.onnx_runtime import OnnxRuntime

        return Encoder(folder, OnnxRuntime(folder))
    from embedsvc.encoders.pytorch import TorchRuntime

    return Encoder(folder, TorchRuntime(folder, device=device))


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


def _choose_runtime(folder: ModelFolder, wanted: RuntimeName) -> RuntimeName:
    if wanted not in ("auto", "static", "onnx", "torch"):
        raise InvalidInputError(
            f"runtime {wanted!r} is unknown; choose auto, static, onnx or torch", param="runtime"
        )
    if wanted == "static" and not folder.is_static:
        raise ModelError(f"{folder.path} is not a static model; use runtime onnx or torch")
    if wanted == "onnx" and folder.onnx_file is None:
        raise ModelError(f"{folder.path} has no ONNX file; make one: embedsvc export {folder.path} --out DIR")
    if wanted != "auto":
        return wanted
    if folder.is_static:
        return "static"
    if folder.onnx_file is not None:
        return "onnx"
    if not torch_installed():
        raise MissingExtraError(f"{folder.path} has no ONNX file; running it with torch", "torch")
    return "torch"


def torch_installed() -> bool:
    """True when the torch extra is present; torch itself is not imported."""
    from importlib.util import find_spec

    return find_spec("torch") is not None and find_spec("sentence_transformers") is not None


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

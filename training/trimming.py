"""Leave out of a model the pieces, and their vectors, that a corpus does not use (Abdaoui et al. 2020).

Most of a multilingual model is vocabulary: 96 of 118 million weights of multilingual-e5-small.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, normalizers

from embedsvc.encoder import load_encoder
from embedsvc.encoders.static_table import read_table
from embedsvc.errors import InvalidInputError, ModelError
from embedsvc.model_folder import ModelFolder, open_model_folder, read_json
from embedsvc.runtime import RuntimeName
from embedsvc.textfiles import write_json
from training.corpus_texts import read_corpus
from training.model_copy import copy_plain, write_static_copy
from training.trimmed_tokenizer import TrimmableTokenizer

_TEXTS_AT_ONCE = 10_000
_CHECKED_TEXTS = 64
_MAX_DIFFERENCE = 1e-6  # the same products of the same numbers
_OTHER_VOCABULARIES = (
    *("vocab.txt", "vocab.json", "merges.txt", "added_tokens.json", "special_tokens_map.json"),
    *("sentencepiece.bpe.model", "spiece.model", "tokenizer.model"),
)
_LOW_PAD = 256  # RoBERTa's positions count from the padding id, which is low: it stays what it is


@dataclass(frozen=True)
class Trim:
    """What to keep: the pieces that the corpus uses, or the ``most_frequent`` of these."""

    corpus: Path
    most_frequent: int | None = None


@dataclass(frozen=True)
class TrimReport:
    """How much stayed. ``covered``: the share of the corpus's tokens whose piece did."""

    pieces: int
    pieces_before: int
    bytes: int  # of the token vectors, as float32
    bytes_before: int
    covered: float

    def __str__(self) -> str:
        return (
            f"{self.pieces:,} of {self.pieces_before:,} pieces kept "
            f"({self.pieces / self.pieces_before:.1%}; {self.bytes / 1e6:.1f} of "
            f"{self.bytes_before / 1e6:.1f} MB of vectors as float32); they are "
            f"{self.covered:.2%} of the corpus's tokens"
        )


def trim_vocabulary(source: ModelFolder, out: Path, trim: Trim) -> TrimReport:
    """Write ``source`` with a smaller vocabulary to ``out``; the corpus's texts keep their very vectors.

    With ``most_frequent`` only the texts made of kept pieces do; others are cut into smaller pieces.
    Raises InvalidInputError for an empty corpus, ModelError for a tokenizer or a model that it cannot be
    done with, or whose vectors of the corpus's texts change.
    """
    tokenizer_json = _with_lowercase(source)
    trimmable = TrimmableTokenizer(tokenizer_json)
    counts = _counted(source, Tokenizer.from_str(tokenizer_json), trim.corpus)
    wanted = {id_ for id_, _ in counts.most_common(trim.most_frequent)}
    wanted |= trimmable.required() | trimmable.before_failing(_prompted(source, trim.corpus))
    wanted |= _named_by_config(source, set(trimmable.ids.values()))
    kept = np.array(sorted(trimmable.closure(wanted)), np.int64)
    small = TrimmableTokenizer(source.tokenizer_file.read_text(encoding="utf-8")).trimmed(kept)
    width = _write(source, out, small, kept)
    if trim.most_frequent is None:
        _check_unchanged(source, out, trim.corpus, kept)
    rows = len(trimmable.ids)
    covered = sum(counts[int(id_)] for id_ in kept) / counts.total()
    return TrimReport(len(kept), rows, 4 * width * len(kept), 4 * width * rows, covered)


def _with_lowercase(source: ModelFolder) -> str:
    """Return the tokenizer as the model uses it."""
    tokenizer = Tokenizer.from_file(str(source.tokenizer_file))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    if source.modules[0].config.get("do_lower_case", False):
        rest = [tokenizer.normalizer] if tokenizer.normalizer is not None else []
        tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), *rest])
    made: str = tokenizer.to_str()
    return made


def _prompted(source: ModelFolder, corpus: Path) -> Iterator[str]:
    """Give each text as it is and after each of the model's prompts: its first piece may be another then."""
    leads = sorted({"", *source.prompts.values()})
    return (lead + text for text in read_corpus(corpus) for lead in leads)


def _batches(texts: Iterator[str]) -> Iterator[list[str]]:
    while batch := list(islice(texts, _TEXTS_AT_ONCE)):
        yield batch


def _ids(tokenizer: Tokenizer, texts: list[str]) -> list[list[int]]:
    return [encoding.ids for encoding in tokenizer.encode_batch_fast(texts, add_special_tokens=False)]


def _counted(source: ModelFolder, tokenizer: Tokenizer, corpus: Path) -> Counter[int]:
    counts: Counter[int] = Counter()
    for batch in _batches(_prompted(source, corpus)):
        for ids in _ids(tokenizer, batch):
            counts.update(ids)
    if not counts:
        raise InvalidInputError(f"{corpus} has no text to keep pieces for", param="trim_vocabulary")
    return counts


def _named_by_config(source: ModelFolder, known: set[int]) -> set[int]:
    """Return the ids that config.json names, and all up to a low padding id."""
    config = read_json(source.modules[0].folder / "config.json", required=False)
    named = {id_ for key, value in config.items() if key.endswith("_token_id") for id_ in _as_ids(value)}
    pad = config.get("pad_token_id")
    if isinstance(pad, int) and pad < _LOW_PAD:
        named.update(range(pad + 1))
    return named & known


def _as_ids(value: Any) -> list[int]:
    values = value if isinstance(value, list) else [value]
    return [id_ for id_ in values if isinstance(id_, int)]


def _write(source: ModelFolder, out: Path, tokenizer_json: str, kept: NDArray[np.int64]) -> int:
    """Write the smaller model; return the width of its token vectors."""
    if source.is_static:
        table = read_table(source.modules[0].folder)[kept]
        write_static_copy(source, out, table, tokenizer_json=tokenizer_json)
        return int(table.shape[1])
    from training.trimmed_transformer import write_transformer

    copy_plain(source, out)
    _write_tokenizer(out / source.tokenizer_file.relative_to(source.path), tokenizer_json, kept)
    return write_transformer(source, out, kept)


def _write_tokenizer(file: Path, tokenizer_json: str, kept: NDArray[np.int64]) -> None:
    """Write tokenizer.json; what says the same in another way goes or takes the new numbers."""
    file.write_text(tokenizer_json, encoding="utf-8")
    said = read_json(file.with_name("special_tokens_map.json"), required=False)
    said |= read_json(file.with_name("tokenizer_config.json"), required=False)
    said["tokenizer_class"] = "PreTrainedTokenizerFast"  # others build on vocabulary files of their own
    if isinstance(decoder := said.get("added_tokens_decoder"), dict):
        new = {str(old): str(place) for place, old in enumerate(kept)}
        said["added_tokens_decoder"] = {new[id_]: token for id_, token in decoder.items() if id_ in new}
    write_json(file.with_name("tokenizer_config.json"), said)
    for name in _OTHER_VOCABULARIES:
        file.with_name(name).unlink(missing_ok=True)


def _check_unchanged(source: ModelFolder, out: Path, corpus: Path, kept: NDArray[np.int64]) -> None:
    """Compare the tokens of every text of the corpus, and the vectors of some."""
    copy = open_model_folder(out)
    before, after = (Tokenizer.from_str(_with_lowercase(folder)) for folder in (source, copy))
    sample: list[str] = []
    for batch in _batches(_prompted(source, corpus)):
        pairs = zip(_ids(before, batch), _ids(after, batch), strict=True)
        for text, (old, new) in zip(batch, pairs, strict=True):
            if old != kept[new].tolist():
                raise ModelError(
                    f"{source.path}: its tokenizer would cut {text[:80]!r} in another way; nothing was "
                    "written"
                )
        sample += batch[:: max(1, len(batch) // _CHECKED_TEXTS)]
    runtime: RuntimeName = "static" if source.is_static else "torch"
    texts = sample[:: max(1, len(sample) // _CHECKED_TEXTS)]
    expected, found = (
        load_encoder(path, runtime=runtime, device="cpu").encode(texts, truncate="end")
        for path in (source.path, out)
    )
    if not (difference := float(np.abs(expected - found).max())) <= _MAX_DIFFERENCE:
        raise ModelError(
            f"the vectors of the corpus's texts change by {difference:.2g} without the other pieces; at most "
            f"{_MAX_DIFFERENCE:g} is allowed; nothing was written"
        )

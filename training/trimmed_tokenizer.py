"""A tokenizer with fewer pieces that cuts the texts made of the kept ones exactly as before.

What has to stay so that it does, for each algorithm of the `tokenizers` library:

- BPE: the merges that lead to a kept piece, and their parts; the order of the others does not change.
- Unigram: the least probable piece, for the penalty of unknown characters counts from its score.
- WordPiece: what the longest match finds before it fails: without it, a shorter match may succeed.

Special and other added tokens, single characters and bytes stay always, so that any other text is cut
into smaller pieces, not into unknown ones.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from embedsvc.errors import ModelError

_BYTE = re.compile(r"<0x[0-9A-F]{2}>")


class TrimmableTokenizer:
    """A tokenizer as its JSON says it: what any choice of pieces entails, and the smaller JSON."""

    def __init__(self, tokenizer_json: str) -> None:
        self._tokenizer = Tokenizer.from_str(tokenizer_json)
        self._json: dict[str, Any] = json.loads(self._tokenizer.to_str())  # old files leave things out
        self._model: dict[str, Any] = self._json["model"]
        self.ids: dict[str, int] = self._tokenizer.get_vocab(with_added_tokens=True)
        self._pieces = dict(self._tokenizer.get_vocab(with_added_tokens=False))

    def required(self) -> set[int]:
        """Return the ids that stay whatever the corpus: added tokens, single characters, bytes, [UNK]."""
        added = {str(token["content"]) for token in self._json.get("added_tokens") or []}
        names = added | {piece for piece in self._pieces if self._is_small(piece)}
        if isinstance(self._model.get("unk_token"), str):
            names.add(self._model["unk_token"])
        if self._model["type"] == "Unigram":
            names.add(min(self._model["vocab"], key=lambda entry: float(entry[1]))[0])
            if self._model.get("unk_id") is not None:
                names.add(self._model["vocab"][self._model["unk_id"]][0])
        return {self.ids[name] for name in names if name in self.ids}

    def _is_small(self, piece: str) -> bool:
        bare = piece.removeprefix(self._model.get("continuing_subword_prefix") or "")
        bare = bare.removesuffix(self._model.get("end_of_word_suffix") or "")
        return len(bare) <= 1 or _BYTE.fullmatch(piece) is not None

    def closure(self, ids: set[int]) -> set[int]:
        """Return the ids with the parts of all merges that lead to them, and the parts of these."""
        if self._model["type"] != "BPE":
            return ids
        parts_of: dict[str, list[str]] = defaultdict(list)
        for merge in self._model["merges"]:
            left, right = _parts(merge)
            parts_of[self._merged(left, right)] += [left, right]
        found = set(ids)
        names = {id_: name for name, id_ in self.ids.items()}
        waiting = [names[id_] for id_ in ids]
        while waiting:
            for part in parts_of.pop(waiting.pop(), []):
                found.add(self.ids[part])
                waiting.append(part)
        return found

    def _merged(self, left: str, right: str) -> str:
        return left + right[len(self._model.get("continuing_subword_prefix") or "") :]

    def before_failing(self, texts: Iterable[str]) -> set[int]:
        """Return the ids that WordPiece matches at the start of words which it gives up in the end."""
        if self._model["type"] != "WordPiece":
            return set()
        unknown = self.ids.get(str(self._model.get("unk_token")))
        found: set[int] = set()
        seen: set[str] = set()
        for text in texts:
            if unknown in self._tokenizer.encode(text, add_special_tokens=False).ids:
                words = set(self._words(text)) - seen
                seen |= words
                found.update(*(self._longest_matches(word) for word in words))
        return found

    def _words(self, text: str) -> list[str]:
        normalizer, splitter = self._tokenizer.normalizer, self._tokenizer.pre_tokenizer
        normal = text if normalizer is None else normalizer.normalize_str(text)
        return [normal] if splitter is None else [word for word, _ in splitter.pre_tokenize_str(normal)]

    def _longest_matches(self, word: str) -> list[int]:
        mark, begin, found = self._model.get("continuing_subword_prefix") or "", 0, []
        if len(word) > self._model.get("max_input_chars_per_word", 100):
            return []  # given up without a look
        while begin < len(word):
            lead = mark if begin else ""
            ends = range(len(word), begin, -1)
            end = next((end for end in ends if lead + word[begin:end] in self._pieces), None)
            if end is None:
                break
            found.append(self._pieces[lead + word[begin:end]])
            begin = end
        return found

    def trimmed(self, kept: NDArray[np.int64]) -> str:
        """Return the JSON of the tokenizer whose id i is the old id ``kept[i]``; kept is in rising order.

        kept must hold `required` and be its own `closure`. Raises ModelError when the library numbers the
        pieces in another way than asked.
        """
        new = {int(old): place for place, old in enumerate(kept)}
        small = json.loads(json.dumps(self._json))
        small["model"] = self._small_model(new)
        for token in small.get("added_tokens") or []:
            token["id"] = new[self.ids[token["content"]]]
        padding = small.get("padding")
        if padding is not None and padding.get("pad_token") in self.ids:
            padding["pad_id"] = new[self.ids[padding["pad_token"]]]
        if small.get("post_processor") is not None:
            self._renumber_processor(small["post_processor"], new)
        made = json.dumps(small, ensure_ascii=False, separators=(",", ":"))
        expected = {name: new[id_] for name, id_ in self.ids.items() if id_ in new}
        if Tokenizer.from_str(made).get_vocab(with_added_tokens=True) != expected:
            raise ModelError("the tokenizer's pieces cannot be numbered anew; it cannot be trimmed")
        return made

    def _small_model(self, new: Mapping[int, int]) -> dict[str, Any]:
        model = dict(self._model)
        if model["type"] == "Unigram":
            entries = list(enumerate(model["vocab"]))
            model["vocab"] = [entry for place, entry in entries if place in new]
            if model.get("unk_id") is not None:
                model["unk_id"] = new[model["unk_id"]]
            return model
        model["vocab"] = {name: new[id_] for name, id_ in model["vocab"].items() if id_ in new}
        if model["type"] == "BPE":
            merges = [(merge, *_parts(merge)) for merge in model["merges"]]
            known = model["vocab"]
            model["merges"] = [
                merge
                for merge, left, right in merges
                if left in known and right in known and self._merged(left, right) in known
            ]
        return model

    def _renumber_processor(self, processor: dict[str, Any], new: Mapping[int, int]) -> None:
        for inner in processor.get("processors") or []:
            self._renumber_processor(inner, new)
        for role in ("cls", "sep"):  # BertProcessing, RobertaProcessing: [token, id]
            if role in processor:
                processor[role][1] = new[self.ids[processor[role][0]]]
        if processor.get("type") == "TemplateProcessing":
            for special in processor.get("special_tokens", {}).values():
                special["ids"] = [new[self.ids[token]] for token in special["tokens"]]


def _parts(merge: str | list[str]) -> tuple[str, str]:
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return left, right

"""A runtime whose vectors are easy to compute, that can be held, and that fails on certain texts."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Regex, Tokenizer, models, pre_tokenizers

from embedsvc.encoder import Encoder, PreparedText
from embedsvc.errors import ModelLostError
from embedsvc.model_folder import ModelFolder, Module

POISON, PANIC, STOP, KILL, NAN = "☠", "💥", "🛑", "🔪", "∞"


class Panic(BaseException):
    pass


class ToyRuntime:
    name = "toy"
    dimension = 4
    max_tokens: int | None = 12
    special_tokens = 2
    batch_tokens = 1_000
    workers = 1
    pads = True

    def __init__(self) -> None:
        self.open = threading.Event()  # cleared: `embed` waits
        self.open.set()
        self.entered = threading.Event()
        self.batches: list[set[str]] = []
        self.sizes: list[int] = []
        self.alone = True  # nothing ever ran beside the first repetition of a batch that killed
        self.delay_s = 0.0
        self._inside: list[bool] = []  # does the batch kill?
        self._killed = False

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        return [[ord(character) for character in text] for text in texts]

    def embed(self, batch: Sequence[PreparedText]) -> NDArray[np.float32]:
        texts = ["".join(map(chr, text.ids)) for text in batch]
        self.batches.append(set(texts))
        self.sizes.append(len(texts))
        self.entered.set()
        self._inside.append(KILL in texts)
        if self._killed and len(self._inside) > 1 and any(self._inside):
            self.alone = False
        time.sleep(0.001 + self.delay_s)
        self._inside.remove(KILL in texts)
        assert self.open.wait(60)
        joined = "".join(texts)
        if KILL in texts:
            self._killed = True
            raise ModelLostError("the process died")
        if POISON in joined:
            raise RuntimeError("the runtime broke: secret details")
        if PANIC in joined:
            raise Panic
        if STOP in joined:
            raise StopIteration
        rows = [[len(text.ids), sum(text.ids) % 97, text.ids[0] % 89, text.ids[-1] % 83] for text in batch]
        vectors = np.array(rows, np.float32)
        vectors[[NAN in text for text in texts]] = np.nan
        return vectors


def toy_encoder(path: Path, runtime: ToyRuntime | None = None) -> Encoder:
    path.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")  # characters are tokens
    tokenizer.save(str(path / "tokenizer.json"))
    folder = ModelFolder(
        path=path,
        modules=(Module("StaticEmbedding", path),),
        prompts={"query": "q:"},
        default_prompt_name=None,
        matryoshka_dimensions=(2,),
    )
    return Encoder(folder, runtime or ToyRuntime())

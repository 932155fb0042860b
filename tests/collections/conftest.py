"""A tiny model with known vectors, and the truth to compare every search with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, pre_tokenizers

from embedsvc.collections.collection import Collection
from embedsvc.encoder import Encoder, load_encoder
from training.static_export import write_static_folder

DIMENSION = 16
WORDS = ["[UNK]", "east", "north", *[f"w{i}" for i in range(300)]]


def write_tiny_model(folder: Path, seed: int = 0) -> Path:
    """Write a static model: "east" and "north" are axes 0 and 1, w0… random, unknown words zero."""
    table = np.random.default_rng(seed).standard_normal((len(WORDS), DIMENSION)).astype(np.float32)
    table[:3] = 0
    table[1, 0] = table[2, 1] = 1
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    write_static_folder(folder, table, tokenizer.to_str(), matryoshka_dimensions=[], dtype="float32")
    return folder


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def encoder(model_folder: Path) -> Encoder:
    return load_encoder(model_folder)


@pytest.fixture(scope="session")
def other_encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    return load_encoder(write_tiny_model(tmp_path_factory.mktemp("models") / "other", seed=1))


@pytest.fixture
def collection(tmp_path: Path, encoder: Encoder) -> Iterator[Collection]:
    with Collection(tmp_path / "help", encoder) as opened:
        yield opened


def random_texts(count: int, seed: int = 0) -> list[str]:
    """Texts of 1 to 8 random words."""
    rng = np.random.default_rng(seed)
    return [
        " ".join(f"w{i}" for i in rng.integers(0, 300, rng.integers(1, 9))) + f" w{number % 300}"
        for number in range(count)
    ]


def documents(texts: list[str], languages: str = "en de sw", first: int = 0) -> list[dict[str, object]]:
    """Documents d0, d1 … with languages in turn."""
    codes = languages.split()
    return [
        {"id": f"d{first + i}", "text": text, "language": codes[i % len(codes)], "metadata": {"n": first + i}}
        for i, text in enumerate(texts)
    ]


def brute_force(
    encoder: Encoder, query: str, texts: dict[str, str], k: int
) -> tuple[list[str], NDArray[np.float32]]:
    """The ids of the k best texts and their cosines, computed with nothing but the encoder and numpy."""
    ids = list(texts)
    scores = encoder.encode([texts[id_] for id_ in ids]) @ encoder.encode([query])[0]
    order = np.argsort(-scores, kind="stable")[:k]
    return [ids[i] for i in order], scores[order]

"""int8 against float32 ONNX of one model in one run: cosine, batch invariance, ranking, speed.

    python benchmarks/int8.py --data DIR --model FOLDER

DIR holds tatoeba/ and flores/text/; FOLDER is a model as `embedsvc export --onnx float32,int8` writes
it. For speed the two take turns, in both orders, on one thread each; every figure includes tokenization.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embedsvc import Encoder
from embedsvc.encoders.onnx_runtime import OnnxRuntime
from embedsvc.model_folder import Precision, open_model_folder

FLORES = ("eng_Latn", "deu_Latn", "fra_Latn", "spa_Latn", "rus_Cyrl", "arb_Arab", "hin_Deva", "zho_Hans")
TATOEBA = ("deu", "fra", "spa", "nld", "rus")
Vectors = NDArray[np.float32]


def lines(path: Path, count: int) -> list[str]:
    return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()][:count]


def opened(folder: Path, precision: Precision, *, threads: int | None = None) -> Encoder:
    model = open_model_folder(folder)
    return Encoder(model, OnnxRuntime(model, precision=precision, threads=threads))


def print_cosines(name: str, exact: Vectors, rounded: Vectors) -> None:
    cosines = (exact * rounded).sum(axis=1)
    print(
        f"{name:22} {len(cosines):6} texts: cosine mean {cosines.mean():.5f}, "
        f"1st percentile {np.quantile(cosines, 0.01):.5f}, least {cosines.min():.5f}"
    )


def print_ranking(data: Path, exact: Encoder, rounded: Encoder) -> None:
    """Print how often the translation is the nearest of all English sentences, in percent."""
    for language in TATOEBA:
        stem = data / "tatoeba" / f"tatoeba.{language}-eng"
        texts = [lines(Path(f"{stem}.{side}"), 1000) for side in (language, "eng")]
        rates, nearest = [], []
        for encoder in (exact, rounded):
            queries, passages = (encoder.encode(side, truncate="end", progress=False) for side in texts)
            nearest.append((queries @ passages.T).argmax(axis=1))
            rates.append(100 * np.mean(nearest[-1] == np.arange(len(passages))))
        same = 100 * np.mean(nearest[0] == nearest[1])
        print(
            f"tatoeba {language}-eng: accuracy float32 {rates[0]:.1f}, int8 {rates[1]:.1f}; "
            f"same first hit {same:.1f} %"
        )


def print_batch_invariance(encoder: Encoder, texts: list[str]) -> None:
    alone = np.concatenate([encoder.encode([text], truncate="end") for text in texts])
    together = encoder.encode(texts, truncate="end", batch_tokens=1_000_000, progress=False)
    largest = np.abs(alone - together).max()
    print(f"{len(texts)} texts alone and in one padded batch: largest difference {largest:.1e}")


def print_speed(folder: Path, sets: dict[str, list[str]], runs: int) -> None:
    exact, rounded = (opened(folder, precision, threads=1) for precision in ("float32", "int8"))
    for name, texts in sets.items():
        rates: dict[str, list[float]] = {"float32": [], "int8": []}
        for run in range(-1, runs):  # run -1 warms up
            order = [("float32", exact), ("int8", rounded)]
            for precision, encoder in order if run % 2 == 0 else reversed(order):
                begin = time.perf_counter()
                tokens = sum(encoder.encode_with_usage(texts, truncate="end", progress=False).tokens)
                if run >= 0:
                    rates[precision].append(tokens / (time.perf_counter() - begin))
        ratios = [a / b for a, b in zip(rates["int8"], rates["float32"], strict=True)]
        print(
            f"{name}: float32 {statistics.median(rates['float32']):,.0f} tokens/s, "
            f"int8 {statistics.median(rates['int8']):,.0f}; "
            f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
        )


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--texts", type=int, default=200, help="Of each FLORES language.")
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    exact, rounded = (opened(arguments.model, precision) for precision in ("float32", "int8"))
    flores = {
        name: lines(arguments.data / "flores" / "text" / f"{name}.txt", arguments.texts) for name in FLORES
    }
    short = lines(arguments.data / "tatoeba" / "tatoeba.fra-eng.eng", 1000)
    for name, texts in {**flores, "tatoeba fra-eng.eng": short}.items():
        vectors = (encoder.encode(texts, truncate="end", progress=False) for encoder in (exact, rounded))
        print_cosines(name, *vectors)
    print_batch_invariance(rounded, [*short[:40], *flores["eng_Latn"][:40]])
    print_ranking(arguments.data, exact, rounded)
    print_speed(
        arguments.model,
        {"1,000 short sentences": short, "100 FLORES lines": flores["eng_Latn"][:100]},
        arguments.runs,
    )


if __name__ == "__main__":
    main()

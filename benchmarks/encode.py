"""Sentences per second of the bundled static model against all-MiniLM-L6-v2 on ONNX Runtime, in one run.

    python benchmarks/encode.py --data DIR --minilm FOLDER

DIR holds tatoeba/; FOLDER is all-MiniLM-L6-v2 as `embedsvc export` writes it. The two take turns,
in both orders; medians are printed, then the ratio. Every figure includes tokenization.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

from embedsvc import Encoder, load_encoder


def sentences_per_second(encoder: Encoder, texts: list[str]) -> float:
    """Encode all texts once."""
    begin = time.perf_counter()
    encoder.encode(texts, truncate="end", progress=False)
    return len(texts) / (time.perf_counter() - begin)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--minilm", type=Path, required=True)
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    files = sorted((arguments.data / "tatoeba").glob("tatoeba.*-eng.*"))
    texts = [line for file in files for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    static, minilm = load_encoder(), load_encoder(arguments.minilm, runtime="onnx")
    few = texts[:: max(len(texts) // 1000, 1)]  # the transformer gets a sample of the same sentences
    rates: dict[str, list[float]] = {"static": [], "minilm": []}
    for run in range(-1, arguments.runs):  # run -1 warms up
        order = [("static", static, texts), ("minilm", minilm, few)]
        for name, encoder, work in order if run % 2 == 0 else reversed(order):
            rate = sentences_per_second(encoder, work)
            if run >= 0:
                rates[name].append(rate)
    print(f"{len(texts)} Tatoeba sentences in {len(files)} files; MiniLM on {len(few)} of them")
    for name, values in rates.items():
        spread = f"{min(values):,.0f}-{max(values):,.0f}"
        print(f"{name}: median {statistics.median(values):,.0f} sentences/s ({spread})")
    ratios = [a / b for a, b in zip(rates["static"], rates["minilm"], strict=True)]
    print(f"ratio, run by run: median {statistics.median(ratios):.1f} ({min(ratios):.1f}-{max(ratios):.1f})")


if __name__ == "__main__":
    main()

"""Mining on a BUCC-like set, and our two-way neighbours beside two FAISS searches.

    python benchmarks/mining.py --data NTREX            (a checkout of MicrosoftTranslator/NTREX)

Quality: of the 1,997 aligned NTREX lines a random third stays on both sides, a third on the source side
only and a third on the target side only, so that half of each side has a partner and the rest are
sentences of the same articles. Given per margin and retrieval: precision, recall and F1 at the default
threshold, and the best F1 any threshold reaches. Speed: the same vectors, one process, orders alternated.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray

from embedsvc import Encoder, load_encoder
from embedsvc.mining.duplicates import distinct_rows
from embedsvc.mining.extract import RETRIEVALS, extract_pairs
from embedsvc.mining.margin import MARGINS, CandidatePairs, best_candidates
from embedsvc.mining.mine import DEFAULT_THRESHOLDS
from embedsvc.textfiles import read_texts
from indexing import nearest_both_ways

K = 4
Vectors = NDArray[np.float32]


def bucc_like(source: Vectors, target: Vectors, seed: int) -> tuple[Vectors, Vectors, int]:
    """Return both sides, their first ``n`` rows aligned and the rest without a partner, and ``n``."""
    order = np.random.default_rng(seed).permutation(len(source))
    both, only_source, only_target = np.array_split(order, 3)
    return (
        np.concatenate([source[both], source[only_source]]),
        np.concatenate([target[both], target[only_target]]),
        len(both),
    )


def hits(pairs: CandidatePairs, gold: int) -> NDArray[np.bool_]:
    right: NDArray[np.bool_] = (pairs.source_rows == pairs.target_rows) & (pairs.source_rows < gold)
    return right


def quality(pairs: CandidatePairs, gold: int, threshold: float) -> tuple[float, float, float]:
    """Precision, recall, F1 of the pairs at or above a threshold."""
    found = pairs.take(pairs.scores >= threshold)
    right = int(hits(found, gold).sum())
    return right / max(len(found.scores), 1), right / gold, 2 * right / (len(found.scores) + gold)


def oracle(pairs: CandidatePairs, gold: int) -> tuple[float, float]:
    """The best F1 over all thresholds and the threshold that gives it."""
    right = np.cumsum(hits(pairs, gold))
    f1 = 2 * right / (np.arange(1, len(right) + 1) + gold)
    best = int(f1.argmax())
    return float(f1[best]), float(pairs.scores[best])


def print_quality(encoder: Encoder, data: Path, languages: list[str], seed: int) -> None:
    print("pair     margin    retrieval     at default: thr     P     R    F1   oracle:    F1    thr")
    target = encode(encoder, data, "eng")
    for language in languages:
        x, y, gold = bucc_like(encode(encoder, data, language), target, seed)
        both = nearest_both_ways(x, y, K)
        for margin in MARGINS:
            candidates = best_candidates(both, margin)
            threshold = DEFAULT_THRESHOLDS[margin]
            for retrieval in RETRIEVALS:
                pairs = extract_pairs(*candidates, retrieval, threshold=-np.inf)
                scores = " ".join(f"{value:.3f}" for value in quality(pairs, gold, threshold))
                best, at = oracle(pairs, gold)
                name = f"{language[:3]}-eng  {margin:9} {retrieval:12}"
                print(f"{name} {threshold:16.2f} {scores} {best:15.3f} {at:6.2f}")


def encode(encoder: Encoder, data: Path, language: str) -> Vectors:
    kind = "src" if language == "eng" else "ref"
    vectors: Vectors = encoder.encode(read_texts(data / "NTREX-128" / f"newstest2019-{kind}.{language}.txt"))
    return vectors


def print_speed(encoder: Encoder, data: Path, languages: list[str], rounds: int) -> None:
    """Stack the languages into two halves of different texts and time both searches."""
    texts = []
    for language in languages:
        lines = read_texts(data / "NTREX-128" / f"newstest2019-ref.{language}.txt")
        texts += [lines[row] for row in distinct_rows(lines)]
    vectors = encoder.encode(texts)
    x, y = np.ascontiguousarray(vectors[::2]), np.ascontiguousarray(vectors[1::2])
    runs: dict[str, Callable[[], object]] = {
        "ours, one product": lambda: nearest_both_ways(x, y, K),
        "faiss.knn, twice": lambda: (
            faiss.knn(x, y, K, metric=faiss.METRIC_INNER_PRODUCT),
            faiss.knn(y, x, K, metric=faiss.METRIC_INNER_PRODUCT),
        ),
    }
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for turn in range(rounds):
        for name in list(runs) if turn % 2 == 0 else list(runs)[::-1]:
            wall, cpu = time.perf_counter(), time.process_time()
            runs[name]()
            seconds[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    shape = f"{len(x)} x {len(y)} x {x.shape[1]}, k = {K}"
    print(f"\nneighbours {shape}, {faiss.omp_get_max_threads()} threads, medians of {rounds} rounds")
    medians = {
        name: [statistics.median(column) for column in zip(*times, strict=True)]
        for name, times in seconds.items()
    }
    for name, (wall, cpu) in medians.items():
        print(f"{name:18} {wall:7.3f} s wall  {cpu:7.3f} s cpu")
    ours, theirs = medians.values()
    print(f"faiss / ours       {theirs[0] / ours[0]:7.2f}   wall  {theirs[1] / ours[1]:7.2f}   cpu")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="a checkout of MicrosoftTranslator/NTREX")
    parser.add_argument("--languages", default="deu", help="source languages, with commas; the target is eng")
    parser.add_argument("--model", help="model folder or hub id (default: the bundled model)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=4, help="timed rounds; 0 skips the timing")
    parser.add_argument("--speed-languages", default="deu,fra,rus,tur,arb,hin", help="stacked for the timing")
    options = parser.parse_args()
    encoder = load_encoder(options.model)
    print_quality(encoder, options.data, options.languages.split(","), options.seed)
    if options.rounds:
        print_speed(encoder, options.data, options.speed_languages.split(","), options.rounds)


if __name__ == "__main__":
    main()

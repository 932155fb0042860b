"""Mining quality at the calibrated threshold, and our two-way neighbours beside two FAISS searches.

    python benchmarks/mining.py --data DATA     (a folder with ntrex, flores, tatoeba, mkqa, xquadr, train)

Quality: sets in the manner of BUCC (`bucc_like`), translated news lines among sentences without a partner.
Given as a Markdown table: precision, recall and F1 at the threshold that calibration finds with 500 known
pairs, at the one found without any, and at the oracle threshold (the best F1 that any threshold reaches on
the gold itself). Speed: the same vectors, one process, orders alternated.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np
from bucc_like import LANGUAGES, BuccLike, make_set
from numpy.typing import NDArray

from embedsvc import Encoder, load_encoder
from embedsvc.mining.calibrate import calibrate
from embedsvc.mining.calibration import Calibration
from embedsvc.mining.curves import CalibrationOptions
from embedsvc.mining.duplicates import distinct_rows
from embedsvc.mining.extract import RETRIEVALS, mined_pairs
from embedsvc.mining.margin import MARGINS, CandidatePairs
from embedsvc.mining.mine import DEFAULT_THRESHOLDS
from embedsvc.mining.plants import PlantedNeighbours, nearest_of, plan_plants
from embedsvc.mining.unlabelled import SPARE_NEIGHBOURS, calibrate_unlabelled
from embedsvc.textfiles import read_texts
from indexing import BothWays, nearest_both_ways

K = 4


@dataclass(frozen=True)
class Quality:
    precision: float
    recall: float
    f1: float
    threshold: float

    def cells(self) -> str:
        shown = [f"{100 * value:.1f}" for value in (self.precision, self.recall, self.f1)]
        return " | ".join([*shown, f"{self.threshold:.3f}"])


def hits(pairs: CandidatePairs, gold: NDArray[np.int64]) -> NDArray[np.bool_]:
    keys = (pairs.source_rows << 32) | pairs.target_rows
    return np.isin(keys, (gold[:, 0] << 32) | gold[:, 1])


def quality(pairs: CandidatePairs, gold: NDArray[np.int64], threshold: float) -> Quality:
    found = pairs.take(pairs.scores >= threshold)
    right = int(hits(found, gold).sum())
    precision, recall = right / max(len(found), 1), right / len(gold)
    return Quality(precision, recall, 2 * right / (len(found) + len(gold)), threshold)


def oracle(pairs: CandidatePairs, gold: NDArray[np.int64]) -> Quality:
    """The best F1 over all thresholds."""
    right = np.cumsum(hits(pairs, gold))
    f1 = 2 * right / (np.arange(1, len(right) + 1) + len(gold))
    return quality(pairs, gold, float(pairs.scores[f1.argmax()]))


@dataclass(frozen=True)
class Mined:
    """A set with its neighbours, and the two calibrations."""

    pairs: CandidatePairs
    known: Calibration
    unlabelled: Calibration


def mined(encoder: Encoder, data: BuccLike, options: CalibrationOptions) -> tuple[Mined, BothWays]:
    x, y = encoder.encode(data.source), encoder.encode(data.target)
    rows = [{text: row for row, text in enumerate(side)} for side in (data.source, data.target)]
    plants = plan_plants(data.dev, (rows[0].get, rows[1].get), (len(x), len(y)))
    planted_x, planted_y = encoder.encode(plants.source_texts), encoder.encode(plants.target_texts)
    both = nearest_both_ways(x, y, K + SPARE_NEIGHBOURS)
    parts = PlantedNeighbours(
        nearest_of(both, K),
        nearest_both_ways(planted_x, y, K),
        nearest_both_ways(x, planted_y, K),
        nearest_both_ways(planted_x, planted_y, K),
    )
    pairs = mined_pairs(parts.corpus, options.margin, options.retrieval)
    known, unlabelled = calibrate(parts, plants, options), calibrate_unlabelled(both, K, options)
    return Mined(pairs, known, unlabelled), parts.corpus


def print_quality(encoder: Encoder, data: Path, languages: list[str], options: argparse.Namespace) -> None:
    calibration = CalibrationOptions(options.margin, options.retrieval)
    print(
        "| pair | lines | oracle P | R | F1 | at | with known pairs P | R | F1 | at | gap | "
        "without P | R | F1 | at | gap | fixed F1 |"
    )
    print("|---" * 17 + "|")
    gaps: list[tuple[float, float]] = []
    for language in languages:
        for seed in range(options.seeds):
            mining_set = make_set(data, language, gold=options.gold, dev=options.dev, seed=seed)
            found, _ = mined(encoder, mining_set, calibration)
            gold = mining_set.gold
            best = oracle(found.pairs, gold)
            known = quality(found.pairs, gold, found.known.threshold.value)
            without = quality(found.pairs, gold, found.unlabelled.threshold.value)
            fixed = quality(found.pairs, gold, DEFAULT_THRESHOLDS[options.margin])
            gaps.append((best.f1 - known.f1, best.f1 - without.f1))
            lines = f"{len(mining_set.source):,} / {len(mining_set.target):,}"
            print(
                f"| {language}-eng | {lines} | {best.cells()} | {known.cells()} | {100 * gaps[-1][0]:.1f} | "
                f"{without.cells()} | {100 * gaps[-1][1]:.1f} | {100 * fixed.f1:.1f} |",
                flush=True,
            )
    for name, column in zip(("with known pairs", "without"), np.array(gaps).T, strict=True):
        print(
            f"gap to the oracle {name}: mean {100 * column.mean():.2f}, most {100 * column.max():.2f} points"
        )


def print_retrievals(encoder: Encoder, data: Path, languages: list[str], options: argparse.Namespace) -> None:
    """Oracle F1 of every margin and retrieval."""
    print("\n| pair | margin | " + " | ".join(RETRIEVALS) + " |\n" + "|---" * (2 + len(RETRIEVALS)) + "|")
    for language in languages:
        mining_set = make_set(data, language, gold=options.gold, dev=options.dev)
        both = nearest_both_ways(encoder.encode(mining_set.source), encoder.encode(mining_set.target), K)
        for margin in MARGINS:
            scores = [oracle(mined_pairs(both, margin, name), mining_set.gold).f1 for name in RETRIEVALS]
            print(f"| {language}-eng | {margin} | " + " | ".join(f"{100 * f1:.1f}" for f1 in scores) + " |")


def print_speed(encoder: Encoder, data: Path, languages: list[str], rounds: int) -> None:
    """Stack the languages into two halves of different texts and time both searches."""
    texts = []
    for language in languages:
        lines = read_texts(data / "ntrex" / "NTREX-128" / f"newstest2019-ref.{language}.txt")
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
    parser.add_argument("--data", type=Path, required=True, help="the folder of the unpacked evaluation sets")
    parser.add_argument("--languages", default=",".join(LANGUAGES), help="with commas; the target is eng")
    parser.add_argument("--model", help="model folder or hub id (default: the bundled model)")
    parser.add_argument("--margin", default="ratio", choices=MARGINS)
    parser.add_argument("--retrieval", default="max", choices=RETRIEVALS)
    parser.add_argument("--gold", type=int, default=700, help="news lines on both sides")
    parser.add_argument("--dev", type=int, default=500, help="known pairs")
    parser.add_argument("--seeds", type=int, default=1, help="sets per language")
    parser.add_argument("--retrievals", action="store_true", help="also compare margins and retrievals")
    parser.add_argument("--rounds", type=int, default=4, help="timed rounds; 0 skips the timing")
    parser.add_argument("--speed-languages", default="deu,fra,rus,tur,arb,hin", help="stacked for the timing")
    options = parser.parse_args()
    encoder = load_encoder(options.model)
    languages = options.languages.split(",")
    print_quality(encoder, options.data, languages, options)
    if options.retrievals:
        print_retrievals(encoder, options.data, languages, options)
    if options.rounds:
        print_speed(encoder, options.data, options.speed_languages.split(","), options.rounds)


if __name__ == "__main__":
    main()

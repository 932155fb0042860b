"""Alignment of documents: speed and memory on synthetic ones, accuracy there and on real ones, as Markdown.

    OMP_NUM_THREADS=1 python benchmarks/alignment.py --vecalign CHECKOUT --ntrex NTREX --gold bleualign_data

CHECKOUT is thompsonb/vecalign after `python setup.py build_ext --inplace` (Apache-2.0; it aligns the same
vectors in the same process, in turns); bleualign_data is the folder of that name in it, the Text+Berg beads
by hand (GPL-2: read, never copied); NTREX a checkout of MicrosoftTranslator/NTREX. Each may be left out.

Synthetic: the units of meaning of a bead are random vectors about a topic, of random lengths; each side has
them cut into its sentences, with noise of every sentence, noise of every block, and a direction of its
language. NTREX: in the articles of a language and English neighbouring lines are joined, dropped, or cut
differently on one side. Text is encoded with the bundled model. Seconds are of the processor.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray

from embedsvc import load_encoder
from embedsvc.encoder import Encoder
from embedsvc.mining.alignment.accuracy import Accuracy, Pairing, accuracy
from embedsvc.mining.alignment.blocks import Blocks, block_sums
from embedsvc.mining.alignment.files import read_beads
from embedsvc.mining.alignment.texts import encoded_side
from embedsvc.mining.alignment.vectors import align_blocks
from embedsvc.options import EncodeOptions

Floats = NDArray[np.float32]
SIZES = 5
ROUNDS = 5
LANGUAGES = ("deu", "fra", "rus", "zho-CN", "jpn", "hin", "swa", "tur", "tha", "fin")
SHARES = {
    (1, 1): 0.72, (1, 2): 0.08, (2, 1): 0.08, (2, 2): 0.03, (1, 0): 0.025, (0, 1): 0.025, (1, 3): 0.015,
    (3, 1): 0.015, (2, 3): 0.003, (3, 2): 0.003, (1, 4): 0.002, (4, 1): 0.002,
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """Two documents and the right beads."""

    source: Blocks
    target: Blocks
    gold: list[Pairing]


Aligner = Callable[[Blocks, Blocks], list[Pairing]]


def ours(source: Blocks, target: Blocks) -> list[Pairing]:
    return [(bead.source, bead.target) for bead in align_blocks(source, target, max_bead=SIZES)]


def vecalign(checkout: Path) -> Aligner:
    sys.path.insert(0, str(checkout))
    from vecalign.dp_utils import make_alignment_types  # type: ignore[import-not-found]
    from vecalign.dp_utils import vecalign as run

    def align(source: Blocks, target: Blocks) -> list[Pairing]:
        np.random.seed(42)
        stack = run(
            vecs0=source.vectors,
            vecs1=target.vectors,
            final_alignment_types=make_alignment_types(SIZES + 1),
            del_percentile_frac=0.2,
            width_over2=-(-(SIZES + 1) // 2) + 5,
            max_size_full_dp=300,
            costs_sample_size=20_000,
            num_samps_for_norm=100,
        )
        return [(tuple(x), tuple(y)) for x, y in stack[0]["final_alignments"]]

    return align


def synthetic(sentences: int, noise: float, seed: int = 0, dimension: int = 384) -> Case:
    generator = np.random.default_rng(seed)
    topics = generator.standard_normal((40, dimension)).astype(np.float32)
    sides: tuple[list[Floats], list[Floats]] = (
        [],
        [],
    )
    gold: list[Pairing] = []
    shapes, shares = list(SHARES), np.array(list(SHARES.values()))
    topic = topics[0]
    while len(sides[0]) < sentences:
        a, b = shapes[generator.choice(len(shapes), p=shares / shares.sum())]
        if generator.random() < 0.03:
            topic = topics[generator.integers(40)]
        units = max(a, b) if min(a, b) <= 1 else a + b - 1
        lengths = np.exp(generator.normal(0, 0.5, (units, 1)))
        meaning = generator.standard_normal((units, dimension)) + 0.7 * topic
        rows = np.hstack([meaning * lengths, lengths]).astype(np.float32)
        i, j = len(sides[0]), len(sides[1])
        gold.append((tuple(range(i, i + a)), tuple(range(j, j + b))))
        if a:
            sides[0].extend(part.sum(axis=0) for part in np.array_split(rows, a))
        if b:  # the other way round, so that sentences of 2-2 overlap
            sides[1].extend([part.sum(axis=0) for part in np.array_split(rows[::-1], b)][::-1])
    source, target = (_noisy(np.stack(side), noise, generator) for side in sides)
    return Case(source, target, gold)


def _noisy(rows: Floats, noise: float, generator: np.random.Generator) -> Blocks:
    n, dimension = len(rows), rows.shape[1] - 1
    meaning, lengths = rows[:, :-1], rows[:, -1:]
    own = np.exp(generator.normal(0, 0.35, (n, 1))) * generator.standard_normal((n, dimension))
    sums = block_sums((meaning + 0.6 * noise * lengths * own).astype(np.float32), SIZES)
    scale = block_sums(lengths, SIZES)
    sums += 0.4 * scale * generator.standard_normal(dimension).astype(np.float32)
    for size in range(SIZES):
        sums[size] += 0.35 * noise * scale[size] * generator.standard_normal((n, dimension), np.float32)
    norms = np.linalg.norm(sums, axis=2, keepdims=True)
    return Blocks(np.divide(sums, norms, out=np.zeros_like(sums), where=scale > 0))


def merged_lines(folder: Path, language: str, seed: int = 1) -> tuple[list[str], list[str], list[Pairing]]:
    """Return the sentences of a language, those of English and the beads they were made to have."""
    source = _lines(folder / f"NTREX-128/newstest2019-ref.{language}.txt")
    target = _lines(folder / "NTREX-128/newstest2019-src.eng.txt")
    generator = random.Random(seed)
    cuts = [
        ([1], [1])] * 68 + [([2], [1, 1])] * 8 + [([1, 1], [2])] * 8 + [([1], [])] * 3 + [([], [1])] * 3 + [
        ([3], [1, 1, 1])] * 3 + [([1, 1, 1], [3])] * 3 + [([2, 1], [1, 2])] * 4  # fmt: skip
    sides: tuple[list[str], list[str]] = ([], [])
    gold = []
    line = 0
    while line < len(source):
        left = len(source) - line
        cut = generator.choice([cut for cut in cuts if max(map(sum, cut)) <= left])
        bead = []
        for side, lines, parts in zip(sides, (source, target), cut, strict=True):
            at = line
            bead.append(tuple(range(len(side), len(side) + len(parts))))
            for part in parts:
                side.append(" ".join(lines[at : at + part]))
                at += part
        gold.append((bead[0], bead[1]))
        line += max(map(sum, cut))
    return *sides, gold


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").removesuffix("\n").split("\n")


def encoded(encoder: Encoder, source: list[str], target: list[str], gold: list[Pairing]) -> Case:
    options = EncodeOptions(normalize=False)
    sides = [encoded_side(encoder, side, SIZES, options).blocks for side in (source, target)]
    return Case(*sides, gold)


def judged(aligner: Aligner, cases: list[Case]) -> Accuracy:
    return accuracy([(case.gold, aligner(case.source, case.target)) for case in cases])


def timed(aligners: dict[str, Aligner], case: Case) -> dict[str, float]:
    """Return the median seconds of the processor; the aligners take turns."""
    seconds: dict[str, list[float]] = {name: [] for name in aligners}
    for number in range(ROUNDS):
        for name in sorted(aligners, reverse=bool(number % 2)):
            begin = time.process_time()
            aligners[name](case.source, case.target)
            seconds[name].append(time.process_time() - begin)
    return {name: median(values) for name, values in seconds.items()}


def peak_mb(aligner: Aligner, case: Case) -> float:
    tracemalloc.start()
    aligner(case.source, case.target)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 1e6


def synthetic_table(aligners: dict[str, Aligner], lengths: list[int], noise: float) -> Iterator[str]:
    yield f"| sentences (noise {noise}) | aligner | cpu-s | ms per sentence | strict F1 | lax F1 | peak MB |"
    yield "|---|---|---|---|---|---|---|"
    for length in lengths:
        case = synthetic(length, noise)
        seconds = timed(aligners, case)
        for name, aligner in aligners.items():
            found, spent = judged(aligner, [case]), seconds[name]
            yield (
                f"| {length:,} | {name} | {spent:.3f} | {1000 * spent / length:.3f} | "
                f"{found.strict.f1:.4f} | {found.lax.f1:.4f} | {peak_mb(aligner, case):.0f} |"
            )


def accuracy_table(aligners: dict[str, Aligner], cases: dict[str, list[Case]]) -> Iterator[str]:
    yield "| documents | aligner | strict P / R / F1 | lax F1 |"
    yield "|---|---|---|---|"
    for label, group in cases.items():
        for name, aligner in aligners.items():
            found = judged(aligner, group)
            strict = found.strict
            yield (
                f"| {label} | {name} | {strict.precision:.4f} / {strict.recall:.4f} / {strict.f1:.4f} | "
                f"{found.lax.f1:.4f} |"
            )


def text_berg(folder: Path, encoder: Encoder) -> dict[str, list[Case]]:
    def case(name: str) -> Case:
        sides = [_lines(folder / f"{name}.{language}") for language in ("de", "fr")]
        return encoded(encoder, sides[0], sides[1], read_beads(folder / f"{name}.defr"))

    return {
        "Text+Berg de-fr, 7 articles": [case(f"test{k}") for k in range(7)],
        "its dev article": [case("dev")],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--vecalign", type=Path)
    parser.add_argument("--ntrex", type=Path)
    parser.add_argument("--gold", type=Path)
    parser.add_argument("--lengths", type=int, nargs="*", default=[500, 2_000, 8_000, 32_000])
    parser.add_argument("--noise", type=float, default=1.0)
    given = parser.parse_args()
    aligners: dict[str, Aligner] = {"embedsvc": ours}
    if given.vecalign:
        aligners["vecalign"] = vecalign(given.vecalign)
    for line in synthetic_table(aligners, given.lengths, given.noise):
        print(line, flush=True)
    encoder = load_encoder()
    cases = text_berg(given.gold, encoder) if given.gold else {}
    if given.ntrex:
        for language in LANGUAGES:
            cases[f"NTREX {language}-eng"] = [encoded(encoder, *merged_lines(given.ntrex, language))]
    if cases:
        print()
        for line in accuracy_table(aligners, cases):
            print(line, flush=True)


if __name__ == "__main__":
    main()

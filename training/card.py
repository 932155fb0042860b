"""The model card of an export: README.md with what it was made from, how, and how good it is.

The source's own text stays. What is added stands between two comments, so that an export of an export
replaces it; the front matter is that of the hub, kept where the source has one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard
from langcodes import Language
from langcodes.tag_parser import LanguageTagError
from yaml import YAMLError

from embedsvc.errors import ModelError
from embedsvc.model_folder import ModelFolder, open_model_folder, read_json
from embedsvc.textfiles import atomic_write
from training.card_figures import TaskFigures, read_figures
from training.parity import Parity

_BEGIN, _END = "<!-- embedsvc export: begin -->", "<!-- embedsvc export: end -->"
_SECTION = re.compile(rf"\n*{re.escape(_BEGIN)}.*?{re.escape(_END)}\n*", re.DOTALL)
_CODE = re.compile(r"[a-z]{2,3}")
_MOST_LANGUAGES = 20  # named with their pairs; the others are counted


@dataclass(frozen=True)
class CardOptions:
    """What a card says that no file of the model does; ``figures`` are reports of `embedsvc evaluate`."""

    license: str | None = None
    languages: Sequence[str] = ()
    figures: Sequence[Path] = ()


@dataclass(frozen=True)
class Made:
    """What an export wrote: sizes, parities by kind, and what was changed on the way."""

    kind: str
    dimension: int
    bytes: int
    parities: Mapping[str, Parity] = field(default_factory=dict)
    notes: Sequence[str] = ()


def write_card(source: ModelFolder, folder: Path, made: Made, options: CardOptions) -> None:
    """Write README.md into ``folder``, an export of ``source``.

    Raises InvalidInputError for a report that has no figures of either, ModelError for a broken card.
    """
    card = _card(source)
    figures = read_figures(options.figures, open_model_folder(folder).fingerprint, source.fingerprint)
    run = _run(source.path)
    said: dict[str, Any] = card.data.to_dict()  # type: ignore[no-untyped-call]
    front = _front_matter(said, source, made, run, options)
    parts = [_export(source, made), *_training(run), *_evaluation(figures)]
    text = _SECTION.sub("\n", card.text).strip()
    card.text = "\n\n".join([text, _BEGIN, *parts, _END]) + "\n"
    for name, value in front.items():
        setattr(card.data, name, value)
    with atomic_write(folder / "README.md") as file:
        file.write(f"---\n{card.data.to_yaml()}\n---\n\n{card.text}".encode())


def _card(source: ModelFolder) -> ModelCard:
    """Return the source's card, or an empty one; raise ModelError for one that the hub would refuse."""
    path = source.path / "README.md"
    content = path.read_text(encoding="utf-8") if path.is_file() else f"# {source.name}\n"
    if not content.lstrip().startswith("---"):
        content = f"---\ntags: []\n---\n\n{content}"
    try:
        return ModelCard(content)
    except (ValueError, YAMLError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(f"{path}: its front matter cannot be read: {reason}") from error


def _run(folder: Path) -> dict[str, dict[str, Any]]:
    """Return what a run folder says of itself: recipe and counts of its data."""
    names = ("recipe", "data")
    return {name: read_json(folder / "run" / f"{name}.json", required=False) for name in names}


def _front_matter(
    said: Mapping[str, Any], source: ModelFolder, made: Made, run: Mapping[str, Any], options: CardOptions
) -> dict[str, Any]:
    """Return the fields to set: those that the source leaves open, and those that were asked for."""
    opens = made.kind == "static float32" or "torch" in made.kind
    fields: dict[str, Any] = {
        "library_name": "sentence-transformers" if opens else "embedsvc",
        "pipeline_tag": "sentence-similarity",
    }
    if base := _base(source, run):
        fields["base_model"] = base
    if spoken := _codes(run["data"].get("languages") or {}):
        fields["language"] = _codes(["en", *spoken])
    fields = {name: value for name, value in fields.items() if not said.get(name)}
    tags = said.get("tags") or []
    needed = [
        "sentence-similarity",
        "sentence-transformers",
        "embedsvc",
        *(["onnx"] if "onnx" in made.kind else []),
    ]
    fields["tags"] = list(dict.fromkeys([*([tags] if isinstance(tags, str) else tags), *needed]))
    if options.license is not None:
        fields["license"] = options.license
    if options.languages:
        fields["language"] = _codes(options.languages)
    return fields


def _base(source: ModelFolder, run: Mapping[str, Any]) -> str | None:
    """Return the hub's name of what the model was made from, where it has one."""
    student = (run["recipe"].get("model") or {}).get("student")
    names = [student if isinstance(student, str) else None, source.name]
    return next((name for name in names if name and re.fullmatch(r"[\w.-]+/[\w.-]+", name)), None)


def _codes(languages: Sequence[str] | Mapping[str, Any]) -> list[str]:
    """Return language codes as the hub knows them: two letters where there are, without the script."""
    return sorted({code for code in map(_code, languages) if _CODE.fullmatch(code)})


def _code(language: str) -> str:
    """Return a language's code; "" for a name that is none, as a recipe's languages may have."""
    try:
        return Language.get(language.replace("_", "-"), normalize=True).language or ""
    except LanguageTagError:
        return ""


def _export(source: ModelFolder, made: Made) -> str:
    origin = "the source, changed as below" if made.notes else "the source"
    rows = [
        ("made from", f"{source.name} (fingerprint `{source.fingerprint}`)"),
        ("files", made.kind),
        ("dimensions", f"{made.dimension}"),
        ("size", f"{made.bytes / 1e6:.1f} MB"),
        *((f"cosine of {name} to {origin}", _parity(parity)) for name, parity in made.parities.items()),
    ]
    notes = "".join(f"\n- {note}" for note in made.notes)
    return f"## Export\n\nWritten by `embedsvc export`.\n\n{_table(rows)}" + (f"\n{notes}" if notes else "")


def _parity(parity: Parity) -> str:
    return (
        f"{parity.mean_cosine:.6f} on average, {parity.min_cosine:.6f} at least, on multilingual probe texts"
    )


def _training(run: Mapping[str, Any]) -> list[str]:
    parts = []
    if data := run["data"]:
        counts = [(name, f"{value:,}") for name, value in data.items() if isinstance(value, int)]
        languages = {code: n for code, n in (data.get("languages") or {}).items() if isinstance(n, int)}
        most = sorted(languages, key=lambda code: (-languages[code], code))
        named = ", ".join(f"{code} {languages[code]:,}" for code in most[:_MOST_LANGUAGES])
        more = f" and {len(most) - _MOST_LANGUAGES} more" if len(most) > _MOST_LANGUAGES else ""
        counts += [(f"pairs of {len(most)} languages", named + more)] if most else []
        parts.append(f"## Training data\n\n{_table([(name.replace('_', ' '), n) for name, n in counts])}")
    if recipe := run["recipe"]:
        parts.append(f"## Recipe\n\n```json\n{json.dumps(recipe, indent=1, ensure_ascii=False)}\n```")
    return parts


def _evaluation(figures: Sequence[TaskFigures]) -> list[str]:
    if not figures:
        return []
    head = "| task | figure | mean | 95 % interval | rows |\n|---|---|---:|---:|---:|\n"
    lines = [
        f"| {of.task}{', before the export' if of.of_source else ''} | {name} "
        f"| {'–' if mean is None else f'{mean:.2f}'} | {interval} | {of.languages} |"
        for of in figures
        for name, mean, interval in of.means
    ]
    protocols = [
        f"- {task}: {protocol}" for task, protocol in {of.task: of.protocol for of in figures}.items()
    ]
    return ["## Figures\n\n" + head + "\n".join(lines) + "\n\n" + "\n".join(protocols)]


def _table(rows: Sequence[tuple[str, str]]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])

"""What every evaluation returns: a row per language and the mean, written as JSON and Markdown."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from embedsvc.encoder import Encoder
from embedsvc.textfiles import atomic_write, write_json


@dataclass(frozen=True)
class Report:
    """Figures in percent. ``rows`` maps a language to its figures, ``mean`` is over languages."""

    task: str
    protocol: str
    model: str
    fingerprint: str
    columns: tuple[str, ...]
    rows: dict[str, dict[str, float]]
    mean: dict[str, float]

    def markdown(self) -> str:
        """Return a table: the mean first, then a line per language."""
        head = f"# {self.task}: {self.model}\n\n{self.protocol}\n\nModel fingerprint `{self.fingerprint}`.\n"
        lines = ["| language | " + " | ".join(self.columns) + " |", "|---|" + "---:|" * len(self.columns)]
        lines.append(_line(f"**mean of {len(self.rows)}**", self.mean, self.columns))
        lines += [_line(language, figures, self.columns) for language, figures in sorted(self.rows.items())]
        return head + "\n" + "\n".join(lines) + "\n"

    def write(self, folder: Path) -> list[Path]:
        """Write ``<task>.<model>.json`` and ``.md`` into ``folder``; return both paths."""
        stem = folder / f"{self.task}.{self.model}"
        paths = [stem.with_name(stem.name + suffix) for suffix in (".json", ".md")]
        write_json(paths[0], asdict(self))
        with atomic_write(paths[1]) as file:
            file.write(self.markdown().encode())
        return paths


def _line(name: str, figures: dict[str, float], columns: tuple[str, ...]) -> str:
    cells = (
        f"{figures[column]:.0f}" if column == "pairs" else f"{figures[column]:.2f}" for column in columns
    )
    return f"| {name} | " + " | ".join(cells) + " |"


def make_report(
    task: str, protocol: str, encoder: Encoder, columns: tuple[str, ...], rows: dict[str, dict[str, float]]
) -> Report:
    """Average every column over the languages, each counting once."""
    mean = {column: float(np.mean([row[column] for row in rows.values()])) for column in columns}
    return Report(task, protocol, encoder.name, encoder.fingerprint, columns, rows, mean)

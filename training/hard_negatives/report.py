"""What came out of mining: how many pairs have all, some or none of the negatives wanted, and why."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from training.hard_negatives.records import NegativeRecord


@dataclass
class NegativesReport:
    """Counts, added to while records are written.

    records: pairs, once for each side that is an anchor. by_number: how many have so many negatives.
    too_near: neighbours left out by the positive's score, of all. rejected: by the cross-encoder.
    cut_short: pairs with fewer than wanted where a greater depth might find more.
    """

    wanted: int
    records: int = 0
    by_number: Counter[int] = field(default_factory=Counter)
    too_near: int = 0
    rejected: int = 0
    cut_short: int = 0
    searches: dict[str, Any] = field(default_factory=dict)

    def add(self, record: NegativeRecord) -> None:
        """Count one record."""
        self.records += 1
        self.by_number[len(record.negatives)] += 1

    @property
    def negatives(self) -> int:
        """How many negatives there are."""
        return sum(number * records for number, records in self.by_number.items())

    @property
    def full(self) -> int:
        """How many pairs have all that were wanted."""
        return self.by_number[self.wanted]

    @property
    def without(self) -> int:
        """How many pairs have none."""
        return self.by_number[0]

    def facts(self) -> dict[str, Any]:
        """Return all counts, as JSON has them."""
        return {
            "records": self.records,
            "negatives": self.negatives,
            "with_all": self.full,
            "with_fewer": self.records - self.full - self.without,
            "with_none": self.without,
            "too_near": self.too_near,
            "rejected_by_reranker": self.rejected,
            "cut_short_by_depth": self.cut_short,
            "searches": self.searches,
        }

    def text(self, out: Path) -> str:
        """Return what was done, for people."""
        facts = self.facts()
        lines = [
            f"wrote {out}: {self.negatives} negatives of {self.records} pairs",
            f"{self.full} have all {self.wanted}, {facts['with_fewer']} fewer, {self.without} none; "
            f"{self.too_near} neighbours scored too near the positive",
        ]
        if self.rejected:
            lines.append(f"{self.rejected} more were rejected by the reranker")
        if self.cut_short:
            lines.append(f"{self.cut_short} pairs might have more with a greater --depth")
        return "\n".join(lines)

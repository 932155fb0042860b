"""The file format: what is written is read, in every form, and a bad line is named."""

import json
from pathlib import Path

import pytest

from embedsvc.errors import InvalidInputError, NotFoundError
from training.hard_negatives.records import (
    NegativeRecord,
    group_of_key,
    key_of_group,
    read_negatives,
    write_negatives,
)

RECORD = NegativeRecord(
    anchor="a\u2028b",
    positive="ä",
    negatives=["x", "y\tz"],
    anchor_side="english",
    language="deu_Latn",
    negative_languages=["deu_Latn", "fra_Latn"],
    group="00000000000000ff",
    negative_groups=[["0000000000000001"], []],
    positive_score=0.5,
    negative_scores=[0.25, 0.125],
)
JUDGED = RECORD.model_copy(update={"positive_relevance": 0.75, "negative_relevances": [0.5, 0.25]})
BARE = RECORD.model_copy(
    update={name: [] for name in ("negatives", "negative_groups", "negative_scores")}
    | {"negative_languages": None}
)


@pytest.mark.parametrize("name", ["n.jsonl", "n.jsonl.gz", "n.jsonl.zst", "n.parquet"])
def test_records_come_back_as_they_were_written(tmp_path: Path, name: str) -> None:
    write_negatives(tmp_path / name, [RECORD, JUDGED, BARE])
    assert list(read_negatives(tmp_path / name)) == [RECORD, JUDGED, BARE]


def test_keys_are_hexadecimal_groups() -> None:
    assert group_of_key(255) == RECORD.group
    assert key_of_group(RECORD.group) == 255


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"anchor": None}, "line 2: no record of hard negatives: anchor: "),
        ({"positive": ""}, "positive: String should have at least 1 character"),
        ({"negatives": ["x"]}, "1 negatives, but 2 negative_languages"),
        ({"negative_scores": [0.1]}, "2 negatives, but 1 negative_scores"),
        ({"group": "ff"}, "group: String should match pattern"),
        ({"negative_groups": [["g"], []]}, "negative_groups.0.0: String should match pattern"),
        ({"anchor_side": "source"}, "anchor_side: Input should be 'english' or 'other'"),
    ],
)
def test_a_bad_record_is_named_with_its_line(tmp_path: Path, change: dict[str, object], message: str) -> None:
    good = RECORD.model_dump()
    path = tmp_path / "n.jsonl"
    path.write_text(f"{json.dumps(good)}\n{json.dumps(good | change)}\n", encoding="utf-8")
    with pytest.raises(InvalidInputError, match=message):
        list(read_negatives(path))


def test_names_and_missing_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"n\.tsv: expected a name in \.jsonl"):
        write_negatives(tmp_path / "n.tsv", [RECORD])
    with pytest.raises(NotFoundError, match="no file at"):
        next(read_negatives(tmp_path / "n.jsonl"))

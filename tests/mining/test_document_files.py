"""Files of documents: paired, aligned, the rest mined, and every pair says where it stands."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedsvc.encoder import Encoder, load_encoder
from embedsvc.errors import InvalidInputError
from embedsvc.mining.options import MiningOptions
from embedsvc.mining.outputs import read_pairs
from embedsvc.mining.pipeline import mine_files
from embedsvc.mining.sides import MiningInputs
from tests.mining.test_mine import ALIGNED

GERMAN, ENGLISH = ALIGNED["deu"], ALIGNED["eng"]
MORE_GERMAN = ["Der Bäcker öffnet um sechs.", "Im Wald liegen viele Steine.", "Das Telefon klingelt selten."]
MORE_ENGLISH = ["The match ended without a goal.", "Prices rose by four percent.", "He painted a door green."]
OPTIONS = MiningOptions(docs=True, src_lang="de", tgt_lang="en", filters=("none",), threshold=1.2)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_encoder()


def write(path: Path, documents: dict[str, list[str]]) -> Path:
    lines = [json.dumps({"id": name, "sentences": texts}) + "\n" for name, texts in documents.items()]
    path.write_text("".join(lines), encoding="utf-8")
    return path


@pytest.fixture
def inputs(tmp_path: Path) -> MiningInputs:
    """The first four sentences are a document of both; one other pair is lost among other texts."""
    source = write(tmp_path / "de.jsonl", {"cat": GERMAN[:4], "mixed": [*MORE_GERMAN, GERMAN[6]]})
    target = write(tmp_path / "en.jsonl", {"other": [ENGLISH[6], *MORE_ENGLISH], "house": ENGLISH[:4]})
    return MiningInputs([source], [target])


def test_documents_are_aligned_and_the_rest_is_mined(
    inputs: MiningInputs, tmp_path: Path, encoder: Encoder
) -> None:
    summary = mine_files(inputs, tmp_path / "pairs.jsonl", OPTIONS, encoder=encoder)
    found = list(read_pairs(tmp_path / "pairs.jsonl"))
    assert summary.pairs == len(found)
    (document_pair,) = summary.manifest["documents"]["pairs"]
    assert (document_pair["source"], document_pair["target"]) == ("cat", "house")
    aligned = [pair for pair in found if pair.margin == "alignment"]
    assert [(pair.source.text, pair.target.text) for pair in aligned] == [
        *zip(GERMAN[:4], ENGLISH[:4], strict=True)
    ]
    rest = [pair for pair in found if pair.margin == "ratio"]
    assert found == aligned + rest
    assert (GERMAN[6], ENGLISH[6]) in {(pair.source.text, pair.target.text) for pair in rest}


def test_pairs_name_the_files_lines_and_sentences_of_the_documents(
    inputs: MiningInputs, tmp_path: Path, encoder: Encoder
) -> None:
    mine_files(inputs, tmp_path / "pairs.jsonl", OPTIONS, encoder=encoder)
    found = {pair.source.text: pair for pair in read_pairs(tmp_path / "pairs.jsonl")}
    cat, school = found[GERMAN[0]], found[GERMAN[6]]
    assert (cat.source.id, cat.source.line, cat.source.file) == ("cat:0", 1, "de.jsonl")
    assert (cat.target.id, cat.target.line, cat.target.document) == ("house:0", 2, "house")
    assert (school.source.id, school.source.line, school.source.file) == ("mixed:3", 2, "de.jsonl")
    assert school.source.origins[0].document == "mixed"


def test_a_pair_of_documents_with_nothing_left_needs_no_mining(tmp_path: Path, encoder: Encoder) -> None:
    source = write(tmp_path / "de.jsonl", {"a": GERMAN})
    target = write(tmp_path / "en.jsonl", {"b": ENGLISH})
    summary = mine_files(MiningInputs([source], [target]), tmp_path / "p.tsv", OPTIONS, encoder=encoder)
    assert (summary.pairs, summary.manifest["rest"]) == (8, None)
    assert "1 document pairs of 1 x 1, 8 pairs aligned" in summary.text


def test_a_run_in_a_work_folder_gives_the_same_bytes_again(
    inputs: MiningInputs, tmp_path: Path, encoder: Encoder
) -> None:
    for name in ("a.tsv", "b.tsv"):
        mine_files(inputs, tmp_path / name, OPTIONS, work=tmp_path / "job", encoder=encoder)
    assert (tmp_path / "a.tsv").read_bytes() == (tmp_path / "b.tsv").read_bytes()


def test_documents_are_one_file_per_side_and_no_vectors(
    inputs: MiningInputs, tmp_path: Path, encoder: Encoder
) -> None:
    twice = MiningInputs([*inputs.source, *inputs.source], inputs.target)
    with pytest.raises(InvalidInputError, match="one file of documents per side"):
        mine_files(twice, tmp_path / "p.tsv", OPTIONS, encoder=encoder)
    np.save(tmp_path / "x.npy", np.eye(2, dtype=np.float32))
    vectors = MiningInputs(inputs.source, inputs.target, source_vectors=tmp_path / "x.npy")
    with pytest.raises(InvalidInputError, match="vectors cannot be given"):
        mine_files(vectors, tmp_path / "p.tsv", OPTIONS, encoder=encoder)


def test_a_rest_that_the_filters_drop_does_not_cost_what_is_aligned(tmp_path: Path, encoder: Encoder) -> None:
    source = write(tmp_path / "de.jsonl", {"a": GERMAN, "menu": ["..."]})
    target = write(tmp_path / "en.jsonl", {"b": ENGLISH, "other": MORE_ENGLISH})
    options = replace(OPTIONS, filters=("default",))
    summary = mine_files(MiningInputs([source], [target]), tmp_path / "p.tsv", options, encoder=encoder)
    assert (summary.pairs, summary.manifest["rest"]) == (8, None)
    assert "nothing mined from the rest: source-left.jsonl: no sentence is left" in summary.text


@pytest.mark.parametrize(
    "given", [{"id_field": "url"}, {"text_field": "body"}, {"kind": "tsv"}, {"columns": ("text",)}]
)
def test_options_of_files_of_sentences_are_refused_not_passed_over(
    inputs: MiningInputs, tmp_path: Path, encoder: Encoder, given: dict[str, Any]
) -> None:
    (name,) = given
    with pytest.raises(InvalidInputError, match=f"^{name} is for files of sentences"):
        mine_files(inputs, tmp_path / "p.tsv", replace(OPTIONS, **given), encoder=encoder)


def test_in_a_work_folder_other_documents_give_what_they_give_elsewhere(
    inputs: MiningInputs, tmp_path: Path, encoder: Encoder
) -> None:
    mine_files(inputs, tmp_path / "a.tsv", OPTIONS, work=tmp_path / "job", encoder=encoder)
    write(tmp_path / "de.jsonl", {"cat": GERMAN[:4], "mixed": [GERMAN[6], *MORE_GERMAN[1:]]})
    mine_files(inputs, tmp_path / "b.tsv", OPTIONS, work=tmp_path / "job", encoder=encoder)
    mine_files(inputs, tmp_path / "c.tsv", OPTIONS, encoder=encoder)
    assert (tmp_path / "b.tsv").read_bytes() == (tmp_path / "c.tsv").read_bytes()

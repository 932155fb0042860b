"""Mining of files: the same pairs as mining of lists, with places; resumable."""

from __future__ import annotations

import fcntl
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedsvc.encoder import Encoder, load_encoder
from embedsvc.errors import DimensionMismatchError, EmbedsvcError, InvalidInputError
from embedsvc.mining.mine import mine
from embedsvc.mining.options import MiningOptions
from embedsvc.mining.outputs import read_pairs
from embedsvc.mining.pipeline import mine_files
from embedsvc.mining.progress import Step
from embedsvc.mining.records import Origin, Pair
from embedsvc.mining.sides import MiningInputs
from indexing import nearest_both_ways, normalize_rows
from tests.mining.test_mine import ALIGNED

BARE = MiningOptions(filters=("none",), threshold=1.0)


@pytest.fixture
def inputs(tmp_path: Path) -> MiningInputs:
    write_lines(tmp_path / "de.txt", ["", *ALIGNED["deu"], "Die  Katze schläft im Haus."])
    write_lines(tmp_path / "en.txt", ALIGNED["eng"][::-1])
    return MiningInputs([tmp_path / "de.txt"], [tmp_path / "en.txt"])


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_encoder()


def write_lines(path: Path, lines: list[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def pairs_of(path: Path) -> list[Pair]:
    return list(read_pairs(path))


@pytest.mark.parametrize(
    ("margin", "retrieval"),
    [
        ("ratio", "forward"),
        ("distance", "backward"),
        ("absolute", "intersection"),
        ("ratio", "max"),
        ("distance", "optimal"),
    ],
)
def test_files_give_the_pairs_of_lists(
    inputs: MiningInputs, tmp_path: Path, encoder: Encoder, margin: Any, retrieval: Any
) -> None:
    values: dict[str, Any] = {"margin": margin, "retrieval": retrieval, "k": 3, "threshold": 0.1}
    mine_files(inputs, tmp_path / "pairs.tsv", replace(BARE, **values), encoder=encoder)
    expected = mine(ALIGNED["deu"], ALIGNED["eng"][::-1], encoder=encoder, **values)
    found = pairs_of(tmp_path / "pairs.tsv")
    assert [(pair.source.text, pair.target.text) for pair in found] == [
        (pair.source, pair.target) for pair in expected
    ]
    # The files' vectors are float16.
    np.testing.assert_allclose([p.score for p in found], [p.score for p in expected], atol=2e-3)
    assert {pair.margin for pair in found} == {margin}


def test_a_pair_says_where_its_texts_stand(inputs: MiningInputs, tmp_path: Path, encoder: Encoder) -> None:
    mine_files(inputs, tmp_path / "pairs.jsonl", BARE, encoder=encoder)
    cat = next(pair for pair in pairs_of(tmp_path / "pairs.jsonl") if "Katze" in pair.source.text)
    assert cat.target.text == "The cat sleeps in the house."
    assert cat.source.origins == (Origin("de.txt", 2, "1"), Origin("de.txt", 10, "9"))
    assert (cat.source.line, cat.target.line, cat.target.id) == (2, 8, "7")


def test_the_manifest_says_what_made_the_file(inputs: MiningInputs, tmp_path: Path, encoder: Encoder) -> None:
    out = tmp_path / "pairs.tsv"
    summary = mine_files(inputs, out, BARE, encoder=encoder)
    manifest = json.loads((tmp_path / "pairs.tsv.manifest.json").read_text())
    assert manifest == json.loads(json.dumps(summary.manifest))
    assert manifest["out"]["pairs"] == summary.pairs == len(pairs_of(out))
    assert manifest["options"]["threshold"] == 1.0
    assert manifest["model"]["fingerprint"] == encoder.fingerprint
    assert manifest["source"]["duplicates"] == 1
    assert str(tmp_path) not in json.dumps(manifest)


def test_without_a_work_folder_nothing_but_the_result_is_left(
    inputs: MiningInputs, tmp_path: Path, encoder: Encoder
) -> None:
    (tmp_path / "out").mkdir()
    mine_files(inputs, tmp_path / "out" / "pairs.tsv", BARE, encoder=encoder)
    with pytest.raises(EmbedsvcError):
        mine_files(inputs, tmp_path / "out" / "others.tsv", replace(BARE, dimensions=9999), encoder=encoder)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "pairs.tsv",
        "pairs.tsv.manifest.json",
        "pairs.tsv.report.txt",
    ]


class _Counting(Encoder):
    """The bundled model, counting what it encodes."""

    def __init__(self, inner: Encoder) -> None:
        super().__init__(inner.folder, inner.runtime)
        self.texts = 0

    def encode_with_usage(self, texts: Any, *args: Any, **kwargs: Any) -> Any:
        self.texts += len(texts)
        return super().encode_with_usage(texts, *args, **kwargs)


def test_another_threshold_needs_no_second_encoding(
    inputs: MiningInputs, tmp_path: Path, encoder: Encoder
) -> None:
    counting, job = _Counting(encoder), tmp_path / "job"
    few = mine_files(inputs, tmp_path / "a.tsv", replace(BARE, threshold=2.0), work=job, encoder=counting)
    assert counting.texts == 16
    many = mine_files(inputs, tmp_path / "b.tsv", replace(BARE, threshold=0.5), work=job, encoder=counting)
    assert counting.texts == 16
    assert few.pairs < many.pairs


def test_a_work_folder_belongs_to_its_inputs(inputs: MiningInputs, tmp_path: Path, encoder: Encoder) -> None:
    job = tmp_path / "job"
    mine_files(inputs, tmp_path / "a.tsv", BARE, work=job, encoder=encoder)
    write_lines(tmp_path / "en.txt", ALIGNED["eng"])
    with pytest.raises(InvalidInputError, match=r"en\.txt changed"):
        mine_files(inputs, tmp_path / "b.tsv", BARE, work=job, encoder=encoder)
    assert not (tmp_path / "b.tsv").exists()


def test_a_work_folder_belongs_to_its_model_and_prompt(
    inputs: MiningInputs, tmp_path: Path, encoder: Encoder
) -> None:
    mine_files(inputs, tmp_path / "a.tsv", BARE, work=tmp_path / "job", encoder=encoder)
    with pytest.raises(EmbedsvcError, match="prompt"):
        mine_files(
            inputs,
            tmp_path / "b.tsv",
            replace(BARE, prompt="query: "),
            work=tmp_path / "job",
            encoder=encoder,
        )


def test_a_folder_with_other_files_is_no_work_folder(
    inputs: MiningInputs, tmp_path: Path, encoder: Encoder
) -> None:
    with pytest.raises(InvalidInputError, match="holds other files"):
        mine_files(inputs, tmp_path / "a.tsv", BARE, work=tmp_path, encoder=encoder)


def test_two_processes_do_not_share_a_work_folder(
    inputs: MiningInputs, tmp_path: Path, encoder: Encoder
) -> None:
    (tmp_path / "job").mkdir()
    with (tmp_path / "job" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(InvalidInputError, match="in use by another process"):
            mine_files(inputs, tmp_path / "a.tsv", BARE, work=tmp_path / "job", encoder=encoder)


def test_progress_names_every_stage_to_its_end(
    inputs: MiningInputs, tmp_path: Path, encoder: Encoder
) -> None:
    steps: list[Step] = []
    mine_files(inputs, tmp_path / "a.tsv", BARE, report=steps.append, encoder=encoder)
    last = {step.stage: step for step in steps}
    assert list(last) == [
        "read source",
        "read target",
        "encode source",
        "encode target",
        "neighbours",
        "write",
    ]
    assert all(step.done == step.total for step in list(last.values())[2:])


def test_a_report_that_raises_ends_the_work(inputs: MiningInputs, tmp_path: Path, encoder: Encoder) -> None:
    def cancel(step: Step) -> None:
        if step.stage == "neighbours":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        mine_files(inputs, tmp_path / "a.tsv", BARE, work=tmp_path / "job", report=cancel, encoder=encoder)
    counting = _Counting(encoder)
    mine_files(inputs, tmp_path / "a.tsv", BARE, work=tmp_path / "job", encoder=counting)
    assert counting.texts == 0


def test_a_text_without_known_tokens_pairs_with_none(
    inputs: MiningInputs, tmp_path: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenize = encoder.runtime.tokenize
    monkeypatch.setattr(
        encoder.runtime,
        "tokenize",
        lambda texts: [[] if "§" in text else ids for text, ids in zip(texts, tokenize(texts), strict=True)],
    )
    for path in (*inputs.source, *inputs.target):
        with path.open("a", encoding="utf-8") as file:
            file.write("§ 5\n")
    mine_files(
        inputs, tmp_path / "a.tsv", replace(BARE, threshold=-9.0, retrieval="forward"), encoder=encoder
    )
    found = pairs_of(tmp_path / "a.tsv")
    assert len(found) == 8
    assert not any("§" in pair.source.text + pair.target.text for pair in found)


def random_vectors(n: int, seed: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return normalize_rows(np.random.default_rng(seed).standard_normal((n, 16)).astype(np.float32))


def test_vectors_alone_give_pairs_of_row_numbers(tmp_path: Path) -> None:
    x, y = random_vectors(30, 1), random_vectors(20, 2)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", y)
    inputs = MiningInputs(source_vectors=tmp_path / "x.npy", target_vectors=tmp_path / "y.npy")
    mine_files(
        inputs, tmp_path / "pairs.tsv", replace(BARE, margin="absolute", retrieval="forward", threshold=-1)
    )
    both = nearest_both_ways(x, y, 4)
    found = pairs_of(tmp_path / "pairs.tsv")
    assert {(int(p.source.id), int(p.target.id)) for p in found} == set(
        enumerate(both.x_to_y.rows[:, 0].tolist())
    )
    assert found[0].cosine == pytest.approx(float(both.x_to_y.scores.max()), abs=1e-6)
    assert found[0].source.text == ""


def test_given_vectors_are_those_of_the_records(
    inputs: MiningInputs, tmp_path: Path, encoder: Encoder
) -> None:
    lines = (tmp_path / "de.txt").read_text(encoding="utf-8").split("\n")[:-1]
    vectors = encoder.encode([line or "-" for line in lines])
    np.save(tmp_path / "de.npy", vectors)
    given = replace(inputs, source_vectors=tmp_path / "de.npy")
    mine_files(inputs, tmp_path / "a.tsv", BARE, encoder=encoder)
    mine_files(given, tmp_path / "b.tsv", BARE, encoder=encoder)
    key = [(p.source.id, p.target.id) for p in pairs_of(tmp_path / "a.tsv")]
    assert [(p.source.id, p.target.id) for p in pairs_of(tmp_path / "b.tsv")] == key


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (np.full((10, 16), np.nan, np.float32), r"^[^ ]*x\.npy\[0\] holds NaN"),
        (np.full((10, 16), 2, np.float32), r"\[0\] has length 8"),
        (np.ones((10, 16), np.int32), "int32"),
        (np.ones(10, np.float32), "shape"),
        (np.eye(9, 16, dtype=np.float32), "9 rows, the source has 10 records"),
    ],
)
def test_vectors_that_cannot_be_mined_are_refused(
    inputs: MiningInputs, tmp_path: Path, encoder: Encoder, vectors: Any, message: str
) -> None:
    np.save(tmp_path / "x.npy", vectors)
    with pytest.raises(InvalidInputError, match=message):
        mine_files(
            replace(inputs, source_vectors=tmp_path / "x.npy"), tmp_path / "a.tsv", BARE, encoder=encoder
        )


def test_vectors_of_two_widths_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.eye(3, 8, dtype=np.float32))
    np.save(tmp_path / "y.npy", np.eye(3, 9, dtype=np.float32))
    inputs = MiningInputs(source_vectors=tmp_path / "x.npy", target_vectors=tmp_path / "y.npy")
    with pytest.raises(DimensionMismatchError, match="source vectors have 8 dimensions, target vectors 9"):
        mine_files(inputs, tmp_path / "a.tsv", BARE, encoder=encoder)


def test_a_side_without_anything_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="give a target file or target vectors"):
        mine_files(MiningInputs([tmp_path / "de.txt"]), tmp_path / "a.tsv")


def test_a_refused_text_is_named_by_file_and_line(
    inputs: MiningInputs, tmp_path: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embedsvc.encoders.static_table.StaticTableRuntime.max_tokens", 20)
    with (tmp_path / "de.txt").open("a", encoding="utf-8") as file:
        file.write("Wort " * 40 + "\n")
    with pytest.raises(InvalidInputError, match=r"^de\.txt line 11 has "):
        mine_files(inputs, tmp_path / "a.tsv", BARE, encoder=encoder)


def test_in_one_work_folder_vectors_that_are_given_and_made_do_not_meet(
    inputs: MiningInputs, tmp_path: Path, encoder: Encoder
) -> None:
    lines = (tmp_path / "de.txt").read_text(encoding="utf-8").split("\n")[:-1]
    np.save(tmp_path / "de.npy", encoder.encode([line or "-" for line in lines]))
    given = replace(inputs, source_vectors=tmp_path / "de.npy")
    counting, job = _Counting(encoder), tmp_path / "job"
    for number, now in enumerate((inputs, given, inputs, given)):
        mine_files(now, tmp_path / f"{number}.tsv", BARE, work=job, encoder=counting)
    assert counting.texts == 16
    outputs = [(tmp_path / f"{number}.tsv").read_bytes() for number in range(4)]
    assert outputs[:2] == outputs[2:]


@pytest.mark.parametrize("content", [b"", b"text", b"\x93NUMPY\x01\x00v\x00{'descr': '<f4'"])
def test_a_file_that_holds_no_vectors_is_bad_input(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.npy").write_bytes(content)
    inputs = MiningInputs(source_vectors=tmp_path / "x.npy", target_vectors=tmp_path / "x.npy")
    with pytest.raises(InvalidInputError, match=r"^[^ ]*x\.npy: not a"):
        mine_files(inputs, tmp_path / "a.tsv", BARE)


@pytest.mark.parametrize("retrieval", ["optimal", "max"])
def test_sides_of_which_nothing_is_better_than_its_neighbourhood_give_an_empty_file(
    tmp_path: Path, retrieval: Any
) -> None:
    """Calibration has nothing to go by; that is no error."""
    x = np.zeros((1_000, 4), np.float32)
    x[:, 0] = 1
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", -x)
    inputs = MiningInputs(source_vectors=tmp_path / "x.npy", target_vectors=tmp_path / "y.npy")
    summary = mine_files(inputs, tmp_path / "a.tsv", MiningOptions(retrieval=retrieval, neighbours="exact"))
    assert summary.pairs == (0 if retrieval == "optimal" else 1)


def test_a_precision_that_nothing_is_known_of_is_not_passed_over(
    inputs: MiningInputs, tmp_path: Path, encoder: Encoder
) -> None:
    wanted = replace(BARE, threshold=None, precision=0.95)
    summary = mine_files(inputs, tmp_path / "a.tsv", wanted, encoder=encoder)
    assert "not calibrated, so nothing is known of precision 0.95: give --dev" in summary.text


def test_a_moses_pair_is_two_files_and_may_not_be_the_inputs(tmp_path: Path, encoder: Encoder) -> None:
    files = [tmp_path / "news.de", tmp_path / "news.en"]
    write_lines(files[0], ALIGNED["deu"])
    write_lines(files[1], ALIGNED["eng"])
    inputs, options = MiningInputs(files[:1], files[1:]), replace(BARE, src_lang="de", tgt_lang="en")
    before = [file.read_bytes() for file in files]
    with pytest.raises(InvalidInputError, match=r"news\.de is one of the input files"):
        mine_files(inputs, tmp_path / "news.moses", options, encoder=encoder)
    assert [file.read_bytes() for file in files] == before
    summary = mine_files(inputs, tmp_path / "p.moses", options, encoder=encoder)
    lines = [(tmp_path / name).read_text(encoding="utf-8").splitlines() for name in ("p.de", "p.en")]
    assert len(lines[0]) == len(lines[1]) == summary.pairs > 0
    assert len(summary.manifest["out"]["sha256"]) == 2

"""Files that come later: only what is new is encoded and compared; the result is that from scratch."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from embedsvc.encoder import Encoder, load_encoder
from embedsvc.errors import InvalidInputError
from embedsvc.mining.options import MiningOptions
from embedsvc.mining.pipeline import MiningInputs, mine_files
from indexing import ShardWriter
from tests.mining.test_mine import ALIGNED

OPTIONS = MiningOptions(filters=("none",), threshold=0.9, retrieval="forward", neighbours="exact")
GERMAN, ENGLISH = ALIGNED["deu"], ALIGNED["eng"]


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedsvc.mining.side_vectors.ShardWriter", partial(ShardWriter, shard_rows=3))


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts that were encoded."""
    texts: list[str] = []
    real = Encoder.encode_with_usage

    def encode(self: Encoder, batch: list[str], *arguments: object, **options: object) -> object:
        texts.extend(batch)
        return real(self, batch, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Encoder, "encode_with_usage", encode)
    return texts


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_encoder()


def write_lines(path: Path, lines: list[str]) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def further_file(folder: Path) -> list[Path]:
    return [folder / "de.txt", write_lines(folder / "more.txt", GERMAN[7:])]


def further_lines(folder: Path) -> list[Path]:
    return [write_lines(folder / "de.txt", GERMAN)]


def blocks(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("work/neighbours/*.block")}


@pytest.mark.parametrize("further", [further_file, further_lines])
def test_what_is_added_costs_what_is_new(
    tmp_path: Path, encoder: Encoder, encoded: list[str], further: Callable[[Path], list[Path]]
) -> None:
    target = [write_lines(tmp_path / "en.txt", ENGLISH)]
    before = MiningInputs([write_lines(tmp_path / "de.txt", GERMAN[:7])], target)
    mine_files(before, tmp_path / "first.tsv", OPTIONS, work=tmp_path / "work", encoder=encoder)
    assert encoded == [*GERMAN[:7], *ENGLISH]
    kept = blocks(tmp_path)
    encoded.clear()
    after = MiningInputs(further(tmp_path), target)
    mine_files(after, tmp_path / "grown.tsv", OPTIONS, work=tmp_path / "work", encoder=encoder)
    assert encoded == GERMAN[6:]  # the third shard was not full
    assert blocks(tmp_path).items() > kept.items()
    assert len(blocks(tmp_path)) - len(kept) == 1 * 3
    mine_files(after, tmp_path / "anew.tsv", OPTIONS, encoder=encoder)
    assert (tmp_path / "grown.tsv").read_bytes() == (tmp_path / "anew.tsv").read_bytes()
    assert (tmp_path / "grown.tsv").read_bytes() != (tmp_path / "first.tsv").read_bytes()


def test_a_last_line_that_goes_on_is_another_text(
    tmp_path: Path, encoder: Encoder, encoded: list[str]
) -> None:
    inputs = MiningInputs([tmp_path / "de.txt"], [write_lines(tmp_path / "en.txt", ENGLISH)])
    (tmp_path / "de.txt").write_text(f"{GERMAN[0]}\nDie", encoding="utf-8")
    mine_files(inputs, tmp_path / "first.tsv", OPTIONS, work=tmp_path / "work", encoder=encoder)
    encoded.clear()
    (tmp_path / "de.txt").write_text(f"{GERMAN[0]}\nDie Katze\n", encoding="utf-8")
    mine_files(inputs, tmp_path / "grown.tsv", OPTIONS, work=tmp_path / "work", encoder=encoder)
    assert encoded == [GERMAN[0], "Die Katze"]
    mine_files(inputs, tmp_path / "anew.tsv", OPTIONS, encoder=encoder)
    assert (tmp_path / "grown.tsv").read_bytes() == (tmp_path / "anew.tsv").read_bytes()


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["more.txt"], "it was de.txt, now more.txt"),
        (["more.txt", "de.txt"], "it was de.txt, now more.txt, de.txt"),
        (["changed/de.txt"], "de.txt changed"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, encoder: Encoder, names: list[str], message: str) -> None:
    target = [write_lines(tmp_path / "en.txt", ENGLISH)]
    (tmp_path / "changed").mkdir()
    write_lines(tmp_path / "de.txt", GERMAN[:3])
    write_lines(tmp_path / "more.txt", GERMAN[3:])
    write_lines(tmp_path / "changed/de.txt", GERMAN[::-1])
    inputs = MiningInputs([tmp_path / "de.txt"], target)
    mine_files(inputs, tmp_path / "pairs.tsv", OPTIONS, work=tmp_path / "work", encoder=encoder)
    with pytest.raises(InvalidInputError, match=f"{message}; give another folder"):
        mine_files(
            MiningInputs([tmp_path / name for name in names], target),
            tmp_path / "pairs.tsv",
            OPTIONS,
            work=tmp_path / "work",
            encoder=encoder,
        )


def test_given_vectors_grow_with_their_texts(tmp_path: Path, encoder: Encoder) -> None:
    vectors = encoder.encode(GERMAN), encoder.encode(ENGLISH)
    np.save(tmp_path / "en.npy", vectors[1])
    target = write_lines(tmp_path / "en.txt", ENGLISH)

    def mined(count: int, work: Path | None) -> bytes:
        np.save(tmp_path / "de.npy", vectors[0][:count])
        source = write_lines(tmp_path / "de.txt", GERMAN[:count])
        inputs = MiningInputs([source], [target], tmp_path / "de.npy", tmp_path / "en.npy")
        mine_files(inputs, tmp_path / "pairs.tsv", OPTIONS, work=work)
        return (tmp_path / "pairs.tsv").read_bytes()

    mined(5, tmp_path / "work")
    kept = blocks(tmp_path)
    grown = mined(8, tmp_path / "work")
    assert blocks(tmp_path).items() > kept.items()
    assert len(blocks(tmp_path)) - len(kept) == 2 * 3
    assert grown == mined(8, None)

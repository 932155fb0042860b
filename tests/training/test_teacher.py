"""Distillation from a model folder: vectors made once, projected, learnt, and resumed bit for bit."""

import json
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training tests need the [train] extra")

from embedsvc import Encoder, load_encoder  # noqa: E402
from embedsvc.cache import cache_folder  # noqa: E402
from embedsvc.errors import EmbedsvcError, InvalidInputError, NotFoundError, StorageError  # noqa: E402
from indexing import VectorShards, shard_writer, shards_of_array  # noqa: E402
from tests.training.cloned import RECIPE, write_cloned_pairs  # noqa: E402
from tests.training.room import room_for  # noqa: E402
from training import teacher, teacher_cache  # noqa: E402
from training.config import read_recipe  # noqa: E402
from training.losses import LOSSES, EmbeddedPairs  # noqa: E402
from training.static_export import write_static_folder  # noqa: E402
from training.static_model import StaticTable  # noqa: E402
from training.teacher import check_dimension, principal, teach, write_vectors  # noqa: E402
from training.teacher_cache import CachedVectors, TeacherCache  # noqa: E402
from training.teacher_config import TeacherConfig  # noqa: E402
from training.tokenizer import train_tokenizer  # noqa: E402
from training.trainer import train  # noqa: E402

WIDTH = 48
LOSS = "[loss]\nscale = 20.0\nmargin = 0.3\n"
LOSSES_TOML = """
[[losses]]
kind = "translation_ranking"
[[losses]]
kind = "distillation"
weight = 5.0
[teacher]
model = "{teacher}"
projection = "{projection}"
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cloned")
    write_cloned_pairs(folder / "pairs.tsv", sentences=600, words=100)
    english = [line.split("\t")[0] for line in (folder / "pairs.tsv").read_text().splitlines()]
    tokenizer = train_tokenizer(english, vocabulary=400, alphabet=60)
    table = np.random.default_rng(6).normal(size=(tokenizer.get_vocab_size(), WIDTH)).astype(np.float32)
    write_static_folder(
        folder / "teacher", table, tokenizer.to_str(), matryoshka_dimensions=[WIDTH], dtype="float32"
    )
    return folder


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def write_recipe(data: Path, path: Path, *, projection: str = "learned", steps: int = 50) -> Path:
    losses = LOSSES_TOML.format(teacher=data / "teacher", projection=projection)
    path.write_text(RECIPE.format(steps=steps, learning_rate=0.03).replace(LOSS, "") + losses)
    return path


def test_a_run_that_broke_off_goes_on_to_the_same_bytes(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = read_recipe(write_recipe(data, tmp_path / "recipe.toml"))
    whole = train(recipe, tmp_path / "whole", data, progress=False)
    (tmp_path / "broken" / "run").mkdir(parents=True)
    shutil.copy(whole / "run" / "tokenizer.json", tmp_path / "broken" / "run")
    distillation = LOSSES["distillation"]

    def poisoned(pairs: EmbeddedPairs, config: object) -> "torch.Tensor":
        return distillation(pairs, config) * (float("nan") if pairs.step == 27 else 1.0)

    with monkeypatch.context() as patch:
        patch.setitem(LOSSES, "distillation", poisoned)
        message = (
            r"the loss of batch 27 is nan \(translation_ranking \d.*, distillation nan\).* pairs: \d+, \d+"
        )
        with pytest.raises(EmbedsvcError, match=message):
            train(recipe, tmp_path / "broken", data, progress=False)
    assert torch.load(tmp_path / "broken" / "run" / "checkpoint.pt")["step"] == 20
    monkeypatch.setattr(Encoder, "encode", None)  # the teacher's vectors are there
    train(recipe, tmp_path / "broken", data, progress=False)
    ours, theirs = (torch.load(out / "run" / "checkpoint.pt") for out in (whole, tmp_path / "broken"))
    assert "into_teacher" in ours["objective"]
    for part in ("model", "objective"):
        assert all(torch.equal(ours[part][name], theirs[part][name]) for name in ours[part])
    metrics = [json.loads(line) for line in (whole / "run" / "metrics.jsonl").read_text().splitlines()]
    for name in ("loss.translation_ranking", "loss.distillation"):
        assert metrics[-2][name] < 0.9 * metrics[0][name]
    assert metrics[-1]["held_out_accuracy"] > 0.9


def test_a_checkpoint_is_not_replaced_by_one_that_is_not_finite(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    update = StaticTable.update

    def overflowing(self: StaticTable, step: int, learning_rate: float) -> None:
        update(self, step, learning_rate)
        if step == 40:
            self.vector[0] = float("inf")

    monkeypatch.setattr(StaticTable, "update", overflowing)
    recipe = read_recipe(write_recipe(data, tmp_path / "recipe.toml"))
    with pytest.raises(EmbedsvcError, match="vector is no longer finite after batch 39; stopped"):
        train(recipe, tmp_path / "model", data, progress=False)
    assert torch.load(tmp_path / "model" / "run" / "checkpoint.pt")["step"] == 20


def test_with_pca_the_student_itself_learns_the_teachers_cosines(data: Path, tmp_path: Path) -> None:
    path = write_recipe(data, tmp_path / "recipe.toml", projection="pca")
    path.write_text(path.read_text().replace('[[losses]]\nkind = "translation_ranking"\n', ""))
    student = load_encoder(train(read_recipe(path), tmp_path / "model", data, progress=False))
    lines = [line.split("\t") for line in (data / "pairs.tsv").read_text(encoding="utf-8").splitlines()]
    english, clones = [a for a, _, _ in lines if a][:300], [c for a, _, c in lines if a][:300]
    teacher = load_encoder(data / "teacher").encode(english)
    cosine = student.encode(english) @ student.encode(clones).T
    apart = np.triu_indices(300, 1)
    assert np.corrcoef(cosine[apart], (teacher @ teacher.T)[apart])[0, 1] > 0.7


def every(cache: TeacherCache, texts: list[str]) -> np.ndarray:
    return cache.vectors(texts).at(np.arange(len(texts)))


def test_vectors_of_a_text_are_made_once_for_each_teacher(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = load_encoder(data / "teacher")
    lines = (data / "pairs.tsv").read_text(encoding="utf-8").splitlines()
    english = [one for line in lines if (one := line.split("\t")[0])][:90]
    expected = encoder.encode(english).astype(np.float16)
    cache = TeacherCache(encoder, tmp_path)
    assert np.array_equal(every(cache, english[:50]), expected[:50])
    made: list[str] = []
    encode = Encoder.encode

    def counted(self: Encoder, texts: list[str], **options: object) -> object:
        made.extend(texts)
        return encode(self, texts, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Encoder, "encode", counted)
    mixed = [*english[80:], *english[:60], english[85]]
    rows = [*range(80, 90), *range(60), 85]
    assert np.array_equal(every(cache, mixed), expected[rows])
    assert sorted(made) == sorted({*english[50:60], *english[80:]})
    made.clear()
    assert np.array_equal(every(TeacherCache(encoder, tmp_path), english[:60]), expected[:60])
    assert not made
    for shard in tmp_path.rglob("0*.npy"):  # damaged on disk: made again
        shard.write_bytes(shard.read_bytes()[:-2] + b"\0\1")
    assert np.array_equal(every(cache, english[:50]), expected[:50])
    assert len(made) == 50
    TeacherCache(encoder, tmp_path, max_tokens=3).vectors(english[:1])
    assert len(made) == 51, "cut texts have other vectors"


def test_a_teacher_of_another_dimension_is_refused_with_what_can_be_done() -> None:
    none, pca, learned = (
        TeacherConfig.model_validate({"model": "t", "projection": name})
        for name in ("none", "pca", "learned")
    )
    check_dimension(none, 32, 32)
    check_dimension(pca, 48, 32)
    check_dimension(learned, 24, 32)
    with pytest.raises(
        InvalidInputError, match=r't has 48 .* the student 32: set .* = 48, .* "learned" or "pca"'
    ):
        check_dimension(none, 48, 32)
    with pytest.raises(
        InvalidInputError, match=r'"pca" cannot lengthen the 24 .* student\'s 32; use "learned"'
    ):
        check_dimension(pca, 24, 32)


def test_a_teacher_that_is_not_there_leaves_no_run_behind(data: Path, tmp_path: Path) -> None:
    recipe = read_recipe(write_recipe(data, tmp_path / "recipe.toml"), teacher=str(tmp_path / "none"))
    with pytest.raises(NotFoundError, match=r"no model folder at .*none"):
        train(recipe, tmp_path / "model", data, progress=False)
    assert not (tmp_path / "model").exists()


def test_principal_directions_keep_cosines_where_the_vectors_lie(tmp_path: Path) -> None:
    generator = np.random.default_rng(3)
    flat = generator.normal(size=(200, 5)) @ generator.normal(size=(5, 40)) + 0.001 * generator.normal(
        size=40
    )
    unit = (flat / np.linalg.norm(flat, axis=1, keepdims=True)).astype(np.float16)
    np.save(tmp_path / "unit.npy", unit)
    given = CachedVectors(200, 40)
    given.add(shards_of_array(tmp_path / "unit.npy", normalize=True), np.arange(200), np.arange(200))
    short = principal(given, 6)(unit)
    full = unit.astype(np.float32)
    assert short @ short.T == pytest.approx(full @ full.T, abs=0.005)
    spread = np.square(short).sum(axis=0)
    assert (np.diff(spread) < 0).all(), "the first direction holds the most"


@pytest.fixture
def shards(tmp_path: Path) -> tuple[np.ndarray, list[VectorShards]]:
    """Unit rows (600, 32), and two overlapping parts of them on disk."""
    unit = np.random.default_rng(8).normal(size=(600, 32))
    unit = (unit / np.linalg.norm(unit, axis=1, keepdims=True)).astype(np.float16)
    folders = []
    for name, rows in (("a", slice(0, 350)), ("b", slice(300, 600))):
        np.save(tmp_path / f"{name}.npy", unit[rows].astype(np.float32))
        folders.append(shards_of_array(tmp_path / f"{name}.npy", shard_rows=64, normalize=True))
    return unit, folders


@pytest.mark.parametrize(("read", "gap"), [(1, 1), (7, 0), (64, 16), (4096, 1000)])
def test_vectors_are_found_wherever_they_lie(
    shards: tuple[np.ndarray, list[VectorShards]], monkeypatch: pytest.MonkeyPatch, read: int, gap: int
) -> None:
    unit, (first, second) = shards
    monkeypatch.setattr(teacher_cache, "_READ_TEXTS", read)
    monkeypatch.setattr(teacher_cache, "_GAP", gap)
    generator = np.random.default_rng(2)
    keys = generator.permutation(600)[:580]  # text i is row keys[i] of all
    found = CachedVectors(len(keys), 32)
    found.add(first, np.arange(350), keys)
    assert sorted(keys[found.missing()]) == sorted(keys[keys >= 350])
    found.add(second, np.arange(300, 600), keys)
    texts = generator.integers(0, len(keys), 900)
    np.testing.assert_allclose(found.at(texts), unit[keys[texts]], atol=1e-3)
    np.testing.assert_array_equal(found.at(texts), found.at(np.arange(len(keys)))[texts])


def test_a_teacher_that_was_killed_goes_on_after_the_last_whole_shard(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder, texts = load_encoder(data / "teacher"), some_english(data, 100)
    expected = every(TeacherCache(encoder, tmp_path / "whole"), texts)
    monkeypatch.setattr(teacher_cache, "_ENCODE_TEXTS", 10)
    monkeypatch.setattr(shard_writer, "rows_per_shard", lambda _: 16)
    made: list[str] = []
    encode = Encoder.encode

    def killed(self: Encoder, batch: list[str], **options: object) -> object:
        if len(made) == 60:
            raise KeyboardInterrupt
        made.extend(batch)
        return encode(self, batch, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Encoder, "encode", killed)
    with pytest.raises(KeyboardInterrupt):
        TeacherCache(encoder, tmp_path / "cut").vectors(texts)
    made.clear()
    found = TeacherCache(encoder, tmp_path / "cut").vectors(texts)
    assert made == texts[48:]  # three shards were whole
    np.testing.assert_array_equal(found.at(np.arange(100)), expected)


def some_english(data: Path, count: int) -> list[str]:
    lines = (data / "pairs.tsv").read_text(encoding="utf-8").splitlines()
    return list(dict.fromkeys(one for line in lines if (one := line.split("\t")[0])))[:count]


@pytest.mark.parametrize("projection", ["none", "pca"])
def test_the_file_of_a_run_is_that_of_all_vectors_in_memory(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, projection: str
) -> None:
    encoder, texts = load_encoder(data / "teacher"), some_english(data, 100)
    config = TeacherConfig.model_validate({"model": str(data / "teacher"), "projection": projection})
    vectors = encoder.encode(texts).astype(np.float16)
    if projection == "pca":
        sample = vectors.astype(np.float64)
        directions = np.linalg.eigh(sample.T @ sample)[1][:, ::-1][:, :32].astype(np.float32)
        rows = vectors.astype(np.float32) @ np.ascontiguousarray(directions)
        vectors = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)
    np.save(tmp_path / "expected.npy", vectors)
    path = tmp_path / "teacher.npy"
    for full in (r"vectors of the teacher cannot be written: .*goes on", r"teacher\.npy cannot be written: "):
        with room_for(1000), pytest.raises(StorageError, match=full):
            teach(encoder, config, texts, path, dimension=32, progress=False)
        TeacherCache(encoder, cache_folder("teachers") / "float32").vectors(texts)
    monkeypatch.setattr(Encoder, "encode", None)  # they are in the cache
    found = teach(encoder, config, texts, path, dimension=32, progress=False)
    assert found.vectors.dtype == np.float16
    assert path.read_bytes() == (tmp_path / "expected.npy").read_bytes()
    assert not (tmp_path / "teacher.part").exists()


def test_a_block_of_the_vectors_is_all_that_is_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many vectors as 16 MB hold, in blocks of 256 KB."""
    rows = np.zeros((16_384, 512), np.float16)
    rows[:, 0] = 1
    np.save(tmp_path / "rows.npy", rows)
    del rows
    found = CachedVectors(16_384, 512)
    found.add(shards_of_array(tmp_path / "rows.npy"), np.arange(16_384), np.arange(16_384))
    monkeypatch.setattr(teacher, "_BLOCK_TEXTS", 256)
    monkeypatch.setattr(teacher_cache, "_READ_TEXTS", 128)
    tracemalloc.start()
    try:
        write_vectors(found, None, tmp_path / "teacher.npy")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 3 * 2**20
    np.testing.assert_array_equal(np.load(tmp_path / "teacher.npy"), np.load(tmp_path / "rows.npy"))

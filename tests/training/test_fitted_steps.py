from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedsvc.encoder import load_encoder
from embedsvc.errors import InvalidInputError
from embedsvc.model_folder import open_model_folder
from tests.encoders.tiny_models import TEXTS, WORDS, with_head, write_graph_model, write_static
from training import fitted_steps
from training.affine import Affine, append_affine
from training.averaging import average_models
from training.export import ExportOptions, export_model
from training.fitted_steps import LanguageNeutral, MapTo, PrincipalAxes, Wanted, wanted_steps
from training.whitening import principal_axes, whitening

ROWS = 4 + len(WORDS)
RANDOM = np.random.default_rng(8)
TABLE = RANDOM.normal(size=(ROWS, 6)).astype(np.float32) + 0.5
POOLED = ("Pooling", {"embedding_dimension": 2, "pooling_mode": "mean"})


@pytest.fixture
def static(tmp_path: Path) -> Path:
    return write_static(tmp_path / "static", {"embedding.weight": TABLE}, WORDS, matryoshka_dimensions=[2, 4])


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(f"{a} {b}" for a in WORDS[:12] for b in WORDS[20:32]))
    return path


def transformer(tmp_path: Path, *after: tuple[str, dict[str, Any]]) -> Path:
    plain = write_graph_model(tmp_path / "plain", inputs=["input_ids", "attention_mask"])
    return with_head(plain, tmp_path / "transformer", [POOLED, *after])


def raw(folder: Path, **options: Any) -> np.ndarray:
    return load_encoder(folder).encode(TEXTS, truncate="end", **options)


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("bias", [False, True])
def test_a_map_after_a_transformer_is_of_unit_vectors(tmp_path: Path, bias: bool) -> None:
    source = transformer(tmp_path, ("Normalize", {}))
    affine = Affine(
        np.array([[1, 2, 0], [0, 1, -1]], np.float32), np.array([1, 0, 2], np.float32) if bias else None
    )
    expected = unit(affine(raw(source)))
    (tmp_path / "out").mkdir()
    append_affine(open_model_folder(source), tmp_path / "out", affine, unit=True)
    np.testing.assert_allclose(raw(tmp_path / "out"), expected, atol=1e-6)
    kinds = [module.kind for module in open_model_folder(tmp_path / "out").modules]
    assert kinds == ["Transformer", "Pooling", *(["Normalize"] if bias else []), "Dense", "Normalize"]


def test_a_map_of_pooled_vectors_keeps_their_lengths(tmp_path: Path) -> None:
    source = transformer(tmp_path)
    affine = Affine(np.eye(2, dtype=np.float32) * 2, np.array([1, 1], np.float32))
    (tmp_path / "out").mkdir()
    append_affine(open_model_folder(source), tmp_path / "out", affine, unit=False)
    expected = 2 * raw(source, normalize=False) + 1
    np.testing.assert_allclose(raw(tmp_path / "out", normalize=False), expected, rtol=1e-6)


def test_a_static_model_takes_a_map_into_its_rows(static: Path, tmp_path: Path) -> None:
    affine = Affine(RANDOM.normal(size=(6, 3)).astype(np.float32), np.array([1, 2, 3], np.float32))
    (tmp_path / "out").mkdir()
    append_affine(open_model_folder(static), tmp_path / "out", affine, unit=False)
    np.testing.assert_allclose(
        raw(tmp_path / "out", normalize=False), affine(raw(static, normalize=False)), atol=1e-5
    )
    assert open_model_folder(tmp_path / "out").matryoshka_dimensions == ()
    with pytest.raises(InvalidInputError, match="a map of its unit vectors cannot have a bias"):
        append_affine(open_model_folder(static), tmp_path / "no", affine, unit=True)


@pytest.mark.parametrize("whiten", [False, True])
def test_principal_axes_of_a_static_model(static: Path, texts: Path, tmp_path: Path, whiten: bool) -> None:
    step = PrincipalAxes(texts, whiten, 3)
    report = export_model(static, tmp_path / "out", ExportOptions(steps=[step]))
    seen = load_encoder(static).encode(texts.read_text().split("\n"), normalize=False)
    affine = (whitening if whiten else principal_axes)(seen, 3)
    np.testing.assert_allclose(raw(tmp_path / "out"), unit(affine(raw(static, normalize=False))), atol=1e-5)
    what = "whitened" if whiten else "turned to its principal axes"
    assert report.notes == (f"{what}, 3 of 6 dimensions, fitted on 144 texts",)


def test_whitening_of_a_transformer_is_of_its_unit_vectors(tmp_path: Path, texts: Path) -> None:
    source = transformer(tmp_path, ("Normalize", {}))
    export_model(source, tmp_path / "out", ExportOptions(steps=[PrincipalAxes(texts, True)], pooled=True))
    affine = whitening(load_encoder(source).encode(texts.read_text().split("\n")))
    np.testing.assert_allclose(raw(tmp_path / "out"), unit(affine(raw(source))), atol=1e-4)


def test_a_new_model_serves_an_old_ones_space(static: Path, texts: Path, tmp_path: Path) -> None:
    turn = np.linalg.qr(RANDOM.normal(size=(6, 6)))[0].astype(np.float32)
    new = write_static(tmp_path / "new", {"embedding.weight": TABLE @ turn}, WORDS)
    report = export_model(new, tmp_path / "out", ExportOptions(steps=[MapTo(texts, static)]))
    np.testing.assert_allclose(raw(tmp_path / "out"), raw(static), atol=1e-5)
    (note,) = report.notes
    assert f"mapped into the space of static (fingerprint `{open_model_folder(static).fingerprint}`)" in note
    assert "fitted on 130 texts; on 14 texts held out: cosine 1.0000, 100.0% nearest to their own" in note
    mapped = open_model_folder(tmp_path / "out")
    assert mapped.matryoshka_dimensions == (2, 4)
    assert mapped.mapped_to == open_model_folder(static).fingerprint
    export_model(tmp_path / "out", tmp_path / "again", ExportOptions(dtype="int8"))
    assert open_model_folder(tmp_path / "again").mapped_to == mapped.mapped_to
    for name, changed in (
        ("cut", ExportOptions(dimensions=4)),
        ("turned", ExportOptions(steps=[PrincipalAxes(texts)])),
    ):
        export_model(tmp_path / "out", tmp_path / name, changed)
        assert open_model_folder(tmp_path / name).mapped_to is None, "the vectors are in another space"


def test_a_mapped_transformer_says_so_too_and_models_of_other_spaces_have_no_mean(
    texts: Path, tmp_path: Path
) -> None:
    source = transformer(tmp_path)
    old = write_static(tmp_path / "old", {"embedding.weight": TABLE}, WORDS)
    (tmp_path / "out").mkdir()
    MapTo(texts, old, "ridge")(open_model_folder(source), tmp_path / "out")
    mapped = open_model_folder(tmp_path / "out")
    assert mapped.mapped_to == open_model_folder(old).fingerprint
    (tmp_path / "mean").mkdir()
    with pytest.raises(InvalidInputError, match="a space that its vectors are mapped into other than"):
        average_models([mapped, replace(mapped, mapped_to=None)], tmp_path / "mean")


def test_a_map_between_dimensions_by_least_squares(static: Path, texts: Path, tmp_path: Path) -> None:
    wide = RANDOM.normal(size=(6, 9)).astype(np.float32)
    old = write_static(tmp_path / "old", {"embedding.weight": TABLE @ wide}, WORDS)
    step = MapTo(texts, old, "ridge", ridge=1e-6)
    assert export_model(static, tmp_path / "out", ExportOptions(steps=[step])).dimension == 9
    assert (raw(tmp_path / "out") * raw(old)).sum(axis=1).min() > 0.95


def test_directions_of_languages_are_taken_out(
    static: Path, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Languages told by the first word; their means differ in these words' vectors."""
    languages = dict(zip(WORDS[:12], ["de", "fr", "it"] * 4, strict=True))
    monkeypatch.setattr(fitted_steps, "detect_language", lambda text: languages[text.split()[0]])
    report = export_model(static, tmp_path / "out", ExportOptions(steps=[LanguageNeutral(texts, 2)]))
    assert report.notes == ("without 2 directions that tell 3 languages apart, fitted on 144 texts",)
    lines = texts.read_text().split("\n")
    codes = [languages[line.split()[0]] for line in lines]
    rank = np.linalg.matrix_rank(load_encoder(tmp_path / "out").runtime.table, tol=1e-4)  # type: ignore[attr-defined]
    assert rank == 4

    def spread(folder: Path, **options: Any) -> float:
        rows = load_encoder(folder).encode(lines, **options)
        return float(
            np.var([rows[np.array(codes) == code].mean(axis=0) for code in ("de", "fr", "it")], axis=0).sum()
        )

    assert spread(tmp_path / "out") < spread(static) / 3


def test_texts_of_one_language_tell_nothing(static: Path, texts: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"not in two or more languages with 20 texts each; found"):
        export_model(static, tmp_path / "out", ExportOptions(steps=[LanguageNeutral(texts)]))
    texts.write_text("one\ntwo\n")
    with pytest.raises(InvalidInputError, match="has 2 texts; 20 at least"):
        export_model(static, tmp_path / "out", ExportOptions(steps=[MapTo(texts, static)]))
    assert not (tmp_path / "out").exists()


def test_steps_come_in_the_order_that_makes_sense(texts: Path) -> None:
    wanted = Wanted(3, whiten=True, dimensions=8, map_to="old", map_kind="ridge")
    assert wanted_steps(texts, wanted) == [
        LanguageNeutral(texts, 3),
        PrincipalAxes(texts, True, 8),
        MapTo(texts, "old", "ridge"),
    ]
    assert wanted_steps(None, Wanted(dimensions=8)) == []
    with pytest.raises(InvalidInputError, match="give --texts FILE"):
        wanted_steps(None, Wanted(pca=True))

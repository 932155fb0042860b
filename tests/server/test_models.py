"""Several models in one server: names, lazy loading, a budget of memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from embedsvc.encoder import load_encoder
from embedsvc.errors import InvalidInputError, ModelError, NotFoundError, UnavailableError
from embedsvc.options import EncodeOptions
from embedsvc.scheduling.isolated import IsolatedRuntime
from embedsvc.server.errors import ModelNotFoundError
from embedsvc.server.metrics import Metrics
from embedsvc.server.models import ModelSet
from embedsvc.settings import Settings
from training.static_export import write_static_folder

ROWS = 200
PLAIN = EncodeOptions()


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three static models, named small, medium and large after the width of their vectors."""
    root = tmp_path_factory.mktemp("models")
    vocabulary = {"[UNK]": 0} | {f"w{number}": number for number in range(1, ROWS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    for name, width in (("small", 8), ("medium", 16), ("large", 4096)):
        table = np.random.default_rng(width).normal(size=(ROWS, width)).astype(np.float32)
        write_static_folder(root / name, table, tokenizer.to_str(), matryoshka_dimensions=[], dtype="float32")
    return root


@pytest.fixture
def make_models(tmp_path: Path) -> Iterator[Callable[..., ModelSet]]:
    made: list[ModelSet] = []

    def make(*entries: Any, **options: Any) -> ModelSet:
        settings = Settings(model=tuple(map(str, entries)), data_dir=tmp_path, **options)
        made.append(ModelSet(settings, Metrics()))
        return made[-1]

    yield make
    for one in made:
        asyncio.run(one.close(0))


def test_models_are_found_by_name_by_path_and_by_the_name_given(make_models, folders):
    models = make_models(folders / "small", f"other={folders / 'medium'}")
    assert [model.name for model in models.all] == ["small", "other"]
    assert models.default is models.find(None) is models.find("small") is models.find(str(folders / "small"))
    assert models.find("other") is models.find(str(folders / "medium"))
    with pytest.raises(ModelNotFoundError, match="no model 'medium'; this server has: small, other"):
        models.find("medium")


def test_a_model_is_loaded_when_it_is_first_asked_for(make_models, folders):
    models = make_models(folders / "small", folders / "medium")

    async def run() -> None:
        await models.get(None)
        assert [model.is_loaded for model in models.all] == [True, False]
        with pytest.raises(UnavailableError, match="'medium' is not loaded"):
            models.find("medium").encoder.encode(["w1"])
        encodings = await asyncio.gather(*[models.find("medium").encode(["w3"], PLAIN) for _ in range(5)])
        assert [model.is_loaded for model in models.all] == [True, True]
        for encoding in encodings:
            np.testing.assert_array_equal(encoding.vectors, load_encoder(folders / "medium").encode(["w3"]))

    asyncio.run(run())


def test_the_least_recently_used_model_makes_room(make_models, folders):
    size = (folders / "medium" / "model.safetensors").stat().st_size
    models = make_models(
        folders / "small",
        f"a={folders / 'medium'}",
        f"b={folders / 'medium'}",
        f"c={folders / 'medium'}",
        max_model_bytes=int(size * 1.5 * 2.9),
    )

    def loaded() -> set[str]:
        return {model.name for model in models.all if model.is_loaded}

    async def run() -> None:
        for name in (None, "a", "b"):
            await models.find(name).encode(["w1"], PLAIN)
        assert loaded() == {"small", "a", "b"}
        await models.find("a").encode(["w1"], PLAIN)
        await models.find("c").encode(["w1"], PLAIN)
        assert loaded() == {"small", "a", "c"}
        await models.find("b").encode(["w1"], PLAIN)
        assert loaded() == {"small", "c", "b"}

    asyncio.run(run())


def test_a_model_over_the_budget_is_refused_and_the_others_go_on(make_models, folders):
    models = make_models(folders / "small", folders / "large", max_model_bytes=1_000_000)

    async def run() -> None:
        await models.get(None)
        with pytest.raises(UnavailableError, match=r"'large' needs about 4,9\d\d,\d{3} bytes beside the"):
            await models.get("large")
        assert (await models.find("small").encode(["w1"], PLAIN)).vectors.shape == (1, 8)

    asyncio.run(run())


def test_a_model_can_have_a_process_of_its_own_which_ends_when_it_is_unloaded(make_models, folders):
    models = make_models(folders / "small", isolation="process")

    async def run() -> None:
        model = await models.get(None)
        runtime = model.encoder.runtime
        assert isinstance(runtime, IsolatedRuntime)
        assert model.estimated_bytes() > 10_000_000
        assert Path(f"/proc/{runtime.pid}").exists()
        await models.close(0)
        assert not Path(f"/proc/{runtime.pid}").exists()

    asyncio.run(run())


def test_what_is_wrong_with_a_model_shows_at_the_start(make_models, folders, tmp_path):
    with pytest.raises(NotFoundError, match="no model folder at"):
        make_models(folders / "small", folders / "nothing")
    with pytest.raises(InvalidInputError, match=r"two models have the name 'small'; .*--model NAME="):
        make_models(folders / "small", folders / "small")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "modules.json").write_text("[")
    with pytest.raises(ModelError, match="cannot be read as JSON"):
        make_models(folders / "small", tmp_path / "broken")


def test_a_model_that_fails_to_load_fails_its_own_callers_only(make_models, folders, tmp_path):
    import shutil

    shutil.copytree(folders / "medium", tmp_path / "later")
    models = make_models(folders / "small", tmp_path / "later")
    weights = tmp_path / "later" / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:100])

    async def run() -> None:
        await models.get(None)
        with pytest.raises(ModelError, match="cannot be read"):
            await models.find("later").encode(["w1"], PLAIN)
        await models.find("small").encode(["w1"], PLAIN)
        weights.write_bytes(content)
        await models.find("later").encode(["w1"], PLAIN)

    asyncio.run(run())

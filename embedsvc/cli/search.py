"""`embedsvc search`. Its options are the fields of `SearchOptions`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from embedsvc.cli.opening import (
    data_dir_option,
    filter_option,
    given_encoder,
    languages_of,
    opened_collections,
    parsed_filter,
)
from embedsvc.cli.options import INPUT_FILE, model_options

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from embedsvc.collections.collection import Hit, SearchResult
    from embedsvc.reranker import Reranker

Command = TypeVar("Command", bound=Callable[..., Any])


def search_options(command: Command) -> Command:
    """Add an option for each field of `SearchOptions`; one that is not given is left to its default."""
    for option in (
        click.option("--explain", is_flag=True, default=None, help="Say how it was done."),
        click.option("--facets", is_flag=True, default=None, help="Count documents per language."),
        click.option("--query-language", help="Of the query.  [default: detected]"),
        click.option("--rerank", type=int, help="Candidates scored anew by the --reranker."),
        click.option("--maxsim", type=int, help="Candidates scored anew by their token vectors."),
        click.option("--group-by", help="Only the best hit for each value of this metadata field."),
        click.option("--min-score", type=float, help="Drop hits with a lower score."),
        click.option(
            "--fusion",
            type=click.Choice(["rrf", "score"]),
            help="How hybrid joins its two rankings: by ranks or by scores.  [default: rrf]",
        ),
        click.option(
            "--mode",
            type=click.Choice(["dense", "lexical", "hybrid"]),
            help="By meaning, by words (BM25), or both.  [default: dense]",
        ),
        filter_option,
        click.option(
            "--balance",
            multiple=True,
            help="round_robin takes the best of each language in turn; de=3 at most 3 in German, '*=1' at "
            "most 1 in each other (without it none); may be repeated.",
        ),
        click.option(
            "--prefer-language", multiple=True, help="Raise this language's scores; de=0.1 says by how much."
        ),
        click.option(
            "--lang",
            "languages",
            multiple=True,
            help="Only documents in this language, or any; may be repeated.",
        ),
        click.option("--offset", type=click.IntRange(0, 9999), help="Hits to skip.  [default: 0]"),
        click.option("--top-k", type=click.IntRange(1, 1000), help="Most hits.  [default: 10]"),
    ):
        command = option(command)
    return command


@click.command()
@click.argument("name")
@click.argument("query", required=False)
@click.option("--vector", "vector_file", type=INPUT_FILE, help="A .npy file with the vector to search for.")
@search_options
@click.option("--reranker", help="Folder or hub id of the cross-encoder for --rerank.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per hit.")
@data_dir_option
@model_options
def search(
    name: str,
    query: str | None,
    vector_file: Path | None,
    reranker: str | None,
    as_json: bool,
    data_dir: Path,
    model: str | None,
    runtime: Any,
    precision: Any,
    device: str | None,
    **options: Any,
) -> None:
    """Search collection NAME for documents near in meaning to QUERY, in any language.

    With --vector instead of QUERY for those near to a vector of the collection's model.
    """
    from embedsvc.collections.collection import SearchOptions
    from embedsvc.collections.request import checked_request

    wanted = SearchOptions(**_given(options))
    checked_request(wanted)  # before a model is loaded
    vectors = None if vector_file is None else [_read_vector(vector_file)]
    encoder = given_encoder(model, runtime=runtime, precision=precision, device=device)
    with opened_collections(data_dir, encoder, _loaded_reranker(reranker)) as found:
        (result,) = found.get(name).query(None if query is None else [query], vectors, wanted)
    for line in _json_lines(result) if as_json else _table(result):
        click.echo(line)
    if not result.hits:
        click.echo("no hits", err=True)


def _given(options: dict[str, Any]) -> dict[str, Any]:
    """Return what was given, as `SearchOptions` takes it."""
    options["languages"] = languages_of(options["languages"])
    options["filter"] = parsed_filter(options.pop("filter_json"))
    options["prefer_language"] = _boosts(options["prefer_language"])
    options["balance"] = _balance(options["balance"])
    return {name: value for name, value in options.items() if value is not None}


def _boosts(given: Sequence[str]) -> dict[str, float] | None:
    """ "de" or "de=0.1", several times → {code: boost}."""
    from embedsvc.collections.request import PREFERENCE

    pairs = [entry.partition("=") for entry in given]
    return {
        code: _number(float, "--prefer-language", code + sign + boost, boost) if sign else PREFERENCE
        for code, sign, boost in pairs
    } or None


def _balance(given: Sequence[str]) -> str | dict[str, int] | None:
    """ "round_robin", or "de=3" several times → {code: quota}."""
    if len(given) == 1 and "=" not in given[0]:
        return given[0]
    pairs = [(entry, *entry.partition("=")) for entry in given]
    return {code: _number(int, "--balance", entry, quota) for entry, code, _, quota in pairs} or None


def _number(kind: type[Any], option: str, entry: str, digits: str) -> Any:
    from embedsvc.errors import InvalidInputError

    try:
        return kind(digits)
    except ValueError as error:
        raise InvalidInputError(f"{option} {entry}: LANGUAGE=NUMBER expected") from error


def _read_vector(path: Path) -> NDArray[np.float64]:
    """Return the vector in a .npy file: (dim,) or (1, dim)."""
    import numpy as np

    from embedsvc.errors import InvalidInputError

    try:
        vector: NDArray[np.float64] = np.asarray(np.load(path, allow_pickle=False), np.float64)
    except (OSError, ValueError, EOFError) as error:
        raise InvalidInputError(f"--vector {path} is no .npy file of numbers: {error}") from error
    if vector.ndim == 2 and len(vector) == 1:
        vector = vector.reshape(-1)
    if vector.ndim != 1:
        raise InvalidInputError(f"--vector {path} has the shape {vector.shape}; one vector expected")
    return vector


def _loaded_reranker(model: str | None) -> Reranker | None:
    if model is None:
        return None
    from embedsvc.reranker import load_reranker

    return load_reranker(model)


def _json_lines(result: SearchResult) -> Iterator[str]:
    """Yield a JSON object per hit, and a last one for facets and plan if they were asked for."""
    for hit in result.hits:
        told = {
            "id": hit.id,
            "text": hit.text,
            "language": hit.language,
            "score": hit.score,
            "metadata": hit.metadata,
            "passage": None if hit.passage is None else vars(hit.passage),
            "explanation": hit.explanation,
        }
        optional = ("passage", "explanation")
        yield _json({key: value for key, value in told.items() if value is not None or key not in optional})
    about = {
        key: value for key, value in (("facets", result.facets), ("plan", result.plan)) if value is not None
    }
    if about:
        yield _json(about)


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _table(result: SearchResult) -> Iterator[str]:
    """Yield one line per hit: score, language, id, and as much of the passage as fits."""
    widest = max((len(hit.id) for hit in result.hits), default=0)
    room = max(shutil.get_terminal_size((120, 24)).columns - widest - 13, 20)
    for hit in result.hits:
        text = " ".join(_shown(hit).split())
        cut = text if len(text) <= room else text[: room - 1] + "…"
        yield f"{hit.score:6.3f}  {hit.language:3}  {hit.id:{widest}}  {cut}"
        if hit.explanation is not None:
            yield f"        {_json(hit.explanation)}"
    if result.facets is not None:
        yield f"documents per language: {', '.join(f'{code} {n}' for code, n in result.facets.items())}"
    if result.plan is not None:
        yield f"plan: {_json(result.plan)}"


def _shown(hit: Hit) -> str:
    return hit.text if hit.passage is None else hit.passage.text

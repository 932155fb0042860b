"""Pairs on disk: what is written is what was read, once, and nothing is dropped without being counted."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedsvc.errors import InvalidInputError
from training import pair_store
from training.arrays import ArrayWriter, mapped_array
from training.data import text_keys
from training.data_config import DataConfig
from training.groups import joined_groups
from training.pair_files import pair_files
from training.pair_store import TextPairs, stored_pairs
from training.text_store import TextStore, TextWriter
from training.token_store import Tokenization, stored_tokens


def stored(folder: Path, content: str = "", **config: Any) -> TextPairs:
    """The pairs of ``folder/pairs.tsv``, read into ``folder/store``."""
    if content:
        (folder / "pairs.tsv").write_text(content, encoding="utf-8")
    data = DataConfig.model_validate({"pairs": ["pairs.tsv"], **config})
    facts = [{"name": "pairs.tsv", "size_bytes": len(content), "sha256": ""}]
    return stored_pairs(pair_files(data.pairs, folder), data, facts, folder / "store")


def rows(pairs: TextPairs) -> list[tuple[str, str, str]]:
    return [
        (pairs.english[int(group)], pairs.languages[code], other)
        for group, code, other in zip(pairs.group, pairs.language, pairs.other, strict=True)
    ]


def test_english_is_kept_once_and_languages_may_be_chosen(tmp_path: Path) -> None:
    content = "Yes\tdeu_Latn\tJa\n\tfra_Latn\tOui\nNo\tdeu_Latn\tNein\nYes\tita_Latn\tSì\n"
    pairs = stored(tmp_path, content)
    assert rows(pairs) == [
        ("Yes", "deu_Latn", "Ja"),
        ("Yes", "fra_Latn", "Oui"),
        ("No", "deu_Latn", "Nein"),
        ("Yes", "ita_Latn", "Sì"),
    ]
    assert [*pairs.english] == ["Yes", "No"]
    assert pairs.characters.tolist() == [3, 2]
    assert pairs.group_key.tolist() == text_keys(["yes", "YES!", "no", "Yes"]).tolist()
    assert pairs.other_key.tolist() == text_keys(["Ja", "Oui", "Nein", "Sì"]).tolist()
    only = stored(tmp_path, languages=["fra_Latn"])
    assert rows(only) == [("Yes", "fra_Latn", "Oui")]
    assert only.report["read"][0]["left_out"] == {"language not in data.languages": 3}


def test_pairs_without_english_have_both_languages_and_named_groups_join_them(tmp_path: Path) -> None:
    header = "src\ttgt\tsrc_lang\ttgt_lang\tgroup\n"
    lines = ["Yes\tJa\ten\tde\ta", "Ja\tOui\tde\tfr\ta", "Ja\tJa\tde\tnl\tb", "Ja\tYes\tnl\ten\tc"]
    pairs = stored(tmp_path, header + "\n".join(lines) + "\n")
    assert rows(pairs) == [
        ("Yes", "de", "Ja"),
        ("Ja", "de-fr", "Oui"),
        ("Ja", "de-nl", "Ja"),
        ("Yes", "nl", "Ja"),
    ]
    assert len(set(pairs.group_key.tolist())) == 1, "a joins Yes and Ja; Yes and Ja join b and c"


def test_the_store_is_opened_again_unless_files_or_options_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored(tmp_path, "Yes\tde\tJa\nNo\tde\tNein\n")
    reads: list[Path] = []
    read = pair_store.read_pairs
    monkeypatch.setattr(
        pair_store, "read_pairs", lambda file, **options: reads.append(file) or read(file, **options)
    )
    content = "Yes\tde\tJa\nNo\tde\tNein\n"
    assert rows(stored(tmp_path, content)) == [("Yes", "de", "Ja"), ("No", "de", "Nein")]
    assert not reads
    stored(tmp_path, content, filters=["copy"])
    assert len(reads) == 1
    (tmp_path / "store" / "manifest.json").unlink()  # as when it was killed before the end
    assert len(rows(stored(tmp_path, content, filters=["copy"]))) == 2
    assert len(reads) == 2


@pytest.mark.parametrize(
    ("content", "config", "message"),
    [
        ("Yes\tde\t \n", {}, r"pairs\.tsv line 1: the target is empty beside 'Yes'; the filter \"empty\""),
        ("Yes\tde\tJa\n\tde\tNein\n \tde\tX\n", {}, r"pairs\.tsv line 3: the source is empty beside 'X'"),
        ("Yes\tde\tJa\n", {"languages": ["de", "xx"]}, "no pairs of 'xx' in the data"),
        ("Yes\tde\tYes\n", {"filters": ["copy"]}, r"no pairs in .*pairs\.tsv"),
    ],
)
def test_pairs_that_cannot_be_learnt_from_are_named(
    tmp_path: Path, content: str, config: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidInputError, match=message):
        stored(tmp_path, content, **config)


def test_filters_count_what_they_drop_by_reason_and_show_examples(tmp_path: Path) -> None:
    lines = [
        "The cat sleeps.\tde\tDie Katze schläft.",
        "The cat sleeps.\tde\t ",
        "Room 5\tde\tZimmer 6",
        "The cat sleeps.\tde\tDie Katze  schläft.",
        "the cat sleeps\tde\tdie Katze schläft!",
        "the cat sleeps\tnl\tdie Katze schläft!",
        "Berlin\tde\tberlin!",
        "The cat sleeps.\tde\tКошка спит.",
        "Hello\tde\t" + "Hallo, wie geht es dir an diesem schönen Morgen? " * 3,
    ]
    names = ["empty", "script", "ratio", "copy", "numbers", "duplicate", "near_duplicate"]
    pairs = stored(tmp_path, "\n".join(lines) + "\n", filters=names)
    assert [other for _, _, other in rows(pairs)] == ["Die Katze schläft.", "die Katze schläft!"]
    filters = pairs.report["filters"]
    assert filters["dropped"] == dict.fromkeys(names, 1)
    assert filters["examples"]["numbers"] == [
        {"place": f"{tmp_path}/pairs.tsv line 3", "source": "Room 5", "target": "Zimmer 6"}
    ]
    assert pairs.report["read"] == [{"name": "pairs.tsv", "pairs": 9, "kept": 2, "left_out": {}}]


def test_an_unknown_filter_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(
        ValueError, match=r"unknown filter; choose among default, empty, long, .*near_duplicate"
    ):
        DataConfig.model_validate({"pairs": ["a"], "filters": ["empti"]})


@given(st.lists(st.text(max_size=5).map(lambda text: text.encode(errors="ignore").decode()), max_size=9))
@settings(max_examples=30)
def test_stored_texts_are_the_texts(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    folder = tmp_path_factory.mktemp("texts")
    with TextWriter(folder, "a") as writer:
        for start in range(0, len(texts), 2):
            writer.append([text.encode() for text in texts[start : start + 2]])
        writer.finish()
    found = TextStore(folder, "a")
    assert [*found] == texts
    assert found[1:-1] == texts[1:-1]
    assert found[::-2] == texts[::-2]
    assert [found[row] for row in range(-len(texts), len(texts))] == texts + texts


def test_an_array_written_in_parts_is_one_that_numpy_reads(tmp_path: Path) -> None:
    with ArrayWriter(tmp_path / "a.npy", np.int32) as writer:
        for start in range(0, 100_000, 30_000):
            writer.append(np.arange(start, min(start + 30_000, 100_000)))
        writer.finish()
    assert np.array_equal(np.load(tmp_path / "a.npy"), np.arange(100_000, dtype=np.int32))
    assert mapped_array(tmp_path / "a.npy").dtype == np.int32
    with ArrayWriter(tmp_path / "none.npy", np.int64) as writer:
        writer.finish()
    assert mapped_array(tmp_path / "none.npy").shape == (0,)


def tokenized(folder: Path, texts: list[str], calls: list[int], **how: Any) -> Any:
    with TextWriter(folder, "a") as writer:
        writer.append([text.encode() for text in texts])
        writer.finish()

    def ids_of(some: Any) -> list[list[int]]:
        calls.append(len(some))
        return [[len(word) for word in text.split()] for text in some]

    tokenization = Tokenization(ids_of, how.get("fingerprint", "x"), how.get("max_tokens", 3))
    made_of = {"pairs": how.get("pairs", "p")}
    return stored_tokens(TextStore(folder, "a"), tokenization, made_of, folder / "a", progress=False)


def test_tokens_are_cut_counted_and_made_once(tmp_path: Path) -> None:
    calls: list[int] = []
    texts = ["a bb", "", "a a a a", "ccc"]
    tokens = tokenized(tmp_path, texts, calls)
    assert tokens.bags.ids.tolist() == [1, 2, 1, 1, 1, 3]
    assert tokens.bags.starts.tolist() == [0, 2, 2, 5, 6]
    assert tokens.counts.tolist() == [0, 4, 1, 1]
    assert tokens.cut == 1
    tokenized(tmp_path, texts, calls)
    assert len(calls) == 1
    for other in ({"fingerprint": "y"}, {"max_tokens": 2}, {"pairs": "q"}):
        tokenized(tmp_path, texts, calls, **other)
        tokenized(tmp_path, texts, calls)
    assert len(calls) == 7


@given(st.lists(st.tuples(st.integers(1, 12), st.integers(0, 8)), min_size=1, max_size=25))
def test_groups_are_what_a_search_of_the_graph_finds(edges: list[tuple[int, int]]) -> None:
    text, named = (np.array(column) for column in zip(*edges, strict=True))
    keys = joined_groups(text, named)
    joined = {frozenset({t}) for t in text.tolist()}
    for group in set(named.tolist()) - {0}:
        touched = {one for one in joined if one & set(text[named == group].tolist())}
        joined = joined - touched | {frozenset().union(*touched)}
    assert keys.tolist() == [min(one) for t in text.tolist() for one in joined if t in one]

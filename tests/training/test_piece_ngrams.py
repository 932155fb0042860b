"""N-grams that pieces share, against hand-made vocabularies and torch's own gradients."""

import numpy as np
import pytest
from tokenizers import Tokenizer, models

torch = pytest.importorskip("torch", reason="training tests need the [train] extra")

from training.piece_ngrams import piece_ngrams  # noqa: E402
from training.static_model import StaticTable  # noqa: E402


def vocabulary(*pieces: str) -> Tokenizer:
    return Tokenizer(models.WordLevel({piece: row for row, piece in enumerate(pieces)}, unk_token=pieces[0]))


def test_an_ngram_counts_once_in_a_piece_and_only_when_enough_pieces_have_it() -> None:
    # anana has ana (twice), nan, anan, nana and anana; banana those and others, one of which ##ban has too.
    tokenizer = vocabulary("[UNK]", "##anana", "banana", "##ban", "##nan")
    counts = [[0, 1, 1, 0, 1], [0, 5, 6, 1, 1]]
    for least, expected in zip((3, 2), counts, strict=True):
        found = piece_ngrams(tokenizer, least).toarray()
        assert (found > 0).sum(1).tolist() == expected
        assert np.linalg.norm(found, axis=1) == pytest.approx(np.sign(expected))
        assert found.max(axis=1) == pytest.approx([1 / np.sqrt(n) if n else 0 for n in expected])


def test_the_begin_of_a_word_is_a_letter() -> None:
    for begins, inside in (
        (("hausen", "haus"), ("##hausen", "##haus")),
        (("▁hausen", "▁haus"), ("hausen", "haus")),
    ):
        tokenizer = vocabulary("[UNK]", *begins, *inside)
        rows = piece_ngrams(tokenizer, 2).toarray() > 0
        assert rows.sum(1).tolist() == [0, 9 + 3, 3 + 3, 9, 3], "<ha <hau <haus are the three"
        assert (rows[1] & rows[4]).sum() == 3, "the same letters inside a word"


def test_short_pieces_and_special_tokens_have_none() -> None:
    tokenizer = vocabulary("the", "ab", "[UNKNOWN]")
    tokenizer.add_special_tokens(["[UNKNOWN]"])
    assert piece_ngrams(tokenizer, 1).getnnz(axis=1).tolist() == [3, 0, 0], "<th the <the"


SHARE = np.array([0.4, 0.3, 0.2, 0.1])
BAGS = (np.array([0, 1, 3]), np.array([0, 0, 1, 2, 1]), np.array([0, 3]))


def table_with_ngrams() -> StaticTable:
    tokenizer = vocabulary("house", "houses", "tree", "##trees")
    return StaticTable(4, 3, seed=1, token_share=SHARE, ngrams=piece_ngrams(tokenizer, 2))


def test_gradients_are_those_of_the_whole_tables() -> None:
    table = table_with_ngrams()
    assert table.ngrams is not None
    assert table.ngram_vector is not None
    table.ngram_vector.copy_(
        torch.randn(table.ngram_vector.shape, generator=torch.Generator().manual_seed(3))
    )
    whole = {name: tensor.clone().requires_grad_() for name, tensor in table.tables().items()}
    ngrams = torch.from_numpy(table.ngrams.toarray())
    rows = (whole["vector"] + ngrams @ whole["ngram_vector"]) * whole["log_weight"].exp().unsqueeze(1)
    tokens, positions, offsets = BAGS
    bags = [rows[tokens[part]].mean(0) for part in np.split(positions, offsets[1:])]
    expected = torch.stack(bags)
    found = table.embed(*BAGS)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.from_numpy(table.folded()), rows.detach())
    target = torch.tensor([[1.0, 0.0, 2.0], [0.0, 3.0, 1.0]])
    (expected * target).sum().backward()
    (found * target).sum().backward()
    groups = table.gradients()
    assert sorted(name for group in groups for name in group.tables) == [
        "log_weight",
        "ngram_vector",
        "vector",
    ]
    for group in groups:
        for name, gradient in group.tables.items():
            full = torch.zeros_like(whole[name]).index_copy_(0, group.rows, gradient)
            torch.testing.assert_close(full, whole[name].grad)


def test_a_piece_learns_from_one_that_is_spelt_like_it_and_from_no_other() -> None:
    table = table_with_ngrams()
    before = table.folded().copy()
    (table.embed(np.array([0]), np.array([0]), np.array([0])) ** 2).sum().backward()
    table.update(1, 0.1)
    moved = np.abs(table.folded() - before).max(axis=1) > 1e-6
    assert moved.tolist() == [True, True, False, False]
    kept = table.untaught_copy()
    table.update(2, 0.1)
    assert np.abs(table.folded() - kept.folded()).max() > 1e-6, "a copy stays as it was"

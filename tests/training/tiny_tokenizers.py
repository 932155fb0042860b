"""Small tokenizers of every kind that the library knows, with pieces that most texts do not use."""

from __future__ import annotations

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

TEXT = """
the quick brown fox jumps over the lazy dog while thirty other foxes watch the dogs jump over the
brown logs and the quickest of them all overtakes the laziest über straße größer grüße москва москвы
""".split()  # noqa: SIM905


def word_piece() -> Tokenizer:
    letters = sorted({letter for word in TEXT for letter in word})
    starts = [word[:size] for word in TEXT for size in range(1, 6)]
    ends = [f"##{word[begin:]}" for word in TEXT for begin in range(1, len(word), 2)]
    pieces = ["[PAD]", "unused", "[UNK]", "[CLS]", "[SEP]", *letters, *(f"##{c}" for c in letters)]
    names = list(dict.fromkeys([*pieces, *starts, *ends]))
    tokenizer = Tokenizer(models.WordPiece({name: i for i, name in enumerate(names)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]"])
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 4), ("[CLS]", 3))
    tokenizer.enable_padding(pad_id=0, pad_token="[PAD]")
    return tokenizer


def bpe() -> Tokenizer:
    tokenizer = Tokenizer(
        models.BPE(unk_token="[UNK]", continuing_subword_prefix="##", fuse_unk=True, byte_fallback=False)
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(
        vocab_size=140, special_tokens=["[UNK]"], continuing_subword_prefix="##", show_progress=False
    )
    tokenizer.train_from_iterator([" ".join(TEXT)] * 3, trainer)
    return tokenizer


def byte_bpe() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=340,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<s>", "<pad>", "</s>"],
        show_progress=False,
    )
    tokenizer.train_from_iterator([" ".join(TEXT)] * 3, trainer)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    tokenizer.add_special_tokens(["<mask>"])
    return tokenizer


def unigram() -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=120,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
        unk_token="<unk>",
        show_progress=False,
    )
    tokenizer.train_from_iterator([" ".join(TEXT)] * 3, trainer)
    tokenizer.add_special_tokens(["<mask>"])
    ids = [("<s>", tokenizer.token_to_id("<s>")), ("</s>", tokenizer.token_to_id("</s>"))]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B </s>", special_tokens=ids
    )
    return tokenizer


KINDS = {"WordPiece": word_piece(), "BPE": bpe(), "byte BPE": byte_bpe(), "Unigram": unigram()}

"""Files are written whole or not at all, and nothing but a regular file is replaced."""

import codecs
import gzip
import lzma
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from embedsvc import load_encoder
from embedsvc.cli.encode import encode
from embedsvc.errors import InvalidInputError
from embedsvc.textfiles import atomic_write, iterate_lines, read_texts

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "v.npy"
    path.write_bytes(b"old")

    def fail_half_way() -> None:
        with atomic_write(path) as file:
            file.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_device_or_a_folder_is_not_replaced(tmp_path: Path) -> None:
    for path in (Path("/dev/full"), tmp_path):
        with pytest.raises(InvalidInputError, match="is not a regular file"), atomic_write(path):
            pass
    assert not Path("/dev/full").is_file()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "t.txt is empty"),
        (b"a\n\n", "t.txt line 2 is empty; every line must hold a text"),
        (b"a\nb\xff\n", "t.txt line 2: byte 0xff at position 1 is not UTF-8"),
        (b"\x89PNG\0\n", "t.txt line 1: a NUL byte; this is not a UTF-8 text file"),
    ],
)
def test_a_bad_text_file_is_named_with_its_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "t.txt"
    path.write_bytes(content)
    with pytest.raises(InvalidInputError) as caught:
        read_texts(path)
    assert caught.value.message.endswith(message)


def test_encode_does_not_overwrite_its_input(tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    path.write_text("Guten Tag\n")
    result = CliRunner().invoke(encode, [str(path), "--out", str(path)])
    assert result.exit_code == 2
    assert "is one of the input files" in result.output
    assert path.read_text() == "Guten Tag\n"


def test_a_device_the_runtime_cannot_use_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="device 'cuda' is for the torch runtime"):
        load_encoder(device="cuda")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-32"])
def test_another_encoding_is_named_with_the_remedy(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "t.txt"
    mark = codecs.BOM_UTF16_BE if encoding == "utf-16-be" else b""
    path.write_bytes(mark + "Guten Tag\n".encode(encoding))
    family = encoding[:6].upper()
    with pytest.raises(
        InvalidInputError, match=rf"is {family} text; UTF-8 expected.*iconv -f {family} -t UTF-8"
    ):
        list(iterate_lines(path))


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    path.write_bytes("\ufeffa\n\ufeffb\n".encode())
    assert list(iterate_lines(path)) == [(1, "a"), (2, "\ufeffb")]


def test_a_line_over_the_limit_is_named_and_not_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "t.txt.gz"
    path.write_bytes(gzip.compress(b"short\n" + b"x" * 50_000_000, compresslevel=1))
    tracemalloc.start()
    with pytest.raises(InvalidInputError, match=r"line 2 has more than 1,000 bytes, the limit of a line"):
        list(iterate_lines(path, max_line_bytes=1000))
    assert tracemalloc.get_traced_memory()[1] < 2_000_000
    tracemalloc.stop()


def test_a_line_of_just_the_limit_is_read(tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    path.write_bytes(b"x" * 9 + b"\n" + b"y" * 10)
    assert list(iterate_lines(path, max_line_bytes=10)) == [(1, "x" * 9), (2, "y" * 10)]


def test_bad_bytes_are_replaced_on_request_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    path.write_bytes(b"good\n\xff a\xfe \xef\xbf\xbd\nb\xc3\n")
    found: list[tuple[int, int]] = []
    lines = list(iterate_lines(path, on_bad_bytes=lambda *bad: found.append(bad)))
    assert lines == [(1, "good"), (2, "\ufffd a\ufffd \ufffd"), (3, "b\ufffd")]
    assert found == [(2, 2), (3, 1)]


@pytest.mark.parametrize(
    ("suffix", "pack"), [(".gz", gzip.compress), (".xz", lzma.compress), (".zst", zstd.compress)]
)
def test_packed_lines_read_like_plain_ones(tmp_path: Path, suffix: str, pack: Any) -> None:
    path = tmp_path / f"t.txt{suffix}"
    packed = pack(b"eins\n") + pack("zwei\nдрей".encode())  # two archives in one file, as `cat` makes
    path.write_bytes(packed)
    assert list(iterate_lines(path)) == [(1, "eins"), (2, "zwei"), (3, "дрей")]
    path.write_bytes(packed[:-5])
    with pytest.raises(InvalidInputError, match=rf"damaged {suffix} file"):
        list(iterate_lines(path))


@settings(deadline=None)
@given(
    st.lists(
        st.text(
            st.characters(exclude_categories=["Cs"], exclude_characters="\0\r\n\ufeff")
            | st.sampled_from("\f\v\x1c\x85\u2028 ")
        ),
        max_size=8,
    ),
    st.sampled_from(["\n", "\r\n"]),
)
def test_only_a_line_feed_ends_a_line(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], end: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "lines.txt"
    path.write_bytes("".join(text + end for text in texts).encode())
    assert list(iterate_lines(path)) == list(enumerate(texts, 1))

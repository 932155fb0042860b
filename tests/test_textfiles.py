"""Files are written whole or not at all, and nothing but a regular file is replaced."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from embedsvc import load_encoder
from embedsvc.cli.encode import encode
from embedsvc.errors import InvalidInputError
from embedsvc.textfiles import atomic_write, read_texts


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
        (b"\x89PNG\0\n", "t.txt line 1: a NUL byte; this is not a text file"),
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

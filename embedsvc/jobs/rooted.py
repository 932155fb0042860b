"""Files that a client names: only those below one folder, wherever links and dots may lead."""

from __future__ import annotations

from pathlib import Path

from embedsvc.errors import InvalidInputError, NotFoundError


def file_below(root: Path, name: str, *, param: str) -> Path:
    """Return the real path of a file below a folder.

    Raises InvalidInputError for a path that leads elsewhere or to no regular file, NotFoundError for none.
    """
    shown = name[:200]
    if not name or "\0" in name or Path(name).is_absolute():
        raise InvalidInputError(f"{param} is {shown!r}; a path below the jobs_root is expected", param=param)
    missing = NotFoundError(f"{param}: no file {shown!r} below the jobs_root", param=param)
    try:
        real = (root / name).resolve()
        if not real.is_relative_to(root.resolve()):  # said of what is there and of what is not alike
            raise InvalidInputError(f"{param} is {shown!r}, which leads out of the jobs_root", param=param)
        if not real.exists():
            raise missing
        is_file = real.is_file()
    except (OSError, RuntimeError, UnicodeEncodeError) as error:  # RuntimeError: links in a circle
        raise missing from error
    if not is_file:
        raise InvalidInputError(f"{param} is {shown!r}, which is not a file", param=param)
    return real

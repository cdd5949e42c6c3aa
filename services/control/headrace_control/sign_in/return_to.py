"""Where a browser goes after it has signed in: a path of this mesh, never another site. Pure."""

from __future__ import annotations

from headrace.errors import InvalidRequest

DEFAULT_RETURN_TO = "/ui/"
_LONGEST = 1024


def checked_return_to(path: str) -> str:
    """Return the path, or the default for an empty one.

    What browsers may take for the name of another host is rejected: they read `//host` and
    `/\\host` as one, and drop tabs and line ends before they read.

    Raises:
        InvalidRequest: it is not a path of this mesh.
    """
    path = path or DEFAULT_RETURN_TO
    is_path = path[0] == "/" and "//" not in path.partition("?")[0] and "\\" not in path
    if not is_path or len(path) > _LONGEST or not all("!" <= c <= "~" for c in path):
        raise InvalidRequest(
            f"return_to is {path[:80]!r}; it must be a path of this mesh, as {DEFAULT_RETURN_TO},"
            f" of at most {_LONGEST} printable ASCII characters, without // and backslashes",
            field="return_to",
        )
    return path

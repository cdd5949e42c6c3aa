def open_api() -> bytes:
    return b"{}"

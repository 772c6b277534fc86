"""Words that go with numbers."""


def counted(n: int, thing: str) -> str:
    """Write a number of things: "1 row", "2 rows"."""
    return f"{n} {thing}{'s' if n != 1 else ''}"

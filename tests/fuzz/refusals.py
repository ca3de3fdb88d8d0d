"""What a refusal must be."""


def require_one_line(error: Exception) -> None:
    """A refusal is one line."""
    assert "\n" not in str(error), error

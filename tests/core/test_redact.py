"""A location that is told has no secret in it."""

import pytest

from latentrec.core.redact import redact, redact_values


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://ann:hunter2@example.org/a.json", "https://example.org/a.json"),
        ("https://ann@example.org/a.json", "https://example.org/a.json"),
        ("https://a:b@c:d@example.org/x", "https://example.org/x"),
        ("https://example.org/a.json?X-Signature=abc&t=1", "https://example.org/a.json?…"),
        ("https://example.org/a.json#token=abc", "https://example.org/a.json?…"),
        ("s3://key:secret@bucket/x?versionId=7", "s3://bucket/x?…"),
        ("postgresql://user:pw@db/mlflow", "postgresql://db/mlflow"),
        ("'https://e.org/x?s=1': 403, see https://e.org/a.", "'https://e.org/x?…': 403, see https://e.org/a."),
        ("a,https://u:p@e.org/x?s=1 and gs://b/y", "a,https://e.org/x?… and gs://b/y"),
        ("exceeded with url: /x?sig=abc (by y)", "exceeded with url: /x?… (by y)"),
        ("HTTPS://U:P@E.ORG/x", "HTTPS://E.ORG/x"),
        ("https://e.org/`<img>`.json?sig='s3cret\"x", "https://e.org/`<img>`.json?…"),
        ("/home/me/what?.json", "/home/me/what?.json"),
        ("sqlite:////tmp/m.db?timeout=5", "sqlite:////tmp/m.db?timeout=5"),
        ("user@example.org wrote 1 < 2?", "user@example.org wrote 1 < 2?"),
    ],
)  # fmt: skip
def test_secrets_leave_the_text_and_nothing_else_does(text, shown):
    assert redact(text) == shown
    assert redact(redact(text)) == shown


def test_nested_values_are_reached():
    secret = "https://u:hunter2@e.org/x?sig=s3cret"
    value = {"a": [secret, {"b": (secret, 1)}], secret: None, "n": 2.5}
    shown = redact_values(value)
    assert "hunter2" not in repr(shown)
    assert "s3cret" not in repr(shown)
    assert shown["n"] == 2.5
    assert isinstance(shown["a"][1]["b"], tuple)

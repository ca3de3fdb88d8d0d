"""The REST examples of docs/using-the-model.md, sent as they stand."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "using-the-model.md"
TEXT = PAGE.read_text(encoding="utf-8")
BLOCKS = re.findall(r"```json\n(.*?)\n```", TEXT, flags=re.DOTALL)
BODIES = BLOCKS + re.findall(r"-d '(\{\"dataframe.*?)'", TEXT)


@pytest.mark.parametrize("body", BODIES)
def test_documented_call_is_answered(server, body):
    status, text = server.post(body.encode())
    assert status == 200, text
    assert json.loads(text)["predictions"]


def test_documented_refusal_is_what_the_server_says(server):
    body, answer = re.search(r"-d '(\{\"inputs\".*?)'\n(\{.*?\})\n", TEXT).groups()
    status, text = server.post(body.encode())
    assert status == 400
    assert json.loads(text) == json.loads(answer)


def test_every_format_is_documented():
    from latentrec.serving.scoring_server import FORMATS

    assert len(BODIES) == 5
    assert all(any(f'"{name}"' in body for body in BODIES) for name in FORMATS)

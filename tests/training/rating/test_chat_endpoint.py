"""The chat endpoint: what is tried again, what is refused, and what a hostile answer cannot do."""

import threading
import time

import pytest

from latentrec.training.rating.chat_endpoint import EndpointError, RateLimit
from tests.errors import refused
from tests.training.rating.teacher import Teacher, ask, chat, endpoint


def test_endpoint_answers_are_read_with_their_usage():
    with Teacher(lambda *_: (200, chat("hi"), {})) as teacher:
        answer = ask(endpoint(teacher.url))
        assert (answer.text, answer.prompt_tokens, answer.completion_tokens) == ("hi", 100, 20)


def test_too_many_requests_waits_as_long_as_the_endpoint_asks():
    def script(_, attempt):
        return (429, b"slow down", {"Retry-After": "0.4"}) if attempt == 1 else (200, chat("hi"), {})

    with Teacher(script) as teacher:
        client = endpoint(teacher.url)
        assert ask(client).text == "hi"
        first, second = (moment for moment, _, _ in teacher.requests)
        assert second - first >= 0.4
        assert client.retries == {"HTTP 429": 1}


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_server_errors_are_retried(status):
    with Teacher(lambda _, n: (status, b"", {}) if n < 3 else (200, chat("hi"), {})) as teacher:
        assert ask(endpoint(teacher.url)).text == "hi"
        assert teacher.asked["hello"] == 3


def test_timeout_is_retried():
    def script(_, attempt):
        if attempt == 1:
            time.sleep(0.6)
        return 200, chat("hi"), {}

    with Teacher(script) as teacher:
        client = endpoint(teacher.url, timeout=0.3)
        assert ask(client).text == "hi"
        assert client.retries == {"timeout": 1}


@pytest.mark.parametrize(
    "answer",
    [b"", b"not json", b"[]", {}, {"choices": []}, {"choices": [{}]}, chat(""), chat(None), chat(["x"])],
    ids=str,
)
def test_malformed_answer_is_retried_and_given_up_after_the_attempts_allowed(answer):
    with Teacher(lambda *_: (200, answer, {})) as teacher:
        client = endpoint(teacher.url, attempts=2)
        with pytest.raises(EndpointError) as failed:
            ask(client)
        assert failed.value.fault == "malformed answer"
        assert teacher.asked["hello"] == 2


def test_dead_endpoint_is_given_up():
    with Teacher(lambda *_: (200, chat("hi"), {})) as teacher:
        url = teacher.url
    with pytest.raises(EndpointError) as failed:
        ask(endpoint(url, attempts=2))
    assert failed.value.fault == "no connection"


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_refused_request_is_the_users_to_mend_and_not_repeated(status):
    with Teacher(lambda *_: (status, b"no such model", {})) as teacher:
        with refused("endpoint.refused", f"HTTP {status} "):
            ask(endpoint(teacher.url))
        assert teacher.asked["hello"] == 1


def test_key_is_sent_and_named_in_no_error(monkeypatch):
    monkeypatch.setenv("SECRET_KEY", "sk-very-secret")
    echo = {"error": {"code": "invalid_api_key", "message": "\x1b[2J Bearer sk-very-secret is wrong"}}
    for body in (b"Bearer sk-very-secret", echo):
        with Teacher(lambda *_, body=body: (401, body, {})) as teacher:
            with refused("endpoint.refused") as error:
                ask(endpoint(teacher.url, key_variable="SECRET_KEY"))
            assert teacher.requests[0][2]["Authorization"] == "Bearer sk-very-secret"
            assert "sk-very-secret" not in str(error.value)
            assert "\x1b" not in str(error.value)
    assert "(invalid_api_key)" in str(error.value)


def test_no_login_of_this_machine_is_sent_in_place_of_the_key(monkeypatch, tmp_path):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login someone password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("SECRET_KEY", "sk-very-secret")
    with Teacher(lambda *_: (200, chat("x"), {})) as teacher:
        ask(endpoint(teacher.url, key_variable="SECRET_KEY"))
        ask(endpoint(teacher.url, key_variable="NO_SUCH_KEY"))
        sent = [headers.get("Authorization") for _, _, headers in teacher.requests]
    assert sent == ["Bearer sk-very-secret", None]


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_key_does_not_follow_a_redirect(monkeypatch, status):
    monkeypatch.setenv("SECRET_KEY", "sk-very-secret")
    with Teacher(lambda *_: (200, chat("x"), {})) as other:
        to_other = (status, b"", {"Location": other.url + "/chat/completions"})
        with Teacher(lambda *_: to_other) as teacher, refused("endpoint.refused"):
            ask(endpoint(teacher.url, key_variable="SECRET_KEY"))
        assert other.requests == []


@pytest.mark.parametrize("usage", [-1_000_000, "-5", None, True, -1e300])
def test_usage_below_zero_does_not_lower_the_spend(usage):
    with Teacher(lambda *_: (200, chat("x", usage, usage), {})) as teacher:
        answer = ask(endpoint(teacher.url))
    assert min(answer.prompt_tokens, answer.completion_tokens) >= 0


@pytest.mark.parametrize("body", [b"x" * (9 << 20), b"[" * 200_000, chat("x", float("inf")), {"choices": 7}])
def test_answer_without_bounds_is_malformed(body):
    with Teacher(lambda *_: (200, body, {})) as teacher, pytest.raises(EndpointError) as failed:
        ask(endpoint(teacher.url, attempts=1))
    assert failed.value.fault == "malformed answer"


def test_rate_limit_spaces_requests_of_all_threads():
    limit, moments, start = RateLimit(per_minute=1200), [], time.monotonic()

    def go():
        limit.wait()
        moments.append(time.monotonic() - start)

    threads = [threading.Thread(target=go) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(moment >= 0.05 * place for place, moment in enumerate(sorted(moments)))

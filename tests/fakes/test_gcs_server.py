"""The fake against the published API: its parameters, fields and types, and the documented answers."""

import base64
import json
import threading
from pathlib import Path

import google_crc32c
import pytest
import requests

from tests.fakes.gcs_server import KNOWN

PUBLISHED = json.loads((Path(__file__).parent / "gcs_published_api.json").read_text())
ROUTE_OF = {
    "compose": "compose",
    "delete": "object",
    "get": "object",
    "insert": "upload",
    "list": "list",
    "patch": "object",
    "rewrite": "rewrite",
}


@pytest.fixture
def api(gcs_server):
    session = requests.Session()
    session.trust_env = False

    def call(method: str, path: str, **options) -> requests.Response:
        return session.request(method, gcs_server.url + path, timeout=10, **options)

    return call


def put(api, name: str, data: bytes, **query) -> requests.Response:
    query = {"uploadType": "media", "name": name, **query}
    return api("POST", "/upload/storage/v1/b/bucket/o", params=query, data=data)


def begin(api, name: str, **query) -> str:
    query = {"uploadType": "resumable", "name": name, **query}
    answer = api("POST", "/upload/storage/v1/b/bucket/o", params=query, json={})
    assert answer.status_code == 200
    return "/" + answer.headers["Location"].split("/", 3)[3]


def error(answer: requests.Response) -> tuple[int, str]:
    body = answer.json()["error"]
    assert body["code"] == answer.status_code
    return answer.status_code, body["errors"][0]["reason"]


def assert_published(resource: dict, schema: str) -> None:
    for name, value in resource.items():
        described = PUBLISHED["schemas"][schema][name]
        if described.get("format") in ("int64", "uint64", "date-time"):
            assert isinstance(value, str), f"{name} is published as text"
        elif "type" in described:
            kinds = {"string": str, "integer": int, "boolean": bool, "object": dict, "array": list}
            assert isinstance(value, kinds[described["type"]]), name


@pytest.mark.parametrize("method", ROUTE_OF)
def test_every_published_precondition_is_enforced_and_nothing_unpublished_is_accepted(method):
    published = set(PUBLISHED["methods"][method]["query"])
    known = KNOWN[ROUTE_OF[method]]
    assert {name for name in published if name.startswith("if")} <= known
    if method not in ("delete", "patch"):  # these share the route of get
        private_to_uploads = {"upload_id"}
        shared_with_get = {"predefinedAcl"} if method == "get" else set()
        assert known <= (
            published
            | set(PUBLISHED["standard_query"])
            | private_to_uploads
            | shared_with_get
            | {"projection"}
        )


def test_resources_have_the_published_fields_and_types(api):
    resource = put(api, "folder/a b.txt", b"hello").json()
    assert_published(resource, "Object")
    assert resource["size"] == "5"
    assert resource["crc32c"] == base64.b64encode(google_crc32c.value(b"hello").to_bytes(4, "big")).decode()
    assert resource["md5Hash"] == "XUFAKrxLKna5cZ2REBfFkg=="
    listing = api("GET", "/storage/v1/b/bucket/o").json()
    assert_published(listing, "Objects")
    assert listing["items"] == [resource]
    assert_published(api("GET", "/storage/v1/b/bucket").json(), "Bucket")
    path = "/storage/v1/b/bucket/o/folder%2Fa%20b.txt/rewriteTo/b/bucket/o/copy"
    rewritten = api("POST", path).json()
    assert_published(rewritten, "RewriteResponse")
    assert rewritten["resource"]["crc32c"] == resource["crc32c"]


def test_misspelt_parameter_is_refused(api):
    assert error(put(api, "a", b"x", if_generation_match=0)) == (400, "invalid")


def test_create_once_and_compare_and_swap(api):
    first = put(api, "a", b"1", ifGenerationMatch=0)
    assert first.status_code == 200
    assert error(put(api, "a", b"2", ifGenerationMatch=0)) == (412, "conditionNotMet")
    old = first.json()["generation"]
    second = put(api, "a", b"2", ifGenerationMatch=old)
    assert int(second.json()["generation"]) > int(old)
    assert error(put(api, "a", b"3", ifGenerationMatch=old)) == (412, "conditionNotMet")
    assert error(put(api, "a", b"3", ifGenerationNotMatch=second.json()["generation"])) == (
        412,
        "conditionNotMet",
    )
    assert api("GET", "/storage/v1/b/bucket/o/a?alt=media").content == b"2"


def test_reads_and_deletes_under_preconditions(api):
    generation = put(api, "a", b"1").json()["generation"]
    path = "/storage/v1/b/bucket/o/a"
    assert api("GET", path, params={"ifGenerationNotMatch": generation}).status_code == 304
    assert error(api("GET", path, params={"ifGenerationMatch": 1})) == (412, "conditionNotMet")
    assert error(api("GET", path, params={"generation": 1})) == (404, "notFound")
    assert error(api("DELETE", path, params={"ifGenerationMatch": 1})) == (412, "conditionNotMet")
    assert error(api("GET", path, params={"ifMetagenerationMatch": 2})) == (412, "conditionNotMet")
    assert api("PATCH", path, json={"metadata": {"k": "v"}}).json()["metageneration"] == "2"
    assert api("DELETE", path, params={"ifGenerationMatch": generation}).status_code == 204
    assert error(api("DELETE", path)) == (404, "notFound")


def test_one_of_sixty_four_raw_writers_wins(api):
    answers: list[int] = []
    barrier = threading.Barrier(64)

    def write(number: int) -> None:
        barrier.wait()
        answers.append(put(api, "lock", str(number).encode(), ifGenerationMatch=0).status_code)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [200] + 63 * [412]


def test_resumable_upload_keeps_whole_quanta_and_ignores_bytes_it_has(api):
    data = bytes(range(256)) * 2048  # 512 KiB
    session = begin(api, "a")
    part = api("PUT", session, data=data[:300_000], headers={"Content-Range": f"bytes 0-299999/{len(data)}"})
    assert (part.status_code, part.headers["Range"]) == (308, "bytes=0-262143")
    asked = api("PUT", session, headers={"Content-Range": f"bytes */{len(data)}"})
    assert (asked.status_code, asked.headers["Range"]) == (308, "bytes=0-262143")
    rest = data[100_000:]
    whole = {"Content-Range": f"bytes 100000-{len(data) - 1}/{len(data)}"}
    done = api("PUT", session, data=rest, headers=whole)
    assert done.status_code == 200
    assert api("PUT", session, data=rest, headers=whole).json() == done.json()
    assert api("GET", "/storage/v1/b/bucket/o/a?alt=media").content == data
    assert done.json()["crc32c"] == base64.b64encode(google_crc32c.value(data).to_bytes(4, "big")).decode()


def test_resumable_upload_checks_the_precondition_when_it_ends(api):
    session = begin(api, "a", ifGenerationMatch=0)
    put(api, "a", b"another writer")
    assert error(api("PUT", session, data=b"late")) == (412, "conditionNotMet")
    assert api("GET", "/storage/v1/b/bucket/o/a?alt=media").content == b"another writer"


def test_resumable_upload_can_be_cancelled(api):
    session = begin(api, "a")
    assert api("DELETE", session).status_code == 499
    assert error(api("PUT", session, data=b"x")) == (404, "notFound")


def test_wrong_checksum_is_refused_and_nothing_is_stored(api):
    session = begin(api, "a")
    answer = api("PUT", session, data=b"hello", headers={"X-Goog-Hash": "crc32c=AAAAAA=="})
    assert error(answer) == (400, "invalid")
    assert error(api("GET", "/storage/v1/b/bucket/o/a")) == (404, "notFound")


def test_ranges(api):
    put(api, "a", b"0123456789")
    path = "/download/storage/v1/b/bucket/o/a?alt=media"
    for wanted, body, span in (
        ("bytes=2-4", b"234", "bytes 2-4/10"),
        ("bytes=7-", b"789", "bytes 7-9/10"),
        ("bytes=-3", b"789", "bytes 7-9/10"),
        ("bytes=8-99", b"89", "bytes 8-9/10"),
    ):
        answer = api("GET", path, headers={"Range": wanted})
        assert (answer.status_code, answer.content, answer.headers["Content-Range"]) == (206, body, span)
        assert answer.headers["X-Goog-Hash"].startswith("crc32c=")
    assert api("GET", path, headers={"Range": "bytes=10-"}).status_code == 416


def test_compose(api):
    generations = [put(api, f"part{n}", str(n).encode() * 3).json()["generation"] for n in range(3)]
    sources = [
        {"name": f"part{n}", "objectPreconditions": {"ifGenerationMatch": generations[n]}} for n in range(3)
    ]
    path = "/storage/v1/b/bucket/o/whole/compose"
    made = api("POST", path, json={"sourceObjects": sources}, params={"ifGenerationMatch": 0}).json()
    assert (made["size"], made["componentCount"]) == ("9", 3)
    assert "md5Hash" not in made
    assert made["crc32c"] == base64.b64encode(google_crc32c.value(b"000111222").to_bytes(4, "big")).decode()
    for n in range(3):
        api("DELETE", f"/storage/v1/b/bucket/o/part{n}")
    answer = api("GET", "/storage/v1/b/bucket/o/whole?alt=media", headers={"Range": "bytes=2-7"})
    assert answer.content == b"011122"
    assert error(api("POST", path, json={"sourceObjects": sources})) == (404, "notFound")
    assert error(api("POST", path, json={"sourceObjects": 33 * sources[:1]})) == (400, "invalid")


def test_list_pages_prefixes_and_delimiters(api):
    for name in ("a/1", "a/2", "a/b/3", "c", "d"):
        put(api, name, b"x")
    path, names, token = "/storage/v1/b/bucket/o", [], None
    while True:
        page = api("GET", path, params={"maxResults": 2, **({"pageToken": token} if token else {})}).json()
        names += [item["name"] for item in page["items"]]
        token = page.get("nextPageToken")
        if token is None:
            break
    assert names == ["a/1", "a/2", "a/b/3", "c", "d"]
    page = api("GET", path, params={"prefix": "a/", "delimiter": "/"}).json()
    assert ([item["name"] for item in page["items"]], page["prefixes"]) == (["a/1", "a/2"], ["a/b/"])
    assert "items" not in api("GET", path, params={"prefix": "none"}).json()


def test_missing_bucket(api):
    assert error(api("GET", "/storage/v1/b/nowhere/o")) == (404, "notFound")
    assert error(api("POST", "/upload/storage/v1/b/nowhere/o?uploadType=media&name=a", data=b"x")) == (
        404,
        "notFound",
    )


def test_faults_can_be_ordered_from_another_process(api):
    api("POST", "/_fake/faults", json={"kind": "status", "status": 503, "times": 1, "path": "/o/a"})
    assert error(api("GET", "/storage/v1/b/bucket/o/a")) == (503, "backendError")
    assert error(api("GET", "/storage/v1/b/bucket/o/a")) == (404, "notFound")

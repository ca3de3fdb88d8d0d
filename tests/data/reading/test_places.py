"""Reviews lie in folders, in gs:// buckets and on the web; what is damaged or missing is said in one line."""

import gzip
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from latentrec.data import DataPrepConfig, prepare
from latentrec.data import amazon_downloads as categories
from latentrec.storage import StorageError, store_for
from tests.errors import refused
from tests.fixtures.review_files import grid, lines, review, titles, write


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setenv("LATENTREC_STORAGE_TIMEOUT_S", "0.5")
    monkeypatch.setenv("LATENTREC_STORAGE_RETRY_S", "2")


def many(n=25_000):
    """Enough random-looking bytes that the compressed file needs several ranges."""
    return [
        review(
            f"U{number * 7919 % 20011}",
            f"B{number * 104729 % 300:09d}",
            reviewText=f"{(number + 1) ** 5:x}" * 2,
        )
        for number in range(n)
    ]


@pytest.fixture
def stored(gcs_server, impatient, tmp_path):
    """Reviews in a bucket (gzip, several MB) and their fingerprint when read from the disk."""
    path = write(tmp_path / "reviews.json.gz", lines(many()))
    store_for("gs://bucket/x").upload_file(tmp_path / "reviews.json.gz", "gs://bucket/data/reviews.json.gz")
    config = DataPrepConfig(reviews=(path,), k_core=2)
    return "gs://bucket/data/reviews.json.gz", prepare(config, tmp_path / "from-disk").fingerprint


@pytest.mark.parametrize(
    "fault",
    [
        {},
        {"kind": "reset_download", "path": "alt=media", "after_bytes": 200_000, "times": 2},
        {"kind": "truncate", "path": "alt=media", "after_bytes": 100_000},
        {"kind": "status", "status": 503, "times": 2},
    ],
    ids=lambda fault: fault.get("kind", "no fault"),
)
def test_bucket_gives_what_the_disk_gives_whatever_happens_on_the_way(gcs_server, stored, tmp_path, fault):
    uri, expected = stored
    if fault:
        gcs_server.fail(**fault)
    manifest = prepare(DataPrepConfig(reviews=(uri,), k_core=2), tmp_path / "from-bucket")
    assert manifest.fingerprint == expected
    assert manifest.extra["source"][0]["uri"] == uri
    assert gcs_server.faults.pending() == []


def test_corrupted_object_is_refused_by_its_checksum_and_read_when_it_is_whole(gcs_server, stored, tmp_path):
    gcs_server.fail(kind="corrupt_download", path="alt=media", times=-1)
    with refused("storage.corrupted", "gs://bucket/data/reviews.json.gz", error=StorageError):
        prepare(DataPrepConfig(reviews=(stored[0],), k_core=2), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    gcs_server.faults.clear()
    again = prepare(DataPrepConfig(reviews=(stored[0],), k_core=2), tmp_path / "out")
    assert again.fingerprint == stored[1]


@pytest.mark.parametrize(
    ("uri", "named"),
    [
        ("gs://bucket/data/nothing.json.gz", "gs://bucket/data/nothing.json.gz"),
        ("gs://no-such-bucket/reviews.json.gz", "no-such-bucket"),
    ],
)
def test_missing_bucket_or_object_is_one_clear_line(
    gcs_server, impatient, tmp_path, refused_command, uri, named
):
    command = ["data-prep", "--reviews", uri, "--output", str(tmp_path / "out")]
    refused_command(command, "storage.not_found", named)


def test_prefix_stands_for_every_object_below_it(gcs_server, impatient, tmp_path):
    rows = grid()
    for name, part in (("a", rows[:11]), ("b", rows[11:])):
        store_for("gs://bucket/x").write_bytes(f"gs://bucket/parts/{name}.json", lines(part))
    path = write(tmp_path / "all.json", lines(rows))
    expected = prepare(DataPrepConfig(reviews=(path,), k_core=1), tmp_path / "one").fingerprint
    manifest = prepare(DataPrepConfig(reviews=("gs://bucket/parts/",), k_core=1), tmp_path / "two")
    assert manifest.fingerprint == expected
    assert [source["uri"][-6:] for source in manifest.extra["source"]] == ["a.json", "b.json"]


class Site:
    """A web server with ranges that cuts the first ``cuts`` long answers short and counts requests."""

    def __init__(self, files: dict[str, bytes], cuts: int = 0):
        site = self
        self.files, self.cuts, self.requests = files, cuts, 0

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *arguments):
                pass

            def do_GET(self):
                site.requests += 1
                data = site.files.get(self.path)
                if data is None:
                    self.send_response(404)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                start, _, end = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
                low, high = int(start), min(int(end) + 1 if end else len(data), len(data))
                self.send_response(206 if "Range" in self.headers else 200)
                if "Range" in self.headers:
                    self.send_header("Content-Range", f"bytes {low}-{high - 1}/{len(data)}")
                self.send_header("Content-Length", str(high - low))
                self.send_header("ETag", '"v1"')
                self.end_headers()
                body = data[low:high]
                if site.cuts and len(body) > 100:
                    site.cuts -= 1
                    body = body[: len(body) // 2]
                    self.close_connection = True
                self.wfile.write(body)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def site(monkeypatch, impatient):
    """The public site, with one category of the 2018 edition."""
    made = Site(
        {
            "/Gift_Cards.json.gz": gzip.compress(lines(grid(20))),
            "/meta_Gift_Cards.json.gz": gzip.compress(lines(titles())),
        },
        cuts=1,
    )
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setitem(
        categories.FILES, 2018, (f"{made.url}/{{0}}.json.gz", f"{made.url}/meta_{{0}}.json.gz")
    )
    yield made
    made.server.shutdown()
    made.server.server_close()


def category(tmp_path, name="Gift_Cards"):
    return DataPrepConfig(category=name, cache_dir=str(tmp_path / "cache"))


def test_category_is_fetched_whole_and_its_hash_recorded(site, tmp_path):
    manifest = prepare(category(tmp_path), tmp_path / "out")
    assert site.cuts == 0
    assert manifest.extra["has_titles"]
    copy = tmp_path / "cache" / "amazon2018" / "Gift_Cards.json.gz"
    assert copy.read_bytes() == site.files["/Gift_Cards.json.gz"]
    assert (tmp_path / "cache" / "amazon2018" / "Gift_Cards.json.gz.note.json").is_file()
    assert manifest.extra["source"][0]["sha256"] in copy.with_name(copy.name + ".note.json").read_text()


def test_category_that_is_here_already_needs_no_network(site, tmp_path):
    first = prepare(category(tmp_path), tmp_path / "out")
    asked = site.requests
    site.files.clear()
    assert prepare(category(tmp_path), tmp_path / "again").fingerprint == first.fingerprint
    assert site.requests == asked


def test_copy_that_was_cut_is_fetched_again(site, tmp_path):
    first = prepare(category(tmp_path), tmp_path / "out")
    copy = tmp_path / "cache" / "amazon2018" / "Gift_Cards.json.gz"
    copy.write_bytes(copy.read_bytes()[:-50])
    assert prepare(category(tmp_path), tmp_path / "again").fingerprint == first.fingerprint


def test_category_offline_is_one_clear_error(site, tmp_path):
    site.server.shutdown()
    site.server.server_close()
    with refused("storage.no_answer", "Gift_Cards.json.gz", error=StorageError):
        prepare(category(tmp_path), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_category_that_the_site_lacks(site, tmp_path):
    with refused("download.not_found", "--reviews", "--metadata"):
        prepare(category(tmp_path, "Software"), tmp_path / "out")


def test_file_on_the_web_is_read_in_place(site, tmp_path):
    uri = f"{site.url}/Gift_Cards.json.gz"
    manifest = prepare(DataPrepConfig(reviews=(uri,), k_core=1), tmp_path / "out")
    assert manifest.counts["raw"] == 100
    with refused("storage.not_found"):
        prepare(DataPrepConfig(reviews=(f"{site.url}/nothing",), k_core=1), tmp_path / "out")


def test_every_category_has_addresses_in_every_edition():
    for year, names in categories.CATEGORIES.items():
        assert {"Musical_Instruments", "Books", "Video_Games"} <= names
        for uri in categories.category_uris("Musical_Instruments", year):
            assert uri.startswith("https://")
            assert "Musical_Instruments" in uri

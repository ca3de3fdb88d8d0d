"""Nothing that a run leaves behind holds a secret of the locations that it read."""

import threading

import pytest

from latentrec.cli import main
from tests.fakes.web_server import WebServer
from tests.fixtures.review_files import grid, lines

SECRETS = ("hunter2", "s3cretsignature")


@pytest.fixture
def signed(monkeypatch):
    """Reviews behind a signed address, and the same with a password."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = WebServer()
    path = "/reviews.json?X-Amz-Signature=s3cretsignature"
    server.files[path] = lines(grid(12, 8))
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    yield server.url.replace("http://", "http://ann:hunter2@") + path
    server.shutdown()
    server.server_close()


def test_no_planted_secret_is_left_anywhere(tracked, signed, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    main(["data-prep", "--reviews", signed, "--k-core", "2", "--output", "ds"])
    main(["train-sequential", "--dataset", "ds", "--encoder", "popularity", "--output", "pop"])
    for arguments in (
        ["data-prep", "--reviews", signed.replace("reviews.json", "absent"), "--output", "none"],
        ["preflight", "--system", "lares", "--reviews", signed.replace("reviews.json", "absent")],
    ):
        with pytest.raises(SystemExit):
            main(arguments)
    printed = capfd.readouterr()
    for secret in SECRETS:
        assert secret not in printed.out
        assert secret not in printed.err
        holding = [
            str(path)
            for path in tmp_path.rglob("*")
            if path.is_file() and secret.encode() in path.read_bytes()
        ]
        assert holding == []
    assert "/reviews.json" in (tmp_path / "ds" / "manifest.json").read_text()

"""Downloads resume, are checked, and appear under their name only when they are right."""

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from mmaml_tf.datasets import DatasetError, ImageDataset, Needed, prepare
from mmaml_tf.datasets.downloads import download

CONTENT = np.random.default_rng(0).bytes(300_000)
MD5 = hashlib.md5(CONTENT).hexdigest()
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(BaseHTTPRequestHandler):
    """Serves CONTENT; the first part of a path says what goes wrong."""

    def do_GET(self):
        self.server.ranges.append(self.headers.get("Range"))
        kind = self.path.split("/")[1]
        if kind in ("404", "503"):
            self.send_error(int(kind))
            return
        asked = self.headers.get("Range")
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        if kind == "norange":
            start = 0
        if start >= len(CONTENT):
            self.send_error(416)
            return
        body = CONTENT[start:]
        self.send_response(206 if start else 200)
        if start:
            shown = 0 if kind == "wrongrange" else start
            last = len(CONTENT) - 1
            self.send_header("Content-Range", f"bytes {shown}-{last}/{len(CONTENT)}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if kind == "interrupted" and len(self.server.ranges) == 1:
            body = body[:100_000]
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        server.ranges = []
        server.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def get(server, kind, path, **options):
    options = {"sha256": SHA256, "progress": False, "pause": 0.001} | options
    return download(f"{server.url}/{kind}/data.zip", path, **options)


def test_a_whole_file(server, tmp_path, capsys):
    path = get(server, "whole", tmp_path / "new" / "data.zip", md5=MD5, progress=True)
    assert path.read_bytes() == CONTENT
    assert [file.name for file in path.parent.iterdir()] == ["data.zip"]
    assert "data.zip" in capsys.readouterr().err


def test_an_interrupted_transfer_resumes(server, tmp_path):
    assert get(server, "interrupted", tmp_path / "data.zip").read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=100000-"]


def test_a_part_of_an_earlier_call_is_resumed(server, tmp_path):
    part = tmp_path / "data.zip.part"
    part.write_bytes(CONTENT[:1000])
    assert get(server, "whole", tmp_path / "data.zip").read_bytes() == CONTENT
    assert server.ranges == ["bytes=1000-"]
    assert not part.exists()


def test_a_part_that_is_already_complete(server, tmp_path):
    (tmp_path / "data.zip.part").write_bytes(CONTENT)
    assert get(server, "whole", tmp_path / "data.zip").read_bytes() == CONTENT


@pytest.mark.parametrize("kind", ["norange", "wrongrange"])
def test_a_server_without_ranges_sends_all_again(server, tmp_path, kind):
    (tmp_path / "data.zip.part").write_bytes(b"x" * 1000)
    assert get(server, kind, tmp_path / "data.zip").read_bytes() == CONTENT


@pytest.mark.parametrize("wrong", [{"sha256": "0" * 64}, {"md5": "0" * 32}])
def test_a_wrong_checksum_removes_the_part(server, tmp_path, wrong):
    with pytest.raises(DatasetError, match=r"data\.zip: the download has (sha256|md5) .*0000 is"):
        get(server, "whole", tmp_path / "data.zip", **wrong)
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_not_there_is_asked_for_once(server, tmp_path):
    with pytest.raises(DatasetError, match=r"404/data\.zip could not .* 1 attempt.*put it at"):
        get(server, "404", tmp_path / "data.zip")
    assert len(server.ranges) == 1
    assert not list(tmp_path.iterdir())


def test_attempts_are_limited_and_the_part_is_kept(server, tmp_path):
    part = tmp_path / "data.zip.part"
    part.write_bytes(CONTENT[:1000])
    with pytest.raises(DatasetError, match=r"in 3 attempt.*503"):
        get(server, "503", tmp_path / "data.zip", attempts=3)
    assert len(server.ranges) == 3
    assert part.read_bytes() == CONTENT[:1000]


def test_no_server_at_all(tmp_path):
    with pytest.raises(DatasetError, match=r"could not be downloaded in 2 attempt"):
        download("http://127.0.0.1:9/x", tmp_path / "x", attempts=2, pause=0.001, timeout=5)


def test_other_addresses_are_refused(tmp_path):
    with pytest.raises(DatasetError, match="only http and https"):
        download("file:///etc/passwd", tmp_path / "x")


class Remote(ImageDataset):
    name = "remote"
    folders = ("remote",)

    def __init__(self, url, md5=MD5):
        self.layouts = ((Needed(("data.zip",), url, md5),),)

    def read(self, paths):
        raise DatasetError(f"read {paths[0].name}")


def test_datasets_are_downloaded_only_when_asked_for(server, tmp_path):
    dataset = Remote(f"{server.url}/whole/data.zip")
    with pytest.raises(DatasetError, match=r"data\.zip\. Or give download=True to get them from"):
        prepare(dataset, tmp_path, tmp_path / "out", progress=False)
    assert server.ranges == []
    for _ in range(2):
        with pytest.raises(DatasetError, match=r"read data\.zip"):
            prepare(dataset, tmp_path, tmp_path / "out", download=True, progress=False)
    assert (tmp_path / "remote" / "data.zip").read_bytes() == CONTENT
    assert len(server.ranges) == 1

"""The server on a real socket, spoken to byte by byte where that matters."""

import http.client
import io
import json
import socket
import threading

import numpy as np
import PIL.Image
import pytest

from embodied_reward.errors import ConfigError, DatasetError
from embodied_reward.labelling.clips import COLUMNS, ClipStore
from embodied_reward.labelling.page import FILES
from embodied_reward.labelling.server import MAX_BODY, LabelServer

JSON = {"Content-Type": "application/json"}


@pytest.fixture
def server(sitting, episodes):
    with LabelServer(sitting(), ClipStore(episodes)) as server:
        yield server


def ask(server, path, body=None, *, method=None, token=None, headers=None):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    method = method or ("GET" if body is None else "POST")
    data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    given = ({} if body is None else JSON) | (headers or {})
    address = f"/{server.token if token is None else token}/{path}"
    connection.request(method, address, data, given)
    reply = connection.getresponse()
    content = reply.read()
    connection.close()
    return reply, content


def state(server):
    return json.loads(ask(server, "state")[1])


def test_the_page_and_its_files_come_with_a_strict_policy(server):
    for name in ("", *FILES):
        reply, content = ask(server, name)
        assert reply.status == 200
        assert len(content) > 500
        policy = reply.getheader("Content-Security-Policy")
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert b"http://" not in content
        assert b"https://" not in content
    assert ask(server, "")[1] == ask(server, "page.html")[1]


@pytest.mark.parametrize("path", ["state", "", "clip/0", "sheet/0/0/0", "main.js"])
def test_without_the_token_nothing_is_shown(server, path):
    for token in ("", "x", "%C3%A9", "../", server.token[:-1], server.token + "x"):
        reply, content = ask(server, path, token=token)
        assert reply.status == 403
        assert "terminal" in json.loads(content)["error"]
        assert server.token.encode() not in content


def test_bytes_that_are_no_text_are_refused(server):
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as raw:
        raw.sendall(b"GET /\xff\xfe/ HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n" % server.port)
        assert b" 403 " in raw.recv(100)


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "127.0.0.1.evil.example:{port}", ""])
def test_a_foreign_host_name_is_refused(server, host):
    for body in (None, {}):
        headers = {"Host": host.format(port=server.port)}
        assert ask(server, "state", body, headers=headers)[0].status == 403
    assert ask(server, "state", headers={"Host": f"localhost:{server.port}"})[0].status == 200


def test_answers_of_other_sites_are_refused(server):
    query = state(server)["query"]["id"]
    good = {"id": query, "choice": "left"}
    for headers, status in (
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
    ):
        assert ask(server, "answer", good, headers=headers)[0].status == status
    assert state(server)["answered"] == 0
    own = {"Origin": f"http://127.0.0.1:{server.port}"}
    assert ask(server, "answer", good, headers=own)[0].status == 200
    assert state(server)["answered"] == 1


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b"[]", 400),
        (b"\xff", 400),
        ({}, 400),
        ({"id": 3, "choice": "left"}, 400),
        ({"id": "pair-0-1", "choice": None}, 400),
        (b"x" * (MAX_BODY + 1), 413),
    ],
)
def test_bad_answers_change_nothing(server, body, status):
    reply, content = ask(server, "answer", body)
    assert reply.status == status
    assert json.loads(content)["error"]
    assert state(server)["answered"] == 0


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("clip/99", 404),
        ("clip/-1", 404),
        ("sheet/0/9/0", 404),
        ("sheet/0/0/9", 404),
        ("../pyproject.toml", 404),
        ("page.py", 404),
        ("%2e%2e/page.py", 404),
    ],
)
def test_what_is_not_there_is_404(server, path, status):
    assert ask(server, path)[0].status == status


def test_a_body_without_a_length_and_other_methods_are_refused(server):
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as raw:
        head = f"POST /{server.token}/answer HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n"
        raw.sendall((head + "Content-Type: application/json\r\n\r\n").encode())
        assert b" 413 " in raw.recv(100)
    assert ask(server, "state", method="DELETE")[0].status == 501


def test_answers_arrive_once_and_seconds_must_make_sense(server):
    for seconds, kept in ((1.23456, 1.235), (-1, None), ("4", None), (True, None), (1e9, None)):
        query = state(server)["query"]["id"]
        message = {"id": query, "choice": "same", "seconds": seconds}
        assert ask(server, "answer", message)[0].status == 200
        reply, content = ask(server, "answer", message)
        assert reply.status == 409
        assert json.loads(content)["query"]["id"] != query
        assert server.session._journal.rows[-1].get("seconds") == kept
    assert state(server)["answered"] == 5


def test_ten_impatient_tabs_give_one_answer(server):
    query = state(server)["query"]["id"]
    statuses = []
    message = {"id": query, "choice": "left"}
    work = lambda: statuses.append(ask(server, "answer", message)[0].status)  # noqa: E731
    threads = [threading.Thread(target=work) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [200] + [409] * 9
    assert state(server)["answered"] == 1


def test_a_full_disk_is_said_and_the_question_stays(server, monkeypatch):
    query = state(server)["query"]["id"]

    def full(row):
        raise DatasetError("cannot write 'p.jsonl': No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(server.session._journal, "append", full)
        reply, content = ask(server, "answer", {"id": query, "choice": "left"})
        assert reply.status == 500
        assert "No space left" in json.loads(content)["error"]
    assert state(server)["query"]["id"] == query


def test_clips_hold_every_frame_of_every_camera_exactly(server, episodes):
    facts = json.loads(ask(server, "clip/7")[1])
    episode = episodes[7]
    assert (facts["frames"], facts["seconds"]) == (13, pytest.approx(1.2))
    assert [v["name"] for v in facts["views"]] == ["front", "wrist"]
    for v, view in enumerate(episodes.views):
        reply, content = ask(server, f"sheet/7/{v}/0")
        assert reply.getheader("Content-Type") == "image/png"
        sheet = np.asarray(PIL.Image.open(io.BytesIO(content)))
        for k, frame in enumerate(episode.views[view]):
            top, left = k // COLUMNS * 16, k % COLUMNS * 24
            np.testing.assert_array_equal(sheet[top : top + 16, left : left + 24], frame)


def test_long_and_large_episodes_are_thinned_and_shrunk(record, tmp_path):
    from embodied_reward.data import open_dataset

    episodes = open_dataset(record(tmp_path / "long", 1, views=("front",), length=200))
    clip = ClipStore(episodes, side=12, frames=150)[0]
    assert (clip.frames, clip.seconds) == (150, pytest.approx(19.9))
    assert (clip.views[0].width, clip.views[0].height, len(clip.views[0].sheets)) == (12, 8, 3)


def test_a_taken_port_is_one_error(server, sitting, episodes):
    with pytest.raises(ConfigError, match="cannot listen on port"):
        LabelServer(server.session, server.clips, port=server.port)


def test_finish_ends_the_wait_after_its_reply(server):
    assert not server.finished.is_set()
    assert ask(server, "finish", {})[0].status == 200
    assert server.finished.wait(5)

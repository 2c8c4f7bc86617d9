"""The external engine against a real HTTP server that misbehaves in every way that they do."""

import base64
import io
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import yaml
from PIL import Image

from embodied_reward.errors import ConfigError
from embodied_reward.scoring import Role, ScoreRequest, ScoringCore, Status
from embodied_reward.scoring.language.config import read_item_scorer
from embodied_reward.scoring.language.openai_engine import OpenAIConfig, OpenAIScorer


class Engine:
    """An endpoint whose replies a test decides with `reply(handler, body, number of the call)`."""

    def __init__(self):
        self.bodies, self.headers, self.paths, self.lock = [], [], [], threading.Lock()
        self.running = self.most = 0
        self.reply = None
        engine = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with engine.lock:
                    nth = len(engine.bodies)
                    engine.bodies.append(body)
                    engine.headers.append(dict(self.headers))
                    engine.paths.append(self.path)
                    engine.running += 1
                    engine.most = max(engine.most, engine.running)
                try:
                    engine.reply(self, body, nth)
                except OSError:  # the client gave up
                    pass
                finally:
                    with engine.lock:
                        engine.running -= 1

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        serve = self.server.serve_forever
        threading.Thread(target=serve, args=(0.01,), daemon=True).start()

    def says(self, text, finish="stop"):
        self.reply = lambda handler, *_: send(handler, 200, chat(text, finish))

    def close(self):
        self.server.shutdown()
        self.server.server_close()


def send(handler, status, tree, headers=()):
    data = tree if isinstance(tree, bytes) else json.dumps(tree).encode()
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(data)))
    for key, value in headers:
        handler.send_header(key, value)
    handler.end_headers()
    handler.wfile.write(data)


def chat(text, finish="stop"):
    message = {"role": "assistant", "content": text}
    return {"choices": [{"message": message, "finish_reason": finish}]}


def tokens(**probabilities):
    top = [{"token": t, "logprob": float(np.log(p))} for t, p in probabilities.items()]
    reply = chat("Yes")
    reply["choices"][0]["logprobs"] = {"content": [{"token": "Yes", "top_logprobs": top}]}
    return reply


@pytest.fixture
def engine():
    engine = Engine()
    yield engine
    engine.close()


def text_scorer(engine, **more):
    more = {"timeout": 10.0, "retries": 3, **more}
    return OpenAIScorer(
        OpenAIConfig(url=engine.url, model="judge", mode="text", prompt="Rate: {text}", **more)
    )


def yes_scorer(engine, **more):
    return OpenAIScorer(OpenAIConfig(url=engine.url, model="judge", timeout=10.0, **more))


def picture(seed=0, n=1):
    return np.random.default_rng(seed).integers(0, 256, (n, 9, 7, 3), dtype=np.uint8)


def score(scorer, n=1, **more):
    request = {"frames": picture(n=n), "texts": "a cup", **more}
    with ScoringCore() as core:
        core.register(scorer)
        return core.score(ScoreRequest(scorers="judge", **request))["judge"]


def test_the_pictures_arrive_without_loss_and_in_order(engine):
    engine.says("Final Score: 4.2")
    frames = picture(n=3)
    batch = score(
        text_scorer(engine, system="You are strict."),
        frames=frames,
        offsets=[0, 3],
        role=np.array([Role.CURRENT, Role.REFERENCE, Role.CURRENT], np.uint8),
        seed=7,
    )
    assert batch.require_ok().tolist() == [np.float32(4.2)]
    assert engine.paths == ["/v1/chat/completions"]
    body = engine.bodies[0]
    assert (body["model"], body["temperature"], body["seed"]) == ("judge", 0.0, 7)
    assert body["messages"][0] == {"role": "system", "content": "You are strict."}
    *images, text = body["messages"][1]["content"]
    assert text == {"type": "text", "text": "Rate: a cup"}
    for part, frame in zip(images, frames[[1, 0, 2]], strict=True):  # the reference goes first
        data = base64.b64decode(part["image_url"]["url"].removeprefix("data:image/png;base64,"))
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))), frame)


def test_the_margin_is_that_of_all_spellings(engine):
    engine.reply = lambda h, *_: send(
        h, 200, tokens(**{"Yes": 0.5, " yes": 0.1, "No": 0.2, "NO": 0.1, "Maybe": 0.05})
    )
    batch = score(yes_scorer(engine))
    assert batch.score[0] == pytest.approx(np.log(0.6 / 0.3), rel=1e-5)
    np.testing.assert_allclose(batch.dims[0], [2 / 3, 0.9, np.log(2)], rtol=1e-5)
    body = engine.bodies[0]
    assert (body["max_tokens"], body["logprobs"], body["top_logprobs"]) == (1, True, 20)


@pytest.mark.parametrize(
    "probabilities",
    [
        {"Maybe": 0.6, "I": 0.3},
        {"Yes": 0.9, "Sure": 0.05},
        {"No": 0.9, "Never": 0.05},
        {"Yes": 0.1, "No": 0.2, "The": 0.6},
        {},
    ],
)
def test_answers_that_are_missing_are_low_mass_and_never_zero(engine, probabilities):
    engine.reply = lambda h, *_: send(h, 200, tokens(**probabilities))
    batch = score(yes_scorer(engine))
    assert batch.status.tolist() == [Status.LOW_MASS]
    assert np.isnan(batch.score[0])
    assert np.isnan(batch.dims).all()
    assert batch.detail[0]


def test_a_cut_off_answer_is_a_bound_only_if_that_is_asked_for(engine):
    engine.reply = lambda h, *_: send(h, 200, tokens(Yes=0.9, Sure=0.05, Of=0.01))
    batch = score(yes_scorer(engine, censored=True))
    assert batch.score[0] == pytest.approx(np.log(0.9 / 0.01), rel=1e-5)
    assert "at least" in batch.detail[0]


def test_a_hundred_malformed_answers_and_their_neighbours(engine):
    """Every second answer is broken; the others keep their exact scores."""
    broken = [
        "", "no idea", "Final Score:", "Final Score: 9", "Final Score: NaN", "Final Score: 3 and "
        "Final Score: 4", "{", "Final Score: 84%", "<score>4</score>", "Final Score: four",
    ]  # fmt: skip

    def reply(handler, body, _):
        number = int(body["messages"][-1]["content"][-1]["text"].split()[-1])
        text = broken[number // 2 % 10] if number % 2 else f"Final Score: {1 + number / 50:.2f}"
        send(handler, 200, chat(text))

    engine.reply = reply
    n = 200
    batch = score(text_scorer(engine), n=n, texts=tuple(map(str, range(n))))
    odd = np.arange(n) % 2 == 1
    assert set(batch.status[odd].tolist()) == {Status.PARSE_ERROR}
    assert np.isnan(batch.score[odd]).all()
    expected = np.round(1 + np.arange(0, n, 2) / 50, 2)
    np.testing.assert_allclose(batch.score[~odd], expected, rtol=1e-6)
    assert "no idea" in batch.detail[3]
    assert engine.most <= 16


def test_progress_in_percent_is_read_as_a_hop(engine):
    engine.says("The lid is now open. <score>-35%</score>")
    batch = score(text_scorer(engine, format="hop"))
    assert batch.score[0] == pytest.approx(-0.35)
    engine.says("The lid is now open. <score>", finish="length")
    batch = score(text_scorer(engine, format="hop"))
    assert batch.status.tolist() == [Status.PARSE_ERROR]
    assert "cut off at 1024" in batch.detail[0]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_busy_servers_are_asked_again(engine, status):
    def reply(handler, _, nth):
        if nth < 2:
            send(handler, status, b"busy", [("Retry-After", "0.05")])
        else:
            send(handler, 200, chat("Final Score: 2"))

    engine.reply = reply
    assert score(text_scorer(engine)).score.tolist() == [2.0]
    assert len(engine.bodies) == 3


@pytest.mark.parametrize(("status", "tries"), [(400, 1), (401, 1), (404, 1), (500, 3), (429, 3)])
def test_http_errors_are_scorer_errors_with_what_the_server_said(engine, status, tries):
    engine.reply = lambda h, *_: send(h, status, b"model not found", [("Retry-After", "0")])
    batch = score(text_scorer(engine, retries=2))
    assert batch.status.tolist() == [Status.SCORER_ERROR]
    assert f"HTTP {status}: model not found" in batch.detail[0]
    assert len(engine.bodies) == tries


def test_waiting_longer_than_the_deadline_is_a_timeout(engine):
    engine.reply = lambda h, *_: send(h, 429, b"later", [("Retry-After", "60")])
    start = time.monotonic()
    batch = score(text_scorer(engine, timeout=0.5))
    assert batch.status.tolist() == [Status.TIMEOUT]
    assert time.monotonic() - start < 0.5
    assert "429" in batch.detail[0]


@pytest.mark.parametrize("kind", ["silent", "drips", "drips headers"])
def test_slow_servers_time_out_in_time_and_hold_nobody_up(engine, kind):
    def reply(handler, body, _):
        if body["messages"][-1]["content"][-1]["text"].endswith("fast"):
            return send(handler, 200, chat("Final Score: 3"))
        if kind == "silent":
            time.sleep(1.2)
            return None
        if kind == "drips":
            handler.send_response(200)
            handler.send_header("Content-Length", "1000")
            handler.end_headers()
        else:
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Drip: ")
        for _ in range(24):  # alive all the time, done never
            handler.wfile.write(b" ")
            handler.wfile.flush()
            time.sleep(0.05)
        return None

    engine.reply = reply
    start = time.monotonic()
    batch = score(text_scorer(engine, timeout=0.4), n=2, texts=("slow", "fast"), timeout=5.0)
    assert time.monotonic() - start < 2.5
    assert batch.status.tolist() == [Status.TIMEOUT, Status.OK]
    assert batch.score[1] == 3.0


def test_the_deadline_of_the_request_counts_too(engine):
    engine.reply = lambda *_: time.sleep(1.0)
    start = time.monotonic()
    batch = score(text_scorer(engine, timeout=60.0), timeout=0.3)
    assert batch.status.tolist() == [Status.TIMEOUT]
    assert time.monotonic() - start < 1.8


def _truncated(handler, *_):
    handler.send_response(200)
    handler.send_header("Content-Length", "500")
    handler.end_headers()
    handler.wfile.write(b'{"choices": [{"mess')


BROKEN = {
    "truncated json": b'{"choices": [{"message": {"content": "Final Sc',
    "html": b"<html>502</html>",
    "empty": b"",
    "null": b"null",
    "list": b"[]",
    "no choices": b'{"choices": []}',
    "choice is text": b'{"choices": ["Final Score: 3"]}',
    "no content": b'{"choices": [{"message": {"content": null}}]}',
    "content is a number": b'{"choices": [{"message": {"content": 3}}]}',
    "message is text": b'{"choices": [{"message": "Final Score: 3"}]}',
    "not utf-8": b'{"choices": "\xff\xfe"}',
    "deep": b"[" * 100_000,
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("make", [text_scorer, yes_scorer])
def test_broken_replies_are_scorer_errors(engine, name, make):
    engine.reply = lambda h, *_: send(h, 200, BROKEN[name])
    batch = score(make(engine))
    assert batch.status.tolist() == [Status.SCORER_ERROR]
    assert np.isnan(batch.score[0])
    assert batch.detail[0]


def test_a_reply_that_breaks_off_is_asked_for_again(engine):
    engine.reply = _truncated
    batch = score(text_scorer(engine, retries=1))
    assert batch.status.tolist() == [Status.SCORER_ERROR]
    assert len(engine.bodies) == 2


def test_impossible_log_probabilities_are_scorer_errors(engine):
    for value in (3.0, float("nan")):
        reply = tokens(Yes=0.5, No=0.4)
        top = reply["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
        top[0]["logprob"] = value
        engine.reply = lambda h, *_, r=reply: send(h, 200, r)
        assert score(yes_scorer(engine)).status.tolist() == [Status.SCORER_ERROR]


def test_nobody_there_is_a_scorer_error():
    engine = Engine()
    engine.close()
    batch = score(text_scorer(engine, retries=1))
    assert batch.status.tolist() == [Status.SCORER_ERROR]
    assert "refused" in batch.detail[0]


def test_items_run_at_once_up_to_the_bound(engine):
    def reply(handler, *_):
        time.sleep(0.2)
        send(handler, 200, chat("Final Score: 3"))

    engine.reply = reply
    start = time.monotonic()
    score(text_scorer(engine, concurrency=4), n=8).require_ok()
    assert time.monotonic() - start < 1.4  # one after the other: 1.6 s at least
    assert 2 <= engine.most <= 4


def test_the_key_comes_from_the_environment_and_stays_out_of_the_card(engine, monkeypatch):
    monkeypatch.setenv("MY_KEY", "s3cret")
    engine.says("Final Score: 3")
    scorer = text_scorer(engine, api_key_env="MY_KEY")
    score(scorer).require_ok()
    assert engine.headers[0]["Authorization"] == "Bearer s3cret"
    assert "s3cret" not in json.dumps(scorer.card.to_dict())
    monkeypatch.delenv("MY_KEY")
    score(text_scorer(engine, api_key_env="MY_KEY"))
    assert "Authorization" not in engine.headers[1]


def test_items_without_text_or_frame_are_not_sent(engine):
    engine.says("Final Score: 3")
    batch = score(
        text_scorer(engine), frames=picture(), index=[0, 0], offsets=[0, 1, 2, 2], text=[0, -1, 0]
    )
    assert batch.status.tolist() == [Status.OK, Status.BAD_INPUT, Status.BAD_INPUT]
    assert len(engine.bodies) == 1


@pytest.mark.parametrize("suffix", ["yaml", "json"])
def test_a_file_describes_an_engine(engine, tmp_path, suffix):
    engine.says('{"overall": 7}')
    tree = {"type": "openai", "url": engine.url, "model": "judge", "mode": "text", "key": "overall"}
    file = tmp_path / f"judge.{suffix}"
    file.write_text(yaml.safe_dump(tree) if suffix == "yaml" else json.dumps(tree))
    scorer = read_item_scorer(file)
    assert scorer.card.name == "judge"
    assert score(scorer).score.tolist() == [7.0]
    file.write_text(json.dumps({**tree, "modle": "x"}))
    with pytest.raises(ConfigError, match="model"):
        read_item_scorer(file)


@pytest.mark.parametrize(
    ("more", "match"),
    [
        ({"url": "localhost:8000"}, "base URL"),
        ({"model": ""}, "model"),
        ({"mode": "words"}, "logprobs, text"),
        ({"mode": "text", "format": "hopp"}, "hop"),
        ({"concurrency": 0}, "concurrency"),
    ],
)
def test_settings_that_cannot_work_are_refused(more, match):
    with pytest.raises(ConfigError, match=match):
        OpenAIScorer(OpenAIConfig(**{"model": "judge", **more}))

"""Bytes in, requests out, and one kind of error whatever the bytes."""

import io
import json
import pickle
import random
import resource
import sys
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embodied_reward.errors import QueueFullError, RequestError, ScoringError
from embodied_reward.scoring.batch import ScoreBatch
from embodied_reward.scoring.limits import Limits
from embodied_reward.scoring.request import ScoreRequest
from embodied_reward.scoring.status import Priority, Status
from embodied_reward.scoring.transport import envelope, wire

LIMITS = Limits(max_items=64, max_frames=64, max_bytes=1 << 16, max_text=64)


def rich_request():
    rng = np.random.default_rng(0)
    return ScoreRequest(
        scorers=("progress", "success"),
        frames=(
            rng.integers(0, 256, (3, 4, 5, 3), np.uint8),
            rng.integers(0, 256, (1, 2, 2, 3), np.uint8),
        ),
        index=np.array([0, 1, 2, 3, 1]),
        offsets=np.array([0, 2, 5]),
        time=np.array([0, 0.5, 1, 1.5, 2], np.float32),
        view=np.array([0, 1, 0, 1, 0]),
        role=np.array([0, 1, 2, 3, 4]),
        views=("corner", "wrist"),
        texts=("open the door ✓", "close it"),
        text=np.array([1, -1]),
        group=np.array([7, 7]),
        user=np.array([3, -1]),
        passes=2,
        seed=2**64 - 1,
        timeout=1.5,
        priority=Priority.RELABEL,
    )


def plain_request():
    return ScoreRequest(scorers=("progress",), frames=np.zeros((1, 2, 2, 3), np.uint8))


def message_of(header, columns=(), kind=envelope.Kind.REQUEST):
    """A message whose header says what it likes; `columns` are raw bytes."""
    text = json.dumps(header).encode()
    prefix = envelope.PREFIX.pack(envelope.MAGIC, envelope.VERSION, kind, len(text), 0)
    out = prefix + text
    for column in columns:
        out += bytes(-len(out) % envelope.ALIGN) + column
    return out


def test_a_request_comes_back_as_it_was():
    request = rich_request()
    assert wire.decode_request(wire.encode_request(request), LIMITS) == request


@settings(max_examples=100, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 3), min_size=1, max_size=4),
    texts=st.lists(st.text(max_size=5), max_size=3, unique=True),
    timeout=st.none() | st.floats(0.001, 100),
    seed=st.integers(0, 2**64 - 1),
)
def test_any_request_comes_back_as_it_was(lengths, texts, timeout, seed):
    frames = tuple(np.full((n, 1 + n, 2, 3), n, np.uint8) for n in lengths)
    count = sum(lengths)
    request = ScoreRequest(
        scorers=("a",),
        frames=frames,
        offsets=np.array([0, count // 2, count]),
        texts=tuple(texts),
        text=np.full(2, len(texts) - 1),
        timeout=timeout,
        seed=seed,
    )
    assert wire.decode_request(wire.encode_request(request), LIMITS) == request


def test_a_text_that_utf8_cannot_carry_is_refused_before_it_is_sent():
    frames = np.zeros((1, 2, 2, 3), np.uint8)
    with pytest.raises(RequestError, match="surrogate"):
        wire.encode_request(ScoreRequest(scorers=("a",), frames=frames, texts=("\ud800",)))


def test_frames_are_views_of_the_message():
    message = bytearray(wire.encode_request(rich_request()))
    request = wire.decode_request(message, LIMITS)
    before = int(request.frames[0][0, 0, 0, 0])
    start = message.find(request.frames[0].tobytes())
    message[start] = before ^ 255
    assert request.frames[0][0, 0, 0, 0] == before ^ 255
    assert request.frames[0].flags.writeable


def test_columns_that_are_left_out_have_their_defaults():
    frames = np.arange(24, dtype=np.uint8).reshape(2, 2, 2, 3)
    header = {"scorers": ["progress"], "columns": [["frames", "uint8", [2, 2, 2, 3]]]}
    request = wire.decode_request(message_of(header, [frames.tobytes()]), LIMITS)
    assert request == ScoreRequest(scorers=("progress",), frames=frames)


def test_columns_are_aligned():
    parts = wire.request_parts(rich_request())
    sizes = np.cumsum([len(part) for part in parts])
    assert not (sizes[2::2] % envelope.ALIGN).any(), "paddings end at multiples of 64"


def reply():
    first = ScoreBatch(
        score=np.array([0.25, np.nan], np.float32),
        status=np.array([Status.OK, Status.TIMEOUT]),
        scorer="progress",
        weights_sha256="ab" * 32,
        head_version=3,
        preprocess="feed",
        dims=np.array([[1, 2], [3, 4]]),
        dim_names=("quality", "task"),
        epistemic=np.array([0.1, 0.2]),
        per_frame=np.array([1, 2, 3]),
        per_view=np.ones((2, 1)),
        detail={1: "the deadline passed"},
        cached=np.array([1, 0]),
        seconds={"queue": 0.125, "trunk": 1e-9},
    )
    return {"progress": first, "b": ScoreBatch.failed(3, Status.BAD_INPUT, scorer="b", why="no")}


def test_a_reply_comes_back_bit_by_bit():
    back = wire.decode_reply(wire.encode_reply(reply()))
    assert list(back) == ["progress", "b"]
    assert back == reply()
    assert back["progress"].seconds == {"queue": 0.125, "trunk": 1e-9}
    assert back["progress"].cached.tolist() == [1, 0]
    assert dict(back["b"].detail) == {0: "no", 1: "no", 2: "no"}


@pytest.mark.parametrize(
    "error", [RequestError("bad"), QueueFullError("full", 0.75), ScoringError("not ready")]
)
def test_an_error_comes_back_as_its_own_class(error):
    back = wire.decode_error(wire.encode_error(error))
    assert type(back) is type(error)
    assert str(back) == str(error)
    assert getattr(back, "retry_after", None) == getattr(error, "retry_after", None)


def test_an_internal_error_tells_the_client_nothing():
    back = wire.decode_error(wire.encode_error(KeyError("/secret/path")))
    assert type(back) is ScoringError
    assert "secret" not in str(back)


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"scorers": "progress"}, "scorers"),
        ({"scorers": []}, "at least one"),
        ({"passes": True}, "passes"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**64}, "seed"),
        ({"timeout": 10**400}, "timeout"),
        ({"priority": 9}, "priority"),
        ({"texts": ["\ud800"]}, "surrogate"),
        ({"texts": ["x" * 65]}, "max_text"),
        ({"texts": ["x"] * 65}, "max_items"),
        ({"colums": []}, "unknown keys"),
        ({"columns": {}}, "'columns'"),
        ({"columns": [["frames", "uint8", [1, 2, 2, 3], 4]]}, "[name, dtype, shape]"),
        ({"columns": [["frames", "object", [1, 2, 2, 3]]]}, "dtypes"),
        ({"columns": [["frames", "uint8", [2**31, 2, 2, 3]]]}, "shape"),
        ({"columns": [["frames", "uint8", [0, 2**30, 2**30, 3]]]}, "impossible"),
        ({"columns": [["frames", "uint8", [10**6, 2000, 2000, 3]]]}, "bytes"),
        ({"columns": [["frames", "uint8", [1, 2, 2, 2]]]}, "end"),
        ({"columns": [["frames", "uint8", [-1, 2, 2, 3]]]}, "shape"),
        ({"columns": [["frames", "uint8", [True, 2, 2, 3]]]}, "shape"),
        ({"columns": [["pixels", "uint8", [12]]]}, "pixels"),
        ({"columns": [["index", "float32", [3]]]}, "index"),
    ],
)
def test_what_is_wrong_is_named(change, names):
    header = {"scorers": ["progress"], "columns": [["frames", "uint8", [1, 2, 2, 3]]]}
    with pytest.raises(RequestError) as raised:
        wire.decode_request(message_of(header | change, [bytes(12)]), LIMITS)
    assert names in str(raised.value)
    assert len(str(raised.value)) < 500


def test_a_column_may_stand_only_once():
    header = {"scorers": ["progress"], "columns": [["role", "uint8", [1]]] * 2}
    with pytest.raises(RequestError, match="twice"):
        wire.decode_request(message_of(header, [bytes(1), bytes(1)]), LIMITS)


@pytest.mark.parametrize(
    "text",
    [
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"seed": ' + b"9" * 100_000 + b"}",
        b'{"seed": NaN}',
        b'{"seed": 1, "seed": 2}',
        b'"scorers"',
        b"\xff\xfe",
        b"",
    ],
)
def test_headers_that_attack_the_parser_are_refused(text):
    prefix = envelope.PREFIX.pack(envelope.MAGIC, envelope.VERSION, 1, len(text), 0)
    with pytest.raises(RequestError, match="header"):
        wire.decode_request(prefix + text, LIMITS)


def test_a_claimed_header_is_not_allocated():
    with pytest.raises(RequestError, match="at most"):
        wire.decode_request(envelope.PREFIX.pack(envelope.MAGIC, 1, 1, 2**32 - 1, 0), LIMITS)


class Bomb:
    """Runs when it is unpickled."""

    def __reduce__(self):
        return (exec, ("import sys; sys.transport_bomb = True",))


def hostile_payloads():
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("data.pkl", bytes(100_000))
    array = io.BytesIO()
    np.save(array, np.array([Bomb()], dtype=object), allow_pickle=True)
    return [
        *(pickle.dumps(Bomb(), protocol) for protocol in range(6)),
        archive.getvalue(),
        array.getvalue(),
        b"GET / HTTP/1.1\r\n\r\n",
        b'{"scorers": ["progress"]}',
    ]


NASTY = [
    None, True, -1, 0, 1, 2, 2**31, 2**63, 2**64, 10**300, 1.5, -0.0, 1e308, "", "progress",
    "uint8", "int64", "float64", "object", "frames", "index", "offsets", "\x00", [], [[]], {},
    {"a": 1}, [0, 1], ["progress"], ["uint8"], [[["x"]]], "x" * 300,
]  # fmt: skip


def leaves(tree, path=()):
    if path:
        yield path
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in pairs:
        if isinstance(value, dict | list):
            yield from leaves(value, (*path, key))
        else:
            yield (*path, key)


def replace_leaf(tree, path, value):
    for key in path[:-1]:
        tree = tree[key]
    tree[path[-1]] = value


class Mutator:
    """Seeded damage to messages: bytes, lengths, splices, and headers that parse but lie."""

    def __init__(self, seeds, seed):
        self.rng = random.Random(seed)
        self.seeds = seeds
        self.parsed = []
        for message in seeds:
            length = envelope.PREFIX.unpack_from(message)[3]
            end = envelope.PREFIX.size + length
            text = message[envelope.PREFIX.size : end]
            self.parsed.append((text, list(leaves(json.loads(text))), message[end:]))
        self.hostile = hostile_payloads()
        self.ways = (
            self.flip, self.flip, self.truncate, self.extend, self.splice, self.noise,
            self.header, self.header, self.header, self.pickled,
        )  # fmt: skip

    def __call__(self):
        return self.rng.choice(self.ways)()

    def flip(self):
        message = bytearray(self.rng.choice(self.seeds))
        for _ in range(self.rng.randint(1, 4)):
            message[self.rng.randrange(len(message))] = self.rng.randrange(256)
        return bytes(message)

    def truncate(self):
        message = self.rng.choice(self.seeds)
        return message[: self.rng.randrange(len(message))]

    def extend(self):
        return self.rng.choice(self.seeds) + self.rng.randbytes(self.rng.randint(1, 80))

    def splice(self):
        a, b = self.rng.choices(self.seeds, k=2)
        return a[: self.rng.randrange(len(a))] + b[self.rng.randrange(len(b)) :]

    def noise(self):
        start = self.rng.choice([b"", envelope.MAGIC, envelope.PREFIX.pack(b"ERSC", 1, 1, 8, 0)])
        return start + self.rng.randbytes(self.rng.randint(0, 200))

    def header(self):
        text, paths, rest = self.rng.choice(self.parsed)
        tree = json.loads(text)
        replace_leaf(tree, self.rng.choice(paths), self.rng.choice(NASTY))
        changed = json.dumps(tree).encode()
        kind = envelope.Kind.REQUEST
        # Keep the columns aligned, so that more than the last check is reached.
        changed += b" " * ((len(text) - len(changed)) % envelope.ALIGN)
        return envelope.PREFIX.pack(envelope.MAGIC, 1, kind, len(changed), 0) + changed + rest

    def pickled(self):
        payload = self.rng.choice(self.hostile)
        if self.rng.random() < 0.5:
            return payload
        return envelope.PREFIX.pack(envelope.MAGIC, 1, 1, len(payload), 0) + payload


@pytest.mark.slow
def test_no_bytes_make_the_decoder_do_anything_but_raise_its_error():
    seeds = [wire.encode_request(plain_request()), wire.encode_request(rich_request())]
    mutate = Mutator(seeds, seed=4)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    accepted = refused = longest = 0
    for _ in range(100_000):
        try:
            request = wire.decode_request(mutate(), LIMITS)
        except RequestError as error:
            refused += 1
            longest = max(longest, len(str(error)))
        else:
            accepted += 1
            assert request.frame_count <= LIMITS.max_frames
            assert len(request) <= LIMITS.max_items
    assert longest < 2000
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert accepted + refused == 100_000
    assert accepted > 100, "the damage must reach the last checks"
    assert refused > 50_000
    assert grown < 64 << 10, f"{grown} KiB"
    assert not hasattr(sys, "transport_bomb")


def test_no_reply_makes_a_client_do_anything_but_raise_its_error():
    mutate = Mutator([wire.encode_reply(reply())], seed=5)
    for _ in range(10_000):
        message = mutate()
        message = message[:6] + b"\x02" + message[7:] if len(message) > 7 else message
        try:
            batches = wire.decode_reply(message)
        except RequestError:
            continue
        for batch in batches.values():
            assert np.isnan(batch.score[batch.status != Status.OK]).all()
    assert not hasattr(sys, "transport_bomb")


def test_the_bomb_of_these_tests_is_live():
    """Else the tests above would prove nothing."""
    pickle.loads(pickle.dumps(Bomb()))
    assert sys.transport_bomb
    del sys.transport_bomb

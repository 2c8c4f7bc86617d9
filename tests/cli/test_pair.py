"""An actor and a learner: what they tell each other, and two real processes on one machine."""

import contextlib
import http.client
import json
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from gymnasium import spaces

from embodied_reward.cli import main
from embodied_reward.cli.pair.config import PairConfig, http_config
from embodied_reward.cli.pair.inbox import Inbox
from embodied_reward.cli.pair.link import Link
from embodied_reward.cli.pair.messages import (
    Body,
    Terms,
    decode_policy,
    encode_policy,
    largest,
)
from embodied_reward.cli.pair.server import Desk, LearnerApp
from embodied_reward.data import open_dataset
from embodied_reward.errors import CheckpointError, ConfigError, RequestError, ScoringError
from embodied_reward.policies.checkpoint import PolicySpec, build_network, load_policy
from embodied_reward.policies.config import SACConfig
from embodied_reward.policies.experience import Experience, decode, encode
from embodied_reward.scoring.transport.listen import AppServer

SIZES = {"observation": 9, "action": 6}
TOKEN = "correct horse battery"
BODY = Body(
    "er_sim_arm", "touch", 10.0, 40, {"agent_pos": 6, "environment_state": 3}, tuple("abcdef"), ""
)


def episode(name="run-1", steps=4, seed=0):
    rng = np.random.default_rng(seed)
    return Experience(
        id=name,
        observations=rng.normal(size=(steps + 1, 9)).astype(np.float32),
        actions=rng.uniform(-1, 1, (steps, 6)).astype(np.float32),
        executed=rng.uniform(-1, 1, (steps, 6)).astype(np.float32),
        interventions=rng.random(steps) < 0.5,
        rewards=rng.random(steps),
        success=rng.random(steps) < 0.5,
        potentials=rng.random(steps + 1),
        shaping=rng.random(steps),
        terminated=True,
        facts={"episode_reward_ledger": {"length": steps, "rate": float("nan")}},
    )


def network(width=8, seed=0):
    torch.manual_seed(seed)
    shapes = {"agent_pos": (6,), "environment_state": (3,)}
    ones = np.ones(6, np.float32)
    return build_network(PolicySpec(SACConfig(net_arch=(width, width)), shapes, -ones, ones))


# --- messages ---


def test_an_episode_arrives_bit_by_bit():
    sent = episode()
    got = decode(encode(sent), **SIZES)
    assert (got.id, got.terminated, len(got)) == ("run-1", True, 4)
    assert list(got.facts) == ["episode_reward_ledger"]
    for name in ("observations", "actions", "executed", "interventions", "potentials", "rewards"):
        ours, theirs = getattr(sent, name), getattr(got, name)
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)


def damaged(change, metadata=None):
    """An episode's bytes after `change(arrays)`, and with other metadata where they are given."""
    arrays = safetensors.numpy.load(encode(episode()))
    change(arrays)
    good = {"episode": json.dumps({"id": "a", "terminated": True, "facts": {}})}
    return safetensors.numpy.save(arrays, good if metadata is None else metadata)


def put(name, value):
    return lambda arrays: arrays.update({name: value})


MALFORMED = {
    "nothing": (b"", "no safetensors"),
    "pickle": (b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00cos\nsystem\n.", "no safetensors"),
    "bomb": (b"\xff" * 8 + b"{}", "no safetensors"),
    "cut": (encode(episode())[:-3], "no safetensors"),
    "more": (encode(episode()) + b"x", "no safetensors"),
    "missing": (damaged(lambda a: a.pop("rewards")), "an episode holds"),
    "extra": (damaged(put("x", np.zeros(1))), "an episode holds"),
    "type": (damaged(put("rewards", np.zeros(4, np.float32))), "'rewards' must be of type"),
    "width": (damaged(put("actions", np.zeros((4, 5), np.float32))), "'actions' must have shape"),
    "length": (damaged(put("rewards", np.zeros(5))), "'rewards' must have shape"),
    "scalar": (damaged(put("actions", np.array(1, np.float32))), "decisions"),
    "empty": (damaged(put("actions", np.zeros((0, 6), np.float32))), "has 0"),
    "nan": (damaged(put("potentials", np.full(5, np.nan))), "'potentials' holds a NaN"),
    "inf": (damaged(put("rewards", np.full(4, np.inf))), "'rewards' holds a NaN"),
    "far": (damaged(put("executed", np.full((4, 6), 1.5, np.float32))), "must lie in"),
    "no words": (damaged(lambda a: None, {}), "metadata"),
    "no json": (damaged(lambda a: None, {"episode": "{"}), "metadata"),
    "list": (damaged(lambda a: None, {"episode": "[1]"}), "metadata"),
    "path": (
        damaged(
            lambda a: None,
            {"episode": json.dumps({"id": "../../x", "terminated": True, "facts": {}})},
        ),
        "metadata",
    ),
    "facts": (
        damaged(
            lambda a: None,
            {"episode": json.dumps({"id": "a", "terminated": True, "facts": {"is_success": 1}})},
        ),
        "metadata",
    ),
}


@pytest.mark.parametrize("kind", MALFORMED)
def test_a_malformed_episode_is_one_error_and_is_not_kept(kind, tmp_path):
    data, says = MALFORMED[kind]
    inbox = Inbox(tmp_path, **SIZES)
    with pytest.raises(RequestError, match=says):
        inbox.add(data)
    assert len(inbox) == 0
    assert not any(tmp_path.iterdir())


def test_damaged_bytes_are_request_errors_whatever_they_are():
    rng, whole = random.Random(0), encode(episode())
    policy = encode_policy(network(), "v", 1, 1, final=False)
    like = network()
    for _ in range(2000):
        for data, read in (
            (whole, lambda b: decode(b, **SIZES)),
            (policy, lambda b: decode_policy(b, like)),
            (BODY.encode(), Body.decode),
        ):
            noise = bytearray(data)
            for _ in range(rng.randint(1, 6)):
                noise[rng.randrange(min(len(noise), 2000))] = rng.randrange(256)
            cut = rng.choice((len(noise), rng.randrange(len(noise))))
            with contextlib.suppress(RequestError):
                read(bytes(noise[:cut]))


def poisoned(change):
    tensors = safetensors.torch.load(encode_policy(network(), "v", 1, 1, final=False))
    change(tensors)
    facts = {"version": "v", "decisions": 1, "episodes": 1, "final": False}
    return safetensors.torch.save(tensors, {"policy": json.dumps(facts)})


def first(tensors):
    return sorted(name for name, value in tensors.items() if value.ndim == 2)[0]


def spoil(value):
    def change(tensors):
        tensors[first(tensors)][0, 0] = value

    return change


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (poisoned(spoil(float("nan"))), "holds a NaN"),
        (poisoned(spoil(float("-inf"))), "holds a NaN"),
        (poisoned(lambda t: t.pop(first(t))), "are not this robot's"),
        (poisoned(lambda t: t.update(x=torch.zeros(1))), "are not this robot's"),
        (poisoned(lambda t: t.update({first(t): t[first(t)].half()})), "must be torch.float32"),
        (encode_policy(network(16), "v", 1, 1, final=False), "must be torch.float32"),
        (encode_policy(network(), "v", 1, 1, final=False)[:-1], "no safetensors"),
        (b"\x80\x04N.", "no safetensors"),
    ],
)
def test_a_policy_that_cannot_be_is_refused_and_changes_nothing(data, says):
    ours = network(seed=1)
    before = {k: v.clone() for k, v in ours.state_dict().items()}
    with pytest.raises(RequestError, match=says):
        decode_policy(data, ours)
    assert all(torch.equal(v, before[k]) for k, v in ours.state_dict().items())


def test_a_policy_arrives_bit_by_bit():
    sent, ours = network(seed=1), network(seed=2)
    weights = decode_policy(encode_policy(sent, "v-2", 30, 3, final=True), ours)
    assert (weights.version, weights.decisions, weights.episodes, weights.final) == (
        "v-2",
        30,
        3,
        True,
    )
    ours.load_state_dict(dict(weights.tensors))
    obs = np.ones((1, 9), np.float32)
    np.testing.assert_array_equal(
        sent.predict(obs, deterministic=True)[0], ours.predict(obs, deterministic=True)[0]
    )
    assert len(encode_policy(sent, "v-2", 30, 3, final=True)) < largest(ours)


# --- the network ---


@pytest.fixture
def served(tmp_path, monkeypatch):
    monkeypatch.setenv("ER_PAIR_TOKEN", TOKEN)
    desk, config = Desk(tmp_path, ""), http_config(PairConfig(port=0))
    with AppServer(config, lambda: LearnerApp(desk, config)) as server:
        yield desk, server


def call(server, method, path, body=None, token=TOKEN):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    headers = {"Content-Type": "application/octet-stream", "Authorization": f"Bearer {token}"}
    connection.request(method, path, body, headers)
    response = connection.getresponse()
    out = response.read()
    connection.close()
    return response.status, out


def test_only_who_knows_the_token_is_heard(served):
    desk, server = served
    for method, path in (("POST", "/v1/body"), ("POST", "/v1/episode"), ("GET", "/v1/policy")):
        assert call(server, method, path, b"{}", token="wrong")[0] == 401
    assert desk.body is None
    link = Link(server.url, "wrong wrong wrong wrong", desk._folder / "outbox", print)
    with pytest.raises(RequestError, match="token is missing or wrong"):
        link.meet(BODY, 5.0, lambda: False)


def test_other_machines_need_a_token(monkeypatch):
    monkeypatch.delenv("ER_PAIR_TOKEN", raising=False)
    with pytest.raises(ConfigError, match="ER_PAIR_TOKEN"):
        http_config(PairConfig(host="0.0.0.0"))  # noqa: S104
    assert http_config(PairConfig()).is_loopback


def test_an_episode_that_is_sent_twice_is_kept_once_and_survives(served, tmp_path):
    desk, server = served
    assert call(server, "POST", "/v1/episode", encode(episode()))[0] == 400  # whose is it?
    assert call(server, "POST", "/v1/body", BODY.encode())[0] == 200
    for name, new in (("a-1", True), ("a-1", False), ("a-2", True)):
        status, out = call(server, "POST", "/v1/episode", encode(episode(name)))
        assert (status, json.loads(out)) == (200, {"new": new})
    again = Desk(tmp_path, "")  # a learner that was killed and begins again
    assert again.body == BODY
    assert (len(again.inbox), again.inbox.decisions) == (2, 8)
    assert again.inbox.wait(1, lambda: False).id == "a-2"


def test_the_server_refuses_what_it_cannot_use_and_goes_on(served):
    _, server = served
    assert call(server, "POST", "/v1/body", b"[" * 100_000)[0] == 400
    assert call(server, "POST", "/v1/body", BODY.encode())[0] == 200
    for data, says in MALFORMED.values():
        status, out = call(server, "POST", "/v1/episode", data)
        assert status == 400
        assert says in json.loads(out)["message"]
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.putrequest("POST", "/v1/episode")
    for name, value in (
        ("Authorization", f"Bearer {TOKEN}"),
        ("Content-Type", "application/octet-stream"),
        ("Content-Length", str(1 << 40)),
    ):
        connection.putheader(name, value)
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()
    assert call(server, "POST", "/v1/episode", encode(episode()))[0] == 200


def test_another_robot_or_reward_is_refused_by_name(served, tmp_path):
    _, server = served
    call(server, "POST", "/v1/body", BODY.encode())
    other = Body(**{**vars(BODY), "horizon": 50})
    status, out = call(server, "POST", "/v1/body", other.encode())
    assert status == 400
    assert "horizon differ" in json.loads(out)["message"]
    paid = Body(**{**vars(BODY), "reward": "ab" * 32})
    status, out = call(server, "POST", "/v1/body", paid.encode())
    assert status == 400
    assert "different reward models" in json.loads(out)["message"]


def test_a_damaged_file_of_the_learners_is_named(tmp_path):
    inbox = Inbox(tmp_path, **SIZES)
    inbox.add(encode(episode()))
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=file.name):
        Inbox(tmp_path, **SIZES)


def until(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.05)


def test_a_link_refuses_a_poisoned_policy_and_takes_the_next(served, tmp_path):
    desk, server = served
    ones = np.ones(6, np.float32)
    spec = PolicySpec(
        SACConfig(net_arch=(8, 8)), {"agent_pos": (6,), "environment_state": (3,)}, -ones, ones
    )
    desk.terms = lambda: Terms(spec, 0.9, "success", 1.0, 0, 0.05, 100, 0, 0)
    desk.publish(poisoned(spoil(float("nan"))), "v")
    said = []
    link = Link(server.url, TOKEN, tmp_path / "outbox", said.append)
    link.put(episode("b-1"))
    terms = link.meet(BODY, 10.0, lambda: False)
    assert (terms.gamma, terms.steps, terms.spec.config) == (0.9, 100, spec.config)
    assert len(desk.inbox) == 1  # what an earlier run left is sent first
    link.start(network())
    until(lambda: said)
    assert "holds a NaN" in said[0]
    assert link.take() is None
    desk.publish(b"x" * (largest(network()) + 1), "too long")
    link.put(episode("b-2"))
    until(lambda: len(desk.inbox) == 2)
    until(lambda: any("too long" in line for line in said))
    desk.publish(encode_policy(network(), "w", 5, 1, final=False), "w")
    weights = None
    until(lambda: link.alive)
    weights = link.take()
    assert weights.decisions == 5
    link.close()
    assert link.waiting == []


def test_nobody_listening_is_said_with_what_to_do(tmp_path):
    said = []
    link = Link("http://127.0.0.1:9", "", tmp_path, said.append)
    with pytest.raises(ScoringError, match="er rollout --mode=learn"):
        link.meet(BODY, 0.1, lambda: False)


LEARN = ("--mode=learn", "--dataset.root=x", "--reward.mode=success")
REFUSED = [
    (("--mode=learn",), "give a start"),
    ((*LEARN, "--reward.blend=group"), "blend"),
    ((*LEARN, "--pair.host=0.0.0.0"), "token"),
    ((*LEARN, "--pair.patience=0"), "patience"),
    (
        ("--mode=finetune", "--pair.url=http://x:1", "--dataset.root=x"),
        "the start is the learner's",
    ),
    (("--mode=finetune", "--pair.url=http://x:1", "--pair.ahead=-1"), "ahead"),
]


@pytest.mark.parametrize(("argv", "says"), REFUSED)
def test_what_cannot_run_is_refused_before_anything_listens(
    argv, says, tmp_path, capsys, monkeypatch
):
    monkeypatch.delenv("ER_PAIR_TOKEN", raising=False)
    words = ["rollout", "--limits=er_sim_arm", *argv, f"--output_dir={tmp_path / 'run'}"]
    assert main(words) == 2
    assert says in capsys.readouterr().err


# --- two processes ---

ARM = ("--limits=er_sim_arm", "--robot.size=24", "--horizon=12", "--threads=1")
LEARNER = (
    "--learner.net_arch=16,16",
    "--learner.batch_size=16",
    "--learner.bc_steps=60",
    "--learner.gradient_steps=1",
    "--learner.learning_starts=5",
    "--learner.actor_starts=10",
    "--reward.mode=success",
    "--threads=1",
)


@pytest.fixture(scope="module")
def demos(tmp_path_factory):
    root = tmp_path_factory.mktemp("record") / "run"
    words = ("--robot.realtime=false", "--mode=record", "--episodes=2", f"--output_dir={root}")
    assert main(["rollout", *ARM[:2], "--threads=1", *words]) == 0
    return root / "episodes_00"


@pytest.fixture
def started():
    """Processes of a test, which end with it."""
    processes = []
    yield processes
    for process in processes:
        if process.poll() is None:
            process.kill()
            process.communicate()


def start(started, *words, **env):
    code = "import sys; from embodied_reward.cli import main; sys.exit(main(sys.argv[1:]))"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "rollout", *map(str, words)],
        env=os.environ | {"OMP_NUM_THREADS": "1"} | env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    started.append(process)
    return process


def said_by(process, words):
    """Read a process's lines until one holds `words`; returns it."""
    said = []
    for line in process.stdout:
        if words in line:
            return line
        said.append(line)
    raise AssertionError(f"ended with {process.wait()} before '{words}':\n{''.join(said)}")


def learner(started, demos, root, steps, *more):
    words = ("--mode=learn", f"--steps={steps}", f"--output_dir={root}", *LEARNER, *more)
    process = start(started, *words, f"--dataset.root={demos}", ER_PAIR_TOKEN=TOKEN)
    return process, said_by(process, "learner: ").split()[1].rstrip(",")


def acts(url):
    return "--mode=finetune", f"--pair.url={url}", "--eval.n_episodes=1"


def numbers(folder):
    return sorted(int(p.stem.rpartition("-")[2]) for p in folder.glob("[!.]*.safetensors"))


@pytest.mark.slow
def test_two_processes_fine_tune_on_the_simulated_arm(demos, tmp_path, started, monkeypatch):
    monkeypatch.setenv("ER_PAIR_TOKEN", TOKEN)
    process, url = learner(started, demos, tmp_path / "learner", 30, "--pair.port=0")
    actor = tmp_path / "actor"
    words = ("--robot.realtime=false", *acts(url))
    assert main(["rollout", *ARM, *words, f"--output_dir={actor}"]) == 0
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0, out
    assert "learned from" in out
    report = json.loads((actor / "rollout.json").read_text())
    assert report["final"]
    assert report["undelivered"] == 0
    assert report["safety"]["holds"] == []
    received = numbers(tmp_path / "learner" / "received")
    assert received == list(range(1, len(received) + 1))
    # Everything that moved was recorded, the evaluations as well.
    episodes = open_dataset(actor / "episodes_00")
    assert len(episodes) == len(received) + 2
    trained = Inbox(tmp_path / "learner" / "received", **SIZES)
    sent = [trained.wait(i, lambda: False) for i in range(len(trained))]
    np.testing.assert_array_equal(sent[0].observations[:-1, :6], episodes[1].state)
    np.testing.assert_allclose(sent[0].executed, episodes[1].action, atol=1e-6)
    # The actor's newest policy is the learner's last, and both load.
    ours, theirs = (load_policy(p / "checkpoints" / "last") for p in (actor, tmp_path / "learner"))
    state = theirs.network.state_dict()
    assert all(torch.equal(v, state[k]) for k, v in ours.network.state_dict().items())
    assert isinstance(ours.network.observation_space, spaces.Box)
    assert "TOKEN" not in (actor / "config.yaml").read_text()
    assert TOKEN not in (actor / "config.yaml").read_text()


@pytest.mark.slow
def test_a_learner_that_is_killed_costs_nothing_that_was_done(demos, tmp_path, started):
    folder, actor = tmp_path / "learner", tmp_path / "actor"
    process, url = learner(started, demos, folder, 400, "--pair.port=0", "--save_freq=50")
    words = ("--robot.realtime=false", *acts(url))
    robot = start(started, *ARM, *words, f"--output_dir={actor}", ER_PAIR_TOKEN=TOKEN)
    until(lambda: len(numbers(folder / "received")) >= 6, 200)
    process.kill()
    process.communicate()
    until(lambda: len(numbers(actor / "outbox")) >= 2, 100)  # it goes on, and keeps what it did
    assert robot.poll() is None
    port = url.rpartition(":")[2]
    again, _ = learner(started, demos, folder, 400, f"--pair.port={port}", "--resume=true")
    out, _ = robot.communicate(timeout=300)
    assert robot.returncode == 0, out
    assert "the learner is away" in out
    runs = 1
    if not json.loads((actor / "rollout.json").read_text())["final"]:
        # A busy machine took longer to start the learner than the actor waits at its end.
        robot = start(started, f"--output_dir={actor}", "--resume=true", ER_PAIR_TOKEN=TOKEN)
        out, _ = robot.communicate(timeout=300)
        assert robot.returncode == 0, out
        runs = 2
    told, _ = again.communicate(timeout=200)
    assert again.returncode == 0, told
    assert "resuming at decision" in told
    received = numbers(folder / "received")
    assert received == list(range(1, len(received) + 1))
    assert numbers(actor / "outbox") == []
    recorded = sum(len(open_dataset(root)) for root in actor.glob("episodes_[0-9][0-9]"))
    assert recorded == len(received) + 2 * runs
    assert json.loads((actor / "rollout.json").read_text())["final"]
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert sum("episode/length" in row for row in rows) == len(received)


@pytest.mark.slow
def test_an_arm_that_runs_by_the_clock_never_waits_for_a_learner_that_hangs(
    demos, tmp_path, started
):
    folder, actor = tmp_path / "learner", tmp_path / "actor"
    process, url = learner(started, demos, folder, 150, "--pair.port=0")
    words = (*acts(url), "--pair.ahead=0")
    robot = start(
        started, *ARM, *words, "--unattended=true", f"--output_dir={actor}", ER_PAIR_TOKEN=TOKEN
    )
    until(lambda: len(numbers(folder / "received")) >= 2, 200)
    process.send_signal(signal.SIGSTOP)
    before = len(numbers(actor / "outbox"))
    until(lambda: len(numbers(actor / "outbox")) >= before + 3, 200)
    process.send_signal(signal.SIGCONT)
    out, _ = robot.communicate(timeout=200)
    assert robot.returncode == 0, out
    told, _ = process.communicate(timeout=120)
    assert process.returncode == 0, told
    report = json.loads((actor / "rollout.json").read_text())
    assert report["safety"]["holds"] == []
    assert report["missed_ticks"] <= 3  # two busy cores; a wait for the network would be dozens
    assert numbers(actor / "outbox") == []

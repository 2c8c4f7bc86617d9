"""Both transports at once, for a while, with clients that die: right scores, bounded memory."""

import gc
import json
import resource
import subprocess
import sys
import time

import numpy as np
import pytest

from embodied_reward.scoring import ScoreRequest
from embodied_reward.scoring.transport.http_config import HttpConfig
from embodied_reward.scoring.transport.listen import HttpServer
from embodied_reward.scoring.transport.ring_server import RingServer

SECONDS, VALUES = 40, 64

# Forks workers on both transports, kills some and replaces them; every score must be right.
CLIENTS = """
import json, os, random, signal, sys, time
import numpy as np
from embodied_reward.errors import QueueFullError
from embodied_reward.scoring import ScoreRequest
from embodied_reward.scoring.transport.client import HttpClient
from embodied_reward.scoring.transport.ring_client import RingClient

url, ring, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
expected = json.loads(sys.argv[4])
end = time.monotonic() + seconds

def work(seed):
    rng = random.Random(seed)
    count = 0
    client = HttpClient(url) if seed % 2 else RingClient(ring)
    while time.monotonic() < end:
        values = [rng.randrange(len(expected)) for _ in range(rng.randint(1, 20))]
        frames = np.stack([np.full((48, 48, 3), 3 * v, np.uint8) for v in values])
        try:
            batch = client.score(ScoreRequest(scorers=("progress",), frames=frames))["progress"]
        except QueueFullError:
            continue
        right = [float(s) for s in batch.require_ok()] == [expected[v] for v in values]
        if not right:
            os._exit(3)
        count += len(values)
    client.close()
    os._exit(0)

def fork(seed):
    child = os.fork()
    if child == 0:
        try:
            work(seed)
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(4)
    return child

rng, seed, killed = random.Random(0), 6, 0
workers = [fork(k) for k in range(6)]
while time.monotonic() < end - 2:
    time.sleep(rng.uniform(0.05, 0.3))
    victim = workers.pop(rng.randrange(len(workers)))
    os.kill(victim, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(victim, 0)[1])
    if status != -signal.SIGKILL:
        sys.exit(f"a worker ended with {status}")
    killed += 1
    workers.append(fork(seed))
    seed += 1
codes = [os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]) for worker in workers]
print(json.dumps({"killed": killed, "codes": codes}))
"""


def memory():
    """Resident memory of this process [MiB]."""
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 2**20


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_busy_server_with_dying_clients_stays_right_and_small(core, until):
    frames = np.stack([np.full((48, 48, 3), 3 * v, np.uint8) for v in range(VALUES)])
    request = ScoreRequest(scorers=("progress",), frames=frames)
    expected = [float(s) for s in core.score(request)["progress"].require_ok()]
    config = HttpConfig(port=0)
    with (
        HttpServer(core, config, limits=core.limits) as web,
        RingServer(core, slots=8, limits=core.limits) as ring,
    ):
        arguments = [web.url, ring.address, str(SECONDS), json.dumps(expected)]
        clients = subprocess.Popen(
            [sys.executable, "-c", CLIENTS, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        time.sleep(SECONDS / 4)
        early = memory()
        out, err = clients.communicate(timeout=4 * SECONDS)
        assert (clients.returncode, err) == (0, "")
        result = json.loads(out)
        assert set(result["codes"]) == {0}
        assert result["killed"] > SECONDS
        until(lambda: ring.stats()["workers"] == 0)
        grown = memory() - early
        assert ring.stats()["refused"] == 0
        assert core.stats()["unfinished"] == 0
    assert grown < 32, f"{grown:.1f} MiB"

"""A killed program loses no answer that it confirmed, whenever the kill comes."""

import http.client
import json
import signal
import threading
from urllib.parse import urlsplit

import numpy as np
import pytest


def answer_until_it_dies(url, confirmed):
    """Answer as fast as the server takes it; note each answer after its confirmation."""
    place = urlsplit(url)
    connection = http.client.HTTPConnection(place.netloc, timeout=20)
    try:
        connection.request("GET", place.path + "state")
        state = json.loads(connection.getresponse().read())
        while state["query"]:
            message = {"id": state["query"]["id"], "choice": "left"}
            headers = {"Content-Type": "application/json"}
            connection.request("POST", place.path + "answer", json.dumps(message), headers)
            state = json.loads(connection.getresponse().read())
            confirmed.append(message["id"])
    except (OSError, http.client.HTTPException, ValueError):
        pass  # killed
    finally:
        connection.close()


@pytest.mark.slow
def test_no_confirmed_answer_is_lost_at_any_moment(program, record, tmp_path):
    root = record(tmp_path / "many", 60, views=("front",), length=2)
    path, confirmed = tmp_path / "p.jsonl", []
    rng = np.random.default_rng(0)
    for _ in range(3):
        with program(f"--dataset.root={root}", f"--output={path}", "--count=9999") as (
            process,
            url,
        ):
            worker = threading.Thread(target=answer_until_it_dies, args=(url, confirmed))
            worker.start()
            worker.join(rng.uniform(0.1, 0.4))
            process.send_signal(signal.SIGKILL)
            worker.join()
        lines = path.read_text().split("\n")[:-1]
        written = ["pair-{}-{}".format(*json.loads(line)["episodes"]) for line in lines]
        # The last answer may be on the disk without having been confirmed.
        assert set(confirmed) <= set(written)
        assert len(set(written)) == len(written)
        confirmed[:] = written
    assert len(confirmed) > 30

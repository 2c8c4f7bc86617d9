"""Processes that hold the model for the remote sides, each on one thread."""

import base64
import http.server
import io
import json
import pickle
from multiprocessing.connection import Connection

import torch
from PIL import Image
from trunk_zoo import Model, build


def serve(kind: str, model_name: str, device: str, pipe: Connection) -> None:
    """Answer POSTs one after the other; send the port through the pipe, then run until killed."""
    torch.set_num_threads(1)
    handler = {"pickle": _PickleHandler, "json": _JsonHandler}[kind]
    server = http.server.HTTPServer(("127.0.0.1", 0), handler)
    server.model = build(model_name, device)  # type: ignore[attr-defined]
    server.processor = _processor(server.model)  # type: ignore[attr-defined]
    pipe.send(server.server_port)
    server.serve_forever()


def _processor(model: Model):
    from comparators import processor_of

    return processor_of(model.size)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # one packet per answer

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        body = self._answer(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def _answer(self, body: bytes) -> bytes:
        raise NotImplementedError

    def _scores(self, images: list[bytes], prompts: list[str] | None, head: int) -> list[float]:
        pictures = [Image.open(io.BytesIO(image)).convert("RGB") for image in images]
        processor, model = self.server.processor, self.server.model  # type: ignore[attr-defined]
        inputs = processor(images=pictures, return_tensors="pt")["pixel_values"]
        return model.forward(inputs, prompts, head).tolist()


class _PickleHandler(_Handler):
    def _answer(self, body: bytes) -> bytes:
        asked = pickle.loads(body)
        scores = self._scores(asked["images"], asked["prompts"], asked["head"])
        return pickle.dumps({"scores": scores})


class _JsonHandler(_Handler):
    def _answer(self, body: bytes) -> bytes:
        asked = json.loads(body)
        images = [base64.b64decode(image) for image in asked["images"]]
        scores = self._scores(images, asked["prompts"], asked["head"])
        return json.dumps({"scores": scores}).encode()

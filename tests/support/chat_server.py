"""An OpenAI-compatible chat endpoint on this machine: answers by a function of the test, and records the requests."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Response = tuple[int, dict[str, str], str]  # status, headers, body


def answering(text: str | None) -> Response:
    """A response with an answer."""
    return 200, {}, json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]})


@dataclass
class Requests:
    """The requests that came in."""

    url: str
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[Message] = field(default_factory=list)  # names in any case
    paths: list[str] = field(default_factory=list)
    at_once: int = 0  # most requests at the same time
    running: int = 0


@contextmanager
def chat_server(answer: Callable[[dict[str, Any], int], Response]) -> Iterator[Requests]:
    """Serve `answer(body, how many came before)` until the block ends."""
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                before = len(requests.bodies)
                requests.bodies.append(body)
                requests.headers.append(self.headers)
                requests.paths.append(self.path)
                requests.running += 1
                requests.at_once = max(requests.at_once, requests.running)
            status, headers, text = answer(body, before)
            with lock:
                requests.running -= 1
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(text.encode()))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *args: object) -> None:
            """Nothing into the tests' output."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    requests = Requests(f"http://127.0.0.1:{server.server_port}/v1")
    poll_s = 0.01  # how soon it notices the shutdown
    thread = threading.Thread(target=server.serve_forever, args=(poll_s,), daemon=True)
    thread.start()
    try:
        yield requests
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

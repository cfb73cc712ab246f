"""Requests to Prefect's API, answered here by a server that is busy at first."""

import threading
import urllib.error
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from flows.deployments import call


@pytest.fixture
def server():
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            status, body = self.server.answers.pop(0)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_busy_server_is_asked_again(server):
    server.answers = [(503, b""), (429, b""), (200, b'{"id": 1}')]
    assert call(f"http://127.0.0.1:{server.server_port}", "/deployments") == {"id": 1}


def test_what_is_wrong_is_said_at_once(server):
    server.answers = [(404, b""), (200, b"1")]
    with pytest.raises(urllib.error.HTTPError, match="404"):
        call(f"http://127.0.0.1:{server.server_port}", "/deployments")
    server.answers = [(503, b"")]
    with pytest.raises(urllib.error.HTTPError, match="503"):
        call(f"http://127.0.0.1:{server.server_port}", "/deployments", timeout=0.1)

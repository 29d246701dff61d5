"""The control channel: a suite asks here for what only the owner of the broker process can do.

    POST /restart?signal=KILL|TERM   ends the broker and starts it on the same data and port;
                                     answers 200 once the port accepts again
    POST /stop?signal=KILL|TERM      ends the broker
    POST /start                      starts it again

Any failure is answered with 500 and the reason as text.
"""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from .broker import Broker, BrokerError, signal_by_name


class Control:
    """Serves the control channel of one broker on a loopback port until closed."""

    def __init__(self, broker: Broker):
        handler = type("Handler", (_Handler,), {"broker": broker})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stops listening."""
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    broker: Broker

    def do_POST(self) -> None:  # the name is given by http.server
        try:
            self._act()
        except ValueError as error:
            self._answer(400, str(error))
        except BrokerError as error:
            self._answer(500, str(error))
        else:
            self._answer(200, "done")

    def _act(self) -> None:
        target = urlsplit(self.path)
        names = parse_qs(target.query).get("signal", ["KILL"])
        if target.path == "/restart":
            self.broker.restart(signal_by_name(names[0]))
        elif target.path == "/stop":
            self.broker.stop(signal_by_name(names[0]))
        elif target.path == "/start":
            self.broker.start()
        else:
            raise ValueError(f"unknown request {target.path}")

    def _answer(self, status: int, text: str) -> None:
        body = (text + "\n").encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments) -> None:  # silence http.server's access log
        pass

"""A server that reports on TLS are posted to, with a certificate that is good or bad, and answers of the test's choice."""

import contextlib
import gzip
import http.server
import json
import threading


class Receiver:
    """`posts` has (path, fields, octets) of each request. `answers` has, by path, what is answered: a list of (status, fields, body)
    of which the last one stays, or a function that gets the connection's handler. Other paths are answered with 201."""

    def __init__(self, host, port, identity):
        receiver = self
        self.posts, self.began, self.answers, self.identity = [], 0, {}, identity
        self.connections = 0

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                receiver.began += 1
                octets = self.rfile.read(int(self.headers["Content-Length"]))
                answer = receiver.answers.get(self.path, [(201, {}, b"")])
                if callable(answer):
                    receiver.posts.append((self.path, {name.lower(): value for name, value in self.headers.items()}, octets))
                    return answer(self)
                status, fields, body = answer.pop(0) if len(answer) > 1 else answer[0]
                self.send_response(status)
                for name, value in fields.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
                receiver.posts.append((self.path, {name.lower(): value for name, value in self.headers.items()}, octets))

            do_GET = do_POST

            def log_message(self, *_):
                pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def get_request(self):
                connection, address = super().get_request()
                receiver.connections += 1
                # Hands are shaken in the connection's own thread.
                return receiver.identity.context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False), address

            def handle_error(self, request, client_address):
                pass

        self.server = Server((host, port), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def at(self, path):
        """What was posted there."""
        return [post for post in list(self.posts) if post[0] == path]

    def close(self):
        self.server.shutdown()
        self.server.server_close()


def flood(head, piece, most, sent):
    """An answer that does not end; `sent` notes how many octets went out."""
    def answer(handler):
        sent.append(0)
        with contextlib.suppress(OSError):
            handler.connection.sendall(head)
            while sent[-1] < most:
                handler.connection.sendall(piece)
                sent[-1] += len(piece)
        handler.close_connection = True
    return answer


def opened(post):
    """The report that was posted, when its request was as RFC 8460 5.4 has it."""
    _, fields, octets = post
    assert fields["content-type"] == "application/tlsrpt+gzip", fields
    assert not {"authorization", "cookie", "referer"} & set(fields), fields
    return json.loads(gzip.decompress(octets))

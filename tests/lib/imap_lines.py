"""An IMAP client of lines, for tests that look at each of them."""

import re
import socket

from suite import PASSWORD, anybody


class Client:
    def __init__(self, suite, user):
        stream = socket.create_connection(suite.address("imaps"), timeout=20)
        self.stream = anybody().wrap_socket(stream, server_hostname="mail.example.test")
        self.buffer = b""
        self.number = 0
        self.do(f'LOGIN {user} "{PASSWORD}"')

    def line(self):
        while b"\r\n" not in self.buffer:
            more = self.stream.recv(65536)
            assert more, "the server closed the connection"
            self.buffer += more
        line, _, self.buffer = self.buffer.partition(b"\r\n")
        return line.decode()

    def until(self, pattern):
        said = []
        while not said or not re.search(pattern, said[-1]):
            try:
                said.append(self.line())
            except socket.timeout:
                raise AssertionError(f"waited for {pattern}; it said {said}") from None
        return said

    def do(self, command, ok=True):
        self.number += 1
        tag = f"t{self.number}"
        self.stream.sendall(f"{tag} {command}\r\n".encode())
        said = self.until(f"^{tag} ")
        assert said[-1].startswith(f"{tag} OK") == ok, said
        return said

    def append(self, mailbox, subject):
        message = f"Subject: {subject}\r\n\r\ntext\r\n"
        self.do(f"APPEND {mailbox} {{{len(message)}+}}\r\n{message}")

    def quiet(self):
        """Nothing has come that was not waited for."""
        self.stream.settimeout(0.5)
        try:
            heard = self.line()
        except (socket.timeout, TimeoutError):
            return
        finally:
            self.stream.settimeout(20)
        raise AssertionError(f"it said {heard!r}")

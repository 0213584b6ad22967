"""Runs the dialogs of this folder against a running suite.

A dialog is a text file that any postmaster can write:

    # What it shows, with the RFC section. Comments begin with #.
    # listener: submission          where it connects (default: mx below smtp/, imaps below imap/, else the folder's)
    # mail: 3                       messages that lie in {user}'s INBOX before it begins
    C: EHLO client.example.net      is sent with CRLF, unless it ends in \\n or \\c (send nothing more)
    S: 250-*                        the next line must match; * stands for anything, <name> keeps a word as {name}
    S+: 250 *                       lines are read until one matches
    TLS                             the TLS handshake
    RECONNECT [listener]            a new connection
    SECOND, FIRST                   another connection beside the first, and back to it
    CLOSED                          the server closes, and says nothing more

Escapes in C: lines: \\r \\n \\t \\0 \\\\ \\xHH \\c. Variables: {user} {password} {domain} {plain} (an initial response for AUTH PLAIN),
{other} (a second account), and what was kept.
"""

import base64
import re
import socket
import ssl
from pathlib import Path

import pytest

from suite import PASSWORD, anybody

HERE = Path(__file__).parent
DIALOGS = sorted(HERE.rglob("*.dialog"))
IMPLICIT = {"submissions", "imaps", "pop3s"}


class Dialog:
    def __init__(self, suite, listener, variables):
        self.suite, self.variables = suite, variables
        self.stream = None
        self.connect(listener)

    def connect(self, listener):
        if self.stream:
            self.stream.close()
        self.listener = listener
        self.stream = socket.create_connection(self.suite.address(listener), timeout=20)
        self.buffer = b""
        if listener in IMPLICIT:
            self.tls()

    def second(self):
        self.first = self.stream, self.buffer
        self.stream = None
        self.connect(self.listener)

    def back(self):
        self.stream.close()
        self.stream, self.buffer = self.first

    def tls(self):
        # What came in clear text behind the go-ahead must not count.
        self.buffer = b""
        self.stream = anybody().wrap_socket(self.stream, server_hostname="mail.example.test")

    def line(self):
        while b"\n" not in self.buffer:
            try:
                more = self.stream.recv(65536)
            except socket.timeout:
                raise AssertionError("the server says nothing")
            if not more:
                raise AssertionError(f"the server closed the connection; last it said {self.buffer!r}")
            self.buffer += more
        line, _, self.buffer = self.buffer.partition(b"\n")
        assert line.endswith(b"\r"), f"a line that does not end with CRLF: {line!r}"
        return line[:-1].decode("utf-8", "surrogateescape")

    def fill(self, text):
        return re.sub(r"\{(\w+)\}", lambda found: self.variables.get(found[1], found[0]), text)

    def send(self, text):
        text = self.fill(text)
        octets = re.sub(
            rb"\\(x[0-9a-fA-F]{2}|[rnt0\\])",
            lambda found: {b"r": b"\r", b"n": b"\n", b"t": b"\t", b"0": b"\0", b"\\": b"\\"}.get(found[1])
            or bytes([int(found[1][1:], 16)]),
            text.removesuffix("\\c").encode(),
        )
        if not text.endswith("\\c") and not octets.endswith(b"\n"):
            octets += b"\r\n"
        self.stream.sendall(octets)

    def matches(self, pattern, line):
        pattern = self.fill(pattern)
        # The star of an untagged IMAP response stands for itself.
        expression, pattern = (r"\* ", pattern[2:]) if pattern.startswith("* ") else ("", pattern)
        for part in re.split(r"(\*|<[a-z]+>)", pattern):
            if part == "*":
                expression += ".*"
            elif re.fullmatch(r"<[a-z]+>", part):
                expression += rf"(?P<{part[1:-1]}>[^\s\]\)]+)"
            else:
                expression += re.escape(part)
        found = re.fullmatch(expression, line, re.DOTALL)
        if found:
            self.variables.update(found.groupdict())
        return found

    def closed(self):
        rest = b""
        try:
            while more := self.stream.recv(65536):
                rest += more
        except ConnectionError:
            pass
        except socket.timeout:
            raise AssertionError("the server does not close")
        except ssl.SSLError:
            pass
        assert not (self.buffer + rest).strip(), f"before closing it said {self.buffer + rest!r}"


def header(text, name, default):
    found = re.search(rf"^# *{name}: *(\S+)", text, re.MULTILINE)
    return found[1] if found else default


@pytest.mark.parametrize("file", DIALOGS, ids=[str(file.relative_to(HERE)) for file in DIALOGS])
def test_dialog(shared, file):
    text = file.read_text()
    name = re.sub(r"[^a-z0-9]+", "-", file.stem.lower())
    user = shared.add_account(f"{file.parent.name}-{name}@example.test")
    other = shared.add_account(f"{file.parent.name}-{name}-other@example.test")
    for number in range(int(header(text, "mail", "0"))):
        shared.send(user, subject=f"letter {number + 1}")
        shared.wait_messages(user, number + 1)
    usual = {"imap": "imaps", "sieve": "sieve", "pop3": "pop3"}.get(file.parent.name, "mx")
    listener = header(text, "listener", usual)
    plain = base64.b64encode(f"\0{user}\0{PASSWORD}".encode()).decode()
    dialog = Dialog(shared, listener, {"user": user, "other": other, "password": PASSWORD, "domain": "example.test", "plain": plain})
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        verb, _, rest = line.partition(" ")
        try:
            if verb == "C:":
                dialog.send(rest)
            elif verb == "S:":
                said = dialog.line()
                assert dialog.matches(rest, said), f"it said {said!r}"
            elif verb == "S+:":
                said = []
                while not said or not dialog.matches(rest, said[-1]):
                    try:
                        said.append(dialog.line())
                    except AssertionError as error:
                        raise AssertionError(f"{error}; before that: {said[-10:]}") from None
            elif verb == "TLS":
                dialog.tls()
            elif verb == "RECONNECT":
                dialog.connect(rest.strip() or dialog.listener)
            elif verb == "SECOND":
                dialog.second()
            elif verb == "FIRST":
                dialog.back()
            elif verb == "CLOSED":
                dialog.closed()
            else:
                pytest.fail(f"{file}:{number}: what is {verb}?")
        except AssertionError as error:
            raise AssertionError(f"{file.relative_to(HERE)}:{number}: {line}\n{error}") from None

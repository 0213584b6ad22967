"""What every battery of hostile input ends with: the same processes, in bounded memory, and an ordinary mail still arrives."""

import re
import socket
import ssl

from suite import anybody

HEADROOM_KIB = 48 * 1024


def pss_kib(pid):
    """Memory that is this process's own share."""
    with open(f"/proc/{pid}/smaps_rollup") as rollup:
        return next(int(line.split()[1]) for line in rollup if line.startswith("Pss:"))


class Guard:
    """Around a battery: `check` compares with what was when it began."""

    def __init__(self, suite, user):
        self.suite, self.user = suite, user
        self.pids = suite.pids()
        self.before = self.memory()

    def memory(self):
        return {role: pss_kib(pid) for role, pid in self.pids.items()}

    def growth(self):
        """KiB more than at first, for each daemon."""
        return {role: now - self.before[role] for role, now in self.memory().items()}

    def check(self, headroom=HEADROOM_KIB):
        assert self.suite.pids() == self.pids, f"a daemon was started again: {self.suite.tail()}"
        grown = {role: more for role, more in self.growth().items() if more > headroom}
        assert not grown, f"KiB more than before: {grown}"
        there = len(self.suite.messages(self.user))
        self.suite.send(self.user)
        self.suite.wait_messages(self.user, there + 1)


class Wire:
    """A connection, in the clear or under TLS, on which everything that comes is kept."""

    def __init__(self, suite, listener, secure=False):
        self.socket = socket.create_connection(suite.address(listener), timeout=20)
        self.buffer = b""
        if secure:
            self.tls()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def tls(self):
        assert self.buffer == b"", f"in clear text before the handshake: {self.buffer!r}"
        self.socket = anybody().wrap_socket(self.socket, server_hostname="mail.example.test")

    def send(self, octets):
        self.socket.sendall(octets if isinstance(octets, bytes) else octets.encode())

    def more(self):
        got = self.socket.recv(65536)
        self.buffer += got
        return bool(got)

    def until(self, pattern):
        """Everything up to the end of the first line that matches."""
        expression = re.compile(pattern, re.MULTILINE)
        while True:
            found = expression.search(self.buffer)
            if found and (end := self.buffer.find(b"\r\n", found.end())) >= 0:
                said, self.buffer = self.buffer[:end + 2], self.buffer[end + 2:]
                return said
            assert self.more(), f"closed after {self.buffer!r}"

    def reply(self):
        """One SMTP reply, of however many lines."""
        return self.until(rb"^\d{3} ").decode()

    def ask(self, text):
        self.send(text if isinstance(text, bytes) else text.encode() + b"\r\n")
        return self.reply()

    def rest(self):
        """What comes until the other side closes."""
        try:
            while self.more():
                pass
        except (ConnectionError, ssl.SSLError):
            pass
        said, self.buffer = self.buffer, b""
        return said


def codes(text):
    """`250`, or `550 5.7.1`: what an SMTP reply's last line begins with."""
    found = re.match(r"(\d{3})(?: (\d\.\d{1,3}\.\d{1,3}))?", text.splitlines()[-1].replace("-", " ", 1))
    return " ".join(part for part in found.groups() if part)

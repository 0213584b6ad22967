"""Strangers who try to relay, to fill memory and to hold all seats: they get clear answers, and the daemons live on."""

import contextlib
import resource
import socket
import time

import pytest

from suite import Suite, wait_for

HOSTED = "example.test"
CONNECTIONS = 2000

# Ways to write somebody elsewhere, so that a careless server relays (RFC 5321 3.6.1, 4.1.2, Appendix C; RFC 6531).
ELSEWHERE = [
    "<victim@elsewhere.example>",
    "<victim%elsewhere.example@example.test>",
    "<elsewhere.example!victim@example.test>",
    "<victim@elsewhere.example@example.test>",
    '<"victim@elsewhere.example"@example.test>',
    '<"victim%elsewhere.example"@example.test>',
    "<@example.test:victim@elsewhere.example>",
    "<@example.test,@other.example:victim@elsewhere.example>",
    "<victim%elsewhere.example@[127.0.0.1]>",
    "<victim@[192.0.2.1]>",
    "<victim@[IPv6:2001:db8::1]>",
    "<victim@127.0.0.1>",
    "<victim@localhost>",
    "<victim@elsewhere.example.>",
    "<victim@ELSEWHERE.example>",
    "<victim@bücher.example>",
    "<victim@xn--bcher-kva.example>",
    "<victim@example.test\0.elsewhere.example>",
    "<victim@elsewhere.example\0@example.test>",
    "<victim@example.test.elsewhere.example>",
    "<victim@sub.example.test>",
    "<victim>",
    "<elsewhere.example!victim>",
    "<SRS0=AAAAAAAA=AA=elsewhere.example=victim@example.test>",
    "<SRS1=AAAA=other.example==AAAA=AA=elsewhere.example=victim@example.test>",
]
SENDERS = ["<>", "<spam@elsewhere.example>", "<alice@example.test>", "<alice@localhost>", "<alice@[127.0.0.1]>", "<postmaster@example.test>"]


@pytest.fixture(scope="module")
def suite():
    suite = Suite(config={"smtpd": {"limits": {"bad_commands": 1000, "unknown_per_session": 1000, "unknown_per_address": 0,
                                               "unknown_delay_ms": 0, "idle_commands": 1000}}})
    suite.start()
    suite.add_domain(HOSTED)
    suite.add_account(f"alice@{HOSTED}")
    yield suite
    suite.remove()


class Line:
    """A bare connection, a line at a time."""

    def __init__(self, suite, listener="mx"):
        self.socket = socket.create_connection(suite.address(listener), timeout=30)
        self.file = self.socket.makefile("rb")
        self.reply()

    def reply(self):
        while True:
            line = self.file.readline()
            assert line, "the connection was closed"
            if line[3:4] == b" ":
                return line.decode()

    def say(self, text):
        self.socket.sendall(text.encode() + b"\r\n")
        return self.reply()

    def close(self):
        self.file.close()
        self.socket.close()


def rss_kib(pid):
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))


@pytest.mark.parametrize("listener", ["mx", "submission", "lmtp"])
def test_nobody_relays(suite, listener):
    line = Line(suite, listener)
    hello = "LHLO" if listener == "lmtp" else "EHLO"
    assert line.say(f"{hello} client.elsewhere.example").startswith("250")
    for sender in SENDERS:
        assert line.say("RSET").startswith("250")
        begun = line.say(f"MAIL FROM:{sender} SMTPUTF8")
        # Not even begun without a login.
        assert begun.startswith("5" if listener == "submission" else ("250", "5")), begun
        for victim in ELSEWHERE:
            answer = line.say(f"RCPT TO:{victim}")
            assert answer.startswith("5"), (sender, victim, answer)
        assert line.say("DATA").startswith("5")
    line.close()
    assert suite.queue() == []


def test_a_header_without_end(suite):
    """100 MB of header: refused, and none of it is kept in memory."""
    pid = suite.pids()["smtpd"]
    line = Line(suite)
    line.say("EHLO client.elsewhere.example")
    line.say("MAIL FROM:<a@elsewhere.example>")
    assert line.say(f"RCPT TO:<alice@{HOSTED}>").startswith("250")
    assert line.say("DATA").startswith("354")
    before, most = rss_kib(pid), 0
    field = b"X-Long: " + b"a" * 990 + b"\r\n"
    for _ in range(1000):
        line.socket.sendall(field * 100)
        most = max(most, rss_kib(pid))
    line.socket.sendall(b"\r\n.\r\n")
    assert line.reply().startswith("552")
    line.close()
    assert most - before < 16 * 1024, f"{most - before} KiB"
    assert suite.pids()["smtpd"] == pid and suite.queue() == []


def test_two_thousand_silent_connections(suite):
    """All seats are taken, most of them by somebody who says nothing or a letter now and then; the next one is told to come again."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < CONNECTIONS + 500:
        pytest.skip(f"only {hard} files may be open here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, CONNECTIONS + 500), hard))
    pids = suite.pids()
    before = rss_kib(pids["smtpd"])
    with contextlib.ExitStack() as stack:
        held = []
        for _ in range(CONNECTIONS):
            one = stack.enter_context(socket.create_connection(suite.address("mx"), timeout=30))
            assert one.recv(512).startswith(b"220")
            held.append(one)
        for one in held[::2]:
            one.sendall(b"E")
        with socket.create_connection(suite.address("mx"), timeout=30) as refused:
            assert refused.recv(512).startswith(b"421")
        taken = (rss_kib(pids["smtpd"]) - before) / CONNECTIONS
        assert taken < 32, f"{taken} KiB a connection"
        # Who has a seat is served, among all the others.
        began = time.monotonic()
        for one in held[1:200:2]:
            one.sendall(b"EHLO client.elsewhere.example\r\n")
        for one in held[1:200:2]:
            assert one.recv(2048).startswith(b"250")
        assert time.monotonic() - began < 10
    wait_for(lambda: fits(suite), "room for a new client")
    suite.send(f"alice@{HOSTED}")
    suite.wait_messages(f"alice@{HOSTED}", 1)
    assert suite.pids() == pids


def fits(suite):
    with socket.create_connection(suite.address("mx"), timeout=30) as one:
        return one.recv(512).startswith(b"220")

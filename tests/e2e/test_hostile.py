"""Strangers who try to relay, to fill memory and to hold all seats: they get clear answers, and the daemons live on."""

import contextlib
import resource
import socket
import time

import pytest

from suite import Suite, anybody, wait_for

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


SLOW = {"command_s": 2, "data_s": 2, "message_s": 6, "data_rate": 100, "data_window_s": 2, "handshake_s": 2, "write_s": 2}


@pytest.fixture(scope="module")
def impatient():
    """A suite whose time limits a test can wait for, and whose clients are all strangers."""
    login = {"login_s": 2}
    suite = Suite(config={"smtpd": {"trusted_networks": [], "timeouts": SLOW}, "imapd": login, "pop3d": login, "sieved": login})
    suite.start()
    suite.add_domain(HOSTED)
    suite.add_account(f"alice@{HOSTED}")
    yield suite
    suite.remove()


def drip(sock, octets, pause=0.1, seconds=20):
    """Writes an octet at a time until the other side has had enough; gives what it said and after how many seconds."""
    began, said = time.monotonic(), b""
    sock.settimeout(pause)
    while time.monotonic() - began < seconds:
        try:
            sock.sendall(next(octets))
            part = sock.recv(4096)
            if not part:
                return said, time.monotonic() - began
            said += part
        except TimeoutError:
            continue
        except (ConnectionResetError, BrokenPipeError):
            return said, time.monotonic() - began
    raise AssertionError(f"still served after {seconds} s: {said}")


def endless(octet):
    while True:
        yield octet


def transaction(suite):
    line = Line(suite)
    line.say("EHLO client.elsewhere.example")
    line.say("MAIL FROM:<a@elsewhere.example>")
    assert line.say(f"RCPT TO:<alice@{HOSTED}>").startswith("250")
    return line


def test_a_command_octet_by_octet(impatient):
    """The time is for the whole line, and not from one octet to the next."""
    line = Line(impatient)
    said, took = drip(line.socket, endless(b"E"))
    assert said.startswith(b"421 4.4.2") and 1 < took < 10, (said, took)


def test_a_message_octet_by_octet(impatient):
    line = transaction(impatient)
    assert line.say("DATA").startswith("354")
    said, took = drip(line.socket, endless(b"x"))
    assert said.startswith(b"421 4.4.2 Too slow") and 1 < took < 10, (said, took)


def test_a_message_that_is_slow_and_fast_enough(impatient):
    line = transaction(impatient)
    assert line.say("DATA").startswith("354")
    began = time.monotonic()
    line.socket.sendall(b"Subject: slow\r\n\r\n")
    while time.monotonic() - began < 4:
        line.socket.sendall(b"x" * 60 + b"\r\n")
        with contextlib.suppress(TimeoutError):
            line.socket.settimeout(0.2)
            assert not line.socket.recv(100)
    line.socket.settimeout(30)
    line.socket.sendall(b".\r\n")
    assert line.reply().startswith("250")
    line.close()


def test_chunks_that_never_end(impatient):
    """A chunk as large as the message may be, of which a little comes; and chunks of one octet, one after the other."""
    line = transaction(impatient)
    line.socket.sendall(b"BDAT 50000000\r\n")
    said, took = drip(line.socket, endless(b"x"))
    assert said.startswith(b"421 4.4.2 Too slow") and 1 < took < 10, (said, took)
    line = transaction(impatient)
    said, took = drip(line.socket, endless(b"BDAT 1\r\nx"), pause=0.2)
    assert said.splitlines()[-1].startswith(b"421"), said[-200:]


def test_clients_that_never_read(impatient):
    """Answers pile up in the sockets; then the session ends, and what it held with it."""
    pid = impatient.pids()["smtpd"]
    before = rss_kib(pid)
    with contextlib.ExitStack() as stack:
        deaf = []
        for _ in range(20):
            one = socket.socket()
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            one.connect(impatient.address("mx"))
            assert one.recv(512).startswith(b"220")
            one.setblocking(False)
            deaf.append(stack.enter_context(one))
        lost = set()

        def all_lost():
            for one in deaf:
                try:
                    one.send(b"HELP\r\n" * 500)
                except BlockingIOError:
                    pass
                except OSError:
                    lost.add(one)
            return len(lost) == len(deaf)

        wait_for(all_lost, lambda: f"{len(lost)} of {len(deaf)} were cut off", 30, 0.1)
    assert rss_kib(pid) - before < 16 * 1024
    impatient.send(f"alice@{HOSTED}")


def test_handshakes_that_never_end(impatient):
    """A TLS record that announces much and comes octet by octet: on every port with TLS from the start."""
    hello = b"\x16\x03\x01\x40\x00\x01\x00\x3f\xfc\x03\x03"
    for listener in ["submissions", "imaps", "pop3s"]:
        sock = socket.create_connection(impatient.address(listener), timeout=30)
        octets = (bytes([octet]) for octet in hello + b"\0" * 10_000)
        _, took = drip(sock, octets)
        assert 1 < took < 10, (listener, took)


@pytest.mark.parametrize("listener", ["imap", "pop3", "sieve"])
def test_logins_octet_by_octet(impatient, listener):
    """What is said before the login has one time limit together."""
    sock = socket.create_connection(impatient.address(listener), timeout=30)
    said, took = drip(sock, endless(b"a"))
    assert 1 < took < 10, (said, took)
    # The same with whole lines that mean nothing.
    sock = socket.create_connection(impatient.address(listener), timeout=30)
    line = {"imap": b"a NOOP\r\n", "pop3": b"CAPA\r\n", "sieve": b"NOOP\r\n"}[listener]
    said, took = drip(sock, endless(line))
    assert 1 < took < 10, (said, took)


def test_who_speaks_before_the_greeting(impatient):
    """It is only looked whether something is there already: whoever is quick enough is caught at its group at the latest."""
    refused = 0
    for _ in range(10):
        with socket.create_connection(impatient.address("mx"), timeout=30) as one:
            one.sendall(b"EHLO client.elsewhere.example\r\nMAIL FROM:<a@elsewhere.example>\r\n")
            said = b""
            while part := one.recv(4096):
                said += part
            assert said.splitlines()[-1].startswith(b"554 5.5.1 You "), said
            refused += said.startswith(b"554")
    for listener in ["mx", "submission"]:
        with socket.create_connection(impatient.address(listener), timeout=30) as one:
            one.sendall(b"GET / HTTP/1.1\r\nHost: mail.example.test\r\n\r\n")
            said = b""
            while part := one.recv(4096):
                said += part
            assert b"554 5.5.1 " in said and said.count(b"\r\n") <= 2, said


def test_a_stranger_waits_for_the_greeting():
    suite = Suite(config={"smtpd": {"trusted_networks": [], "early": {"greeting_delay_ms": 1500}, "proxy_networks": ["127.0.0.2"]}})
    try:
        suite.start()
        # Behind a PROXY header, and in clear; the one who waits is served.
        for source, header in [("127.0.0.2", b"PROXY TCP4 192.0.2.7 192.0.2.1 4000 25\r\n"), ("127.0.0.3", b"")]:
            with socket.create_connection(suite.address("mx"), timeout=30, source_address=(source, 0)) as one:
                one.sendall(header + b"EHLO client.elsewhere.example\r\n")
                assert one.recv(512).startswith(b"554 5.5.1 You spoke before the greeting")
            with socket.create_connection(suite.address("mx"), timeout=30, source_address=(source, 0)) as one:
                began = time.monotonic()
                if header:
                    one.sendall(header)
                assert one.recv(512).startswith(b"220") and time.monotonic() - began > 1
        # TLS from the start: the client speaks first.
        with socket.create_connection(suite.address("submissions"), timeout=30) as raw, anybody().wrap_socket(raw) as one:
            assert one.recv(512).startswith(b"220")
    finally:
        suite.remove()


def fits(suite):
    with socket.create_connection(suite.address("mx"), timeout=30) as one:
        return one.recv(512).startswith(b"220")

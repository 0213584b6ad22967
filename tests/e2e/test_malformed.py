"""Ten thousand broken command lines for each protocol: the daemons answer, and stay the same processes."""

import random
import socket

import pytest

from suite import PASSWORD, anybody

LINES = 10_000
SMTP = ["EHLO x", "HELO", "MAIL FROM:<a@b>", "RCPT TO:<c@d>", "DATA", "RSET", "NOOP", "QUIT", "VRFY x", "BDAT 5 LAST", "AUTH PLAIN",
        "STARTTLS", "HELP", "MAIL FROM:<>", "LHLO x", "EXPN y", "TURN", "ETRN z"]
IMAP = ["a LOGIN u p", "a SELECT INBOX", "a FETCH 1 (BODY[])", "a SEARCH ALL", "a APPEND x {3+}", "a STORE 1 +FLAGS (x)", "a IDLE", "a NOOP",
        "a LIST \"\" *", "a UID FETCH 1:* FLAGS", "a AUTHENTICATE PLAIN", "a ENABLE X", "a ID NIL", "a STATUS x (MESSAGES)", "DONE",
        "a COPY 1 x", "a CREATE \"", "a EXPUNGE"]
JUNK = ["\0", "\xff", "\x80", "\r", "\n", "{5}", "{99999999999999}", "{0+}", "\"", "(" * 50, ")", "%s%n", "<" * 30, "@" * 20, " " * 40, "\t",
        "=?x?", "A" * 600, "A" * 9000, "\\", "*", "~", "'; DROP TABLE x", "\x1b[2J", ":" * 9, "1:4294967296", "18446744073709551616"]


def broken(dice, words):
    line = dice.choice(words)
    for _ in range(dice.randrange(1, 4)):
        at = dice.randrange(len(line) + 1)
        match dice.randrange(4):
            case 0: line = line[:at] + dice.choice(JUNK) + line[at:]
            case 1: line = line[:at] + line[at + dice.randrange(1, 4):]
            case 2: line = line[:at] + chr(dice.randrange(256)) + line[at + 1:]
            case 3: line = line + " " + dice.choice(JUNK) + dice.choice(words)
    return line.encode("latin-1") + b"\r\n"


def throw(connect, greeting, words, lines=LINES):
    """Sends broken lines, over as many connections as the server allows to be wasted; returns how many it took."""
    dice = random.Random(20260701)
    sent = connections = 0
    while sent < lines:
        connections += 1
        assert connections < lines, "every connection is refused"
        with connect() as stream:
            stream.settimeout(20)
            try:
                assert stream.recv(4096).startswith(greeting)
                for _ in range(min(50, lines - sent)):
                    stream.sendall(broken(dice, words))
                    sent += 1
                # Most of the answers are not read: a server must not wait for ever for that either.
                stream.settimeout(0.05)
                stream.recv(65536)
            except (OSError, TimeoutError):
                pass
    return connections


@pytest.mark.parametrize("listener", ["mx", "submission", "lmtp"])
def test_smtp(shared, listener):
    before = shared.pids()
    lines = LINES if listener == "mx" else LINES // 10
    throw(lambda: socket.create_connection(shared.address(listener), timeout=20), b"220", SMTP, lines)
    user = shared.add_account(f"after-{listener}@example.test")
    shared.send(user)
    shared.wait_messages(user, 1)
    assert shared.pids() == before


@pytest.mark.parametrize("logged_in", [False, True])
def test_imap(shared, logged_in):
    user = shared.add_account(f"after-imap-{logged_in}@example.test".lower())
    before = shared.pids()

    def connect():
        stream = anybody().wrap_socket(socket.create_connection(shared.address("imaps"), timeout=20))
        if logged_in:
            assert stream.recv(4096).startswith(b"* OK")
            stream.sendall(f'l LOGIN {user} "{PASSWORD}"\r\nl NOOP\r\n'.encode())
        return stream

    throw(connect, (b"*", b"l"), IMAP, LINES if not logged_in else LINES // 2)
    shared.send(user)
    shared.wait_messages(user, 1)
    assert shared.pids() == before

"""The time until the login is one deadline, whatever a client says meanwhile: for imapd, pop3d and sieved."""

import socket
import ssl
import time

import pytest

from suite import Suite, anybody

SECONDS = 2


@pytest.fixture(scope="module")
def suite():
    section = {"login_s": SECONDS, "bad_commands": 10_000}
    suite = Suite({"imapd": section, "pop3d": section, "sieved": section}).start()
    yield suite
    suite.remove()


def lasts(stream, word):
    """Seconds until the server closes, while something is said all the time."""
    began = time.monotonic()
    stream.settimeout(0.1)
    while time.monotonic() - began < 20:
        try:
            stream.sendall(word)
            if not stream.recv(65536):
                break
        except TimeoutError:
            continue
        except (ConnectionError, ssl.SSLError):
            break
    else:
        pytest.fail("still connected after 20 s")
    return time.monotonic() - began


@pytest.mark.parametrize("listener, word", [
    ("imap", b"a NOOP\r\n"), ("pop3", b"CAPA\r\n"), ("sieve", b"CAPABILITY\r\n"),
    # Not even a whole command.
    ("imap", b"x"), ("pop3", b"x"), ("sieve", b"x"),
    # Not even TLS.
    ("imaps", b""), ("pop3s", b""),
])
def test_who_never_logs_in_is_let_go(suite, listener, word):
    with socket.create_connection(suite.address(listener), timeout=10) as stream:
        assert lasts(stream, word) < SECONDS * 3


def test_the_handshake_begins_no_new_time(suite):
    with socket.create_connection(suite.address("pop3"), timeout=10) as stream:
        began = time.monotonic()
        stream.recv(1000)
        time.sleep(SECONDS * 0.75)
        stream.sendall(b"STLS\r\n")
        stream.recv(1000)
        under = anybody().wrap_socket(stream, server_hostname="mail.example.test")
        lasts(under, b"CAPA\r\n")
        assert time.monotonic() - began < SECONDS * 1.6

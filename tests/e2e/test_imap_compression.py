"""COMPRESS=DEFLATE (RFC 4978), as a client does it with zlib."""

import re
import socket
import zlib

import pytest

from suite import PASSWORD, anybody


class Packed:
    """A line protocol in which both directions are raw deflate streams."""

    def __init__(self, stream):
        self.stream, self.buffer = stream, b""
        self.deflate = zlib.compressobj(wbits=-15)
        self.inflate = zlib.decompressobj(wbits=-15)
        self.received = 0

    def send(self, octets):
        self.stream.sendall(self.deflate.compress(octets) + self.deflate.flush(zlib.Z_SYNC_FLUSH))

    def until(self, tag):
        while not re.search(rb"(?m)^" + tag + rb" .*\r\n", self.buffer):
            more = self.stream.recv(65536)
            assert more, self.buffer[-200:]
            self.received += len(more)
            self.buffer += self.inflate.decompress(more)
        said, self.buffer = self.buffer, b""
        return said


def plain(stream, line, tag):
    stream.sendall(line + b"\r\n")
    said = b""
    while tag + b" " not in said:
        said += stream.recv(4096)
    return said


@pytest.fixture
def packed(shared, request):
    user = shared.add_account(f"{request.node.name.replace('_', '-')}@example.test")
    stream = anybody().wrap_socket(
        socket.create_connection(shared.address("imaps"), timeout=20), server_hostname="mail.example.test"
    )
    said = plain(stream, f'a1 LOGIN {user} "{PASSWORD}"'.encode(), b"a1")
    assert b"COMPRESS=DEFLATE" in said
    assert b"a2 OK" in plain(stream, b"a2 COMPRESS DEFLATE", b"a2")
    return Packed(stream)


def test_both_directions_are_packed(packed):
    message = b"Subject: packed\r\n\r\n" + b"All work and no play.\r\n" * 20_000
    packed.send(b"b1 COMPRESS DEFLATE\r\n")
    assert b"b1 NO [COMPRESSIONACTIVE]" in packed.until(b"b1")
    packed.send(b"b2 APPEND INBOX {%d+}\r\n" % len(message) + message + b"\r\n")
    assert b"b2 OK" in packed.until(b"b2")
    packed.send(b"b3 SELECT INBOX\r\n")
    packed.until(b"b3")
    before = packed.received
    packed.send(b"b4 FETCH 1 BODY.PEEK[]\r\n")
    said = packed.until(b"b4")
    assert message in said
    assert packed.received - before < len(message) / 10
    # IDLE: news come although the compressor was put away
    packed.send(b"b5 IDLE\r\n")
    packed.send(b"DONE\r\n")
    assert b"b5 OK" in packed.until(b"b5")


def test_what_is_not_packed_ends_the_session(packed):
    packed.stream.sendall(b"\xff\xff\xff\xffb1 NOOP\r\n")
    try:
        while packed.stream.recv(4096):
            pass
    except ConnectionError:
        pass

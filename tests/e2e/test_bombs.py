"""Little input that would become much: compressed streams, and messages whose structure is the attack. What is refused is refused with a
clear answer, what is accepted can be read, and no daemon's memory grows beyond what a message may have."""

import base64
import re
import socket
import time
import zlib

import pytest

from battery import Guard, Wire, codes
from suite import PASSWORD, Suite, anybody, wait_for

HOSTED = "example.test"
MIB = 1024 * 1024
# What a daemon may have more after a bomb, in KiB: caches and the allocator's own.
AFTER = 64 * 1024
# While it goes off: a message of the largest size in memory, and as much again.
DURING = 160 * 1024


@pytest.fixture(scope="module")
def suite():
    suite = Suite(config={"imapd": {"append_bytes": 42 * MIB}}).start()
    suite.add_domain(HOSTED)
    suite.guard = Guard(suite, suite.add_account(f"guard@{HOSTED}"))
    yield suite
    suite.remove()


# --- COMPRESS=DEFLATE


class Packed:
    """An IMAP connection, logged in and compressed (RFC 4978)."""

    def __init__(self, suite, user):
        self.stream = anybody().wrap_socket(socket.create_connection(suite.address("imaps"), timeout=60),
                                            server_hostname="mail.example.test")
        self.inflate, self.buffer = zlib.decompressobj(wbits=-15), b""
        self.deflate = zlib.compressobj(9, wbits=-15)
        for tag, line in ((b"a1", f'a1 LOGIN {user} "{PASSWORD}"'), (b"a2", "a2 COMPRESS DEFLATE")):
            self.stream.sendall(line.encode() + b"\r\n")
            said = b""
            while not re.search(rb"(?m)^" + tag + rb" OK.*\r\n", said):
                more = self.stream.recv(65536)
                assert more, said
                said += more

    def pack(self, octets):
        return self.deflate.compress(octets) + self.deflate.flush(zlib.Z_SYNC_FLUSH)

    def until(self, expression):
        while not (found := re.search(expression, self.buffer)):
            more = self.stream.recv(65536)
            assert more, self.buffer[-300:]
            self.buffer += self.inflate.decompress(more)
        said, self.buffer = self.buffer[:found.end()], self.buffer[found.end():]
        return said

    def rest(self):
        try:
            while more := self.stream.recv(65536):
                self.buffer += self.inflate.decompress(more)
        except OSError:
            pass
        return self.buffer


@pytest.fixture
def packed(suite, request):
    user = suite.add_account(f"{re.sub('[^a-z]+', '-', request.node.name).strip('-')}@{HOSTED}")
    packed = Packed(suite, user)
    packed.user = user
    yield packed
    packed.stream.close()


def pour(suite, packed, octets, total, piece=MIB):
    """Sends what becomes so many octets; gives what was sent, and the most that imapd had more meanwhile."""
    sent, most = 0, 0
    block = octets * (piece // len(octets))
    try:
        for _ in range(total // piece):
            small = packed.pack(block)
            packed.stream.sendall(small)
            sent += len(small)
            most = max(most, suite.guard.growth()["imapd"])
    except OSError:
        pass
    return sent, most


def test_no_compression_before_the_login(suite):
    """Strangers have no inflater here."""
    with Wire(suite, "imaps", secure=True) as wire:
        assert b"COMPRESS" not in wire.until(rb"^\* OK")
        wire.send("a COMPRESS DEFLATE\r\n")
        assert wire.until(rb"^a ").startswith(b"a BAD ")


def test_a_line_without_end(suite, packed):
    """100 MB of zeros in 100 KB: the line is too long, and twice the largest message is enough of it."""
    sent, most = pour(suite, packed, b"\0", 100 * MIB)
    assert sent < 200_000 and most < 8 * 1024, (sent, most)
    said = packed.rest()
    assert re.fullmatch(rb"\* BAD The line is too long\r\n\* BYE .*\r\n", said), said[-300:]


def test_many_short_lines(suite, packed):
    """Empty lines, of which each is an error: the session ends after some."""
    sent, most = pour(suite, packed, b"\r\n", 16 * MIB)
    assert most < 8 * 1024, most
    said = packed.rest()
    assert re.search(rb"\* BYE .*\r\n", said) and said.count(b"BAD") < 1000, said[-300:]


def test_a_literal_that_is_too_large(suite, packed):
    """Announced without waiting (LITERAL+), and not read (RFC 7888 4)."""
    packed.stream.sendall(packed.pack(b"b1 APPEND INBOX {1000000000+}\r\n"))
    sent, most = pour(suite, packed, b"\0", 64 * MIB)
    assert most < 8 * 1024, most
    assert re.search(rb"b1 (NO|BAD) \[TOOBIG\]", packed.rest()), packed.buffer[-300:]


def test_literals_where_none_belong(suite, packed):
    packed.stream.sendall(packed.pack(b"b1 SELECT {50000000+}\r\n"))
    sent, most = pour(suite, packed, b"a", 100 * MIB)
    assert most < 8 * 1024, most
    assert re.search(rb"b1 BAD .*\r\n(?s:.*)\* BYE ", packed.rest()), packed.buffer[-300:]


def test_a_message_of_nearly_nothing(suite, packed):
    """40 MB in 40 KB: a message as any other of its size."""
    size = 40 * MIB
    packed.stream.sendall(packed.pack(b"b1 APPEND INBOX {%d+}\r\n" % size))
    sent, most = pour(suite, packed, b"a" * 62 + b"\r\n", size)
    assert sent < 400_000
    packed.stream.sendall(packed.pack(b"\r\n"))
    packed.until(rb"b1 OK .*\r\n")
    assert most < 16 * 1024, most
    # And back: packed, a piece at a time.
    packed.stream.sendall(packed.pack(b"b2 SELECT INBOX\r\n"))
    packed.until(rb"b2 OK .*\r\n")
    packed.stream.sendall(packed.pack(b"b3 FETCH 1 (RFC822.SIZE BODYSTRUCTURE BODY.PEEK[])\r\n"))
    before = suite.guard.growth()["imapd"]
    total = 0
    while b"b3 OK" not in packed.buffer[-200:]:
        more = packed.stream.recv(65536)
        assert more
        octets = packed.inflate.decompress(more)
        total += len(octets)
        packed.buffer = (packed.buffer + octets)[-400:]
    assert total > size
    assert suite.guard.growth()["imapd"] - before < 32 * 1024


def test_a_client_that_never_reads(suite, packed):
    """Commands whose answers nobody takes: the server stops reading, and keeps nothing."""
    packed.stream.settimeout(3)
    for number in range(20):
        suite.send(packed.user, text="x" * 60_000 + "\r\n")
    suite.wait_messages(packed.user, 20)
    packed.stream.sendall(packed.pack(b"b1 SELECT INBOX\r\n"))
    packed.until(rb"b1 OK .*\r\n")
    sent, most = pour(suite, packed, b"b2 FETCH 1:* (BODY.PEEK[] BODYSTRUCTURE ENVELOPE)\r\n", 8 * MIB, 64 * 1024)
    assert most < 16 * 1024, most


def test_what_is_no_stream(suite, packed):
    for octets in (zlib.compress(b"b1 NOOP\r\n"), b"b1 NOOP\r\n", b"\x03\x00" * 1000):
        other = Packed(suite, packed.user)
        other.stream.sendall(octets)
        other.stream.shutdown(socket.SHUT_WR)
        assert b"b1 OK" not in other.rest()
        other.stream.close()


# --- messages


def head(subject, kind="multipart/mixed; boundary=b"):
    return (f"From: Bomb <bomb@elsewhere.example>\r\nTo: <x@{HOSTED}>\r\nSubject: {subject}\r\nMIME-Version: 1.0\r\n"
            f"Message-ID: <{subject}@elsewhere.example>\r\nContent-Type: {kind}\r\n").encode()


def nested_multiparts(depth=10_000):
    lines = [head("nested", "multipart/mixed; boundary=b0"), b"\r\n"]
    for level in range(depth):
        lines.append(b"--b%d\r\nContent-Type: multipart/mixed; boundary=b%d\r\n\r\n" % (level, level + 1))
    lines.append(b"--b%d\r\n\r\nin the middle\r\n" % depth)
    lines += [b"--b%d--\r\n" % level for level in range(depth, -1, -1)]
    return b"".join(lines)


def same_boundary(depth=10_000):
    return head("same") + b"\r\n" + b"--b\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n" * depth + b"--b--\r\n" * depth


def nested_messages(depth=1000):
    inner = b"Subject: level\r\nContent-Type: message/rfc822\r\n\r\n" * depth
    return head("matryoshka", "message/rfc822") + b"\r\n" + inner + b"Subject: innermost\r\n\r\nx\r\n"


def folded(start, piece, count):
    return start + b"".join(b"\r\n " + piece(number) for number in range(count)) + b"\r\n"


HEADER = 250_000  # below smtpd.limits.header_bytes


def many(piece, room=HEADER):
    """So many pieces as a header may have."""
    size = len(piece(10_000)) + 3
    return room // size


def field(name, piece, kind="text/plain"):
    return head(name, kind) + folded(b"X-Bomb: x", piece, many(piece)) + b"\r\nx\r\n"


def parameters():
    piece = lambda number: b"name*%d*=%%41%%42;" % number
    return head("rfc2231", "text/plain").replace(b"text/plain\r\n", b"text/plain; charset=utf-8;") + folded(b"", piece, many(piece)) \
        .lstrip(b"\r\n ") + b"\r\nx\r\n"


def huge_indices():
    indices = [b"name*4294967295*=a", b"name*18446744073709551616=b", b"name*-1=c", b"name*00000000000=d", b"name**=e", b"name*0*=''%", b"*=*"]
    return head("indices", "text/plain").replace(b"text/plain\r\n", b"text/plain;\r\n " + b";\r\n ".join(indices) + b"\r\n") + b"\r\nx\r\n"


def one_line(size=30 * MIB):
    return (head("one-line", "application/octet-stream") + b"Content-Transfer-Encoding: base64\r\n\r\n"
            + base64.b64encode(b"\0" * (size * 3 // 4)) + b"\r\n")


def in_subject(words):
    return head("x").replace(b"Subject: x", b"Subject: " + words)


def fold(octets, width=900):
    return b"\r\n ".join(octets[at:at + width] for at in range(0, len(octets), width))


# Name: (the message, what DATA is answered).
BOMBS = {
    "nested multiparts": (nested_multiparts, "250 2.0.0"),
    "one boundary at all levels": (same_boundary, "250 2.0.0"),
    "a million parts": (lambda: head("parts") + b"\r\n" + b"--b\r\n\r\n" * 1_000_000 + b"--b--\r\n", "250 2.0.0"),
    "a million boundaries of nobody": (lambda: head("dashes") + b"\r\n" + b"--c\r\n" * 1_000_000, "250 2.0.0"),
    "nested messages": (nested_messages, "250 2.0.0"),
    "100,000 folded lines": (lambda: head("folded") + folded(b"X-Bomb: x", lambda n: b"line %d of many, and on it goes" % n, 100_000)
                             + b"\r\nx\r\n", "552 5.3.4"),
    "as many folded lines as fit": (lambda: field("folds", lambda n: b"x"), "250 2.0.0"),
    "encoded words": (lambda: in_subject(fold(b" ".join([b"=?utf-8?q?=41=42?="] * 12_000))) + b"\r\nx\r\n", "250 2.0.0"),
    "encoded words without end": (lambda: in_subject(fold(b"=?utf-8?q?" * 24_000)) + b"\r\nx\r\n", "250 2.0.0"),
    "base64 words in pieces": (lambda: in_subject(fold(b"=?utf-8?b?4?= " * 17_000)) + b"\r\nx\r\n", "250 2.0.0"),
    "RFC 2231 continuations": (parameters, "250 2.0.0"),
    "RFC 2231 indices": (huge_indices, "250 2.0.0"),
    "base64 as one line": (one_line, "250 2.0.0"),
    "quotes without end": (lambda: head("quotes", 'text/plain; name="' + "\\\\" * 400) + folded(b"X: ", lambda n: b'"' * 90, 2500)
                           + b"\r\nx\r\n", "250 2.0.0"),
    "comments in comments": (lambda: head("comments") + b"Cc: " + fold(b"(" * 250_000) + b"\r\n\r\nx\r\n", "250 2.0.0"),
    "100,000 addresses": (lambda: head("addresses") + folded(b"Cc: a@b.example", lambda n: b",a%d@b.c" % n, many(lambda n: b",a%d@b.c" % n))
                          + b"\r\nx\r\n", "250 2.0.0"),
    "groups without end": (lambda: head("groups") + b"Cc: " + fold(b"a:" * 120_000) + b"\r\n\r\nx\r\n", "250 2.0.0"),
    "100,000 references": (lambda: head("references") + folded(b"References:", lambda n: b"<%d@x>" % n, many(lambda n: b"<%d@x>" % n))
                           + b"\r\nx\r\n", "250 2.0.0"),
    "100,000 fields": (lambda: head("fields") + b"A: b\r\n" * 40_000 + b"\r\nx\r\n", "250 2.0.0"),
    "a million fields": (lambda: head("million") + b"A: b\r\n" * 1_000_000 + b"\r\nx\r\n", "552 5.3.4"),
    "a subject of 10 MB": (lambda: in_subject(fold(b"=?utf-8?q?=C3?= " * 600_000)) + b"\r\nx\r\n", "552 5.3.4"),
    "a million addresses": (lambda: head("crowd") + folded(b"Cc: a@b.example", lambda n: b",a%d@b.c" % n, 1_000_000) + b"\r\nx\r\n",
                            "552 5.3.4"),
    "a boundary of 100 KB": (lambda: head("boundary", "multipart/mixed; boundary=\"\r\n " + fold(b"b" * 100_000).decode() + "\"") + b"\r\n--"
                             + b"b" * 100_000 + b"\r\n\r\nx\r\n", "250 2.0.0"),
    "soft breaks": (lambda: head("soft", "text/plain") + b"Content-Transfer-Encoding: quoted-printable\r\n\r\n" + b"=\r\n" * 2_000_000,
                    "250 2.0.0"),
    "uuencoded without end": (lambda: head("uu", "text/plain") + b"Content-Transfer-Encoding: x-uuencode\r\n\r\nbegin 644 x\r\n"
                              + b"M" * 5_000_000, "250 2.0.0"),
    "HTML without end": (lambda: head("html", "text/html") + b"\r\n" + b"<div><p " * 500_000, "250 2.0.0"),
    "entities": (lambda: head("entities", "text/html") + b"\r\n" + b"&amp" * 1_000_000, "250 2.0.0"),
    "a charset that does not exist": (lambda: head("charset", "text/plain; charset=utf-32-bomb") + b"\r\n" + b"\xff\xfe" * 1_000_000,
                                      "250 2.0.0"),
    "ISO-2022-JP without end": (lambda: head("jis", "text/plain; charset=iso-2022-jp") + b"\r\n" + b"\x1b$B" * 1_000_000, "250 2.0.0"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_message(suite, name):
    make, answer = BOMBS[name]
    octets = make()
    user = suite.add_account(f"{re.sub('[^a-z0-9]+', '-', name.lower()).strip('-')}@{HOSTED}")
    most = {}

    def look():
        for role, more in suite.guard.growth().items():
            most[role] = max(most.get(role, 0), more)
        return True

    with Wire(suite, "mx") as wire:
        wire.socket.settimeout(60)
        wire.reply()
        wire.ask("EHLO client.elsewhere.example")
        wire.ask("MAIL FROM:<bomb@elsewhere.example> BODY=8BITMIME")
        assert codes(wire.ask(f"RCPT TO:<{user}>")) == "250 2.1.5"
        assert codes(wire.ask("DATA")) == "354"
        wire.send(octets.replace(b"\r\n.", b"\r\n..") + (b"" if octets.endswith(b"\r\n") else b"\r\n") + b".\r\n")
        assert codes(wire.reply()) == answer
    began = time.monotonic()
    client = suite.imap(user)
    if not answer.startswith("250"):
        # What no stranger may send, its owner may put there.
        assert client.append("INBOX", None, None, octets)[0] == "OK"
    wait_for(lambda: look() and client.select("INBOX")[1] == [b"1"], suite.tail, 60, 0.1)
    delivered = time.monotonic() - began
    for items in ("(RFC822.SIZE ENVELOPE)", "BODYSTRUCTURE", "(BODY.PEEK[HEADER.FIELDS (SUBJECT CC REFERENCES)])", "BODY.PEEK[1.1.1.1.MIME]",
                  "PREVIEW", "(BINARY.SIZE[1] BODY.PEEK[1]<0.1000>)"):
        status, found = client.fetch("1", items)
        look()
        # A part that is not there, or has no encoding that could be undone, is a clear refusal.
        assert status == "OK" or (items.startswith("(BINARY") and status == "NO"), (items, found)
        if items == "BODYSTRUCTURE":
            octets_of = b" ".join(one if isinstance(one, bytes) else b"".join(one) for one in found)
            assert octets_of.count(b"(") >= 1 and balanced(octets_of), octets_of[:300]
    for criteria in ("TEXT nowhere", "HEADER X-Bomb nowhere", "SUBJECT nowhere"):
        assert client.search(None, criteria)[0] == "OK"
    assert client.uid("SORT", "(SUBJECT)", "UTF-8", "ALL")[0] == "OK"
    assert client.uid("THREAD", "REFERENCES", "UTF-8", "ALL")[0] == "OK"
    look()
    client.logout()
    elapsed = time.monotonic() - began
    print(f"{name}: {len(octets)} octets, delivered after {delivered:.1f} s, read after {elapsed:.1f} s, most {most}")
    assert not {role: more for role, more in most.items() if more > DURING}, most
    assert elapsed < 30, "too slow to be read"


def balanced(octets):
    """Whether the parentheses of an IMAP list are, those in strings and literals aside."""
    octets = re.sub(rb'"(?:[^"\\]|\\.)*"', b"", octets)
    return octets.count(b"(") == octets.count(b")")


def test_the_servers_are_well(suite):
    suite.guard.check(AFTER)

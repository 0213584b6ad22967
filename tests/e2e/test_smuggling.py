"""SMTP smuggling (VU#302671, CVE-2023-51764 and its like). Whatever some server takes for the end of a message, here only CR LF . CR LF is one,
with both policies for lone CR and LF, wherever packets are cut, and behind BDAT; and what leaves here has no other line ends than CRLF,
however it came in."""

import itertools
import re
import socketserver
import threading

import pytest

from battery import Guard, Wire, codes
from suite import Suite, wait_for

HOSTED = "example.test"
ALICE = f"alice@{HOSTED}"

ENDS = [b"\r\n", b"\n", b"\r", b"\r\r\n", b"\n\r", b"\r\n\0", b"\0\r\n", b"\0", b"\x0b", b"\x0c", b"\x85", "\u2028".encode()]
# What stands before and behind the dot; the one true end is left out.
FORMS = [form for before, behind in itertools.product(ENDS, ENDS) if b"\r\n.\r\n" not in (form := before + b"." + behind)]
# Dots that are not alone, or stuffed.
FORMS += [b"\r\n..\r\n", b"\r\n. \r\n", b"\r\n .\r\n", b"\r\n.\t\r\n", b"\n..\r\n", b"\r..\r\n", b"\r\n.\r\r\n"]
SMUGGLED = b"MAIL FROM:<evil@evil.example>\r\nRCPT TO:<%s>\r\nDATA\r\nSubject: smuggled\r\n\r\nx" % ALICE.encode()


def stray(octets):
    """Whether there is a lone CR or LF."""
    return bool(re.search(rb"\r(?!\n)|(?<!\r)\n", octets))


@pytest.fixture(scope="module", params=["refuse", "repair"])
def suite(request):
    limits = {"messages_per_session": 1_000_000, "commands_per_session": 1_000_000, "idle_commands": 100_000}
    suite = Suite(config={"smtpd": {"line_endings": request.param, "limits": limits}})
    suite.start()
    suite.policy = request.param
    suite.add_domain(HOSTED)
    suite.add_account(ALICE)
    suite.guard = Guard(suite, suite.add_account(f"guard@{HOSTED}"))
    yield suite
    suite.remove()


@pytest.fixture
def wire(suite):
    with Wire(suite, "mx") as wire:
        wire.reply()
        assert codes(wire.ask("EHLO client.elsewhere.example")) == "250"
        yield wire


def envelope(wire, *more):
    wire.send(f"MAIL FROM:<bob@elsewhere.example>{''.join(' ' + one for one in more)}\r\nRCPT TO:<{ALICE}>\r\n")
    assert [codes(wire.reply()), codes(wire.reply())] == ["250 2.1.0", "250 2.1.5"]


def expected(suite, octets):
    return "550 5.6.11" if suite.policy == "refuse" and stray(octets) else "250 2.0.0"


def in_step(wire):
    """The next answer is that to the next command."""
    assert wire.ask("VRFY in-step").startswith("252 2.5.2 ")


def test_the_matrix(suite, wire):
    """Each form in one message; behind it stands what would be a second one. One answer, the right one, and one message at most."""
    accepted = 0
    for form in FORMS:
        octets = b"Subject: first\r\n\r\none" + form + SMUGGLED
        envelope(wire)
        assert codes(wire.ask("DATA")) == "354"
        wire.send(octets + b"\r\n.\r\n")
        answer = codes(wire.reply())
        assert answer == expected(suite, octets), form
        accepted += answer.startswith("250")
        in_step(wire)
    assert accepted
    arrived = suite.wait_messages(ALICE, accepted)
    for octets in arrived:
        assert b"Return-Path: <bob@elsewhere.example>" in octets and b"\r\nSubject: first\r\n" in octets
        assert not stray(octets), octets[-300:]
    empty(suite)


def empty(suite):
    client = suite.imap(ALICE)
    if client.select("INBOX")[1] == [b"0"]:
        return
    client.store("1:*", "+FLAGS.SILENT", "\\Deleted")
    client.expunge()
    client.logout()


def test_cut_at_every_octet(suite, wire):
    """A packet's edge inside the form makes no end of it."""
    count = 0
    for form in [b"\n.\n", b"\n.\r\n", b"\r.\r", b"\r\n.\n", b"\r\n.\r", b"\r.\r\n", b"\r\n.\r\r\n", b"\r\n\0.\r\n", b"\r\n.\0\r\n"]:
        octets = b"Subject: first\r\n\r\none" + form + b"QUIT\r\n"
        for cut in range(len(octets) - len(form) - 6, len(octets)):
            envelope(wire)
            assert codes(wire.ask("DATA")) == "354"
            wire.send(octets[:cut])
            wire.send(octets[cut:] + b"\r\n.\r\n")
            answer = codes(wire.reply())
            assert answer == expected(suite, octets), (form, cut)
            count += answer.startswith("250")
            in_step(wire)
    suite.wait_messages(ALICE, count, seconds=60)
    empty(suite)


def test_at_the_edges_of_buffers(suite, wire):
    """The form lies across 4, 8, 16, 32 and 64 KiB: where somebody might read the next piece."""
    count = 0
    for size in (4096, 8192, 16_384, 32_768, 65_536, 131_072):
        for form, shift in itertools.product([b"\n.\n", b"\r\n.\n", b"\r\n.\r", b"\n.\r\n"], range(-3, 2)):
            head = b"Subject: first\r\n\r\n"
            line = b"a" * 62 + b"\r\n"
            fill = (line * (size // 64 + 1))[:size + shift - len(head) - len(form) // 2]
            fill = re.sub(rb"\r$", b"x", fill)
            octets = head + fill + form + b"NOOP\r\n"
            envelope(wire)
            assert codes(wire.ask("DATA")) == "354"
            wire.send(octets + b"\r\n.\r\n")
            answer = codes(wire.reply())
            assert answer == expected(suite, octets), (size, form, shift)
            count += answer.startswith("250")
            in_step(wire)
    arrived = suite.wait_messages(ALICE, count, seconds=60)
    assert not any(stray(octets) for octets in arrived)
    empty(suite)


def test_behind_bdat(suite, wire):
    """Octets are counted: nothing in them is an end, also across chunks, and what stands behind them is a command."""
    count = 0
    for form in FORMS + [b"\r\n.\r\n"]:
        octets = b"Subject: first\r\n\r\none" + form + SMUGGLED + b"\r\n"
        for cut in (0, len(b"Subject: first\r\n\r\none") + 1, len(octets) - 1):
            envelope(wire)
            wire.send(b"BDAT %d\r\n" % cut + octets[:cut])
            assert codes(wire.reply()) == "250 2.0.0"
            wire.send(b"BDAT %d LAST\r\n" % (len(octets) - cut) + octets[cut:])
            answer = codes(wire.reply())
            assert answer == expected(suite, octets), (form, cut)
            count += answer.startswith("250")
            in_step(wire)
    arrived = suite.wait_messages(ALICE, count, seconds=60)
    assert not any(stray(octets) for octets in arrived)
    # The true end is text like any other there.
    assert sum(b"one\r\n.\r\nMAIL FROM" in octets for octets in arrived) >= 3
    empty(suite)


def test_commands_have_one_end(suite):
    """A lone LF or CR among commands ends the session, with both policies: nothing behind it is read."""
    for octets, answer in [(b"NOOP\nRSET\r\n", "521 5.5.2"), (b"NOOP\rRSET\r\n", "521 5.5.2"), (b"NOOP\r\r\n", "521 5.5.2"),
                           (b"DATA\n.\n", "521 5.5.2")]:
        with Wire(suite, "mx") as wire:
            wire.reply()
            wire.ask("EHLO client.elsewhere.example")
            wire.send(octets)
            said = wire.rest().decode()
            assert codes(said) == answer and said.count("\r\n") == 1, (octets, said)


def test_the_servers_are_well(suite):
    suite.guard.check()


# --- what leaves


class Octets:
    """An exchanger that keeps every octet that a client sends, and reads lines as strictly as can be: only CRLF ends one."""

    def __init__(self, offers):
        sink = self
        self.streams, self.bodies = [], []

        class Session(socketserver.BaseRequestHandler):
            def handle(self):
                self.octets = b""
                self.at = 0
                sink.streams.append(self)
                self.request.sendall(b"220 octets.example\r\n")
                try:
                    self.session()
                except (EOFError, OSError):
                    pass

            def more(self):
                got = self.request.recv(65536)
                if not got:
                    raise EOFError
                self.octets += got

            def until(self, end):
                while (found := self.octets.find(end, self.at)) < 0:
                    self.more()
                taken, self.at = self.octets[self.at:found + len(end)], found + len(end)
                return taken

            def session(self):
                while line := self.until(b"\r\n"):
                    verb = line[:4].upper()
                    answer = b"250 ok"
                    if verb == b"EHLO":
                        answer = b"\r\n".join([b"250-octets.example", *(b"250-" + offer for offer in offers), b"250 SIZE 100000000"])
                    elif verb == b"DATA":
                        self.request.sendall(b"354 go on\r\n")
                        sink.bodies.append(self.until(b"\r\n.\r\n")[:-3])
                    elif verb == b"BDAT":
                        size = int(line.split()[1])
                        while len(self.octets) - self.at < size:
                            self.more()
                        sink.bodies.append(self.octets[self.at:self.at + size])
                        self.at += size
                    elif verb == b"QUIT":
                        self.request.sendall(b"221 bye\r\n")
                        return
                    self.request.sendall(answer + b"\r\n")

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address = True
            daemon_threads = True

        self.server = Server(("127.0.0.1", 0), Session)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture(scope="module", params=[[b"8BITMIME", b"PIPELINING"], [b"8BITMIME", b"CHUNKING", b"BINARYMIME"]], ids=["data", "chunks"])
def outward(request):
    sink = Octets(request.param)
    suite = Suite(config={
        "smtpd": {"line_endings": "repair", "relay_networks": ["127.0.0.1"]},
        "queued": {"relay_networks": ["127.0.0.1"]},
        "relayd": {"route": [{"match": "*", "host": "127.0.0.1", "port": sink.port, "tls": "none"}]},
    }).start()
    suite.add_domain(HOSTED)
    suite.add_account(ALICE)
    suite.add_account(f"away@{HOSTED}")
    suite.run("script", "put", f"away@{HOSTED}", "away", "--activate", stdin='redirect "out@elsewhere.example";')
    suite.sink = sink
    yield suite
    suite.remove()
    sink.close()


HOSTILE = [b"Subject: out\r\n\r\none" + form + b"MAIL FROM:<evil@evil.example>\r\n.x\r\n.\nlast" for form in FORMS]


def leaves(suite, count, give):
    """What `give` hands in leaves as so many messages in which every line ends with CRLF."""
    suite.sink.bodies.clear()
    give()
    wait_for(lambda: len(suite.sink.bodies) >= count, lambda: f"{len(suite.sink.bodies)} of {count}\n{suite.tail()}", 60)
    suite.wait_queue_empty()
    assert len(suite.sink.bodies) == count
    for octets in suite.sink.bodies:
        assert not stray(octets), octets[-200:]
        assert b"Subject: out\r\n" in octets and b"\r\nlast" in octets
    for stream in suite.sink.streams:
        # In the whole of what was sent, and only true ends at the ends of messages.
        assert not stray(stream.octets)
        assert b"evil@evil.example>\r\nRCPT" not in stream.octets


def by_smtp(suite, listener, to, chunks=False):
    with Wire(suite, listener) as wire:
        wire.reply()
        wire.ask(f"{'LHLO' if listener == 'lmtp' else 'EHLO'} client.elsewhere.example")
        for octets in HOSTILE:
            wire.send(f"MAIL FROM:<bob@elsewhere.example> BODY=8BITMIME\r\nRCPT TO:<{to}>\r\n")
            assert [codes(wire.reply()), codes(wire.reply())] == ["250 2.1.0", "250 2.1.5"]
            if chunks:
                wire.send(b"BDAT %d LAST\r\n" % len(octets) + octets)
            else:
                assert codes(wire.ask("DATA")) == "354"
                wire.send(octets + b"\r\n.\r\n")
            assert codes(wire.reply()) == "250 2.0.0", octets


@pytest.mark.parametrize("way", ["relayed", "relayed in chunks", "LMTP and redirect", "SMTP and redirect", "posthouse send"])
def test_only_crlf_leaves(outward, way):
    away, count = f"away@{HOSTED}", len(HOSTILE)
    if way == "relayed":
        leaves(outward, count, lambda: by_smtp(outward, "mx", "out@elsewhere.example"))
    elif way == "relayed in chunks":
        leaves(outward, count, lambda: by_smtp(outward, "mx", "out@elsewhere.example", chunks=True))
    elif way == "LMTP and redirect":
        leaves(outward, count, lambda: by_smtp(outward, "lmtp", away))
    elif way == "SMTP and redirect":
        leaves(outward, count, lambda: by_smtp(outward, "mx", away, chunks=True))
    else:
        # The forms in one message: the tool is started once.
        whole = b"Subject: out\r\n\r\none" + b"".join(FORMS) + b"MAIL FROM:<evil@evil.example>\n.x\n.\nlast\n"
        leaves(outward, 1, lambda: outward.run("send", "--from", ALICE, "out@elsewhere.example", stdin=whole))


def test_binary_goes_as_it_is_or_not_at_all(outward, request):
    """BINARYMIME is counted in chunks, and never becomes lines (RFC 3030 3)."""
    octets = b"Subject: out\r\n\r\none" + b"".join(FORMS) + b"last"
    outward.sink.bodies.clear()
    with Wire(outward, "mx") as wire:
        wire.reply()
        wire.ask("EHLO client.elsewhere.example")
        wire.send(f"MAIL FROM:<{ALICE}> BODY=BINARYMIME\r\nRCPT TO:<out@elsewhere.example>\r\n")
        wire.reply(), wire.reply()
        wire.send(b"BDAT %d LAST\r\n" % len(octets) + octets)
        assert codes(wire.reply()) == "250 2.0.0"
    if "chunks" in request.node.name:
        wait_for(lambda: outward.sink.bodies, outward.tail)
        assert outward.sink.bodies[0].endswith(octets)
    else:
        (report,) = outward.wait_messages(ALICE, 1)
        assert b"Status: 5.6.3" in report and outward.sink.bodies == []
    outward.wait_queue_empty()

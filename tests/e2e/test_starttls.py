"""STARTTLS and those who sit on the wire before it (the classes of https://nostarttls.secvuln.info): what was said in clear text, by
whichever side, counts for nothing once TLS is on, and nobody is talked out of TLS."""

import base64
import ssl
import threading

import pytest

from battery import Guard, Wire, codes
from exchangers import Authority
from suite import PASSWORD, Failed, Suite, anybody, free_port, message, wait_for

HOSTED = "example.test"
ALICE = f"alice@{HOSTED}"
PLAIN = base64.b64encode(f"\0{ALICE}\0{PASSWORD}".encode()).decode()

# listener: the command, what says yes, and a question whose answer is the only one that may come (or `None`: the server speaks first).
PROTOCOLS = {
    "mx": (b"STARTTLS\r\n", rb"^220 2\.0\.0 ", b"EHLO real\r\n", rb"^250 "),
    "submission": (b"STARTTLS\r\n", rb"^220 2\.0\.0 ", b"EHLO real\r\n", rb"^250 "),
    "imap": (b"a STARTTLS\r\n", rb"^a OK ", b"real CAPABILITY\r\n", rb"^real OK "),
    "pop3": (b"STLS\r\n", rb"^\+OK ", b"CAPA\r\n", rb"^\."),
    "sieve": (b"STARTTLS\r\n", rb"^OK ", b'NOOP "real"\r\n', rb'^OK \(TAG "real"\)'),
}
GREETING = {"mx": rb"^220 ", "submission": rb"^220 ", "imap": rb"^\* OK ", "pop3": rb"^\+OK ", "sieve": rb"^OK "}
# What an attacker puts behind it: commands that would be seen by their answers, logins, the beginning of a literal, half a line.
INJECTED = {
    "mx": [b"NOOP\r\n", b"EHLO evil\r\nMAIL FROM:<evil@evil.example>\r\n", b"MAIL FROM:<", b"BDAT 100000 LAST\r\n", b"\r\n", b"\0\xff"],
    "submission": [b"NOOP\r\n", b"EHLO evil\r\nAUTH PLAIN " + PLAIN.encode() + b"\r\n", b"AUTH PLAIN\r\n", b"EHLO "],
    "imap": [b"b NOOP\r\n", f'b LOGIN {ALICE} "{PASSWORD}"\r\n'.encode(), b"b LOGIN {5}\r\n", b"b LOGIN {100000+}\r\n", b"b ",
             b"b AUTHENTICATE PLAIN " + PLAIN.encode() + b"\r\n", b"b IDLE\r\n"],
    "pop3": [b"NOOP\r\n", f"USER {ALICE}\r\nPASS {PASSWORD}\r\n".encode(), b"AUTH PLAIN\r\n", b"USER "],
    "sieve": [b"NOOP \"evil\"\r\n", b'AUTHENTICATE "PLAIN" "' + PLAIN.encode() + b'"\r\n', b"NOOP {5}\r\n", b"NOOP {100000+}\r\n", b"NO"],
}
CASES = [(listener, octets) for listener, many in INJECTED.items() for octets in many]


@pytest.fixture(scope="module")
def suite():
    nobody = {"plain_login_networks": []}
    suite = Suite(config={"imapd": nobody, "pop3d": nobody, "sieved": nobody}).start()
    suite.add_domain(HOSTED)
    suite.add_account(ALICE)
    suite.guard = Guard(suite, suite.add_account(f"guard@{HOSTED}"))
    yield suite
    suite.remove()


def begun(suite, listener):
    wire = Wire(suite, listener)
    wire.until(GREETING[listener])
    return wire


def only_answer(wire, listener):
    """The first thing under TLS is the answer to our own question: sieved tells its capabilities first (RFC 5804 2.2)."""
    _, _, question, answer = PROTOCOLS[listener]
    if listener == "sieve":
        wire.until(rb"^OK ")
    wire.send(question)
    said = wire.until(answer)
    first = said.splitlines()[0]
    expected = {"mx": b"250-mail.example.test", "submission": b"250-mail.example.test", "pop3": b"+OK", "imap": b"* CAPABILITY ",
                "sieve": b"OK (TAG"}[listener]
    assert first.startswith(expected), said
    assert b"evil" not in said
    return said


def ids(value):
    return repr(value)[2:30] if isinstance(value, bytes) else value


@pytest.mark.parametrize("listener, octets", CASES, ids=ids)
def test_commands_in_the_same_packet_are_thrown_away(suite, listener, octets):
    """CVE-2011-0411."""
    command, yes, _, _ = PROTOCOLS[listener]
    with begun(suite, listener) as wire:
        wire.send(command + octets)
        wire.until(yes)
        wire.tls()
        said = only_answer(wire, listener)
        # A login that was injected has logged nobody in: it can still be done.
        if listener == "imap":
            assert b"AUTH=PLAIN" in said
        if listener == "pop3":
            assert b"SASL" in said


@pytest.mark.parametrize("listener, octets", CASES, ids=ids)
def test_commands_in_a_later_packet_break_the_handshake(suite, listener, octets):
    """They come when TLS is awaited, and are no TLS: nothing of it is read as a command."""
    command, yes, _, _ = PROTOCOLS[listener]
    with begun(suite, listener) as wire:
        wire.send(command)
        wire.until(yes)
        # What makes a first record of TLS impossible.
        wire.send(octets + b"NOOP\r\n" * 4)
        said = wire.rest()
        # Nothing in clear text; an alert is a record of its own (RFC 8446 6).
        assert said == b"" or said[:1] == b"\x15", said


@pytest.mark.parametrize("listener", PROTOCOLS)
def test_a_command_cut_anywhere(suite, listener):
    """The packets' edges make no difference."""
    command, yes, _, _ = PROTOCOLS[listener]
    octets = INJECTED[listener][0]
    for cut in range(1, len(command)):
        with begun(suite, listener) as wire:
            wire.send(command[:cut])
            wire.send(command[cut:] + octets)
            wire.until(yes)
            wire.tls()
            only_answer(wire, listener)


def test_smtp_forgets_all_that_was_said(suite):
    with begun(suite, "mx") as wire:
        assert codes(wire.ask("EHLO before.example")) == "250"
        assert codes(wire.ask("MAIL FROM:<before@elsewhere.example>")) == "250 2.1.0"
        assert codes(wire.ask(f"RCPT TO:<{ALICE}>")) == "250 2.1.5"
        assert codes(wire.ask("STARTTLS")) == "220 2.0.0"
        wire.tls()
        for command in ("MAIL FROM:<a@elsewhere.example>", f"RCPT TO:<{ALICE}>", "DATA", "BDAT 0 LAST"):
            assert codes(wire.ask(command)) == "503 5.5.1", command
        assert "STARTTLS" not in wire.ask("EHLO after.example")
        assert codes(wire.ask(f"RCPT TO:<{ALICE}>")) == "503 5.5.1"
        assert codes(wire.ask("STARTTLS")) == "503 5.5.1"
        assert codes(wire.ask("MAIL FROM:<after@elsewhere.example>")) == "250 2.1.0"
        assert codes(wire.ask(f"RCPT TO:<{ALICE}>")) == "250 2.1.5"
        assert codes(wire.ask("DATA")) == "354"
        before = len(suite.messages(ALICE))
        assert codes(wire.ask(b"Subject: after\r\n\r\nx\r\n.\r\n")) == "250 2.0.0"
    arrived = suite.wait_messages(ALICE, before + 1)[-1]
    assert b"after.example" in arrived and b"before" not in arrived


def test_between_chunks_and_in_an_exchange_there_is_no_tls(suite):
    with begun(suite, "mx") as wire:
        wire.ask("EHLO before.example")
        wire.ask("MAIL FROM:<before@elsewhere.example>")
        wire.ask(f"RCPT TO:<{ALICE}>")
        assert codes(wire.ask(b"BDAT 6\r\nA: b\r\n")) == "250 2.0.0"
        assert codes(wire.ask("STARTTLS")) == "220 2.0.0"
        wire.tls()
        assert codes(wire.ask("EHLO after.example")) == "250"
        assert codes(wire.ask("BDAT 0 LAST")) == "503 5.5.1", "the chunk is forgotten"
    # RFC 3207 4: STARTTLS has no parameters.
    with begun(suite, "mx") as wire:
        wire.ask("EHLO before.example")
        assert codes(wire.ask("STARTTLS now")) == "501 5.5.4"
        assert codes(wire.ask("NOOP")) == "250 2.0.0"


def test_nobody_logs_in_before(suite):
    with begun(suite, "submission") as wire:
        assert "AUTH" not in wire.ask("EHLO before.example")
        assert codes(wire.ask(f"AUTH PLAIN {PLAIN}")) == "538 5.7.11"
        assert codes(wire.ask("MAIL FROM:<a@b.example>")) == "530 5.7.0"
    with begun(suite, "imap") as wire:
        for line in (f'a LOGIN {ALICE} "{PASSWORD}"', f"a AUTHENTICATE PLAIN {PLAIN}"):
            wire.send(line + "\r\n")
            assert wire.until(rb"^a ").startswith(b"a NO [PRIVACYREQUIRED]"), line
        wire.send("a SELECT INBOX\r\n")
        assert wire.until(rb"^a ").startswith(b"a BAD ")
    with begun(suite, "pop3") as wire:
        for line in (f"USER {ALICE}", f"PASS {PASSWORD}", f"AUTH PLAIN {PLAIN}", "STAT"):
            wire.send(line + "\r\n")
            assert wire.until(rb"^\S+").startswith(b"-ERR") or line.startswith("USER"), line
    with begun(suite, "sieve") as wire:
        wire.send(f'AUTHENTICATE "PLAIN" "{PLAIN}"\r\n')
        assert wire.until(rb"^\S+").startswith(b"NO (ENCRYPT-NEEDED)")
        wire.send("LISTSCRIPTS\r\n")
        assert wire.until(rb"^\S+").startswith(b"NO")


def test_other_protocols_are_no_mail(suite):
    """A browser that is made to speak to us (ALPACA) gets nothing done."""
    request = (b"POST / HTTP/1.1\r\nHost: mail.example.test\r\nContent-Length: 100\r\n\r\nEHLO evil\r\nMAIL FROM:<a@b.example>\r\n"
               + f"RCPT TO:<{ALICE}>\r\nDATA\r\nSubject: evil\r\n\r\nx\r\n.\r\n".encode())
    before = len(suite.messages(ALICE))
    for listener, secure in (("mx", False), ("submissions", True)):
        with Wire(suite, listener, secure) as wire:
            wire.until(GREETING["mx"])
            wire.send(request)
            # Not even the next line is read.
            assert wire.rest().startswith(b"554 5.5.1 ") and wire.socket.fileno() >= 0
    assert len(suite.messages(ALICE)) == before


def test_the_servers_are_well(suite):
    suite.guard.check()


# --- as a client: hosts that mail is sent to


class Host:
    """An exchanger that misbehaves: `script(wire)` drives one connection and gives the octets of a message, or None."""

    def __init__(self, script, host="127.0.0.1"):
        import socket
        self.mails, self.seen, self.connections, self.script = [], [], 0, script
        self.listener = socket.create_server((host, 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._session, args=(connection,), daemon=True).start()

    def _session(self, connection):
        connection.settimeout(20)
        try:
            self.script(Peer(self, connection))
        except (OSError, EOFError, ValueError):
            pass
        finally:
            connection.close()

    def close(self):
        self.listener.close()


class Peer:
    """The host's side of one connection."""

    def __init__(self, host, connection):
        self.host, self.connection, self.secured = host, connection, False
        self.lines = connection.makefile("rb")

    def say(self, octets):
        self.connection.sendall(octets)

    def hear(self):
        line = self.lines.readline()
        if not line:
            raise EOFError
        self.host.seen.append((self.secured, line))
        return line

    def tls(self, context):
        self.connection = context.wrap_socket(self.connection, server_side=True)
        self.lines = self.connection.makefile("rb")
        self.secured = True

    def serve(self, offers=(), greet=True, starttls=None):
        """An ordinary session; `starttls(peer)` is what happens at STARTTLS."""
        if greet:
            self.say(b"220 mx.example ESMTP\r\n")
        while line := self.hear():
            verb = line[:4].upper()
            if verb == b"EHLO":
                lines = [b"mx.example", *offers]
                if starttls and not self.secured:
                    lines.append(b"STARTTLS")
                self.say(b"".join(b"250" + (b" " if one is lines[-1] else b"-") + one + b"\r\n" for one in lines))
            elif verb == b"STAR":
                starttls(self)
            elif verb == b"DATA":
                self.say(b"354 go on\r\n")
                octets = b""
                while (piece := self.hear()) != b".\r\n":
                    octets += piece
                self.host.mails.append((self.secured, octets))
                self.say(b"250 taken\r\n")
            elif verb == b"QUIT":
                self.say(b"221 bye\r\n")
                return
            else:
                self.say(b"250 ok\r\n")


@pytest.fixture(scope="module")
def identity(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"), "hosts").host("mx.example")


def hosts(identity):
    """Name: (what happens at STARTTLS or instead of it, what becomes of mail where TLS is used if offered, and where it is a must)."""
    tls = lambda peer: peer.tls(identity.context)

    def good(peer):
        peer.say(b"220 go on\r\n")
        tls(peer)

    def behind(octets):
        def script(peer):
            peer.say(b"220 go on\r\n" + octets)
            tls(peer)
        return script

    def answer(octets):
        return lambda peer: peer.say(octets)

    def garbage(peer):
        peer.say(b"220 go on\r\n")
        peer.connection.recv(1)
        peer.say(b"250-this is no TLS\r\n250 AUTH PLAIN\r\n" * 20)

    def silence(peer):
        peer.say(b"220 go on\r\n")
        peer.connection.close()

    return {
        "good": (good, "tls", "tls"),
        # Answers that were put behind the go-ahead: none is taken for the host's under TLS.
        "injected-ehlo": (behind(b"250-mx.example\r\n250 AUTH PLAIN LOGIN\r\n"), "clear", "deferred"),
        "injected-mail": (behind(b"250 ok\r\n" * 5), "clear", "deferred"),
        "injected-half": (behind(b"250-m"), "clear", "deferred"),
        "injected-octet": (behind(b"\0"), "clear", "deferred"),
        "injected-alert": (behind(b"\x15\x03\x03\x00\x02\x02\x28"), "clear", "deferred"),
        "refused": (answer(b"454 4.7.0 not now\r\n"), "clear", "deferred"),
        "refused-for-ever": (answer(b"502 5.5.1 what?\r\n"), "clear", "deferred"),
        "downgraded": (None, "clear", "deferred"),
        # A positive answer that is not 220 (RFC 3207 4).
        "wrong-yes": (answer(b"250 ok\r\n"), "clear", "deferred"),
        "garbage": (garbage, "clear", "deferred"),
        "closed": (silence, "clear", "deferred"),
    }


NAMES = ["good", "injected-ehlo", "injected-mail", "injected-half", "injected-octet", "injected-alert", "refused", "refused-for-ever",
         "downgraded", "wrong-yes", "garbage", "closed"]


@pytest.fixture(scope="module")
def sending(identity):
    """A suite with two routes to each host: TLS if it is offered, and TLS or nothing."""
    all_hosts = {name: Host(lambda peer, at=at: peer.serve(starttls=at)) for name, (at, _, _) in hosts(identity).items()}
    routes = [{"match": f"{name}.{mode}.example", "host": "127.0.0.1", "port": host.port, "tls": mode, "verify": False}
              for name, host in all_hosts.items() for mode in ("required", "opportunistic")]
    suite = Suite(config={"relayd": {"route": routes, "greeting_timeout": 10, "command_timeout": 10},
                          "queued": {"retry_min": 3600, "retry_max": 3600}})
    suite.start()
    suite.add_domain(HOSTED)
    suite.hosts = all_hosts
    suite.guard = Guard(suite, suite.add_account(f"guard@{HOSTED}"))
    yield suite
    suite.remove()
    for host in all_hosts.values():
        host.close()


def send_out(suite, to):
    suite.run("send", "--from", f"me@{HOSTED}", to, stdin=message(f"<{to}>", to=to).decode())


@pytest.mark.parametrize("mode", ["opportunistic", "required"])
@pytest.mark.parametrize("name", NAMES)
def test_a_hostile_host(sending, identity, name, mode):
    host = sending.hosts[name]
    host.seen.clear(), host.mails.clear()
    _, opportunistic, required = hosts(identity)[name]
    expected = opportunistic if mode == "opportunistic" else required
    to = f"a@{name}.{mode}.example"
    send_out(sending, to)
    mine = lambda: [entry for entry in sending.queue() if to in entry["to"]]
    if expected == "deferred":
        entry = wait_for(lambda: [e for e in mine() if e["state"] == "waiting"], lambda: f"{mine()}\n{sending.tail()}")[0]
        assert entry["last"].startswith({"downgraded": "451 4.7.4 ", "refused": "454 4.7.0 ", "refused-for-ever": "454 4.5.1 "}
                                        .get(name, "454 4.7.5 ")), entry
        assert host.mails == []
        assert not [line for secured, line in host.seen if not secured and line[:4] in (b"MAIL", b"AUTH")], host.seen
        sending.run("queue", "remove", entry["id"])
    else:
        wait_for(lambda: host.mails, lambda: f"{mine()} {host.seen}\n{sending.tail()}")
        assert [secured for secured, _ in host.mails] == [expected == "tls"]
        wait_for(lambda: not mine(), lambda: f"{mine()}")
    if expected == "tls":
        # Said again: what was learned before counts no more (RFC 3207 4.2).
        assert [secured for secured, line in host.seen if line.startswith(b"EHLO")] == [False, True]


def test_another_list_under_tls(identity, make_suite):
    """Before TLS everything is offered, under it nothing; and the other way round."""
    def host(before, after):
        def script(peer):
            def upgrade(peer):
                peer.say(b"220 go on\r\n")
                peer.tls(identity.context)
                peer.serve(offers=after, greet=False)
            peer.serve(offers=before, starttls=upgrade)
        return Host(script)

    rich = [b"DSN", b"SIZE 1", b"SMTPUTF8", b"8BITMIME", b"PIPELINING", b"CHUNKING"]
    poor, wealthy = host(rich, []), host([b"SIZE 1"], [b"DSN", b"SMTPUTF8"])
    route = lambda name, one: {"match": name, "host": "127.0.0.1", "port": one.port, "tls": "required", "verify": False}
    suite = make_suite(config={"relayd": {"route": [route("poor.example", poor), route("rich.example", wealthy)]}})
    suite.add_domain(HOSTED)
    for one, name in ((poor, "poor"), (wealthy, "rich")):
        send_out(suite, f"a@{name}.example")
        wait_for(lambda: one.mails, lambda: f"{suite.queue()}\n{suite.tail()}")
        assert one.mails[0][0]
    mail = lambda one: next(line for _, line in one.seen if line.startswith(b"MAIL"))
    assert mail(poor) == f"MAIL FROM:<me@{HOSTED}>\r\n".encode()
    # posthouse send asks for no report, RET and NOTIFY are not said; SIZE was offered in clear text only.
    assert b"SIZE" not in mail(wealthy)
    suite.wait_queue_empty()
    poor.close(), wealthy.close()


# --- as a client: a server that mail is fetched from


def imap_host(identity, greeting=b"* OK ready\r\n", answer=b"a OK go on\r\n"):
    """Knows one login; `answer` is what it says to STARTTLS, `a` being the client's tag."""
    def script(peer):
        peer.say(greeting)
        while line := peer.hear():
            tag, _, rest = line.strip().partition(b" ")
            verb = rest.split(b" ")[0].upper()
            if verb == b"STARTTLS":
                peer.say(answer.replace(b"a ", tag + b" ", 1) if answer.startswith(b"a ") else answer.replace(b"\na ", b"\n" + tag + b" "))
                if b" OK" in answer:
                    peer.tls(identity.context)
            elif verb == b"LIST":
                peer.say(b'* LIST () "/" INBOX\r\n' + tag + b" OK\r\n")
            elif verb in (b"EXAMINE", b"SELECT"):
                peer.say(b"* 0 EXISTS\r\n* OK [UIDVALIDITY 1] x\r\n* OK [UIDNEXT 1] x\r\n" + tag + b" OK [READ-ONLY]\r\n")
            elif verb == b"LOGOUT":
                peer.say(b"* BYE\r\n" + tag + b" OK\r\n")
                return
            elif verb == b"UID":
                peer.say(b"* SEARCH\r\n" + tag + b" OK\r\n")
            else:
                peer.say(tag + b" OK\r\n")
    return Host(script)


IMAP = {
    "good": ({}, None),
    # The greeting is no place for a login (RFC 9051 7.1.4), nor for leave.
    "preauth": ({"greeting": b"* PREAUTH welcome\r\n"}, "PREAUTH"),
    "bye": ({"greeting": b"* BYE go away\r\n"}, "BYE"),
    "greeting-answers": ({"greeting": b"* OK ready\r\na1 OK done\r\nA0001 OK done\r\n"}, "more than its greeting"),
    "greeting-long": ({"greeting": b"* OK " + b"x" * 200_000}, "too long"),
    "refused": ({"answer": b"a NO not now\r\n"}, "STARTTLS"),
    "bad": ({"answer": b"a BAD what\r\n"}, "STARTTLS"),
    "injected": ({"answer": b"a OK go on\r\n* CAPABILITY IMAP4rev1 LOGINDISABLED\r\n"}, "behind its answer to STARTTLS"),
    "injected-login": ({"answer": b"a OK go on\r\nA0002 OK logged in\r\n"}, "behind its answer to STARTTLS"),
    "injected-preauth": ({"answer": b"a OK go on\r\n* PREAUTH you are in\r\n"}, "behind its answer to STARTTLS"),
    # Untagged responses before the answer say nothing that counts (RFC 9051 6.2.1: the capabilities are asked for again).
    "untagged": ({"answer": b"* CAPABILITY IMAP4rev1 LOGINDISABLED\r\n* OK [ALERT] give me your password\r\na OK go on\r\n"}, None),
}


@pytest.mark.parametrize("name", IMAP)
def test_a_hostile_imap_server(suite, identity, tmp_path_factory, name):
    from authority import open_folder
    options, trouble = IMAP[name]
    folder = open_folder()
    password = folder / "password"
    password.write_text("secret-of-the-source\n")
    password.chmod(0o644)
    ca = folder / "ca.pem"
    authority = Authority(tmp_path_factory.mktemp("imap"), "imap")
    ca.write_bytes(authority.file.read_bytes())
    ca.chmod(0o644)
    host = imap_host(authority.host("localhost"), **options)
    account = suite.add_account(f"import-{name}@{HOSTED}")
    result = suite.run("import", "imap", f"localhost:{host.port}", "-u", "me", "--password-file", password, "--tls", "starttls",
                       "--ca", ca, "--account", account, check=False)
    if trouble:
        assert result.returncode == 1 and trouble in result.stderr, result.stderr + result.stdout
    else:
        assert result.returncode == 0, result.stderr + result.stdout
    assert not [line for secured, line in host.seen if not secured and b"secret-of-the-source" in line], host.seen
    assert bool([line for secured, line in host.seen if secured and b"secret-of-the-source" in line]) == (trouble is None)
    host.close()

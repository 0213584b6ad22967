"""Milters: libmilter's own, with every action in both versions of the protocol; several that see each other's changes; and some
that are away, slow, or break the rules."""

import contextlib
import os
import re
import signal
import smtplib
import socket
import threading
import time

import pytest

from milters import Milter, Rogue, negotiated, packet
from servers import Knot, zone
from sink import Sink
from suite import Suite, body_of, message, wait_for

ALICE = "alice@example.test"
BOB = "bob@example.test"


def config(*filters, **more):
    return {"hookd": {"enabled": True, "client_names": False, "milter": list(filters), **more}}


@pytest.fixture(scope="module")
def place():
    """Two milters, and a suite with listeners of their own: version 6 over TCP at `mx`, version 2 over a local socket at `lmtp`."""
    first, second, old = Milter(), Milter(), Milter(local=True)
    sink = Sink()
    suite = Suite(config(
        {"name": "first", "address": first.address, "listeners": ["mx", "submissions"], "may_relay": True},
        {"name": "second", "address": second.address, "listeners": ["mx"]},
        {"name": "old", "address": "unix:" + old.address, "listeners": ["lmtp"], "version": 2},
    ) | {"relayd": {"route": [{"match": "*", "host": "127.0.0.1", "port": sink.port, "tls": "none"}]}})
    suite.sink = sink
    suite.start()
    suite.add_domain("example.test")
    for name in (ALICE, BOB):
        suite.add_account(name)
    suite.first, suite.second, suite.old = first, second, old
    yield suite
    suite.remove()
    for one in (first, second, old):
        one.stop()


@pytest.fixture
def suite(place):
    for one in (place.first, place.second, place.old):
        one.plan({})
        forget(one)
    return place


def forget(one):
    """Forgets what a filter heard, when it has heard the ends of all sessions: nobody waits for those."""
    with contextlib.suppress(AssertionError):
        wait_for(lambda: len(one.heard("close")) >= len(one.heard("connect")), "ends of sessions", 5)
    one.forget()


def letter(number, text="Hello.\r\n", to=ALICE, subject="a letter"):
    return message(f"<{number}-{time.monotonic_ns()}@example.net>", to=to, subject=subject, text=text)


def deliver(suite, raw, to=(ALICE,), sender="sender@example.net", listener="mx"):
    """Sends it; the replies to the recipients and to the message."""
    if listener == "lmtp":
        client = smtplib.LMTP(*suite.address("lmtp"), local_hostname="client.example.net")
        client.ehlo()
    else:
        client = suite.smtp(listener)
    with contextlib.suppress(smtplib.SMTPServerDisconnected), client:
        code, text = client.mail(sender)
        if code != 250:
            return [(code, text)]
        replies = [client.rcpt(one) for one in to]
        if any(code == 250 for code, _ in replies):
            replies.append(client.data(raw))
        return replies


def newest(suite, user, raw, mailbox="INBOX"):
    """The copy of a message, by its Message-ID."""
    mark = re.search(rb"Message-ID: (\S+)", raw).group(1)

    def found():
        with contextlib.suppress(AssertionError):
            return [one for one in suite.messages(user, mailbox) if mark in one]
        return None

    return wait_for(found, lambda: f"{mark} for {user} in {mailbox}\n{suite.tail()}", 20, 0.1)[0]


def test_what_a_milter_hears(suite):
    raw = letter("hears")
    assert deliver(suite, raw)[-1][0] == 250
    heard = wait_for(lambda: suite.first.heard("close") and suite.first.heard(), "the session to end")
    kinds = [event["what"] for event in heard]
    assert kinds == ["negotiate", "connect", "hello", "mail", "rcpt", "data", "eoh", "body", "eom", "close"], kinds
    by = {event["what"]: event for event in heard}
    assert by["connect"]["name"] == "[127.0.0.1]" and by["connect"]["address"][0] == "127.0.0.1"
    macros = by["connect"]["macros"]
    assert macros["j"] == "mail.example.test" and macros["{daemon_name}"] == "mx"
    assert macros["{client_addr}"] == "127.0.0.1" and int(macros["{client_port}"]) > 0
    assert int(macros["{daemon_port}"]) == suite.ports["mx"] and macros["_"] == "unknown [127.0.0.1]"
    assert by["hello"]["name"] == "client.example.net"
    assert by["mail"]["address"] == "<sender@example.net>" and by["mail"]["macros"]["i"]
    assert by["rcpt"]["macros"] == {"{rcpt_addr}": ALICE, "{rcpt_host}": "example.test", "{rcpt_mailer}": "local"}
    names = [name for name, _ in by["eoh"]["fields"]]
    assert names[-5:] == ["From", "To", "Subject", "Message-ID", "Date"] and "Received" not in names
    assert by["eom"]["size"] == len(b"Hello.\r\n")
    copy = newest(suite, ALICE, raw)
    assert by["mail"]["macros"]["i"].encode() in copy, "the queue id is in Received"
    assert copy.endswith(raw)


def test_a_login_and_tls_are_told(suite):
    with suite.submission(ALICE) as client:
        assert client.sendmail(ALICE, [BOB], letter("login", to=BOB).replace(b"sender@example.net", ALICE.encode())) == {}
    mail = suite.first.heard("mail")[-1]["macros"]
    assert mail["{auth_authen}"] == ALICE and mail["{auth_type}"] in ("PLAIN", "LOGIN", "SCRAM-SHA-256")
    hello = suite.first.heard("hello")[-1]["macros"]
    assert hello["{tls_version}"] == "TLSv1.3" and hello["{cipher_bits}"] in ("128", "256")
    assert suite.second.heard() == [], "it is for mx alone"


@pytest.mark.parametrize("listener", ["mx", "lmtp"])
def test_every_change(suite, listener):
    raw = letter(f"change-{listener}", text="old text\r\n" * 10).replace(b"\r\nDate:", b"\r\nX-Gone: 1\r\nX-Two: a\r\nX-Two: b\r\nDate:")
    plan = {"do": [
        ["addheader", "X-Last", "at the end"],
        ["chgheader", "X-Gone", 1, ""],
        ["chgheader", "X-Two", 2, "changed\n\tand folded"],
        ["addrcpt", f"<{BOB}>"],
        ["quarantine", "smells"],
        ["body", "new text\r\n", 3],
    ]}
    if listener == "mx":
        plan["do"] += [["addheader", "X-First", "at the top", 0], ["chgfrom", "<other@example.net>"]]
    suite.first.plan(plan)
    suite.old.plan(plan)
    assert deliver(suite, raw, listener=listener)[-1][0] == 250, suite.tail()
    for user in (ALICE, BOB):
        copy = newest(suite, user, raw, "Junk")
        head = copy.partition(b"\r\n\r\n")[0]
        assert body_of(copy) == b"new text\r\n" * 3
        assert b"X-Gone" not in head and b"X-Two: a\r\n" in head and b"X-Two: changed\r\n\tand folded\r\n" in head
        assert head.endswith(b"\r\nX-Last: at the end")
        if listener == "mx":
            assert head.index(b"\r\nReceived:") < head.index(b"\r\nX-First: at the top") < head.index(b"\r\nFrom:")
            assert b"Return-Path: <other@example.net>" in head
        else:
            assert b"Return-Path: <sender@example.net>" in head
    offered = (suite.first if listener == "mx" else suite.old).heard("negotiate")
    steps = suite.old.heard("data")
    assert offered and (listener == "mx" or steps == []), "version 2 knows no DATA"


def test_a_large_message_is_rewritten_in_its_file(suite):
    text = "".join(f"line {number} of a large message\r\n" for number in range(60_000))
    raw = letter("large", text=text)
    suite.first.plan({"do": [["addheader", "X-Last", "1"], ["addheader", "X-Top", "2", 0]]})
    assert deliver(suite, raw)[-1][0] == 250
    copy = newest(suite, ALICE, raw)
    assert body_of(copy) == text.encode()
    assert copy.partition(b"\r\n\r\n")[0].endswith(b"\r\nX-Last: 1") and b"\r\nX-Top: 2\r\n" in copy
    assert suite.first.heard("eom")[-1]["size"] == len(text)
    assert max(event["size"] for event in suite.first.heard("body")) == 65_535
    # And a new body that is large takes the place of a small one.
    suite.first.plan({"do": [["body", "0123456789abcde\r\n", 20_000]]})
    raw = letter("grown")
    assert deliver(suite, raw)[-1][0] == 250
    assert body_of(newest(suite, ALICE, raw)) == b"0123456789abcde\r\n" * 20_000
    slots = [file for file in (suite.dir / "state/queue").rglob("slot-*")]
    assert slots == [], "no file is left over"


def test_only_fields_on_top_leave_a_large_file_alone(suite):
    text = "x" * 70 + "\r\n"
    raw = letter("top", text=text * 3000)
    suite.first.plan({"do": [["addheader", "X-Top", "1", 1]]})
    assert deliver(suite, raw)[-1][0] == 250
    copy = newest(suite, ALICE, raw)
    assert copy.index(b"X-Top: 1\r\n") < copy.index(b"From: ") and copy.endswith(raw)


def test_filters_see_each_others_changes(suite):
    suite.first.plan({"do": [["addheader", "X-One", "1"], ["chgfrom", "<new@example.net>"], ["body", "first\r\n", 1]]})
    suite.second.plan({"do": [["chgheader", "X-One", 1, "2"]]})
    raw = letter("both")
    assert deliver(suite, raw)[-1][0] == 250
    fields = suite.second.heard("eoh")[-1]["fields"]
    assert ["X-One", "1"] in fields and suite.second.heard("eom")[-1]["size"] == len("first\r\n")
    copy = newest(suite, ALICE, raw)
    assert b"X-One: 2\r\n" in copy and b"X-One: 1" not in copy and body_of(copy) == b"first\r\n"


@pytest.mark.parametrize("stage", ["connect", "hello", "mail", "rcpt", "data", "header", "eoh", "body", "eom"])
@pytest.mark.parametrize("listener", ["mx", "lmtp"])
def test_refusals_at_every_stage(suite, stage, listener):
    milter = suite.first if listener == "mx" else suite.old
    if listener == "lmtp" and stage == "data":
        pytest.skip("version 2 knows no DATA")
    for plan, code, text in [
        ("reject", 554 if stage == "connect" else 550, b"5.7.1"),
        ("tempfail", 421 if stage == "connect" else 451, b"4.7.1"),
        (["554", "5.7.9", "go away", "100%% sure"] if listener == "mx" else ["554", "5.7.9", "go away"], 554, b"5.7.9 go away"),
    ]:
        milter.plan({stage: plan})
        if stage == "connect":
            with pytest.raises(smtplib.SMTPConnectError) as refused:
                deliver(suite, letter(stage), listener=listener)
            got = (refused.value.smtp_code, refused.value.smtp_error)
        elif stage == "hello":
            client = (smtplib.LMTP if listener == "lmtp" else smtplib.SMTP)(*suite.address(listener))
            got = client.ehlo("client.example.net")
            milter.plan({})
            # The next connection is another one.
            client.close()
        else:
            got = deliver(suite, letter(stage), listener=listener)[-1]
        assert got[0] == code and text in got[1], (plan, got)
        if "100%% sure" in plan:
            assert b"100% sure" in got[1]
    milter.plan({})
    raw = letter("after")
    assert deliver(suite, raw, listener=listener)[-1][0] == 250
    newest(suite, ALICE, raw)


def test_one_recipient_is_refused(suite):
    suite.first.plan({"rcpt": {f"<{BOB}>": ["550", "5.1.1", "not this one"]}})
    raw = letter("one")
    replies = deliver(suite, raw, to=[ALICE, BOB])
    assert [code for code, _ in replies] == [250, 550, 250]
    assert "X" not in newest(suite, ALICE, raw).decode().partition("Delivered-To: bob")[1]
    suite.first.plan({"do": [["delrcpt", f"<{BOB}>"]]})
    raw = letter("deleted")
    assert [code for code, _ in deliver(suite, raw, to=[ALICE, BOB])] == [250, 250, 250]
    newest(suite, ALICE, raw)
    suite.wait_queue_empty()
    mark = re.search(rb"Message-ID: (\S+)", raw).group(1)
    assert not any(mark in one for one in suite.messages(BOB))


def test_discarded_mail_is_acknowledged_and_gone(suite):
    for stage in ("mail", "rcpt", "eoh", "eom"):
        suite.first.plan({stage: "discard"})
        raw = letter(stage)
        assert deliver(suite, raw)[-1][0] == 250, stage
        suite.first.plan({})
        mark = letter(stage + "-next")
        assert deliver(suite, mark)[-1][0] == 250
        newest(suite, ALICE, mark)
        gone = re.search(rb"Message-ID: (\S+)", raw).group(1)
        assert not any(gone in one for one in suite.messages(ALICE)), stage
    assert suite.queue() == []
    # Without recipients there is nobody to give it to.
    suite.first.plan({"do": [["delrcpt", f"<{ALICE}>"]]})
    assert deliver(suite, letter("nobody"))[-1][0] == 250
    assert suite.queue() == []


def test_who_accepts_is_asked_no_more(suite):
    suite.first.plan({"mail": "accept"})
    suite.second.plan({"do": [["addheader", "X-Second", "1"]]})
    with suite.smtp() as client:
        for number in range(2):
            raw = letter(f"accept-{number}")
            client.sendmail("sender@example.net", ALICE, raw)
            assert b"X-Second: 1" in newest(suite, ALICE, raw)
    assert suite.first.heard("rcpt") == [] and len(suite.first.heard("mail")) == 2
    assert len(suite.first.heard("connect")) == 1, "one connection for the session"
    wait_for(lambda: suite.first.heard("close"), "the session to end")
    forget(suite.first)
    suite.first.plan({"connect": "accept"})
    assert deliver(suite, letter("session"))[-1][0] == 250
    wait_for(lambda: suite.first.heard("close"), "the session to end")
    assert [event["what"] for event in suite.first.heard()] == ["negotiate", "connect", "close"]


def test_a_session_of_many_transactions(suite):
    with suite.smtp() as client:
        client.mail("a@example.net")
        client.rcpt(ALICE)
        client.rset()
        wait_for(lambda: suite.first.heard("abort"), "RSET to be told")
        client.mail("b@example.net")
        client.rcpt("nobody@example.test")
        client.ehlo("again.example.net")
        raw = letter("third")
        assert client.sendmail("c@example.net", [ALICE], raw) == {}
        newest(suite, ALICE, raw)
    assert [event["address"] for event in suite.first.heard("mail")] == [f"<{one}@example.net>" for one in "abc"]
    assert len(suite.first.heard("connect")) == 1 and len(suite.first.heard("abort")) >= 2


def test_pipelining_and_chunks(suite):
    raw = letter("chunks")
    suite.first.plan({"rcpt": {f"<{BOB}>": "reject"}, "do": [["addheader", "X-Last", "1"]]})
    with suite.smtp() as client:
        client.send(f"MAIL FROM:<a@example.net>\r\nRCPT TO:<{ALICE}>\r\nRCPT TO:<{BOB}>\r\nBDAT 40\r\n".encode() + raw[:40]
                    + f"BDAT {len(raw) - 40} LAST\r\n".encode() + raw[40:])
        codes = [client.getreply()[0] for _ in range(5)]
    assert codes == [250, 250, 550, 250, 250]
    assert b"X-Last: 1" in newest(suite, ALICE, raw)


def test_added_recipients_are_resolved(suite):
    suite.first.plan({"do": [["addrcpt", "<nobody@example.test>"], ["addrcpt", "<x@elsewhere.example>"], ["addrcpt", "no address"]]})
    raw = letter("strangers")
    assert deliver(suite, raw)[-1][0] == 250
    newest(suite, ALICE, raw)
    suite.wait_queue_empty()
    wait_for(lambda: "left out" in suite.log.read_text(), suite.tail)
    # Who may send elsewhere gets it there.
    with suite.submission(ALICE) as client:
        client.sendmail(ALICE, [BOB], letter("relay").replace(b"sender@example.net", ALICE.encode()))
    wait_for(lambda: suite.sink.mails, "the message for elsewhere")
    assert [recipients for _, recipients, _ in suite.sink.mails] == [["x@elsewhere.example"]]


def test_macros_by_wish_and_steps_left_out(suite):
    suite.first.plan({"symbols": {"0": "j {client_addr}", "2": "{mail_addr}"}})
    assert deliver(suite, letter("symbols"))[-1][0] == 250
    connect = suite.first.heard("connect")[-1]["macros"]
    assert connect["j"] and connect["{client_addr}"] and connect["v"] is None
    assert suite.first.heard("mail")[-1]["macros"]["i"] is None
    forget(suite.first)
    # No connection, no HELO, no body, no end of the header; blanks before values are its own business.
    suite.first.plan({"steps": 0x100053, "do": [["addheader", "X-Blank", "  two"]]})
    raw = letter("steps")
    assert deliver(suite, raw)[-1][0] == 250
    assert b"\r\nX-Blank:  two\r\n" in newest(suite, ALICE, raw)
    wait_for(lambda: suite.first.heard("close"), "the session to end")
    assert [event["what"] for event in suite.first.heard()] == ["negotiate", "mail", "rcpt", "data", "eom", "close"]


def test_a_slow_one_that_says_so_is_waited_for(make_suite):
    milter = Milter()
    try:
        suite = make_suite(config=config({"name": "slow", "address": milter.address, "message_timeout_s": 1, "command_timeout_s": 1}))
        suite.add_domain("example.test")
        suite.add_account(ALICE)
        milter.plan({"do": [["sleep", 2.5, True]]})
        assert deliver(suite, letter("alive"))[-1][0] == 250
        milter.plan({"do": [["sleep", 2.5]]})
        code, text = deliver(suite, letter("silent"))[-1]
        assert code == 451 and b"4.7.1" in text
        wait_for(lambda: "does not answer in time" in suite.log.read_text(), suite.tail)
    finally:
        milter.stop()


@pytest.mark.parametrize("away, code", [("accept", 250), ("later", 451), ("refuse", 554)])
def test_filters_that_are_away_or_break_the_rules(make_suite, away, code):
    gone = threading.Event()

    def garbage(connection, read):
        connection.sendall(b"220 mail.example.net ESMTP\r\n" * 10)
        read()

    def silent(connection, read):
        read()
        gone.wait(30)

    def closes_in_the_middle(connection, read):
        read()
        connection.sendall(negotiated())
        while read()[0] != b"R":
            connection.sendall(packet(b"c")) if _asks else None

    def endless(connection, read):
        read()
        connection.sendall(negotiated(steps=0xFFFFF & ~0x800))
        while read()[0] != b"E":
            pass
        try:
            for _ in range(1 << 14):
                connection.sendall(packet(b"b", b"x" * 65_000))
        except OSError:
            gone.set()

    def strange_answer(connection, read):
        read()
        connection.sendall(negotiated())
        read()
        connection.sendall(packet(b"Z", b"?"))
        read()

    def too_much_wanted(connection, read):
        read()
        connection.sendall(negotiated(steps=0xFFFFFFFF))
        read()

    _asks = True
    rogues = {one.__name__: Rogue(one) for one in (garbage, silent, closes_in_the_middle, endless, strange_answer, too_much_wanted)}
    ports = {"nobody": "127.0.0.1:1", "no_socket": "/nonexistent/socket", **{name: one.address for name, one in rogues.items()}}
    suite = make_suite(start=False)
    suite.config["smtpd"]["listener"] = [
        {"name": name, "address": f"{suite.host}:{port}", "role": "mx", "tls": "none"}
        for name, port in [("mx", suite.ports["mx"]), *[(name, free(suite, name)) for name in ports]]
    ]
    suite.config["hookd"] = config(*[
        {"name": name, "address": address, "listeners": [name], "away": away, "connect_timeout_s": 1, "command_timeout_s": 1,
         "message_timeout_s": 20}
        for name, address in ports.items()
    ])["hookd"]
    suite.write_config()
    suite.start()
    suite.add_domain("example.test")
    suite.add_account(ALICE)
    for name in ports:
        raw = letter(name)
        try:
            got = deliver(suite, raw, listener=name)[-1][0]
        except smtplib.SMTPConnectError as refused:
            got = refused.smtp_code
        assert got in (code, {451: 421}.get(code, code)), (name, got, suite.tail())
        if code == 250:
            newest(suite, ALICE, raw)
        wait_for(lambda: re.search(f'filter="?{name}', suite.log.read_text()), f"{name} in the log")
    assert gone.wait(20), "the endless answer is cut off"
    for one in rogues.values():
        one.stop()
    # Where there is no filter, nothing has changed.
    raw = letter("plain")
    assert deliver(suite, raw)[-1][0] == 250


def free(suite, name):
    from suite import free_port

    suite.ports[name] = free_port(suite.host)
    return suite.ports[name]


def test_names_of_clients_and_what_was_found_of_senders(make_suite):
    knot = Knot({"sender.example": zone("sender.example", ["mx A 192.0.2.2", "liar A 192.0.2.9", '@ TXT "v=spf1 -all"',
                                                           '_dmarc TXT "v=DMARC1; p=quarantine"']),
                 "2.0.192.in-addr.arpa": zone("2.0.192.in-addr.arpa", ["2 PTR mx.sender.example.", "3 PTR liar.sender.example."]),
                 "example": zone("example", [])})
    milter = Milter()
    try:
        servers = [f"127.0.0.1:{knot.port}"]
        suite = make_suite(config=config({"name": "one", "address": milter.address}, client_names=True, nameservers=servers) | {
            "smtpd": {"proxy_networks": ["127.0.0.0/8"], "checks": {"nameservers": servers}}})
        suite.add_domain("example.test")
        suite.add_account(ALICE)
        for client, name in [("192.0.2.2", "mx.sender.example"), ("192.0.2.3", "[192.0.2.3]"), ("192.0.2.4", "[192.0.2.4]")]:
            session = smtplib.SMTP()
            session.sock = socket.create_connection(suite.address("mx"))
            session.sock.sendall(f"PROXY TCP4 {client} 127.0.0.1 40000 25\r\n".encode())
            assert session.getreply()[0] == 220
            session.ehlo("mx.sender.example")
            raw = message(f"<{client}@sender.example>", to=ALICE, sender="x@sender.example")
            milter.plan({"do": [["addheader", "X-Posthouse-Suspect", "tag; checks=forged", 0], ["addheader", "X-Last", "1"]]})
            session.sendmail("x@sender.example", [ALICE], raw)
            session.quit()
            heard = milter.heard("connect")[-1]
            assert (heard["name"], heard["address"][0]) == (name, client)
            assert heard["macros"]["_"] == f"{name if '[' not in name else 'unknown'} [{client}]"
            fields = milter.heard("eoh")[-1]["fields"]
            assert fields[0][0] == "Authentication-Results" and "spf=fail" in fields[0][1]
            assert not any(field == "X-Posthouse-Suspect" for field, _ in fields)
            # What only we may say stays ours, and holds with a header that a filter has changed.
            copy = newest(suite, ALICE, raw, "Junk")
            assert copy.count(b"Authentication-Results:") == 1 and b"X-Last: 1" in copy
            assert b"X-Posthouse-Suspect: junk; checks=dmarc" in copy
    finally:
        milter.stop()
        knot.remove()


def test_hookd_is_killed_in_the_middle(suite):
    with suite.smtp() as client:
        assert client.mail("a@example.net")[0] == 250
        pid = suite.pids()["hookd"]
        assert suite.kill("hookd")
        wait_for(lambda: suite.pids().get("hookd") not in (None, pid), "hookd to be back")
        # The transaction has lost its filters: it is put off. The next has them again.
        assert client.rcpt(ALICE)[0] == 451
        client.rset()
        raw = letter("again")
        suite.first.plan({"do": [["addheader", "X-Back", "1"]]})
        assert client.sendmail("b@example.net", [ALICE], raw) == {}
        assert b"X-Back: 1" in newest(suite, ALICE, raw)


def test_nobody_waits_for_filters_at_the_end(suite):
    with suite.smtp() as client:
        assert client.mail("a@example.net")[0] == 250
        pid = suite.pids()["hookd"]
        os.kill(pid, signal.SIGSTOP)
        try:
            began = time.monotonic()
            assert client.quit()[0] == 221
            took = time.monotonic() - began
        finally:
            os.kill(pid, signal.SIGCONT)
    assert took < 3, "hookd says nothing, and that is nothing to the client"
    wait_for(lambda: suite.first.heard("close"), "the session to end")
    assert [event["what"] for event in suite.first.heard()][-3:] == ["mail", "abort", "close"]


def test_a_milter_is_started_again(suite):
    with suite.smtp() as client:
        client.mail("a@example.net")
        suite.first.kill()
        assert client.rcpt(ALICE)[0] == 451
        client.rset()
        assert client.mail("a@example.net")[0] == 451
        suite.first.start()
        raw = letter("restarted")
        assert client.sendmail("b@example.net", [ALICE], raw) == {}
        newest(suite, ALICE, raw)


@pytest.mark.parametrize("ack", ["journal", "sql"])
def test_quarantine_is_held_for_the_operator(make_suite, ack):
    scanner, sink = Milter(), Sink()
    suite = make_suite(config=config({"name": "scanner", "address": scanner.address, "quarantine": "hold"}) | {
        "queued": {"ack": ack},
        "relayd": {"route": [{"match": "*", "host": "127.0.0.1", "port": sink.port, "tls": "none"}]}})
    try:
        suite.add_domain("example.test")
        for name in (ALICE, BOB):
            suite.add_account(name)
        scanner.plan({"do": [["addheader", "X-Seen", "1"], ["quarantine", "smells of fish"]]})
        here, large = letter("here"), letter("large", text="a line of many\r\n" * 20_000)
        for raw in (here, large):
            assert deliver(suite, raw, to=(ALICE, BOB))[-1][0] == 250, suite.tail()
        with suite.submission(ALICE) as client:
            # Mail to elsewhere has no Junk, and can be held.
            raw = message("<out@example.test>", to="x@elsewhere.example", sender=ALICE, subject="out")
            assert client.sendmail(ALICE, ["x@elsewhere.example"], raw) == {}
        scanner.plan({})
        fine = letter("fine")
        assert deliver(suite, fine)[-1][0] == 250
        newest(suite, ALICE, fine)
        suite.kill("queued")
        suite.wait_up()
        held = wait_for(lambda: len(queue := suite.queue()) == 3 and queue, lambda: suite.tail())
        for entry in held:
            assert entry["state"] == "held" and entry["held_by"] == "scanner" and entry["held_for"] == "smells of fish"
            assert all(one["attempts"] == 0 for one in entry["recipients"])
        first, second, third = (entry["id"] for entry in held)
        assert "held by scanner: smells of fish" in suite.run("queue", "list").stdout
        shown = suite.run("queue", "show", third).stdout
        assert "scanner" in shown and "smells of fish" in shown and "X-Seen: 1" in shown
        assert suite.json("queue", "stats")["held"] == 3
        suite.run("queue", "retry", "--all")
        suite.run("queue", "release", first, third)
        for user in (ALICE, BOB):
            copy = newest(suite, user, here)
            assert b"X-Seen: 1" in copy and b"X-Posthouse-Suspect" not in copy
        wait_for(lambda: len(sink.mails) == 1, lambda: suite.tail())
        suite.run("queue", "remove", second)
        suite.wait_queue_empty()
        mark = re.search(rb"Message-ID: (\S+)", large).group(1)
        assert not any(mark in one for one in suite.messages(ALICE)) and len(sink.mails) == 1
    finally:
        scanner.stop()

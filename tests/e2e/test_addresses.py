"""Addresses and parameters as weapons: every way to write somebody elsewhere, domains in all their forms, and values that would break out
of the header they are written to. Each has its exact answer at every listener."""

import email
import email.policy
import re

import pytest

from battery import Guard, Wire, codes
from suite import Suite, wait_for

HOSTED, BUCHER = "example.test", "bücher.test"
ALICE, EVE = f"alice@{HOSTED}", f"eve@{BUCHER}"
DENIED, UNKNOWN, MALFORMED, CHARACTERS, OK = "550 5.7.1", "550 5.1.1", "501 5.1.3", "500 5.5.2", "250 2.1.5"

RECIPIENTS = [
    # The percent hack, paths of UUCP, source routes (RFC 5321 3.6.1, Appendix C)
    ("<victim@elsewhere.example>", DENIED),
    ("<victim%elsewhere.example@example.test>", UNKNOWN),
    ("<victim%elsewhere.example%example.test@example.test>", UNKNOWN),
    ("<elsewhere.example!victim@example.test>", UNKNOWN),
    ("<example.test!elsewhere.example!victim@example.test>", UNKNOWN),
    ('<"victim@elsewhere.example"@example.test>', UNKNOWN),
    ('<"victim%elsewhere.example"@example.test>', UNKNOWN),
    ('<"@elsewhere.example:victim"@example.test>', UNKNOWN),
    ('<"|/bin/sh"@example.test>', UNKNOWN),
    ('<"/etc/passwd"@example.test>', UNKNOWN),
    ("<victim@elsewhere.example@example.test>", MALFORMED),
    ("<@example.test:victim@elsewhere.example>", DENIED),
    ("<@example.test,@other.example:victim@elsewhere.example>", DENIED),
    ("<@elsewhere.example:alice@example.test>", OK),
    ("<@example.test:>", MALFORMED),
    # Address literals (RFC 5321 4.1.3): none of our domains
    ("<alice@[127.0.0.1]>", DENIED),
    ("<victim%elsewhere.example@[127.0.0.1]>", DENIED),
    ("<alice@[IPv6:::1]>", DENIED),
    ("<alice@[IPv6:::ffff:127.0.0.1]>", DENIED),
    ("<alice@[999.1.1.1]>", MALFORMED),
    ("<alice@[127.1]>", MALFORMED),
    ("<alice@[]>", MALFORMED),
    ("<alice@[example.test]>", MALFORMED),
    ("<alice@[x-tag:content]>", MALFORMED),
    ("<alice@127.0.0.1>", DENIED),
    ("<alice@localhost>", DENIED),
    # Names that look like ours
    ("<alice@example.test.elsewhere.example>", DENIED),
    ("<alice@sub.example.test>", DENIED),
    ("<alice@xexample.test>", DENIED),
    ("<alice@.example.test>", MALFORMED),
    ("<alice@example..test>", MALFORMED),
    ("<alice@exam ple.test>", MALFORMED),
    ("<alice@exаmple.test>", DENIED),                          # a Cyrillic a
    ("<alice@EXAMPLE.TEST>", OK),
    ("<alice@example.test.>", OK),
    # U-labels, A-labels and both (RFC 6531 3.7.1, RFC 5890 2.3.2.1)
    (f"<eve@{BUCHER}>", OK),
    ("<eve@BÜCHER.test>", OK),
    ("<eve@bu\u0308cher.test>", OK),
    ("<eve@xn--bcher-kva.test>", OK),
    ("<eve@XN--BCHER-KVA.TEST>", OK),
    ("<eve@bücher。test>", OK),
    ("<eve@xn--bücher-kva.test>", MALFORMED),
    ("<eve@xn--.test>", MALFORMED),
    ("<eve@xn--bcher-kvb.test>", DENIED),
    ("<victim@bücher.example>", DENIED),
    ("<victim@xn--bcher-kva.example>", DENIED),
    ("<victim@sub.xn--bcher-kva.test>", DENIED),
    ("<victim%bücher.example@xn--bcher-kva.test>", UNKNOWN),
    # Local parts, quoted and not (RFC 5321 4.1.2)
    ('<"alice"@example.test>', OK),
    ('<"al\\ice"@example.test>', OK),
    ('<""@example.test>', MALFORMED),
    ('<"alice@example.test>', MALFORMED),
    ("<al ice@example.test>", MALFORMED),
    ("<.alice@example.test>", MALFORMED),
    ("<alice.@example.test>", MALFORMED),
    ("<al..ice@example.test>", MALFORMED),
    ("<alice\u200b@example.test>", UNKNOWN),
    ("<\u202ealice@example.test>", UNKNOWN),
    ("<" + "a" * 65 + "@example.test>", MALFORMED),
    ("<alice@" + "a" * 64 + ".example.test>", MALFORMED),
    ("<alice@" + ("a" * 60 + ".") * 5 + "test>", MALFORMED),
    # Octets that no command has
    ("<alice@example.test\0.elsewhere.example>", CHARACTERS),
    ("<alice\0@example.test>", CHARACTERS),
    ("<ali\x7fce@example.test>", CHARACTERS),
    ("<ali\tce@example.test>", CHARACTERS),
    # What is no path
    ("alice@example.test", MALFORMED),
    ("<alice@example.test", MALFORMED),
    ("<alice>", MALFORMED),
    ("<>", MALFORMED),
    ("<alice@example.test> <victim@elsewhere.example>", "501 5.5.4"),
    ("<alice@example.test>,<victim@elsewhere.example>", "501 5.5.4"),
    ("<alice@example.test>NOTIFY=NEVER", "501 5.5.4"),
    # Forwarding addresses that were not made here
    ("<SRS0=AAAAAAAA=AA=elsewhere.example=victim@example.test>", DENIED),
    ("<SRS1=AAAA=other.example==AAAA=AA=elsewhere.example=victim@example.test>", DENIED),
]

PARAMETERS = [
    # xtext that would be a line end (RFC 3461 4, 4.2, 4.4; RFC 6533 3)
    ("ENVID=+0D+0AX-Evil:yes", "501 5.5.4"),
    ("ENVID=a+0Ab", "501 5.5.4"),
    ("ENVID=a+00b", "501 5.5.4"),
    ("ENVID=a+0", "501 5.5.4"),
    ("ENVID=a+0d", "501 5.5.4"),
    ("ENVID=" + "a" * 101, "501 5.5.4"),
    ("ENVID=ä", "501 5.5.4"),
    ("ENVID=QQ314159+3D1", "250 2.1.0"),
    ("AUTH=a+0D+0A@b.example", "501 5.5.4"),
    ("SIZE=-1", "501 5.5.4"),
    ("SIZE=99999999999999999999", "552 5.3.4"),
    ("SIZE=1 SIZE=1", "501 5.5.4"),
    ("RET=ALL", "501 5.5.4"),
    ("BODY=9BIT", "501 5.5.4"),
    ("SMTPUTF8=1", "501 5.5.4"),
    ("XFORWARD=1", "555 5.5.4"),
]
ORIGINALS = [
    ("rfc822;a@b.example", OK),
    ("rfc822;a+0D+0AX-Evil:yes@b.example", "501 5.5.4"),
    ("rfc822;a+0A@b.example", "501 5.5.4"),
    ("rfc822;a+0D@b.example", "501 5.5.4"),
    ("rfc822;a+00@b.example", "501 5.5.4"),
    ("rfc822;a+7F@b.example", "501 5.5.4"),
    ("rfc822;a+0d@b.example", "501 5.5.4"),
    ("rfc822;a+", "501 5.5.4"),
    ("rfc822", "501 5.5.4"),
    (";a@b.example", "501 5.5.4"),
    # The type is an atom, of which nothing is decoded.
    ("rf+0Ac822;a@b.example", OK),
    ("rf\\x{0A}c822;a@b.example", "501 5.5.4"),
    ("rfc822;" + "a" * 600, "501 5.5.4"),
    ("utf-8;b\\x{FC}cher@b.example", OK),
    ("utf-8;a\\x{0D}\\x{0A}X-Evil:yes@b.example", "501 5.5.4"),
    ("utf-8;a\\x{D800}@b.example", "501 5.5.4"),
    ("utf-8;a\\x{110000}@b.example", "501 5.5.4"),
    # Where it came from is the sender's word; it makes no recipient.
    ("rfc822;victim%elsewhere.example@example.test", OK),
    ("rfc822;@example.test:victim@elsewhere.example", OK),
    ("x400;/c+3Dgb/+3Bx", OK),
]
HELLOS = ["a(b", "(comment", "a;b", "<x@y.example>", '"quoted"', "a,b", "a\\b", "a:b", "[127.0.0.1]", "[IPv6:::1]", "bücher.example", "a@b.example",
          "x" * 255, "\u2028", "a\u202eb", "$(id)", "a'b`c", "-", "%s%n", "=?utf-8?q?=0D=0AX-Evil:_yes?="]


@pytest.fixture(scope="module")
def suite():
    suite = Suite(config={"smtpd": {"limits": {"bad_commands": 100_000, "unknown_per_session": 100_000, "unknown_per_address": 0,
                                               "unknown_delay_ms": 0, "idle_commands": 100_000, "commands_per_session": 100_000}}})
    suite.start()
    for domain, account in ((HOSTED, ALICE), (BUCHER, EVE)):
        suite.add_domain(domain)
        suite.add_account(account)
    suite.guard = Guard(suite, suite.add_account(f"guard@{HOSTED}"))
    yield suite
    suite.remove()


def open_session(suite, listener):
    wire = Wire(suite, listener)
    wire.reply()
    assert codes(wire.ask(f"{'LHLO' if listener == 'lmtp' else 'EHLO'} client.elsewhere.example")) == "250"
    return wire


@pytest.mark.parametrize("listener", ["mx", "lmtp", "submission", "submissions"])
def test_recipients(suite, listener):
    if listener == "submissions":
        wire = Wire(suite, listener, secure=True)
        wire.reply()
        wire.ask("EHLO client.elsewhere.example")
    else:
        wire = open_session(suite, listener)
    with wire:
        strict = listener.startswith("submission")
        for sender in ("<>", "<spam@elsewhere.example>", f"<{ALICE}>", "<alice@[127.0.0.1]>", "<alice@localhost>", "<eve@xn--bcher-kva.test>"):
            assert codes(wire.ask("RSET")) == "250 2.0.0"
            # Nobody sends from a submission port without a login.
            assert codes(wire.ask(f"MAIL FROM:{sender} SMTPUTF8")) == ("530 5.7.0" if strict else "250 2.1.0"), sender
            for recipient, answer in RECIPIENTS:
                got = codes(wire.ask(f"RCPT TO:{recipient}"))
                form = answer if answer.startswith("50") else "503 5.5.1"
                assert got == (form if strict else answer), (sender, recipient, got)
        assert codes(wire.ask("RSET")) == "250 2.0.0"
        if not strict:
            wire.ask("MAIL FROM:<a@elsewhere.example>")
            # RFC 6531 3.4: without SMTPUTF8 there is no such address; a domain alone can be written otherwise.
            assert codes(wire.ask("RCPT TO:<jörg@example.test>")) == "553 5.6.7"
    assert suite.queue() == []


@pytest.mark.parametrize("listener", ["mx", "lmtp", "submission"])
def test_nobody_learns_who_is_here(suite, listener):
    with open_session(suite, listener) as wire:
        for word in ("alice", ALICE, f"<{ALICE}>", "nobody", "victim@elsewhere.example", "<@example.test:victim@elsewhere.example>",
                     "victim%elsewhere.example@example.test", EVE, "bücher"):
            assert codes(wire.ask(f"VRFY {word}")) == "252 2.5.2", word
            assert codes(wire.ask(f"EXPN {word}")) == "502 5.5.1", word
        for word, answer in (("", "501 5.5.4"), (" a\0b", "500 5.5.2"), (" a\rb", "521 5.5.2")):
            assert codes(wire.ask(f"VRFY{word}\r\n".encode())) == answer


@pytest.mark.parametrize("listener", ["mx", "lmtp"])
def test_parameters(suite, listener):
    with open_session(suite, listener) as wire:
        for parameter, answer in PARAMETERS:
            wire.ask("RSET")
            assert codes(wire.ask(f"MAIL FROM:<a@elsewhere.example> {parameter}")) == answer, parameter
        for original, answer in ORIGINALS:
            wire.ask("RSET")
            wire.ask("MAIL FROM:<a@elsewhere.example> SMTPUTF8")
            assert codes(wire.ask(f"RCPT TO:<{ALICE}> ORCPT={original}")) == answer, original


def header(octets):
    return email.message_from_bytes(octets, policy=email.policy.compat32)


def test_names_of_clients_stay_in_their_field(suite):
    """Whatever EHLO says, Received is one field that can be read, and none is added."""
    sent = 0
    for name in HELLOS:
        with Wire(suite, "mx") as wire:
            wire.reply()
            assert codes(wire.ask(f"EHLO {name}")) == "250", name
            wire.send(f"MAIL FROM:<a@elsewhere.example> SMTPUTF8\r\nRCPT TO:<{ALICE}>\r\nDATA\r\n")
            assert [codes(wire.reply()) for _ in range(3)] == ["250 2.1.0", OK, "354"]
            assert codes(wire.ask(b"Subject: named\r\n\r\nx\r\n.\r\n")) == "250 2.0.0"
            sent += 1
    for name in ("a b", "a\tb", "a\x7fb", "x" * 256, ""):
        with Wire(suite, "mx") as wire:
            wire.reply()
            assert codes(wire.ask(f"EHLO {name}")) in ("501 5.5.4", "500 5.5.2"), name
    for octets in suite.wait_messages(ALICE, sent):
        received = [str(field) for field in header(octets).get_all("Received")]
        assert len(received) == 1 and "X-Evil" not in header(octets)
        plain = re.sub(r"\s+", " ", received[0])
        # RFC 5321 4.4: one semicolon, before the date; parentheses in pairs
        assert re.fullmatch(r"from [^\s();<>,\\\"]+ \(\[127\.0\.0\.1\]\) by mail\.example\.test \(Posthouse\) with (UTF8SMTP|ESMTP) "
                            r"id \S+ for <[^>]+>; \w{3}, \d+ \w{3} \d{4} [\d:]{8} \+0000", plain), plain


def test_reports_hold_what_was_given_and_no_more(suite):
    """ENVID and ORCPT come back in a report as values of their fields (RFC 3464 2.2.1, 2.3.1)."""
    with open_session(suite, "mx") as wire:
        wire.send(f"MAIL FROM:<{ALICE}> ENVID=a+3B+20X-Evil:+20yes+3Cb+3E RET=HDRS\r\n"
                  f"RCPT TO:<guard@{HOSTED}> NOTIFY=SUCCESS ORCPT=rfc822;x+3B+20X-Evil:yes+20+28c@b.example\r\nDATA\r\n")
        assert [codes(wire.reply()) for _ in range(3)] == ["250 2.1.0", OK, "354"]
        assert codes(wire.ask(b"Subject: reported\r\n\r\nx\r\n.\r\n")) == "250 2.0.0"
    report = wait_for(lambda: [one for one in suite.messages(ALICE) if b"delivery-status" in one], suite.tail)[0]
    parsed = header(report)
    status = next(part for part in parsed.walk() if part.get_content_type() == "message/delivery-status")
    of_message, of_recipient = status.get_payload()
    assert "X-Evil" not in of_message and "X-Evil" not in of_recipient and "X-Evil" not in parsed
    assert of_message["Original-Envelope-Id"] == "a; X-Evil: yes<b>"
    assert of_recipient["Original-Recipient"].replace("\r\n", "") == "rfc822; x; X-Evil:yes (c@b.example"
    assert of_recipient["Action"] == "delivered"


def test_a_bounce_to_many(suite):
    """A null sender writes to one as to many (RFC 5321 4.5.5), and no report of a report is made."""
    with open_session(suite, "mx") as wire:
        wire.send(f"MAIL FROM:<>\r\nRCPT TO:<{ALICE}>\r\nRCPT TO:<eve@xn--bcher-kva.test>\r\n")
        assert codes(wire.reply()) == "250 2.1.0"
        assert [codes(wire.reply()), codes(wire.reply())] == [OK, OK]
        assert codes(wire.ask("RCPT TO:<victim@elsewhere.example>")) == DENIED
        for number in range(200):
            assert codes(wire.ask(f"RCPT TO:<nobody{number}@{HOSTED}>")) == UNKNOWN
        assert codes(wire.ask("RSET")) == "250 2.0.0"
        assert codes(wire.ask("DATA")) == "503 5.5.1"
    assert suite.queue() == []


def test_the_servers_are_well(suite):
    suite.guard.check()

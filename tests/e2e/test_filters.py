"""The filters that administrators attach, as their packages ship them: OpenDKIM signs submissions, ClamAV refuses what is infected,
Rspamd judges what comes from elsewhere."""

import base64
import contextlib
import re
import smtplib
import time

import dkim
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from filters import EICAR, GTUBE, Clamd, ClamavMilter, OpenDkim, Rspamd
from sink import Sink
from suite import message, wait_for

ALICE = "alice@example.test"


def letter(subject, text="Hello.\r\n", sender="sender@example.net"):
    return message(f"<{time.monotonic_ns()}@example.net>", to=ALICE, sender=sender, subject=subject, text=text)


def suite_with(make_suite, listener, filter, quarantine="junk", **more):
    suite = make_suite(config={
        "hookd": {"enabled": True, "client_names": False, "milter": [
            {"name": "filter", "address": filter.address, "listeners": [listener], "quarantine": quarantine}]},
        **more,
    })
    suite.add_domain("example.test")
    suite.add_account(ALICE)
    return suite


def newest(suite, raw, mailbox="INBOX"):
    mark = re.search(rb"Message-ID: (\S+)", raw).group(1)

    def found():
        with contextlib.suppress(AssertionError):
            return [one for one in suite.messages(ALICE, mailbox) if mark in one]
        return None

    return wait_for(found, lambda: suite.tail(), 20, 0.1)[0]


@pytest.fixture
def own():
    """Makes a filter that goes with the test."""
    made = []

    def make(kind, *arguments):
        made.append(kind(*arguments))
        return made[-1]

    yield make
    for one in reversed(made):
        one.remove()


def test_opendkim_signs_what_users_send(make_suite, own):
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL,
                            serialization.NoEncryption()).decode()
    filter = own(OpenDkim, "example.test", pem)
    sink = Sink()
    suite = suite_with(make_suite, "submissions", filter, relayd={
        "dkim": False, "route": [{"match": "*", "host": "127.0.0.1", "port": sink.port, "tls": "none"}]})
    # Without Date and Message-ID: what is signed is what leaves, and those are put in before.
    raw = f"From: <{ALICE}>\r\nTo: <x@elsewhere.example>\r\nSubject: signed\r\n\r\n".encode()
    for text in (b"Hello.\r\n", b"a line of many\r\n" * 20_000):
        with suite.submission(ALICE) as client:
            client.sendmail(ALICE, ["x@elsewhere.example"], raw + text)
    wait_for(lambda: len(sink.mails) == 2, lambda: suite.tail())
    public = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    record = b"v=DKIM1; k=rsa; p=" + base64.b64encode(public)
    for _, _, octets in sink.mails:
        assert b"DKIM-Signature:" in octets and b"Message-ID:" in octets
        assert dkim.verify(octets, dnsfunc=lambda name, timeout=5: record), octets[:2000]
        assert not dkim.verify(octets.replace(b"Subject: signed", b"Subject: other"), dnsfunc=lambda name, timeout=5: record)


def test_clamav_refuses_what_is_infected(make_suite, own):
    clamd = own(Clamd)
    suite = suite_with(make_suite, "mx", own(ClamavMilter, clamd))
    with suite.smtp() as client:
        raw = letter("clean")
        client.sendmail("sender@example.net", [ALICE], raw)
        assert b"X-Virus-Scanned:" in newest(suite, raw)
        with pytest.raises(smtplib.SMTPDataError) as refused:
            client.sendmail("sender@example.net", [ALICE], letter("infected", EICAR + "\r\n"))
        assert refused.value.smtp_code == 550 and b"Infected: Own.Eicar" in refused.value.smtp_error
        large = letter("large and infected", "a line of many\r\n" * 20_000 + EICAR + "\r\n")
        with pytest.raises(smtplib.SMTPDataError) as refused:
            client.sendmail("sender@example.net", [ALICE], large)
        assert b"Infected" in refused.value.smtp_error
    # Without clamd the milter cannot tell: the client's queue keeps the mail.
    clamd.stop()
    with suite.smtp() as client, pytest.raises(smtplib.SMTPException) as refused:
        client.sendmail("sender@example.net", [ALICE], letter("not scanned"))
    assert "451" in str(refused.value)


def test_clamav_puts_infected_mail_into_junk(make_suite, own):
    suite = suite_with(make_suite, "mx", own(ClamavMilter, own(Clamd), "Quarantine"))
    raw = letter("infected", EICAR + "\r\n")
    with suite.smtp() as client:
        client.sendmail("sender@example.net", [ALICE], raw)
    newest(suite, raw, "Junk")


def test_what_clamav_finds_is_held(make_suite, own):
    suite = suite_with(make_suite, "mx", own(ClamavMilter, own(Clamd), "Quarantine"), "hold")
    infected, clean = letter("infected", EICAR + "\r\n"), letter("clean")
    with suite.smtp() as client:
        for raw in (infected, clean):
            client.sendmail("sender@example.net", [ALICE], raw)
    newest(suite, clean)
    held = wait_for(lambda: suite.queue(), lambda: suite.tail())
    assert [(entry["state"], entry["held_by"]) for entry in held] == [("held", "filter")]
    assert "clamav-milter" in held[0]["held_for"], held[0]["held_for"]
    suite.run("queue", "release", held[0]["id"])
    newest(suite, infected)


def test_rspamd_refuses_spam_and_marks_what_may_be_spam(make_suite, own):
    suite = suite_with(make_suite, "mx", own(Rspamd))
    with suite.smtp() as client:
        raw = letter("plain")
        client.sendmail("sender@example.net", [ALICE], raw)
        assert b"X-Spamd-Bar:" in newest(suite, raw), suite.tail()
        marked = letter("a testword in it")
        client.sendmail("sender@example.net", [ALICE], marked)
        assert b"X-Spam: Yes" in newest(suite, marked)
        with pytest.raises(smtplib.SMTPDataError) as refused:
            client.sendmail("sender@example.net", [ALICE], letter("spam", GTUBE + "\r\n"))
        assert refused.value.smtp_code == 554, refused.value

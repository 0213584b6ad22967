"""Mail that is forwarded: it leaves under an address of ours (SRS), and what comes back finds the sender. postsrsd of Debian is
the witness for the form of the addresses."""

import glob
import re
import shutil
import socket

import pytest

from servers import Knot, Server, zone
from sink import Sink
from suite import Suite, free_port, message
from verifiers import dkimpy, dkimpy_arc, mail_dkim_arc

FORM = re.compile(r"SRS0=([A-Z2-7]{8})=([A-Z2-7]{2})=([^=]+)=(.+)@([^@]+)$")


@pytest.fixture(scope="module")
def house():
    """A suite whose mail for elsewhere all goes to a sink."""
    sink = Sink()
    suite = Suite(config={"relayd": {"route": [{"match": "*", "host": "127.0.0.1", "port": sink.port, "tls": "none"}]}}).start()
    for domain in ("ours.example", "also.example"):
        suite.add_domain(domain)
    suite.add_account("jane@ours.example")
    suite.run("alias", "add", "away@ours.example", "friend@far.example")
    suite.run("alias", "add", "home@ours.example", "jane@ours.example")
    suite.run("dkim", "add", "ours.example", "--selector", "e", "--algorithm", "ed25519")
    suite.run("dkim", "add", "ours.example", "--selector", "r")
    yield suite, sink
    suite.remove()
    sink.close()


class Postsrsd(Server):
    """Debian's rewriting daemon for Postfix: one port rewrites, the other finds back."""

    def __init__(self, domain):
        program = shutil.which("postsrsd") or shutil.which("postsrsd", path="/usr/sbin")
        if not program:
            pytest.skip("postsrsd is not installed (tests/setup)")
        super().__init__("ph-srs-")
        (self.dir / "secret").write_text("a secret of the tests\n")
        self.forth, self.reverse = free_port(), free_port()
        self.spawn(program, "-4", "-s", str(self.dir / "secret"), "-d", domain, "-f", str(self.forth), "-r", str(self.reverse))

    def ready(self):
        super().ready()
        try:
            return bool(self.ask(self.forth, "a@b.example"))
        except OSError:
            return False

    def ask(self, port, address):
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(f"get {address}\n".encode())
            return connection.makefile().readline().strip()

    def rewrite(self, address):
        code, result = self.ask(self.forth, address).split(" ", 1)
        assert code == "200", result
        return result

    def back(self, address):
        return self.ask(self.reverse, address).split(" ", 1)


def rcpt(suite, address, sender=""):
    """The answer to RCPT at port 25."""
    with suite.smtp() as client:
        client.mail(sender)
        code, text = client.rcpt(address)
        return code, text.decode()


def forwarded(suite, sink, sender, to="away@ours.example"):
    suite.send(to, sender=sender)
    ((reverse_path, recipients, mail),) = sink.take()
    assert recipients == ["friend@far.example"] and b"\r\nHello." in mail
    return reverse_path


def test_an_alias_forwards_under_an_address_of_its_own(house):
    suite, sink = house
    path = forwarded(suite, sink, "Some.One+x@elsewhere.example")
    assert FORM.match(path).groups()[2:] == ("elsewhere.example", "Some.One+x", "ours.example"), path
    # Within the same day it is the same address: greylisting and lists at the other end know it.
    assert forwarded(suite, sink, "Some.One+x@elsewhere.example") == path
    # Our own senders and the null sender need none.
    with suite.submission("jane@ours.example") as client:
        client.sendmail("jane@ours.example", "away@ours.example", message("<own@x>", sender="jane@ours.example"))
    assert sink.take()[0][0] == "jane@ours.example"
    with suite.smtp() as client:
        client.sendmail("", "away@ours.example", message("<null@x>"))
    assert sink.take()[0][0] == ""


def test_what_stays_here_keeps_its_sender(house):
    suite, _ = house
    suite.send("home@ours.example", sender="visitor@elsewhere.example")
    mails = suite.wait_messages("jane@ours.example", 1)
    assert mails[0].startswith(b"Return-Path: <visitor@elsewhere.example>\r\n")


def test_a_script_forwards_so_too(house):
    suite, sink = house
    suite.add_account("scripted@ours.example")
    suite.run("script", "put", "scripted@ours.example", "forward", "--activate", stdin='redirect "friend@far.example";')
    path = forwarded(suite, sink, "x@elsewhere.example", to="scripted@ours.example")
    assert FORM.match(path).groups()[2:] == ("elsewhere.example", "x", "ours.example")


def test_what_comes_back_goes_to_the_sender(house):
    suite, sink = house
    path = forwarded(suite, sink, "sender@elsewhere.example")
    # Also when a host on the way has changed the case of all letters.
    for address in (path, path.lower()):
        with suite.smtp() as client:
            client.sendmail("", address, message("<bounce@far.example>", to=address, sender="mailer-daemon@far.example"))
        ((reverse_path, recipients, mail),) = sink.take()
        assert (reverse_path, recipients) == ("", ["sender@elsewhere.example"])
        assert b"Message-ID: <bounce@far.example>" in mail


@pytest.fixture(scope="module")
def names(house):
    """A name server with the key that seals."""
    suite, _ = house
    knot = Knot({"ours.example": zone("ours.example", [suite.run("dns", "show", "ours.example").stdout])})
    yield knot
    knot.remove()


LETTERS = {
    "plain": message("<a@far.example>", sender="a@elsewhere.example", text="Hello.\r\n\r\nBye.  \r\n\r\n"),
    "folded": b"From: a@elsewhere.example\r\nSubject: a\r\n\tb\r\n  c  \r\nList-Id:\r\n <x.example>\r\n\r\nHello.\r\n",
    "8bit": "From: a@elsewhere.example\r\nSubject: x\r\n\r\nHello. Grüße\r\n".encode(),
    "empty": b"From: a@elsewhere.example\r\nSubject: Hello.\r\n\r\n",
    "large": b"From: a@elsewhere.example\r\nSubject: x\r\n\r\n" + b"Hello. Hello.  \r\n" * 100_000,
}


@pytest.mark.parametrize("kind", LETTERS)
def test_what_is_forwarded_is_sealed(house, names, kind):
    suite, sink = house
    suite.send("away@ours.example", LETTERS[kind], sender="a@elsewhere.example")
    ((_, _, mail),) = sink.take(seconds=60)
    assert mail.startswith(b"ARC-Seal: i=1; a=rsa-sha256; cv=none; d=ours.example;")
    assert b"\r\nARC-Authentication-Results: i=1; mail.example.test;" in mail and b"DKIM-Signature:" not in mail
    assert dkimpy_arc(mail, names) == "pass"
    theirs = mail_dkim_arc(mail, names)
    assert theirs is None or theirs[0] == "pass", theirs
    for what, other in ((b"Hello.", b"Hallo."), (b"From: ", b"From: x@y.example\r\nFrom: "), (b"i=1; mail.example.test", b"i=1; elsewhere.example")):
        broken = mail.replace(what, other, 1)
        assert broken != mail and dkimpy_arc(broken, names) == "fail", what


def test_what_our_own_users_send_over_an_alias_is_signed_and_not_sealed(house, names):
    suite, sink = house
    with suite.submission("jane@ours.example") as client:
        client.sendmail("jane@ours.example", "away@ours.example", message("<own@y>", sender="jane@ours.example"))
    ((_, _, mail),) = sink.take()
    assert b"ARC-Seal" not in mail and dkimpy(mail, names) == {"e": True, "r": True}


def test_a_chain_that_nobody_checked_is_left_as_it_is(house, names):
    suite, sink = house
    suite.send("away@ours.example", LETTERS["plain"], sender="a@elsewhere.example")
    ((_, _, mail),) = sink.take()
    # It comes again, with a chain whose state only its arrival can tell.
    again = mail.replace(b"Delivered-To:", b"X-Was:")
    suite.send("away@ours.example", again, sender="a@elsewhere.example")
    ((_, _, further),) = sink.take()
    seals = further.count(b"ARC-Seal:")
    known = re.search(rb"^Authentication-Results: mail\.example\.test;[^\0]*?arc=(\w+)", further.partition(b"X-Was:")[0], re.M)
    # One more if its arrival was judged, else none.
    assert seals == (1 if known is None else 2), further[:1500]
    assert dkimpy_arc(further, names) == "pass" or known and known[1] != b"pass"


def test_forged_and_old_addresses_are_refused(house):
    suite, sink = house
    path = forwarded(suite, sink, "sender@elsewhere.example")
    secret, day, host, user, _ = FORM.match(path).groups()
    other = "A" if secret[0] != "A" else "B"
    for forged in (path.replace(secret, other + secret[1:]), path.replace("=sender@", "=victim@"), path.replace(host, "bank.example"),
                   path.replace(f"={day}=", "=AA=" if day != "AA" else "=BB="), path.replace("@ours.", "@also.").replace(secret, "AAAAAAAA"),
                   path.replace(f"={secret}=", "=="), path.replace("SRS0=", "SRS1=")):
        code, text = rcpt(suite, forged)
        assert code == 550 and text.startswith("5.7.1") and "SRS" in text, (forged, text)
    assert rcpt(suite, "SRS0=x@ours.example")[1].startswith("5.1.1")
    # A domain that is not ours is a matter of its own host.
    assert "Relaying denied" in rcpt(suite, path.replace("@ours.", "@foreign."))[1]


def test_an_address_expires(make_suite):
    """The daemons are told another day: the address is good as long as it is configured, and no longer."""
    sink = Sink()
    suite = make_suite(config={"relayd": {"route": [{"match": "*", "host": "127.0.0.1", "port": sink.port, "tls": "none"}]}})
    suite.add_domain("ours.example")
    suite.run("alias", "add", "away@ours.example", "friend@far.example")
    found = glob.glob("/usr/lib/*/faketime/libfaketimeMT.so.1")
    if not found:
        pytest.skip("libfaketime is not installed (tests/setup)")
    path = forwarded(suite, sink, "sender@elsewhere.example")
    assert rcpt(suite, path)[0] == 250
    for days, good in ((20, True), (22, False)):
        suite.stop()
        suite.launcher = ["env", f"LD_PRELOAD={found[0]}", f"FAKETIME=+{days}d", "FAKETIME_DONT_FAKE_MONOTONIC=1"]
        suite.start()
        code, text = rcpt(suite, path)
        assert (code == 250) == good, (days, text)
        if not good:
            assert code == 550 and "expired" in text
    sink.close()


def test_a_failure_of_the_next_host_reaches_the_sender(make_suite):
    """The sender is at another suite; the friend is not there any more; the report comes to the sender's mailbox."""
    port = free_port("127.0.0.2")
    suites = {}
    records = {name: ["@ MX 10 mx", f"mx A {host}"] for name, host in (("one", "127.0.0.1"), ("two", "127.0.0.2"))}
    knot = Knot({f"{name}.test": zone(f"{name}.test", lines) for name, lines in records.items()})
    for name, host in (("one", "127.0.0.1"), ("two", "127.0.0.2")):
        suites[name] = make_suite(host=host, ports={"mx": port}, config={
            "suite": {"hostname": f"mx.{name}.test"},
            "relayd": {"port": port, "nameservers": [f"127.0.0.1:{knot.port}"], "connect_timeout": 5},
        })
        suites[name].add_domain(f"{name}.test")
    user = suites["two"].add_account("user@two.test")
    suites["one"].run("alias", "add", "gone@one.test", "nobody@two.test")
    with suites["two"].submission(user) as client:
        client.sendmail(user, "gone@one.test", message("<lost@two.test>", to="gone@one.test", sender=user))
    (report,) = suites["two"].wait_messages(user, 1)
    assert b"nobody@two.test" in report and b"5.1.1" in report
    for suite in suites.values():
        suite.wait_queue_empty()
    knot.remove()


def test_postsrsd_and_we_understand_each_other(house):
    suite, sink = house
    other = Postsrsd("other.example")
    try:
        ours = forwarded(suite, sink, "sender@elsewhere.example")
        theirs = other.rewrite("sender@elsewhere.example")
        # The same form and the same day.
        pattern = re.compile(r"(SRS0)=[^=]+=([A-Z2-7]{2})=elsewhere\.example=sender@")
        assert pattern.match(ours).groups() == pattern.match(theirs).groups(), (ours, theirs)
        # They forward what we have forwarded: what comes back to them comes to us, and is good.
        further = other.rewrite(ours)
        assert further.startswith("SRS1=") and "=ours.example==" in further
        assert other.back(further) == ["200", ours]
        # We forward what they have forwarded, and what comes back to us goes to them.
        path = forwarded(suite, sink, theirs)
        assert path.startswith("SRS1=") and "=other.example==" in path and path.endswith("@ours.example")
        with suite.smtp() as client:
            client.sendmail("", path, message("<b@x>", to=path))
        assert sink.take()[0][:2] == ("", [theirs])
        # And a third time: the one in between is left out.
        again = forwarded(suite, sink, further)
        assert again.startswith("SRS1=") and "=ours.example==" in again and other.back(theirs) == ["200", "sender@elsewhere.example"]
    finally:
        other.remove()


def test_it_can_be_switched_off_or_sent_from_one_domain(make_suite):
    sink = Sink()
    route = {"route": [{"match": "*", "host": "127.0.0.1", "port": sink.port, "tls": "none"}]}
    for srs, wanted in (({"enabled": False}, "x@elsewhere.example"), ({"domain": "also.example"}, None)):
        suite = make_suite(config={"relayd": route, "authd": {"srs": srs}})
        for domain in ("ours.example", "also.example"):
            suite.add_domain(domain)
        suite.run("alias", "add", "away@ours.example", "friend@far.example")
        path = forwarded(suite, sink, "x@elsewhere.example")
        assert path == wanted if wanted else path.endswith("=elsewhere.example=x@also.example")
        # A local part of 64 octets has no room: it goes as it is.
        if not wanted:
            long = "l" * 60 + "@elsewhere.example"
            assert forwarded(suite, sink, long) == long
        suite.stop()
    sink.close()


def test_the_check_names_what_cannot_work(make_suite):
    suite = make_suite(config={"authd": {"srs": {"domain": "foreign.example"}}, "smtpd": {"hostname": "mx.example.test"}})
    done = suite.run("check", "--offline", check=False)
    assert done.returncode == 3 and "authd.srs.domain: foreign.example is not one of our domains" in done.stdout
    assert "relayd.arc.authserv_id" in done.stdout

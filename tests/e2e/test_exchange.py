"""Two suites that know each other by DNS only: MX records, DKIM signatures that others verify, reports that come back."""

import dkim
import pytest

from reports import check_report
from servers import Knot, zone
from suite import Suite, body_of, free_port, message, wait_for


def verifies(mail, number, lookup):
    """Whether an independent verifier accepts the signature."""
    try:
        return dkim.DKIM(mail).verify(idx=number, dnsfunc=lookup)
    except dkim.ValidationError:
        return False


def dkim_record(suite, domain, selector, algorithm):
    made = suite.json("dkim", "create", domain, "--selector", selector, "--algorithm", algorithm)
    return made if isinstance(made, dict) else made[0]


@pytest.fixture(scope="module")
def pair():
    """one.test at 127.0.0.1 and two.test at 127.0.0.2, the same port, since an MX record names none."""
    port = free_port("127.0.0.2")
    relay = {"port": port, "connect_timeout": 5}
    dns_port = {}
    suites, records = {}, {}
    for name, host in (("one", "127.0.0.1"), ("two", "127.0.0.2")):
        suite = Suite(host=host, ports={"mx": port})
        suite.config["suite"]["hostname"] = f"mx.{name}.test"
        suite.config["relayd"] = dict(relay)
        suites[name] = suite
    # The keys must be in the zones before the name server starts, and the name server's port in the configurations: the
    # suites are started twice.
    for name, suite in suites.items():
        suite.write_config()
        suite.start()
        suite.add_domain(f"{name}.test")
        records[name] = [
            _zone_line(dkim_record(suite, f"{name}.test", "r1", "rsa"), f"{name}.test"),
            _zone_line(dkim_record(suite, f"{name}.test", "e1", "ed25519"), f"{name}.test"),
        ]
        suite.stop()
    knot = Knot({f"{name}.test": zone(f"{name}.test", ["@ MX 10 mx", f"mx A {suite.host}", *records[name]])
                 for name, suite in suites.items()})
    for suite in suites.values():
        suite.config["relayd"]["nameservers"] = [f"127.0.0.1:{knot.port}"]
        suite.write_config()
        suite.start()
    yield suites["one"], suites["two"], knot
    for suite in suites.values():
        suite.remove()
    knot.remove()


def _zone_line(made, domain):
    """What `dkim create` prints for the zone, as the zone file wants it."""
    name = made["name"].rstrip(".")
    value = made["record"]
    pieces = " ".join(f'"{value[at:at + 200]}"' for at in range(0, len(value), 200))
    return f"{name}. TXT {pieces}"


def test_mail_goes_both_ways_and_its_signatures_verify(pair):
    one, two, knot = pair
    alice, bob = one.add_account("alice@one.test"), two.add_account("bob@two.test")
    for sender, mail_from, to, receiver in ((one, alice, bob, two), (two, bob, alice, one)):
        text = "Grüße.\r\n.dot\r\n\r\nlast line  \r\n\r\n"
        with sender.submission(mail_from) as client:
            client.sendmail(mail_from, to, message(f"<x@{mail_from}>", to=to, sender=mail_from, text=text))
        (mail,) = receiver.wait_messages(to, 1)
        assert body_of(mail) == text.encode()
        assert mail.count(b"DKIM-Signature:") == 2
        # Without the lines that the receiver put before it.
        signed = mail[mail.index(b"DKIM-Signature:"):]
        lookup = lambda name, timeout=5: knot.txt(name.decode() if isinstance(name, bytes) else name)
        for number in range(2):
            assert verifies(signed, number, lookup), f"signature {number} of {mail[:800]!r}"
        # And a changed mail does not verify.
        broken = signed.replace(b".dot", b".tod")
        assert not verifies(broken, 0, lookup)
        # Between servers TLS is used where it is offered (RFC 3207), and Received says so (RFC 3848).
        assert b"ESMTPS" in mail


def test_an_unknown_remote_user_comes_back_as_a_report(pair):
    one, two, _ = pair
    user = one.add_account("carol@one.test")
    with one.submission(user) as client:
        client.sendmail(user, "nobody@two.test", message("<lost@one.test>", to="nobody@two.test", sender=user))
    (report,) = one.wait_messages(user, 1)
    check_report(report, "nobody@two.test", "5.1.1")
    assert b"mx.two.test" in report
    one.wait_queue_empty()


def test_success_is_reported_on_request(pair):
    one, two, _ = pair
    user, friend = one.add_account("dora@one.test"), two.add_account("emil@two.test")
    with one.submission(user) as client:
        client.mail(user, ["RET=HDRS", "ENVID=abc"])
        client.rcpt(friend, ["NOTIFY=SUCCESS"])
        code, text = client.data(message("<told@one.test>", to=friend, sender=user))
        assert code == 250, text
    two.wait_messages(friend, 1)
    (report,) = one.wait_messages(user, 1)
    assert b"Original-Envelope-Id: abc" in report
    assert b"Action: delivered" in report or b"Action: relayed" in report


def test_an_alias_to_another_host_is_followed(pair):
    one, two, _ = pair
    friend = two.add_account("frida@two.test")
    one.run("alias", "add", "away@one.test", friend)
    one.send("away@one.test", sender="someone@two.test")
    two.wait_messages(friend, 1)


def test_mail_waits_for_a_host_that_is_away(pair):
    one, two, _ = pair
    user, friend = one.add_account("gus@one.test"), two.add_account("hal@two.test")
    two.stop()
    try:
        with one.submission(user) as client:
            client.sendmail(user, friend, message("<later@one.test>", to=friend, sender=user))
        wait_for(lambda: [e for e in one.queue() if e["last"]], lambda: f"deferred: {one.queue()}")
    finally:
        two.start()
    one.run("queue", "retry", "--all")
    two.wait_messages(friend, 1)
    one.wait_queue_empty()


def test_large_mail_between_hosts(pair):
    one, two, _ = pair
    user, friend = one.add_account("ida@one.test"), two.add_account("jan@two.test")
    line = b"0123456789abcdef" * 4 + b"\r\n"
    body = message("<large@one.test>", to=friend, sender=user) + line * 60_000
    with one.submission(user) as client:
        client.sendmail(user, friend, body)
    (mail,) = two.wait_messages(friend, 1, seconds=60)
    assert mail.endswith(line * 60_000)

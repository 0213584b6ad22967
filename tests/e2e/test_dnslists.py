"""Lists in DNS, asked of a real name server: who is refused, who may pass, and which answers mean nothing."""

import smtplib

import pytest

from servers import Knot, zone
from suite import Suite, message

HOSTED = "example.test"
ALICE = f"alice@{HOSTED}"
TEST = ["2.0.0.127 A 127.0.0.2", '2.0.0.127 TXT "test entry"']


@pytest.fixture(scope="module")
def suite():
    reverse = lambda *entries: [f"{entry} A {answer}" for entry, answer in entries]
    zones = {
        "bl.example": zone("bl.example", [
            *TEST, *reverse(("2.2.0.192", "127.0.0.2"), ("3.2.0.192", "127.0.0.9"), ("4.2.0.192", "127.0.0.2")),
            '2.2.0.192 TXT "see https://bl.example/?192.0.2.2"', f"{'1.0.0.0.' * 4}{'0.0.0.0.' * 2}8.b.d.0.1.0.0.2 A 127.0.0.2",
        ]),
        "wl.example": zone("wl.example", [*TEST, *reverse(("4.2.0.192", "127.0.10.3"))]),
        # As a provider answers who may not ask, and a domain that was sold: everything is there.
        "closed.example": zone("closed.example", ["* A 127.255.255.254"]),
        "sold.example": zone("sold.example", ["* A 192.0.2.80"]),
        "half.example": zone("half.example", [*TEST, *reverse(("6.2.0.192", "127.0.0.2"))]),
        "rhs.example": zone("rhs.example", ["test A 127.0.0.2", "spam.example A 127.0.1.2", "bot.client.example A 127.0.1.2"]),
        "early.example": zone("early.example", ["test A 127.0.0.2", "worst.example A 127.0.0.2", "bad.example A 127.0.0.2"]),
    }
    knot = Knot(zones)
    suite = Suite(config={
        "smtpd": {
            "proxy_networks": ["127.0.0.0/8"],
            "trusted_networks": [],
            "checks": {"enabled": False, "nameservers": [f"127.0.0.1:{knot.port}"]},
            "dnslists": {
                "threshold": 2,
                "timeout": 3,
                "list": [
                    {"zone": "bl.example", "answers": ["127.0.0.2"], "weight": 2, "text": "{address} is listed: {txt}"},
                    {"zone": "wl.example", "kind": "allow"},
                    {"zone": "closed.example", "weight": 9},
                    {"zone": "sold.example", "weight": 9},
                    {"zone": "half.example", "action": "later"},
                    {"zone": "rhs.example", "ask": "sender", "action": "junk", "weight": 2},
                    {"zone": "rhs.example", "ask": "helo", "action": "later", "weight": 1},
                    {"zone": "early.example", "ask": "sender", "weight": 2, "stage": "mail", "text": "{name} is not wanted"},
                ],
            },
        },
        "limitd": {"enabled": True, "greylist": {"enabled": True, "except_network": ["192.0.2.5", "192.0.2.3", "192.0.2.6"]}},
    })
    try:
        suite.start()
        suite.add_domain(HOSTED)
        suite.add_account(ALICE)
        suite.add_account(f"postmaster@{HOSTED}")
        yield suite
    finally:
        suite.remove()
        knot.remove()


class Proxied(smtplib.SMTP):
    """A client as a load balancer brings it."""

    def __init__(self, suite, client, helo="mx.client.example"):
        self.client = client
        super().__init__(*suite.address("mx"), local_hostname=helo, timeout=30)
        self.ehlo()

    def _get_socket(self, host, port, timeout):
        sock = super()._get_socket(host, port, timeout)
        kind = "TCP6" if ":" in self.client else "TCP4"
        other = "2001:db8::25" if ":" in self.client else "192.0.2.250"
        sock.sendall(f"PROXY {kind} {self.client} {other} 40000 25\r\n".encode())
        return sock


def told(suite, client, to=ALICE, sender="a@sender.example", helo="mx.client.example"):
    with Proxied(suite, client, helo) as one:
        assert one.mail(sender)[0] == 250
        code, text = one.rcpt(to)
        return code, text.decode()


def test_the_listed_are_refused(suite):
    code, text = told(suite, "192.0.2.2")
    assert (code, text) == (554, "5.7.1 192.0.2.2 is listed: see https://bl.example/?192.0.2.2")
    # Postmaster is reached by everybody; greylisting is another matter.
    code, text = told(suite, "192.0.2.2", to=f"postmaster@{HOSTED}")
    assert code == 451 and "Greylisted" in text
    # An answer that does not count, and one that is not there.
    assert told(suite, "192.0.2.3")[0] == 250
    assert told(suite, "192.0.2.5")[0] == 250
    assert told(suite, "2001:db8::1:1:1:1")[0] == 554


def test_who_is_on_an_allow_list_passes(suite):
    """In spite of the block list, and of greylisting."""
    assert told(suite, "192.0.2.4")[0] == 250
    code, text = told(suite, "192.0.2.77")
    assert code == 451 and "Greylisted" in text


def test_providers_that_do_not_answer_stop_nobody(suite):
    log = suite.log.read_text()
    assert log.count("closed.example") >= 1 and "127.255.255.254" in log
    assert log.count("gives no answer") == 2, "once a list"


def test_lists_are_weighed_together(suite):
    assert told(suite, "192.0.2.6")[0] == 250
    code, text = told(suite, "192.0.2.6", helo="bot.client.example")
    assert code == 451 and text.startswith("4.7.1"), text


def test_the_sender_s_domain_goes_to_junk(suite):
    with Proxied(suite, "192.0.2.5") as client:
        assert client.sendmail("a@spam.example", [ALICE], message("<j@spam.example>")) == {}
    raw, = suite.wait_messages(ALICE, 1, mailbox="Junk")
    assert b"X-Posthouse-Suspect: junk; checks=dnslist" in raw


def test_a_list_that_is_asked_at_mail(suite):
    with Proxied(suite, "192.0.2.5") as one:
        assert one.mail("a@worst.example") == (554, b"5.7.1 worst.example is not wanted")
        assert one.rcpt(f"postmaster@{HOSTED}")[0] == 503
        assert one.mail("a@sender.example")[0] == 250
        assert one.rcpt(ALICE)[0] == 250
        # Other lists stop nobody before RCPT.
        one.rset()
        assert one.mail("a@spam.example")[0] == 250
    # An allow list goes before it.
    with Proxied(suite, "192.0.2.4") as one:
        assert one.mail("a@worst.example")[0] == 250
        assert one.rcpt(ALICE)[0] == 250


def test_check_asks_for_the_test_entries(suite):
    findings = suite.run("check", check=False).stdout
    lines = [line for line in findings.splitlines() if "dnslist" in line]
    text = "\n".join(lines)
    for zone_name, word in [("bl.example", "answers"), ("closed.example", "127.255.255.254"), ("sold.example", "192.0.2.80")]:
        assert any(zone_name in line and word in line for line in lines), text

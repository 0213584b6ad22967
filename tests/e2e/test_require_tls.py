"""Reports on messages with REQUIRETLS (RFC 8689 5): they have it themselves, hold no body, and where their way is not protected, no header."""

import email
import smtplib

import pytest

from authority import open_folder
from exchangers import Authority, Exchanger
from servers import Knot, zone
from suite import anybody, free_port, message, wait_for

HOSTS = {"good": "127.21.0.1", "unable": "127.21.0.2", "clear": "127.21.0.3"}


@pytest.fixture(scope="module")
def world():
    """Exchangers of three domains: one with all that it takes, one with TLS alone, one with nothing; and a suite that relays for anybody."""
    from suite import Suite
    ca, port = Authority(open_folder(), "ca"), free_port()
    names = Knot({f"{name}.example": zone(f"{name}.example", ["@ MX 10 mx", f"mx A {address}"]) for name, address in HOSTS.items()})
    exchangers = {
        name: Exchanger(address, port, ca.host(f"mx.{name}.example") if name != "clear" else None,
                        extensions=["REQUIRETLS"] if name == "good" else [])
        for name, address in HOSTS.items()}
    suite = Suite(config={
        "smtpd": {"checks": {"enabled": False}, "relay_networks": ["127.0.0.0/8"]},
        "queued": {"relay_networks": ["127.0.0.0/8"]},
        "relayd": {
            "port": port, "nameservers": [f"127.0.0.1:{names.port}"], "tls_ca_file": ca.file, "idle_timeout": 0, "dkim": False,
            "tls": {"destination": {f'"{name}.example"': {"policy": "secure", "names": ["hostname"]} for name in ("good", "unable")}}},
    }).start()
    suite.add_domain("us.example")
    yield suite, exchangers
    suite.remove()
    names.remove()
    for exchanger in exchangers.values():
        exchanger.close()


def bounce(world, where):
    """Sends a message that requires TLS, from `where` to where there is none; the report that comes back."""
    suite, exchangers = world
    exchanger, sender = exchangers[where], f"me@{where}.example"
    with smtplib.SMTP(*suite.address("mx"), local_hostname="client.example.net", timeout=30) as client:
        client.starttls(context=anybody())
        client.ehlo()
        code, text = client.mail(sender, ["REQUIRETLS", "RET=FULL"])
        assert code == 250, text
        assert client.rcpt("you@clear.example")[0] == 250
        code, text = client.data(message(f"<secret.{where}@x.example>", to="you@clear.example", sender=sender, subject="a secret", text="the body\r\n"))
        assert code == 250, text
    wait_for(lambda: exchanger.contents, lambda: suite.tail(60), 60)
    (_, recipient, secured, _), = exchanger.mails
    assert recipient == sender
    content, = exchanger.contents
    assert b"the body" not in content, content
    report = email.message_from_bytes(content)
    assert report.get_content_type() == "multipart/report", content
    status = report.get_payload(1).as_string()
    assert "Action: failed" in status and "Status: 5.7." in status, status
    return report, content, secured, exchanger.arguments[-1]


def test_a_report_requires_tls_as_its_message_did(world):
    report, content, secured, argument = bounce(world, "good")
    assert secured and "REQUIRETLS" in argument and "<>" in argument, argument
    assert [part.get_content_type() for part in report.get_payload()][2] == "text/rfc822-headers"
    assert b"a secret" in content


def test_a_host_that_does_not_know_it_gets_it_under_tls_that_is_verified(world):
    _, content, secured, argument = bounce(world, "unable")
    assert secured and "REQUIRETLS" not in argument and b"a secret" in content


def test_without_protection_nothing_of_the_message_goes_back(world):
    report, content, secured, argument = bounce(world, "clear")
    assert not secured and "REQUIRETLS" not in argument, argument
    assert len(report.get_payload()) == 2, content
    assert b"a secret" not in content and b"<secret." not in content, content
    suite, _ = world
    assert "goes without the message's header" in suite.log.read_text()
    suite.wait_queue_empty()

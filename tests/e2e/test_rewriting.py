"""Addresses that become others on arrival, and copies that nobody sees: with the whole suite, up to the mailbox and the next host."""

import pytest

from sink import Sink
from suite import Suite, message, wait_for


@pytest.fixture(scope="module")
def house():
    sink = Sink()
    rules = {
        "rewrite": [
            {"from": "@old.example", "to": "@ours.example"},
            {"from": r"/(.+)\.doe@ours\.example/", "to": "$1@ours.example"},
            {"which": "both", "from": ".ours.example", "to": "@ours.example", "login": True, "header": True},
        ],
        "bcc": [
            {"senders": ["jane@ours.example"], "to": ["archive@ours.example", "far@far.example"]},
            {"recipients": ["jane@ours.example"], "listeners": ["mx"], "to": ["archive@ours.example", "gone@ours.example"]},
        ],
    }
    relayd = {"route": [{"match": "*", "host": "127.0.0.1", "port": sink.port, "tls": "none"}]}
    suite = Suite(config={"smtpd": rules, "relayd": relayd}).start()
    suite.add_domain("ours.example")
    for name in ("jane", "archive"):
        suite.add_account(f"{name}@ours.example")
    suite.run("dkim", "add", "ours.example", "--selector", "r")
    yield suite, sink
    suite.remove()
    sink.close()


def test_recipients_and_copies_of_what_comes(house):
    suite, _ = house
    with suite.smtp() as client:
        client.sendmail("x@far.example", ["jane.doe@ours.example", "jane@old.example"], message("<one@x>", to="jane@old.example"))
    (mail,) = suite.wait_messages("jane@ours.example", 1)
    (copy,) = suite.wait_messages("archive@ours.example", 1)
    suite.wait_queue_empty()
    assert b"archive" not in mail and b"gone" not in mail
    assert b"for <jane@ours.example> (sent to jane.doe@ours.example)" in mail
    # The header is the author's.
    assert b"\r\nTo: <jane@old.example>\r\n" in mail and b"\r\nTo: <jane@old.example>\r\n" in copy
    assert len(suite.messages("jane@ours.example")) == 1
    with suite.smtp() as client:
        client.mail("x@far.example")
        assert client.rcpt("nobody@old.example")[0] == 550
    found = suite.run("check", "--offline", check=False).stdout
    assert "gone@ours.example takes no mail" in found and "far@far.example is not ours" in found, found


def test_users_behind_one_domain(house):
    suite, sink = house
    mail = message("<two@x>", to="friend@far.example", sender="jane@pc7.ours.example").replace(b"From: <", b"From: Jane <")
    with suite.submission("jane@ours.example") as client:
        client.sendmail("jane@pc7.ours.example", ["friend@far.example"], mail)
    everybody = {"friend@far.example", "far@far.example"}
    wait_for(lambda: {one for _, to, _ in sink.mails for one in to} == everybody, lambda: sink.mails)
    for sender, _, octets in sink.mails:
        assert sender == "jane@ours.example"
        assert b"pc7" not in octets and b"From: Jane <jane@ours.example>\r\n" in octets
        assert b"DKIM-Signature" in octets
    assert suite.wait_messages("archive@ours.example", 2)

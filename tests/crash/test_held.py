"""queued is killed with -9 while mail comes that is held, for later or because a filter wants it: all that was acknowledged is still
held, and arrives once."""

import smtplib
import threading

import pytest

from suite import message, wait_for

KILLS, EACH = 4, 8


@pytest.fixture
def suite(make_suite):
    suite = make_suite()
    suite.add_domain("example.test")
    return suite


def killed_meanwhile(suite, open_client, begin, subject, sender="jane@example.test", to="jane@example.test"):
    """Sends mail while queued is killed; how many were acknowledged."""
    acknowledged = []
    enough = threading.Event()

    def send():
        number = 0
        while not enough.is_set():
            try:
                with open_client() as client:
                    while not enough.is_set():
                        begin(client)
                        code, _ = client.rcpt(to)
                        if code == 250:
                            text = f"<held{number}@example.test>"
                            code, _ = client.data(message(text, to=to, sender=sender, subject=f"{subject} {number}"))
                            if code == 250:
                                acknowledged.append(number)
                                number += 1
                                continue
                        client.rset()
            except (smtplib.SMTPException, OSError):
                # The connection went; what had no answer is sent again, as a client does.
                continue

    thread = threading.Thread(target=send)
    thread.start()
    try:
        for _ in range(KILLS):
            before = len(acknowledged)
            wait_for(lambda: len(acknowledged) >= before + EACH, "more of them", 60)
            suite.kill("queued")
    finally:
        enough.set()
        thread.join()
    suite.wait_up()
    return len(acknowledged)


def all_arrive(suite, user, subject, count, listed):
    suite.wait_queue_empty()
    arrived = suite.messages(user)
    mark = f"Subject: {subject} ".encode()
    subjects = {line for raw in arrived for line in raw.split(b"\r\n") if line.startswith(mark)}
    assert len(subjects) >= count
    assert len(arrived) == len(listed), "each message of the queue arrived once"


def test_held_mail_survives_kills(suite):
    user = suite.add_account("jane@example.test")
    later = lambda client: client.mail(user, ["HOLDFOR=86400", "MT-PRIORITY=3"])
    count = killed_meanwhile(suite, lambda: suite.submission(user), later, "held")
    # One that was committed when its answer was lost may be there twice, once for each time that it was sent.
    listed = wait_for(lambda: len(queue := suite.queue()) >= count and queue, "all of them")
    assert {entry["state"] for entry in listed} == {"scheduled"}
    assert all(entry["priority"] == 3 for entry in listed)
    assert suite.messages(user) == []
    suite.run("queue", "release", "--early", "--all")
    all_arrive(suite, user, "held", count, listed)


@pytest.mark.parametrize("ack", ["journal", "sql"])
def test_what_a_filter_holds_survives_kills(make_suite, ack):
    suite = make_suite(start=False)
    script = suite.dir / "hold.sieve"
    script.write_text('require ["fileinto"]; fileinto "Hold/for the test";')
    suite.config["hookd"] = {"enabled": True, "client_names": False, "sieve": [{"name": "holder", "file": script}]}
    suite.config["queued"] = {**suite.config.get("queued", {}), "ack": ack}
    suite.write_config()
    suite.start()
    suite.add_domain("example.test")
    user = suite.add_account("jane@example.test")
    begin = lambda client: client.mail("sender@example.net")
    count = killed_meanwhile(suite, suite.smtp, begin, "kept", sender="sender@example.net")
    listed = wait_for(lambda: len(queue := suite.queue()) >= count and queue, "all of them")
    assert {(entry["state"], entry["held_by"], entry["held_for"]) for entry in listed} == {("held", "holder", "for the test")}
    suite.run("queue", "retry", "--all")
    assert suite.messages(user) == []
    # Killed while they are released: those of which the operator heard that they are, are.
    wait_for(lambda: suite.run("queue", "release", "--held", "true", check=False).returncode == 0, "the release")
    suite.kill("queued")
    suite.wait_up()
    all_arrive(suite, user, "kept", count, listed)

"""queued is killed with -9 while mail for later is submitted: all that was acknowledged is still held, and arrives once."""

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


def test_held_mail_survives_kills(suite):
    user = suite.add_account("jane@example.test")
    acknowledged = []
    enough = threading.Event()

    def submit():
        number = 0
        while not enough.is_set():
            try:
                with suite.submission(user) as client:
                    while not enough.is_set():
                        client.mail(user, ["HOLDFOR=86400", "MT-PRIORITY=3"])
                        code, _ = client.rcpt(user)
                        if code == 250:
                            text = f"<held{number}@example.test>"
                            code, _ = client.data(message(text, to=user, sender=user, subject=f"held {number}"))
                            if code == 250:
                                acknowledged.append(number)
                                number += 1
                                continue
                        client.rset()
            except (smtplib.SMTPException, OSError):
                # The connection went; what had no answer is sent again, as a client does.
                continue

    sender = threading.Thread(target=submit)
    sender.start()
    try:
        for _ in range(KILLS):
            before = len(acknowledged)
            wait_for(lambda: len(acknowledged) >= before + EACH, "more of them", 60)
            suite.kill("queued")
    finally:
        enough.set()
        sender.join()
    suite.wait_up()
    # One that was committed when its answer was lost may be there twice, once for each time that it was sent.
    count = len(acknowledged)
    listed = wait_for(lambda: len(queue := suite.queue()) >= count and queue, "all of them")
    assert {entry["state"] for entry in listed} == {"scheduled"}
    assert all(entry["priority"] == 3 for entry in listed)
    assert suite.messages(user) == []
    suite.run("queue", "release", "--early", "--all")
    suite.wait_queue_empty()
    arrived = suite.messages(user)
    subjects = {line for raw in arrived for line in raw.split(b"\r\n") if line.startswith(b"Subject: held ")}
    assert len(subjects) >= count
    assert len(arrived) == len(listed), "each message of the queue arrived once"

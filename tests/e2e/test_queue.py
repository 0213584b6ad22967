"""The queue and its commands; mail that cannot go out."""

import pytest

from reports import check_report
from servers import Knot, zone
from suite import Failed, message, wait_for


@pytest.fixture(scope="module")
def away(request):
    """A suite whose only foreign domain has a mail exchanger where nobody listens."""
    from suite import Suite, free_port
    closed = free_port()
    knot = Knot({
        "away.example": zone("away.example", ["@ MX 10 mx", "mx A 127.0.0.1"]),
        "nullmx.example": zone("nullmx.example", ["@ MX 0 ."]),
    })
    suite = Suite(config={"relayd": {"nameservers": [f"127.0.0.1:{knot.port}"], "port": closed, "connect_timeout": 2},
                          "queued": {"retry_min": 600, "retry_max": 600}})
    suite.start()
    suite.add_domain("example.test")
    yield suite
    suite.remove()
    knot.remove()


def submit(suite, user, to, text="x"):
    with suite.submission(user) as client:
        client.sendmail(user, to, message("<out@example.test>", to=to, sender=user, text=text))


def test_mail_that_cannot_go_out_waits_and_obeys(away):
    user = away.add_account("waiting@example.test")
    submit(away, user, "someone@away.example")
    (entry,) = wait_for(lambda: [e for e in away.queue() if e["last"]], lambda: f"deferred: {away.queue()}")
    assert entry["sender"] == user and entry["to"] == ["someone@away.example"] and entry["state"] == "waiting"
    shown = away.json("queue", "show", entry["id"])
    assert "Subject: a letter" in shown["header"]
    assert shown["recipients"][0]["attempts"] == 1
    away.run("queue", "hold", entry["id"])
    assert away.queue()[0]["held"] is True
    assert away.json("queue", "list", "--held", "false") == []
    away.run("queue", "release", "--sender", user)
    away.run("queue", "retry", "--all")
    wait_for(lambda: away.queue()[0]["recipients"][0]["attempts"] >= 2, "a second attempt")
    assert away.json("queue", "stats")["messages"] == 1
    with pytest.raises(Failed):
        away.run("queue", "remove")
    away.run("queue", "remove", "--recipient", "@away.example")
    assert away.queue() == []
    assert away.messages(user) == [], "removed without a report"


def test_the_queue_survives_a_restart(away):
    user = away.add_account("patient@example.test")
    submit(away, user, "someone@away.example")
    wait_for(lambda: [e for e in away.queue() if e["last"]], "deferred")
    before = away.queue()[0]["id"]
    away.stop()
    away.start()
    assert [e["id"] for e in away.queue()] == [before]
    away.run("queue", "remove", "--all", "--bounce")
    (report,) = away.wait_messages(user, 1)
    assert b"multipart/report" in report and b"someone@away.example" in report


def test_a_domain_that_takes_no_mail(away):
    """RFC 7505: returned at once."""
    user = away.add_account("hasty@example.test")
    submit(away, user, "someone@nullmx.example", text="the lost letter")
    (report,) = away.wait_messages(user, 1)
    check_report(report, "someone@nullmx.example", "5.1.10")


def test_a_domain_that_is_not_there(away):
    user = away.add_account("typo@example.test")
    submit(away, user, "someone@missing.away.example")
    (report,) = away.wait_messages(user, 1)
    check_report(report, "someone@missing.away.example", "5.")

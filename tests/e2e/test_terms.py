"""Mail for later, priorities and time limits, from a mail program to the next host."""

import calendar
import contextlib
import re
import smtplib
import time

import pytest

from reports import check_report
from sink import Sink
from suite import message, wait_for

EXTENSIONS = ["MT-PRIORITY", "DELIVERBY 30", "DSN"]


@pytest.fixture(scope="module")
def place():
    """A suite with two hosts around it: one that knows the extensions, and one that knows none."""
    from suite import Suite
    new, old, dsn = Sink(offers=EXTENSIONS), Sink(), Sink(offers=["DSN"])
    route = lambda name, sink: {"match": name, "host": "127.0.0.1", "port": sink.port, "tls": "none"}
    suite = Suite(config={
        "relayd": {"route": [route("new.example", new), route("old.example", old), route("dsn.example", dsn)]},
        "smtpd": {"terms": {"deliver_by_min": 2, "priority_known": 6}},
    })
    suite.start()
    suite.add_domain("example.test")
    suite.new, suite.old, suite.dsn = new, old, dsn
    yield suite
    suite.remove()
    new.close()
    old.close()
    dsn.close()


def submit(suite, user, to, *options, notify=None):
    """Gives the last answer."""
    with suite.submission(user) as client:
        client.mail(user, list(options))
        code, text = client.rcpt(to, [f"NOTIFY={notify}"] if notify else [])
        assert code == 250, text
        code, text = client.data(message("<terms@example.test>", to=to, sender=user))
        assert code == 250, text
        return text.decode()


def seconds(text):
    return calendar.timegm(time.strptime(text, "%Y-%m-%d %H:%M:%SZ"))


def test_what_is_offered_where(place):
    user = place.add_account("asks@example.test")
    with place.submission(user) as client:
        client.ehlo()
        interval, last = client.esmtp_features["futurerelease"].split()
        assert interval == "2592000"
        at = calendar.timegm(time.strptime(last, "%Y-%m-%dT%H:%M:%SZ"))
        assert abs(at - time.time() - 2592000) < 60
        assert client.has_extn("mt-priority") and client.esmtp_features["deliverby"] == "2"
        for option, code in [("HOLDFOR=2592001", 501), ("HOLDUNTIL=2001-01-01T00:00:00Z", 501), ("HOLDFOR=x", 501),
                             ("MT-PRIORITY=10", 501), ("BY=1;R", 555), ("BY=0;R", 501), ("HOLDFOR=60 BY=30;R", 501),
                             ("HOLDFOR=60 BY=30;N", 501), ("HOLDFOR=60 BY=-5;N", 501), ("HOLDFOR=60 HOLDFOR=60", 501)]:
            answer, text = client.mail(user, option.split())
            assert answer == code, (option, text)
    with place.smtp() as client:
        assert not client.has_extn("futurerelease")
        assert client.mail("someone@example.net", ["HOLDFOR=60"])[0] == 555


def test_mail_for_later_waits_over_a_restart(place):
    user = place.add_account("later@example.test")
    began = time.time()
    submit(place, user, user, "HOLDFOR=6")
    submit(place, user, "someone@old.example", "HOLDFOR=600")
    entries = wait_for(lambda: [e for e in place.queue() if e["state"] == "scheduled"][1:] and place.queue(), "two held ones")
    held = {entry["to"][0]: entry for entry in entries}
    assert abs(seconds(held[user]["release"]) - began - 6) < 3
    facts = lambda: next(row for row in place.json("status") if row["role"] == "queued")["facts"]
    wait_for(lambda: {"in_journal=0", "loaded=0"} <= set(facts()), lambda: f"both in the table: {facts()}")
    place.run("queue", "retry", "--all")
    place.stop()
    place.start()
    place.wait_messages(user, 1)
    assert time.time() - began >= 5.5, "not before its time"
    (entry,) = place.queue()
    assert entry["state"] == "scheduled" and entry["to"] == ["someone@old.example"]
    assert not place.old.mails
    shown = place.json("queue", "show", entry["id"])
    assert shown["release"] == entry["release"]
    place.run("queue", "release", "--early", entry["id"])
    place.old.take(1)
    place.wait_queue_empty()


def test_priorities_are_bounded_and_passed_on(place):
    user = place.add_account("urgent@example.test")
    assert "2.3.6" not in submit(place, user, "a@new.example", "MT-PRIORITY=4")
    place.new.take(1)
    assert place.new.sessions[-1][2].endswith(" MT-PRIORITY=4")
    answer = submit(place, user, "a@new.example", "MT-PRIORITY=9")
    assert answer.startswith("2.3.6 6 "), answer
    ((_, _, octets),) = place.new.take(1)
    assert b"\tPRIORITY 6;" in octets and b"MT-Priority:" not in octets
    submit(place, user, "a@old.example", "MT-PRIORITY=-2")
    place.old.take(1)
    assert "PRIORITY" not in place.old.sessions[-1][2]
    submit(place, user, "a@new.example")
    place.new.take(1)
    assert "PRIORITY" not in place.new.sessions[-1][2]


def test_a_report_is_as_urgent_as_what_it_reports(place):
    """RFC 6710 4.6"""
    user = place.add_account("reported@example.test")
    with place.smtp() as client:
        client.mail("far@new.example", ["MT-PRIORITY=3"])
        assert client.rcpt(user, ["NOTIFY=SUCCESS"])[0] == 250
        assert client.data(message("<urgent@new.example>", to=user, sender="far@new.example"))[0] == 250
    ((sender, to, octets),) = place.new.take(1)
    assert (sender, to) == ("", ["far@new.example"]) and b"Action: delivered" in octets
    assert place.new.sessions[-1][2].endswith(" MT-PRIORITY=3")


def test_time_limits_are_passed_on(place):
    user = place.add_account("limits@example.test")
    submit(place, user, "a@new.example", "BY=600;RT")
    place.new.take(1)
    left = re.search(r" BY=(\d+);RT$", place.new.sessions[-1][2])
    assert left and 500 < int(left[1]) <= 600
    (report,) = place.wait_messages(user, 1)
    assert b"Action: relayed" in report and b"Deliver-By-Date:" in report
    # A host that does not know it: R is returned, N goes on and is told.
    submit(place, user, "a@old.example", "BY=600;R")
    reports = place.wait_messages(user, 2)
    check_report(reports[-1], "a@old.example", "5.3.3")
    assert not place.old.mails
    submit(place, user, "a@old.example", "BY=600;N")
    place.old.take(1)
    reports = place.wait_messages(user, 3)
    assert b"Action: relayed" in reports[-1]
    # Less time than the next host wants.
    submit(place, user, "a@new.example", "BY=20;R")
    reports = place.wait_messages(user, 4)
    check_report(reports[-1], "a@new.example", "5.4.7")
    assert not place.new.mails
    submit(place, user, "a@new.example", "BY=-5;N")
    place.new.take(1)
    assert re.search(r" BY=-\d+;N$", place.new.sessions[-1][2])


def test_hosts_without_time_limits_report_delays_in_their_place(place):
    """RFC 2852 4.1.4.2: DELAY is added to what NOTIFY says, while the limit is not over, unless it says NEVER."""
    user = place.add_account("delays@example.test")
    reports = 0
    for by, notify, passed_on, told in [
        ("BY=600;N", None, "NOTIFY=FAILURE,DELAY", True),
        ("BY=600;N", "SUCCESS", "NOTIFY=SUCCESS,DELAY", True),
        ("BY=600;N", "FAILURE", "NOTIFY=FAILURE,DELAY", True),
        ("BY=600;N", "NEVER", "NOTIFY=NEVER", False),
        # The limit is over: its report was made elsewhere (RFC 3461 5.2).
        ("BY=-5;N", "FAILURE", "NOTIFY=FAILURE", False),
    ]:
        submit(place, user, "a@dsn.example", by, notify=notify)
        place.dsn.take(1)
        assert passed_on in place.dsn.rcpts[-1].split(), (by, notify, place.dsn.rcpts[-1])
        place.wait_queue_empty()
        reports += told
        found = place.wait_messages(user, reports)
        assert not told or b"Action: relayed" in found[-1]


def test_scripts_set_and_read_time_limits(place):
    """RFC 6009: redirect-deliverby, envelope-deliverby."""
    numbers = iter(range(100))

    def with_script(text):
        """An account of its own: scripts are remembered for a moment."""
        user = place.add_account(f"rules{next(numbers)}@example.test")
        script = place.dir / "terms.sieve"
        script.write_text(text)
        script.chmod(0o644)
        place.run("script", "put", user, "main", script)
        place.run("script", "activate", user, "main")
        return user

    def redirect(options):
        return with_script(f'require "redirect-deliverby"; redirect {options} "x@new.example";')

    def parameter(options):
        """MAIL's line at the next host."""
        place.send(redirect(options), sender="away@old.example")
        place.new.take(1)
        return place.new.sessions[-1][2]

    left = re.search(r" BY=(\d+);R$", said := parameter(':bytimerelative 600 :bymode "return"'))
    assert left and 500 < int(left[1]) <= 600, said
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 900))
    left = re.search(r" BY=(\d+);NT$", said := parameter(f':bytimeabsolute "{at}" :bymode "notify" :bytrace'))
    assert left and 800 < int(left[1]) <= 900, said
    assert re.search(r" BY=\d+;N$", parameter(":bytimerelative 600"))
    assert " BY=" not in parameter(':bytimeabsolute "tomorrow"')
    assert " BY=" not in parameter("")
    # Less than the next host wants: it comes back to the sender.
    sender = place.add_account("hurry@example.test")
    submit(place, sender, redirect(':bytimerelative 20 :bymode "return"'))
    (report,) = place.wait_messages(sender, 1)
    check_report(report, "x@new.example", "5.4.7")
    # What the envelope says.
    user = with_script("""require ["envelope", "envelope-deliverby", "fileinto", "mailbox", "relational", "comparator-i;ascii-numeric"];
        if allof (envelope :is "bymode" "notify", envelope :is "bytrace" "true",
                  envelope :value "gt" :comparator "i;ascii-numeric" "bytimerelative" "500",
                  envelope :value "le" :comparator "i;ascii-numeric" "bytimerelative" "600",
                  envelope :matches "bytimeabsolute" "20??-??-??T??:??:??Z") { fileinto :create "Limited"; }
        elsif not envelope :matches ["bymode", "bytrace", "bytimerelative", "bytimeabsolute"] "*" { fileinto :create "Free"; }
    """)
    submit(place, sender, user, "BY=600;NT")
    place.wait_messages(user, 1, "Limited")
    submit(place, sender, user)
    place.wait_messages(user, 1, "Free")

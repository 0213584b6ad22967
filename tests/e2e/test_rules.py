"""Rules of the queue: another way, another name, another speed."""

import time

import pytest

from sink import Sink
from suite import Failed, Suite, message, wait_for

HUB = "127.0.0.1"


def submit(suite, user, to, *options):
    with suite.submission(user) as client:
        client.sendmail(user, to, message("<rules@example.test>", to=to, sender=user), mail_options=options)


@pytest.fixture(scope="module")
def place():
    usual, hub = Sink(), Sink()
    suite = Suite(config={
        "relayd": {"route": [
            {"match": "never.example", "name": "hub", "host": HUB, "port": hub.port, "tls": "none"},
            {"match": "*", "host": HUB, "port": usual.port, "tls": "none"},
        ]},
        "queued": {"rule": [
            {"name": "bulk", "sender": ["news@example.test"], "rate": "2/3s", "source": ["127.0.0.7", "127.0.0.8"],
             "hello": ["one.example.test", "two.example.test"]},
            {"name": "by-hub", "domain": [".partner.example", "partner.example"], "route": "hub"},
            {"name": "short", "priority_to": -5, "schedule": [1], "expire": 3, "route": f"{HUB}:9"},
        ]},
    })
    suite.start()
    suite.add_domain("example.test")
    suite.usual, suite.hub = usual, hub
    yield suite
    suite.remove()
    usual.close()
    hub.close()


def test_a_rule_chooses_the_way(place):
    user = place.add_account("jane@example.test")
    submit(place, user, ["a@partner.example", "b@x.partner.example", "c@else.example"])
    place.hub.take(2)
    place.usual.take(1)
    assert place.usual.sessions[-1][:2] == ("127.0.0.1", "mail.example.test")


def test_a_rule_chooses_address_name_and_pace(place):
    news = place.add_account("news@example.test")
    for _ in range(6):
        submit(place, news, "a@reader.example")
    place.usual.take(6)
    sessions = place.usual.sessions[-6:]
    names = {(client, name) for client, name, _, _ in sessions}
    assert names <= {("127.0.0.7", "one.example.test"), ("127.0.0.8", "two.example.test")} and names
    times = [at for _, _, _, at in sessions]
    assert all(later - earlier > 2.5 for earlier, later in zip(times, times[2:])), times
    place.wait_queue_empty()


def test_a_rule_chooses_schedule_and_expiry_and_is_explained(place):
    user = place.add_account("short@example.test")
    began = time.monotonic()
    submit(place, user, "a@gone.example", "MT-PRIORITY=-6")
    (entry,) = wait_for(place.queue, "it waits")
    (explained,) = place.json("queue", "explain", entry["id"])
    assert explained["rule"] == "short" and explained["destination"] == "gone.example/short"
    assert [one["rule"] for one in explained["passed_over"]] == ["bulk", "by-hub"]
    assert explained["settings"]["expire"] == "3" and explained["settings"]["schedule"] == "1"
    assert "short decides" in place.run("queue", "explain", entry["id"]).stdout
    (report,) = place.wait_messages(user, 1)
    assert b"Status: 5.4.7" in report
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("rule, told", [
    ({"name": "a", "route": "nowhere"}, "relayd.route"),
    ({"name": "a", "listener": ["mxx"]}, "smtpd.listener"),
    ({"name": "a", "larger": 10, "smaller": 5}, "nothing is larger"),
    ({"name": "a", "rate": "5/fortnight"}, "rate"),
    ({"name": "a", "domian": ["x.example"]}, "domian"),
])
def test_the_check_finds_rules_that_make_no_sense(place, tmp_path, rule, told):
    suite = Suite(config={"queued": {"rule": [rule]}})
    try:
        with pytest.raises(Failed) as failed:
            suite.run("config", "check")
        assert told in failed.value.text
    finally:
        suite.remove()


def test_the_check_finds_rules_that_are_never_reached(place):
    suite = Suite(config={"queued": {"rule": [{"name": "all", "concurrency": 3}, {"name": "late", "larger": 5}]}})
    try:
        with pytest.raises(Failed) as failed:
            suite.run("config", "check")
        assert "never decides" in failed.value.text
    finally:
        suite.remove()

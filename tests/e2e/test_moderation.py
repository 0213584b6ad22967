"""Posts that wait for the owners of a list: held, let in and refused by answering, by the operator, after kills and when their time is over."""

import contextlib
import email
import email.policy
import re
import smtplib
import sqlite3
import time

import pytest

from sink import Sink
from suite import Suite, body_of, message, wait_for

LIST = "team@ours.example"


def parsed(octets):
    return email.message_from_bytes(octets, policy=email.policy.default)


def field(octets, name):
    value = parsed(octets)[name]
    return value and str(value)


class House:
    """A suite with a moderated list, a member elsewhere behind a sink, and a stranger who is one of us, so that reports to them can
    be read."""

    def __init__(self):
        self.sink = Sink()
        relayd = {"route": [{"match": "*", "host": "127.0.0.1", "port": self.sink.port, "tls": "none"}]}
        self.suite = Suite(config={"relayd": relayd, "smtpd": {"checks": {"enabled": False}}}).start()
        self.suite.add_domain("ours.example")
        for name in ("owner", "jane", "who"):
            self.suite.add_account(f"{name}@ours.example")
        self.count = 0

    def close(self):
        self.suite.remove()
        self.sink.close()

    def make(self, address, *options):
        self.suite.run("list", "create", address, "--owner", "owner@ours.example", "--moderation", "others", *options)
        self.suite.run("list", "member", "import", address, stdin="jane@ours.example\nmember@far.example")

    def post(self, to=LIST, sender="who@ours.example", text="Hello.\r\n"):
        """Through submission; gives the Message-ID."""
        self.count += 1
        identity = f"<post{self.count}@ours.example>"
        self.submit(sender, to, message(identity, to=to, sender=sender, text=text))
        return identity

    def submit(self, user, to, mail):
        with self.suite.submission(user) as client:
            client.sendmail(user, [to], mail)

    def held(self, address=LIST):
        return self.suite.json("list", "held", address)

    def notice(self, identity):
        """What the owner was told of a post."""
        def found():
            mails = self.suite.messages("owner@ours.example")
            return [one for one in mails if b"waits for you" in one and identity.encode() in one]
        wait_for(found, f"a notice of {identity}")
        (notice,) = found()
        return notice

    def answer(self, to, sender="owner@ours.example", header=""):
        self.count += 1
        mail = message(f"<answer{self.count}@ours.example>", to=to, sender=sender, subject="Re: a post", text="Fine.\r\n")
        self.submit(sender, to, header.encode() + mail)

    def answered(self, text):
        """Waits until the owner has an answer of the list with this in its subject; gives how many there are."""
        def found():
            return [one for one in self.suite.messages("owner@ours.example") if text in (field(one, "Subject") or "")]
        wait_for(found, f"an answer: {text}")
        return len(found())

    def posted(self, identity):
        """The copies of a post: of the member here and of the one elsewhere."""
        here = [one for one in self.suite.messages("jane@ours.example") if field(one, "Message-ID") == identity]
        there = [mail for _, _, mail in self.sink.mails if identity.encode() in mail]
        return here, there

    def wait_posted(self, identity):
        wait_for(lambda: all(self.posted(identity)), lambda: self.posted(identity))
        self.settle()
        here, there = self.posted(identity)
        assert len(here) == len(there) == 1, (here, there)
        return here[0]

    def reports(self, identity):
        return [one for one in self.suite.messages("who@ours.example") if b"5.7.2" in one and identity.encode() in one]

    def settle(self):
        """Waits until nothing is in the queue but what is held."""
        wait_for(lambda: all(one["post"] for one in self.suite.json("queue", "list")), lambda: self.suite.json("queue", "list"), 120)


@pytest.fixture(scope="module")
def house():
    house = House()
    house.make(LIST)
    yield house
    house.close()


def addresses(notice):
    """Where to accept, and where to reject."""
    accept = re.search(r"[^<]+-confirm\+a[^>]+", field(notice, "From"))[0]
    (reject,) = set(re.findall(r"\S+-confirm\+r[a-z0-9]+@\S+", parsed(notice).get_body().get_content()))
    return accept, reject


def test_an_owner_lets_a_post_in(house):
    identity = house.post(text="Hello all.\r\n")
    notice = house.notice(identity)
    assert field(notice, "To") == "owner@ours.example" and field(notice, "Auto-Submitted") == "auto-generated"
    assert notice.startswith(b"Return-Path: <>\r\n")
    (attached,) = [part for part in parsed(notice).walk() if part.get_content_type() == "message/rfc822"]
    assert attached.get_payload(0)["Message-ID"] == identity
    (held,) = house.held()
    assert held["subject"] == "a letter" and held["from"] == "<who@ours.example>" and "its author may not post" in held["why"]
    # An operator sees it in the queue, and why it is there; neither time nor these words let it in.
    (shown,) = [one for one in house.suite.json("queue", "list") if one["id"] == held["id"]]
    assert shown["state"] == "held" and shown["post"] == held["post"] and "held for the owners of the list" in shown["last"]
    assert "held for the owners" in house.suite.run("queue", "list").stdout
    assert house.suite.json("queue", "release", held["id"]) == {"messages": 0}
    assert house.suite.json("queue", "retry", held["id"]) == {"messages": 0}
    assert house.posted(identity) == ([], [])
    house.answer(addresses(notice)[0])
    copy = house.wait_posted(identity)
    assert copy.startswith(b"Return-Path: <team-bounces@ours.example>\r\n")
    assert field(copy, "List-Id") == "<team.ours.example>" and body_of(copy) == b"Hello all.\r\n"
    assert field(copy, "From") == "who@ours.example"
    assert house.answered("Let in to team@ours.example") == 1
    assert house.held() == [] and not house.reports(identity)
    # Once more, and the other way: nothing.
    for address in addresses(notice):
        house.answer(address)
    wait_for(lambda: house.answered("Nothing was done about") == 2, "two answers")
    house.settle()
    house.wait_posted(identity)
    assert not house.reports(identity)


def test_an_owner_refuses_a_post_and_its_author_hears_of_it(house):
    identity = house.post()
    accept, reject = addresses(house.notice(identity))
    house.answer(reject)
    wait_for(lambda: house.reports(identity), "a report")
    (report,) = house.reports(identity)
    assert b"an owner of the list has refused the post" in report and b"team@ours.example" in report
    assert house.answered("Refused to team@ours.example") == 1
    house.answer(accept)
    house.settle()
    assert house.held() == [] and house.posted(identity) == ([], [])


def test_members_and_owners_are_not_held(house):
    for sender in ("jane@ours.example", "owner@ours.example"):
        house.wait_posted(house.post(sender=sender))
    house.make("all@ours.example")
    house.suite.run("list", "set", "all@ours.example", "--moderation", "all")
    house.wait_posted(house.post("all@ours.example", "owner@ours.example"))
    identity = house.post("all@ours.example", "jane@ours.example")
    assert "all posts wait" in parsed(house.notice(identity)).get_body().get_content()
    house.answer(addresses(house.notice(identity))[0])
    house.wait_posted(identity)


def test_what_is_no_decision_of_an_owner_does_nothing(house):
    house.make("other@ours.example")
    identity = house.post()
    accept, _ = addresses(house.notice(identity))
    other = addresses(house.notice(house.post("other@ours.example")))[0]
    token = re.search(r"\+(a.{13})(.{13})@", accept)
    strange = re.search(r"\+(a.{13})(.{13})@", other)
    last = "0" if token[2][-1] != "0" else "1"
    forged = [
        accept.replace(token[2], token[2][:-1] + last),
        # The seal of another post, and of another list.
        accept.replace(token[1], strange[1]),
        other.replace("other-", "team-"),
        accept.replace("team-", "other-"),
        "team-confirm+a@ours.example",
    ]
    for address in forged:
        house.answer(address)
    # Whoever got hold of the address is no owner; a machine of the owner's does not decide.
    house.answer(accept, sender="jane@ours.example")
    house.answer(accept, header="Auto-Submitted: auto-replied\r\n")
    wait_for(lambda: any(b"Only an owner" in one for one in house.suite.messages("jane@ours.example")), "an answer")
    house.settle()
    assert house.posted(identity) == ([], []) and [one["post"] for one in house.held()] and len(house.held()) == 1
    assert len(house.held("other@ours.example")) == 1
    for address in (accept, other):
        house.answer(address)
    house.wait_posted(identity)


def test_operators_decide(house):
    posts = []
    for count in (1, 2, 3):
        posts.append(house.post())
        wait_for(lambda: len(house.held()) == count, house.held)
    kept, gone, let_in = posts
    refused, discarded, accepted = (one["id"] for one in house.held())
    assert "UNTIL" in house.suite.run("list", "held", LIST).stdout
    assert house.suite.json("list", "held", "reject", LIST, refused)["decision"] == "reject"
    house.suite.run("list", "held", "discard", LIST, discarded)
    by_post = next(one["post"] for one in house.held() if one["id"] == accepted)
    house.suite.run("list", "held", "accept", LIST, by_post)
    house.wait_posted(let_in)
    wait_for(lambda: house.reports(kept), "a report")
    again = house.suite.run("list", "held", "accept", LIST, refused, check=False)
    assert again.returncode != 0 and "waits for the owners" in again.stderr
    wrong = house.suite.run("list", "held", "accept", LIST, "x", check=False)
    assert wrong.returncode != 0 and "no queue id" in wrong.stderr
    house.settle()
    assert not house.reports(gone) and house.posted(gone) == house.posted(kept) == ([], [])
    assert "No post waits" in house.suite.run("list", "held", LIST).stdout
    assert house.suite.json("list", "show", LIST)["moderation"] == "others"
    assert house.suite.run("list", "set", LIST, "--held-days", "31", check=False).returncode != 0


@pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
def test_kills_lose_nothing_and_post_nothing_twice(house, large):
    identity = house.post(text="Hello.\r\n" * (60_000 if large else 1))
    # At once: the post may be in the journal, in the table, or on the way to either.
    for role in ("queued", "deliverd"):
        house.suite.kill(role)
    house.suite.wait_up()
    wait_for(lambda: len(house.held()) == 1, house.held)
    notice = house.notice(identity)
    for role in ("deliverd", "queued"):
        house.suite.kill(role)
    house.suite.wait_up()
    assert len(house.held()) == 1
    house.answer(addresses(notice)[0])
    house.suite.kill("queued")
    house.suite.wait_up()
    copy = house.wait_posted(identity)
    assert body_of(copy).count(b"Hello.") == (60_000 if large else 1)
    assert house.held() == []


def test_what_nobody_decides_on_is_given_up(house):
    identity = house.post()
    accept, _ = addresses(house.notice(identity))
    wait_for(lambda: len(house.held()) == 1, house.held)
    days = (time.mktime(time.strptime(house.held()[0]["until"][:10], "%Y-%m-%d")) - time.time()) / 86_400
    assert 5 < days < 8, days
    house.suite.stop()
    with contextlib.closing(sqlite3.connect(house.suite.dir / "state/queue/queue.db")) as db, db:
        assert db.execute("UPDATE queue_recipient SET due = 1 WHERE held = 1").rowcount == 1
    house.suite.start()
    wait_for(lambda: house.reports(identity), "a report")
    assert b"have not let the post in in time" in house.reports(identity)[0]
    assert house.held() == []
    before = house.answered("Nothing was done about")
    house.answer(accept)
    wait_for(lambda: house.answered("Nothing was done about") == before + 1, "an answer")
    house.settle()
    assert house.posted(identity) == ([], [])


def test_a_list_that_is_gone(house):
    house.make("brief@ours.example")
    identity = house.post("brief@ours.example")
    accept, _ = addresses(house.notice(identity))
    wait_for(lambda: len(house.held("brief@ours.example")) == 1, "it is held")
    (held,) = house.held("brief@ours.example")
    house.suite.run("list", "remove", "brief@ours.example")
    # The owner's answer is refused, as there is no such address; the operator can still decide, and the author hears of it.
    with pytest.raises(smtplib.SMTPRecipientsRefused):
        house.answer(accept)
    house.suite.run("list", "held", "accept", "brief@ours.example", held["id"])
    wait_for(lambda: any(b"no such address" in one for one in house.suite.messages("who@ours.example")), "a report to the author")
    house.settle()
    assert house.posted(identity) == ([], [])


def test_a_moderated_list_needs_an_owner(house):
    refused = house.suite.run("list", "create", "none@ours.example", "--moderation", "all", check=False)
    assert refused.returncode != 0 and "needs an owner" in refused.stderr

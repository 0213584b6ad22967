"""Daemons are killed with -9, in turn and in the middle of their work. No promise is broken."""

import contextlib
import imaplib
import os
import threading

import pytest

from load import Load
from suite import ROLES, wait_for

MESSAGES = int(os.environ.get("CRASH_MESSAGES", "2000"))
ROUNDS = 3


class Reader(threading.Thread):
    """An IMAP client that reads on, whatever happens, and sees a mailbox that only grows."""

    def __init__(self, suite, user):
        super().__init__(daemon=True)
        self.suite, self.user, self.ended, self.fault, self.reads = suite, user, threading.Event(), None, 0

    def run(self):
        seen = 0
        while not self.ended.is_set():
            with contextlib.suppress(OSError, imaplib.IMAP4.error):
                client = self.suite.imap(self.user)
                while not self.ended.is_set():
                    status, (count,) = client.select("INBOX", readonly=True)
                    if status != "OK":
                        break
                    if int(count) < seen:
                        self.fault = f"{count} messages after {seen}"
                        return
                    seen = int(count)
                    self.reads += 1
                    if seen:
                        client.fetch(f"{max(1, seen - 20)}:*", "(FLAGS ENVELOPE)")
            self.ended.wait(0.05)


def kill(suite, role):
    """kill -9, once it is up; the supervisor starts it again."""
    wait_for(lambda: suite.kill(role), lambda: f"{role} is up\n{suite.tail()}", 60, 0.1)


@pytest.mark.timeout(900)
def test_every_daemon_in_turn_under_load(make_suite):
    far = make_suite(host="127.0.0.2")
    far.add_domain("far.test")
    friend = far.add_account("friend@far.test")
    route = {"match": "far.test", "host": "127.0.0.2", "port": far.ports["mx"]}
    suite = make_suite(config={"relayd": {"route": [route]}})
    suite.add_domain("example.test")
    people = [suite.add_account(f"p{n}@example.test") for n in range(5)]
    suite.run("alias", "add", "away@example.test", friend)

    load = Load(suite, people)
    # A smaller load that leaves by relayd.
    outgoing = Load(suite, ["away@example.test"], connections=1)
    reader = Reader(suite, people[0])
    reader.start()
    load.start(MESSAGES)
    outgoing.start(max(MESSAGES // 20, 10))
    kills = 0
    for _ in range(ROUNDS):
        for role in ROLES:
            load.wait_acknowledged(MESSAGES // (ROUNDS * len(ROLES) + 1))
            kill(suite, role)
            kills += 1
    load.join()
    outgoing.join()
    assert kills == ROUNDS * len(ROLES)
    assert len(load.acknowledged) >= MESSAGES, load.answers
    suite.wait_up(60)
    load.wait_kept()
    reader.ended.set()
    reader.join()
    assert reader.fault is None and reader.reads > 0

    # Between hosts SMTP itself can only promise at least once: who is killed between the other side's 250 and the note of it
    # sends again (RFC 5321 4.5.4.1). At most what was under way at a kill may come twice.
    found = {}

    def all_there():
        nonlocal found
        found = outgoing.arrived(far, recipients=[friend])
        return all(found[name] for name in outgoing.acknowledged)

    wait_for(all_there, lambda: f"lost on the way to the other host: {set(outgoing.acknowledged) - set(found)}", 120, 0.3)
    twice = [name for name, count in found.items() if count > 1]
    assert len(twice) <= kills, twice


@pytest.mark.timeout(300)
def test_all_at_once(make_suite):
    """As if the power went: everything is killed in one moment, the supervisor too."""
    suite = make_suite()
    suite.add_domain("example.test")
    people = [suite.add_account(f"p{n}@example.test") for n in range(3)]
    load = Load(suite, people)
    for _ in range(3):
        load.start(100_000)
        load.wait_acknowledged(100)
        pids = suite.pids()
        os.kill(suite.process.pid, 9)
        for pid in pids.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, 9)
        suite.process.wait()
        load.stop()
        wait_for(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids.values()), "all gone", 20)
        suite.start()
    assert len(load.acknowledged) >= 300
    load.wait_kept()


@pytest.mark.timeout(300)
def test_large_messages(make_suite):
    """Those that go through spool files."""
    suite = make_suite()
    suite.add_domain("example.test")
    people = [suite.add_account(f"p{n}@example.test") for n in range(2)]
    load = Load(suite, people, connections=4, size=300_000).start(100)
    for role in ["queued", "deliverd", "stored", "smtpd", "queued", "stored"]:
        load.wait_acknowledged(12)
        kill(suite, role)
    load.join()
    suite.wait_up(60)
    load.wait_kept()
    spool = [file for file in (suite.dir / "state/queue/spool").iterdir() if file.stat().st_size > 290_000]
    wait_for(lambda: not [file for file in spool if file.exists()], lambda: f"spool files are left behind: {spool}", 90, 1)


@pytest.mark.timeout(300)
def test_imap_changes_survive_their_daemons(make_suite):
    """What imapd said OK to is there, and once, whoever is killed meanwhile."""
    suite = make_suite()
    suite.add_domain("example.test")
    user = suite.add_account("changes@example.test")
    kept, doubtful = [], []
    ended = threading.Event()

    def append():
        number = 0
        while not ended.is_set() and len(kept) < 300:
            with contextlib.suppress(OSError, imaplib.IMAP4.error):
                client = suite.imap(user)
                while not ended.is_set() and len(kept) < 300:
                    number += 1
                    name = f"load-{number}"
                    doubtful.append(name)
                    status, _ = client.append("INBOX", "(\\Seen)", None, f"Message-ID: <{name}@x>\r\n\r\nx\r\n".encode())
                    if status == "OK":
                        kept.append(name)
            ended.wait(0.05)

    worker = threading.Thread(target=append, daemon=True)
    worker.start()
    for role in ["stored", "imapd", "keyd", "stored", "authd", "imapd"]:
        goal = min(len(kept) + 40, 300)
        wait_for(lambda: len(kept) >= goal, lambda: f"{len(kept)} appended\n{suite.tail()}", 90)
        kill(suite, role)
    worker.join(120)
    ended.set()
    assert len(kept) >= 300
    suite.wait_up(60)
    found = Load(suite, [user]).arrived()
    assert not [name for name in kept if found[name] != 1]
    # APPEND of imapd carries a request id: sent again to stored, it still counts once.
    assert not [name for name in doubtful if found[name] > 1]

"""The core scenario on every kind of store, each a real server."""

import pytest

from servers import S3, MariaDb, Postgres
from suite import body_of, message, wait_for


@pytest.fixture(params=["sqlite", "postgres", "mariadb", "s3"])
def store(request):
    """The configuration of a store, and its server."""
    if request.param == "sqlite":
        yield {}
        return
    server = {"postgres": Postgres, "mariadb": MariaDb, "s3": S3}[request.param]()
    if request.param == "s3":
        yield {"blob": server.section()}
    else:
        yield {"store": {"url": server.database("mail")}, "authd": {"database": server.database("directory")},
               "queued": {"database": server.database("queue")}}
    server.remove()


def test_core(store, make_suite):
    suite = make_suite(config=store)
    suite.add_domain("example.test")
    alice = suite.add_account("alice@example.test")
    bob = suite.add_account("bob@example.test")
    suite.run("alias", "add", "info@example.test", alice, bob)
    sent = [suite.send("info@example.test", subject=f"letter {n}") for n in range(10)]
    big = b"Subject: big\r\n\r\n" + bytes(o for o in range(256) if o not in (10, 13)) * 2000 + b"\r\n"
    suite.send(bob, big)
    suite.wait_messages(alice, 10)
    mails = suite.wait_messages(bob, 11)
    assert sum(any(id.encode() in mail for mail in mails) for id in sent) == 10
    assert body_of(big) in {body_of(mail) for mail in mails}

    client = suite.imap(alice)
    client.create("Archive")
    client.append("Archive", "(\\Flagged)", None, message("<appended@example.net>"))
    client.select("INBOX")
    assert client.store("1:5", "+FLAGS", "(\\Seen $Kept)")[0] == "OK"
    assert client.search(None, "KEYWORD", "$Kept")[1] == [b"1 2 3 4 5"]
    (found,) = client.search(None, "SUBJECT", '"letter 7"')[1]
    assert len(found.split()) == 1
    assert b"letter 7" in client.fetch(found, "(ENVELOPE)")[1][0]
    assert client.copy("1:5", "Archive")[0] == "OK"
    assert client.uid("MOVE", "6:7", "Archive")[0] == "OK"
    client.store("1:2", "+FLAGS", "\\Deleted")
    assert client.expunge()[0] == "OK"
    assert client.select("INBOX")[1] == [b"6"]
    assert client.status("Archive", "(MESSAGES UNSEEN)")[1][0].split(b" ", 1)[1] == b"(MESSAGES 8 UNSEEN 3)"
    client.rename("Archive", "Old/Archive")
    client.logout()

    # All of it is still there after a restart.
    suite.stop()
    suite.start()
    assert len(suite.messages(alice)) == 6
    assert len(suite.messages(alice, "Old/Archive")) == 8
    mails = suite.messages(bob)
    assert body_of(big) in {body_of(mail) for mail in mails}
    suite.send(alice)
    suite.wait_messages(alice, 7)
    wait_for(lambda: suite.queue() == [], "queue empty")

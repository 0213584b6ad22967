"""QRESYNC (RFC 7162 3.2) at size: a client that comes back is sent what changed, and nothing else."""

import contextlib
import re
import sqlite3

import pytest

from imap_lines import Client
from suite import wait_for

COUNT = 100_000


@pytest.fixture
def large(shared, request):
    user = shared.add_account(f"{request.node.name.replace('_', '-')}@example.test")
    client = Client(shared, user)
    client.append("INBOX", "one of many")
    client.do("SELECT INBOX")
    client.stream.settimeout(120)
    count = 1
    while count < COUNT:
        more = min(count, COUNT - count)
        client.do(f"UID COPY 1:{more} INBOX")
        count += more
    client.do("CLOSE")
    return client, Client(shared, user)


def test_a_large_mailbox_sends_only_what_changed(large):
    client, other = large
    client.do("ENABLE QRESYNC")
    said = "\n".join(client.do("SELECT INBOX"))
    assert f"* {COUNT} EXISTS" in said
    validity, modseq = re.search(r"UIDVALIDITY (\d+)", said)[1], re.search(r"HIGHESTMODSEQ (\d+)", said)[1]
    client.do("UNSELECT")

    other.do("SELECT INBOX")
    other.do("UID STORE 5,70000 +FLAGS.SILENT (\\Flagged)")
    other.do("UID STORE 10:19,50000 +FLAGS.SILENT (\\Deleted)")
    other.do("EXPUNGE")
    other.append("INBOX", "new")

    said = client.do(f"SELECT INBOX (QRESYNC ({validity} {modseq}))")
    assert [line for line in said if "VANISHED" in line] == ["* VANISHED (EARLIER) 10:19,50000"]
    fetched = [line for line in said if " FETCH " in line]
    assert [re.match(r"\* (\d+) FETCH \(UID (\d+) ", line).groups() for line in fetched] == [
        ("5", "5"),
        ("69989", "70000"),
        (str(COUNT - 10), str(COUNT + 1)),
    ]
    assert len(said) < 20

    # Both are told of each other's changes from there on, with UIDs
    other.do("UID STORE 7 +FLAGS.SILENT (\\Deleted)")
    other.do("UID EXPUNGE 7")
    assert client.do("NOOP")[0] == "* VANISHED 7"
    said = client.do(f"UID FETCH 1:100 (FLAGS) (CHANGEDSINCE {modseq} VANISHED)")
    assert said[0] == "* VANISHED (EARLIER) 7,10:19" and len(said) == 3


def test_what_the_store_no_longer_knows_is_told_in_full(make_suite):
    suite = make_suite(config={"stored": {"collect_seconds": 1}})
    suite.add_domain("example.test")
    user = suite.add_account("late@example.test")
    client = Client(suite, user)
    for number in range(8):
        client.append("INBOX", f"letter {number}")
    client.do("SELECT INBOX")
    # Gone before the client was here: it has never heard of UID 2
    client.do("UID STORE 2 +FLAGS.SILENT (\\Deleted)")
    client.do("EXPUNGE")
    client.do("ENABLE QRESYNC")
    said = "\n".join(client.do("SELECT INBOX"))
    validity, modseq = re.search(r"UIDVALIDITY (\d+)", said)[1], re.search(r"HIGHESTMODSEQ (\d+)", said)[1]
    client.do("UID STORE 5:6 +FLAGS.SILENT (\\Deleted)")
    client.do("EXPUNGE")

    def resync(more=""):
        said = client.do(f"SELECT INBOX (QRESYNC ({validity} {modseq}{more}))")
        return [line for line in said if "VANISHED" in line]

    assert resync() == ["* VANISHED (EARLIER) 5:6"]

    # Months go by
    suite.stop()
    (file,) = suite.dir.rglob("mail.db")
    with contextlib.closing(sqlite3.connect(file)) as database:
        database.execute("UPDATE expunged SET at = 0")
        database.commit()
    suite.start()
    client = Client(suite, user)
    client.do("ENABLE QRESYNC")

    # Once the tombstones are collected, all UIDs without a message are told, which is right if not short
    wait_for(lambda: resync() == ["* VANISHED (EARLIER) 2,5:6"], resync)
    # RFC 7162 3.2.5.2: the pairs that still hold say from where on
    assert resync(" 1,3:8 (1,3 1,4)") == ["* VANISHED (EARLIER) 5:6"]
    assert resync(" 1,3:5 (1,3,7 1,4,8)") == ["* VANISHED (EARLIER) 5"]
    assert resync(" (1,2 1,2)") == ["* VANISHED (EARLIER) 2,5:6"]

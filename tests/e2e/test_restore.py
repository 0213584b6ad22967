"""Backup, restore on an empty machine, compare: identical. On every kind of storage."""

import imaplib
import json
import shutil
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

import pytest

from contents import everything
from servers import S3, Postgres
from suite import Suite, message

ALICE, BOB, TEAM = "alice@example.test", "bob@example.test", "team@example.test"
SCRIPT = 'require ["fileinto", "imap4flags"];\nif header :contains "subject" "rust" { fileinto :flags "\\\\Seen" "Lists/rust"; }\n'


class Storage:
    """Where two suites keep their mail: each at a place of its own."""

    def __init__(self, kind):
        self.servers = {}
        if "postgres" in kind:
            self.servers["postgres"] = Postgres()
        if "s3" in kind:
            self.servers["s3"] = S3()

    def section(self, name):
        config = {"stored": {"collect_seconds": 1}}
        if "postgres" in self.servers:
            server = self.servers["postgres"]
            config["store"] = {"url": server.database(f"mail_{name}")}
            config["authd"] = {"database": server.database(f"directory_{name}")}
        if "s3" in self.servers:
            config["blob"] = self.servers["s3"].section() | {"prefix": f"{name}/"}
        return config

    def remove(self):
        for server in self.servers.values():
            server.remove()


@pytest.fixture(params=["files", "s3", "postgres", "postgres and s3"])
def storage(request):
    storage = Storage(request.param)
    yield storage
    storage.remove()


@pytest.fixture
def place():
    folder = Path(tempfile.mkdtemp(prefix="ph-restore-"))
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def fill(suite):
    """Something of everything."""
    suite.add_domain("example.test")
    suite.add_domain("other.test")
    suite.add_account(ALICE, "--quota", "50M")
    suite.add_account(BOB)
    suite.run("alias", "add", "info@example.test", ALICE, BOB)
    suite.run("group", "add", TEAM, "--member", ALICE, "--member", BOB, "--shared")
    suite.run("block", "add", "192.0.2.7")
    suite.run("app-password", "add", ALICE, "phone")
    suite.run("dkim", "create", "example.test", "--selector", "s1")
    suite.run("script", "put", ALICE, "main", "--activate", stdin=SCRIPT)
    suite.run("script", "put", ALICE, "later", stdin="keep;\n")
    client = suite.imap(ALICE)
    for folder in ["Lists/rust", "Entw&APw-rfe", "Old/2019/a b"]:
        assert client.create(f'"{folder}"')[0] == "OK"
    client.subscribe('"Lists/rust"')
    client.unsubscribe("Trash")
    for number in range(60):
        folder = ["INBOX", "Lists/rust", "Entw&APw-rfe"][number % 3]
        text = f"{number}\r\n" * (30_000 if number % 9 == 0 else 20)
        octets = message(f"<{number // 2 * 2}.restore@example.net>", subject=f"number {number}", text=text)
        date = imaplib.Time2Internaldate(1650000000 + number * 86_400)
        assert client.append(f'"{folder}"', [r"", r"(\Seen work)", r"(\Flagged \Answered $Label1)"][number % 3 - 2], date, octets)[0] == "OK"
    client.select("INBOX")
    client.copy("1:9", "Archive")
    client.uid("MOVE", "10:12", "Sent")
    client.store("2:4", "+FLAGS", r"(\Deleted)")
    client.expunge()
    client.store("1", "+FLAGS", r"(\Draft zwei)")
    assert client.setacl("INBOX", BOB, "lrs")[0] == "OK"
    assert client.setacl('"Lists/rust"', "anyone", "lr")[0] == "OK"
    client.logout()
    suite.send(ALICE, subject="about rust")
    suite.send("info@example.test")
    suite.send(TEAM)
    suite.wait_queue_empty()


def annotate(suite):
    """Annotations, of mailboxes and of an account, shared and one's own, as rows."""
    rows = [(1, 0, 0, "/shared/comment", b"an account"), (1, 1, 0, "/shared/comment", "Grüße".encode()),
            (1, 1, 1, "/private/comment", bytes(range(256)))]
    url = suite.config.get("store", {}).get("url")
    if url:
        return [f"INSERT INTO metadata VALUES ({a}, {m}, {r}, '{e}', '\\x{v.hex()}')" for a, m, r, e, v in rows]
    with closing(sqlite3.connect(suite.dir / "state/store/mail.db")) as db, db:
        db.executemany("INSERT INTO metadata VALUES (?, ?, ?, ?, ?)", rows)
    return []


def tables(folder):
    """What a backup counted and summed of each table; the table of bodies has the same rows wherever they lie."""
    (generation,) = [path for path in folder.iterdir() if (path / "manifest.json").exists()]
    manifest = json.loads((generation / "manifest.json").read_text())
    found = {(part["name"], table["name"]): (table["rows"], table["digest"]) for part in manifest["components"] for table in part["tables"]}
    return found, sorted(piece["blake3"] for piece in manifest["keys"])


def test_all_of_it_is_identical_on_an_empty_machine(storage, place):
    suite = target = None
    try:
        suite = Suite(config=storage.section("one")).start()
        fill(suite)
        suite.stop()
        for text in annotate(suite):
            storage.servers["postgres"].sql(text, "mail_one")
        suite.start()
        before = everything(suite, [ALICE, BOB])
        assert before["users"][ALICE]["scripts"][1][1].replace("\r\n", "\n") == SCRIPT
        _, _, acl, fetched = before["users"][ALICE]["mailboxes"]["INBOX"]
        assert BOB.encode() in acl[0] and b"MODSEQ" in fetched[0] and len(fetched) >= 10
        assert f"Other Users/{ALICE}/INBOX" in before["users"][BOB]["folders"]
        taken = suite.json("backup", place / "backup")
        assert taken["bodies"] > 60 and taken["damaged"] == []
        dkim = suite.json("dkim", "show", "example.test")
        suite.stop()

        target = Suite(config=storage.section("two"))
        assert not (target.dir / "state").exists()
        done = target.json("restore", place / "backup")
        assert done["bodies"] == taken["bodies"] and done["rows"] == taken["rows"]
        # Row by row, before any daemon has touched it: a backup of the restored one has the same sums.
        target.json("backup", place / "again")
        first, second = tables(place / "backup"), tables(place / "again")
        assert first == second
        assert first[0]["mail", "metadata"][0] == 3 and first[0]["mail", "acl"][0] >= 2 and first[0]["mail", "script"][0] == 2
        target.start()
        after = everything(target, [ALICE, BOB])
        for kind in before:
            if kind != "users":
                assert after[kind] == before[kind], kind
        for user, found in before["users"].items():
            for what in found:
                assert after["users"][user][what] == found[what], (user, what)
        assert target.json("dkim", "show", "example.test") == dkim
        report = target.json("fsck", "--bodies")
        assert report["findings"] == [] and report["objects"] > 5 and report["orphans"] == 0
        # The script runs, the lists count.
        target.send(ALICE, subject="rust again")
        target.wait_queue_empty()
        assert len(target.messages(ALICE, '"Lists/rust"')) == len(before["users"][ALICE]["folders"]["Lists/rust"]) + 1
        assert target.imap(BOB).select(f'"Other Users/{ALICE}/INBOX"', readonly=True)[0] == "OK"
    finally:
        for one in filter(None, [suite, target]):
            one.remove()

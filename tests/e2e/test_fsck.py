"""posthouse fsck: what is wrong in the store is found, told, and mended."""

import json
import os
import shutil
import sqlite3
import time

import pytest

from suite import Suite, message, wait_for

ALICE, BOB = "alice@example.test", "bob@example.test"


@pytest.fixture
def suite():
    suite = Suite().start()
    suite.add_domain("example.test")
    for name in [ALICE, BOB]:
        suite.add_account(name)
        client = suite.imap(name)
        for number in range(4):
            text = f"{number}\r\n" * (40_000 if number == 0 else 5)
            client.append("INBOX", "", None, message(f"<{number}.{name}>", text=name + text))
    yield suite
    suite.remove()


def fsck(suite, *options):
    result = suite.run("--json", "fsck", *options, check=False)
    assert result.returncode in (0, 3), result.stderr
    return result.returncode, json.loads(result.stdout)


def spoil(suite, statement):
    """As a defect of ours would: with all daemons stopped, past everything."""
    suite.stop()
    with sqlite3.connect(suite.dir / "state/store/mail.db") as db:
        assert db.execute(statement).rowcount > 0
    db.close()
    suite.start()


def test_a_sound_store_has_no_findings(suite):
    status, report = fsck(suite, "--bodies")
    assert status == 0 and report["findings"] == []
    assert report["accounts"] == 2 and report["messages"] == 8


def test_wrong_counters_are_mended(suite):
    spoil(suite, "UPDATE mailbox_state SET total = total + 5 WHERE total > 0")
    status, report = fsck(suite, "--account", BOB)
    assert status == 3 and {row["state"] for row in report["findings"]} == {"mendable"}
    status, report = fsck(suite, "--repair")
    assert status == 0 and {row["state"] for row in report["findings"]} == {"mended"}
    assert len({row["account"] for row in report["findings"]}) == 2
    status, report = fsck(suite)
    assert status == 0 and report["findings"] == []
    assert len(suite.messages(ALICE)) == 4


def test_a_damaged_body_is_found_by_reading_it(suite):
    blobs = [path for path in (suite.dir / "state/store/blobs").rglob("*") if path.is_file()]
    assert blobs
    octets = bytearray(blobs[0].read_bytes())
    octets[len(octets) // 2] ^= 1
    blobs[0].write_bytes(octets)
    assert fsck(suite)[0] == 0, "it is there"
    status, report = fsck(suite, "--bodies")
    assert status == 3 and [row["state"] for row in report["findings"]] == ["open"]
    blobs[0].unlink()
    assert fsck(suite)[0] == 3, "and now it is not"


def bodies(suite):
    return [path for path in (suite.dir / "state/store/blobs").rglob("*") if path.is_file()]


def put(suite, name, days):
    """A body that was written while its row never was: as a kill between the two leaves it."""
    path = suite.dir / "state/store/blobs" / name[:2] / name[2:]
    path.parent.mkdir(exist_ok=True)
    shutil.copy(bodies(suite)[0], path)
    for one in [path.parent, path]:
        shutil.chown(one, *suite_owner(suite))
    then = time.time() - days * 86_400
    os.utime(path, (then, then))
    return path


def suite_owner(suite):
    status = suite.dir.stat()
    return status.st_uid, status.st_gid


def test_bodies_that_no_row_names_are_found_and_removed_once_they_are_old():
    suite = Suite(config={"stored": {"collect_seconds": 1}}).start()
    try:
        suite.add_domain("example.test")
        suite.add_account(ALICE)
        client = suite.imap(ALICE)
        for number in range(5):
            client.append("INBOX", "", None, message(f"<{number}@x>", text=f"{number}\r\n" * 40_000))
        status, report = fsck(suite)
        assert status == 0 and (report["objects"], report["orphans"]) == (5, 0)
        old, young = put(suite, "ab" * 32, 2), put(suite, "cd" * 32, 0.5)
        foreign = old.with_name("notes.txt")
        foreign.write_text("somebody's")
        status, report = fsck(suite)
        assert status == 3 and report["orphans"] == 1
        assert {(row["state"], row["finding"].split()[0]) for row in report["findings"]} == {("mendable", "the"), ("open", "ab/notes.txt")}
        assert "ab" * 32 in json.dumps(report) and "cd" * 32 not in json.dumps(report)
        foreign.unlink()
        status, report = fsck(suite, "--repair")
        assert status == 0 and [row["state"] for row in report["findings"]] == ["mended"]
        wait_for(lambda: not old.exists(), "the collector removes it")
        assert young.exists() and len(bodies(suite)) == 6
        assert fsck(suite, "--bodies")[0] == 0 and len(suite.messages(ALICE)) == 5
        # A database that is not the right one must not cost the bodies.
        for number in range(20):
            put(suite, f"{number:02x}" * 32, 3)
        status, report = fsck(suite, "--repair")
        assert status == 3 and "is it the right database" in json.dumps(report)
        assert {row["state"] for row in report["findings"]} == {"open"}
        suite.stop()
        suite.start()
        assert len(bodies(suite)) == 26
    finally:
        suite.remove()

"""indexd: follows the store, is killed at any time, makes its index anew, and moves a damaged one aside."""

import threading

import pytest

from suite import Failed, Suite, message, wait_for

ALICE, BOB = "alice@example.test", "bob@example.test"


@pytest.fixture
def suite():
    suite = Suite({"indexd": {"purge_s": 1, "idle_s": 1, "batch_messages": 7, "commit_messages": 20}, "stored": {"collect_seconds": 1}}).start()
    suite.add_domain("example.test")
    for name in [ALICE, BOB]:
        suite.add_account(name)
    yield suite
    suite.remove()


def append(suite, name, count, begin=0):
    client = suite.imap(name)
    for number in range(begin, begin + count):
        client.append("INBOX", "", None, message(f"<{number}.{name}>", text=f"letter {number} for {name}\r\n"))


def figures(suite):
    try:
        return suite.json("index", "status")
    except Failed:  # it is being started again
        return None


def wait_indexed(suite, count):
    def so():
        now = figures(suite)
        return now and now["documents"] == count and now["missing"] == 0 and not now["trouble"] and not now["rebuild"]

    wait_for(so, lambda: f"{count} messages in the index: {figures(suite)}\n{suite.tail()}", 40)


def test_it_follows_what_comes_and_what_goes(suite):
    append(suite, ALICE, 30)
    append(suite, BOB, 5)
    wait_indexed(suite, 35)
    client = suite.imap(ALICE)
    client.select("INBOX")
    client.store("1:10", "+FLAGS", "\\Deleted")
    client.expunge()
    wait_indexed(suite, 25)


def test_killed_while_indexing_it_loses_and_doubles_nothing(suite):
    writer = threading.Thread(target=append, args=(suite, ALICE, 300))
    writer.start()
    for _ in range(6):
        suite.kill("indexd")
        wait_for(lambda: figures(suite), "indexd is back", 40)
    writer.join()
    wait_indexed(suite, 300)


def test_a_rebuild_goes_on_after_a_kill(suite):
    append(suite, ALICE, 200)
    wait_indexed(suite, 200)
    suite.run("index", "rebuild")
    suite.kill("indexd")
    wait_indexed(suite, 200)
    suite.run("index", "rebuild", "--wait")
    wait_indexed(suite, 200)
    suite.run("index", "rebuild", "--account", ALICE, "--wait")
    wait_indexed(suite, 200)


def test_a_damaged_index_is_moved_aside_and_made_anew(suite):
    append(suite, ALICE, 20)
    wait_indexed(suite, 20)
    suite.stop()
    (suite.dir / "state/index/1/meta.json").write_text("{")
    suite.start()
    wait_indexed(suite, 20)
    assert (suite.dir / "state/index/1.damaged").is_dir()
    assert "moved aside and made anew" in suite.log.read_text()

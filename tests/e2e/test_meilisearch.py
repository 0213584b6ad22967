"""indexd with its index on a Meilisearch server. The server is the stand-in of lib/meilisearch.py, not the real one."""

import threading

import pytest

from meilisearch import Meilisearch
from suite import Failed, Suite, message, wait_for

ALICE, BOB = "alice@example.test", "bob@example.test"
INDEX = "test_mail"
CHARSET = b"\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"


@pytest.fixture
def server():
    server = Meilisearch().start()
    yield server
    server.stop()


@pytest.fixture
def suite(server):
    settings = {
        "imapd": {"search": "words"},
        "indexd": {
            "backend": "meilisearch", "purge_s": 1, "idle_s": 1, "batch_messages": 7, "commit_messages": 20,
            "meilisearch": {"url": server.url, "secret_key": server.key, "index": "test", "timeout_ms": 3000},
        },
        "stored": {"collect_seconds": 1},
    }
    suite = Suite(settings).start()
    suite.add_domain("example.test")
    for name in [ALICE, BOB]:
        suite.add_account(name)
    yield suite
    suite.remove()


def append(suite, name, texts, begin=0):
    client = suite.imap(name)
    for number, text in enumerate(texts, begin):
        letter = message(f"<{number}.{name}>", text=text + "\r\n")
        client.append("INBOX", "", None, letter.replace(b"\r\n\r\n", CHARSET, 1))
    client.logout()


def figures(suite):
    try:
        return suite.json("index", "status")
    except Failed:  # it is being started again
        return None


def wait_indexed(suite, count):
    def so():
        now = figures(suite)
        return now and now["documents"] == count and now["missing"] == 0 and not now["trouble"] and not now["rebuild"]

    wait_for(so, lambda: f"{count} messages in the index: {figures(suite)}\n{suite.tail()}", 60)


def found(suite, name, *keys):
    imap = suite.imap(name)
    imap.select("INBOX", readonly=True)
    numbers = imap.search("utf-8", *keys)[1][0].split()
    imap.logout()
    return [int(number) for number in numbers]


def asked(server):
    return sum(path == "/multi-search" for _, path in server.requests)


def test_words_phrases_and_beginnings_are_found_for_the_own_account_only(suite, server):
    long = "one two three four five six seven eight nine ten eleven twelve"
    append(suite, ALICE, ["to the second floor of Café Köln", "the floor, a second flower", "明日は東京都に行きます", long, long.replace("twelve", "dozen")])
    append(suite, BOB, ["the second floor of Bob"])
    wait_indexed(suite, 6)
    before = asked(server)
    assert found(suite, ALICE, "BODY", '"cafe"') == [1]
    assert asked(server) > before
    assert found(suite, ALICE, "BODY", '"second floor"') == [1]
    assert found(suite, ALICE, "BODY", '"second flo"') == [1, 2]
    assert found(suite, ALICE, "BODY", '"floor second"') == []
    assert found(suite, ALICE, "BODY", '"flo"') == [1, 2]
    assert found(suite, ALICE, "BODY", '"loor"') == []
    assert found(suite, ALICE, "BODY", f'"{long}"') == [4]
    assert found(suite, ALICE, "TEXT", '"bob"') == []
    assert found(suite, BOB, "TEXT", '"floor"') == [1]
    assert figures(suite)["backend"] == "meilisearch"
    # The rules that make a search exact and whole are set on the server.
    settings = server.indexes[INDEX]["settings"]
    assert settings["pagination"]["maxTotalHits"] == 200_000
    assert "body" in settings["typoTolerance"]["disableOnAttributes"]
    assert server.key not in suite.log.read_text()


def test_it_goes_on_after_a_kill_and_after_failed_tasks(suite, server):
    writer = threading.Thread(target=append, args=(suite, ALICE, [f"letter {number}" for number in range(120)]))
    writer.start()
    for _ in range(3):
        suite.kill("indexd")
        wait_for(lambda: figures(suite), "indexd is back", 40)
        server.fail = 1
    writer.join()
    wait_indexed(suite, 120)
    keys = sorted(one["content"] for one in server.documents(INDEX))
    assert len(keys) == len(set(keys)) == 120


def test_the_server_goes_away_and_comes_back(suite, server):
    append(suite, ALICE, ["first meeting"])
    wait_indexed(suite, 1)
    server.stop()
    append(suite, ALICE, ["second meeting"], 1)
    # Delivery and searches go on without it.
    assert found(suite, ALICE, "TEXT", '"meeting"') == [1, 2]
    wait_for(lambda: figures(suite)["trouble"], "the trouble is told", 20)
    assert found(suite, ALICE, "TEXT", '"meeting"') == [1, 2]
    server.start()
    wait_indexed(suite, 2)
    assert found(suite, ALICE, "TEXT", '"meeting"') == [1, 2]
    # One that has lost everything is filled again.
    server.stop()
    server.indexes.clear()
    server.start()
    wait_indexed(suite, 2)
    assert found(suite, ALICE, "TEXT", '"meeting"') == [1, 2]


def test_rebuilds(suite, server):
    append(suite, ALICE, [f"letter {number}" for number in range(40)])
    append(suite, BOB, ["hello"])
    wait_indexed(suite, 41)
    # Something that is not as it should be.
    with server.lock:
        for one in server.documents(INDEX):
            one["body"] = ["spoilt"]
    suite.run("index", "rebuild")
    suite.kill("indexd")
    wait_for(lambda: figures(suite), "indexd is back", 40)
    wait_indexed(suite, 41)
    suite.run("index", "rebuild", "--wait")
    wait_indexed(suite, 41)
    assert found(suite, ALICE, "BODY", '"letter"') == list(range(1, 41))
    assert list(server.indexes) == [INDEX]
    suite.run("index", "rebuild", "--account", ALICE, "--wait")
    wait_indexed(suite, 41)


def test_what_is_expunged_or_erased_is_removed(suite, server):
    append(suite, ALICE, [f"letter {number}" for number in range(10)])
    append(suite, BOB, ["hello", "world"])
    wait_indexed(suite, 12)
    client = suite.imap(ALICE)
    client.select("INBOX")
    client.store("1:4", "+FLAGS", "\\Deleted")
    client.expunge()
    client.logout()
    wait_indexed(suite, 8)
    suite.run("account", "remove", BOB, "--erase")
    wait_indexed(suite, 6)
    assert len({one["account"] for one in server.documents(INDEX)}) == 1

"""Searches through the index give what the words say, also for what has just come."""

import os
import signal
import time

import pytest

from suite import Suite, wait_for

ACCOUNT = "alice@example.test"


@pytest.fixture(scope="module")
def suite():
    suite = Suite({"imapd": {"search": "words"}}).start()
    suite.add_domain("example.test")
    suite.add_account(ACCOUNT)
    yield suite
    suite.remove()


def found(suite, *keys):
    imap = suite.imap(ACCOUNT)
    imap.select("INBOX", readonly=True)
    numbers = imap.search(None, *keys)[1][0].split()
    imap.logout()
    return [int(number) for number in numbers]


def indexed(suite):
    figures = suite.json("index", "status")
    return figures["missing"] == 0 and figures["documents"] >= 3


def test_words_are_found_in_the_index_and_in_what_is_newer(suite):
    letters = [("The plan", "Our meeting is on Monday."), ("Rechnung", "Die Grüße aus Köln."), ("other", "nothing")]
    for number, (subject, text) in enumerate(letters):
        suite.send(ACCOUNT, subject=subject, text=text + "\r\n")
        suite.wait_messages(ACCOUNT, number + 1)
    wait_for(lambda: indexed(suite), "the index has all")
    assert found(suite, "TEXT", '"meeting"') == [1]
    assert found(suite, "TEXT", '"meet"') == [1]
    assert found(suite, "BODY", '"plan"') == []
    assert found(suite, "SUBJECT", '"plan"') == [1]
    assert found(suite, "NOT", "TEXT", '"meeting"') == [2, 3]
    # A piece of a word that is not its beginning is no word.
    assert found(suite, "TEXT", '"eeting"') == []
    suite.send(ACCOUNT, subject="another meeting", text="soon\r\n")
    suite.wait_messages(ACCOUNT, 4)
    assert found(suite, "TEXT", '"meeting"') == [1, 4]
    # Without the index everything is looked through.
    suite.kill("indexd")
    assert 1 in found(suite, "TEXT", '"meeting"')


def letters(suite, name, count):
    suite.add_account(name)
    for number in range(count):
        # One after the other: deliveries that wait together may change places.
        suite.send(name, subject=f"letter {number}", text="about zeppelins\r\n" if number % 2 else "about balloons\r\n")
        suite.wait_messages(name, number + 1)


def test_an_index_that_does_not_answer_is_done_without(suite):
    name = "hung@example.test"
    letters(suite, name, 4)
    client = suite.imap(name)
    client.select("INBOX")

    def by(command, *arguments):
        return getattr(client, command)(*arguments)[1][0].split()

    # What is no beginning of a word is in no index, and is found by looking through the messages: so one sees who answered.
    piece = ("TEXT", '"eppelin"')
    wait_for(lambda: by("search", None, *piece) == [], "the index has all")
    assert by("search", None, "TEXT", '"zeppelin"') == [b"2", b"4"]
    indexd = suite.pids()["indexd"]
    os.kill(indexd, signal.SIGSTOP)
    try:
        assert by("search", None, *piece) == [b"2", b"4"]
        began = time.monotonic()
        assert by("search", None, "NOT", *piece) == [b"1", b"3"]
        assert by("sort", "(ARRIVAL)", "UTF-8", *piece) == [b"2", b"4"]
        assert by("thread", "ORDEREDSUBJECT", "UTF-8", *piece) == [b"(2)(4)"]
        # The first one waited; it is left alone for a while
        assert time.monotonic() - began < 4
    finally:
        os.kill(indexd, signal.SIGCONT)
    # It is asked again as soon as it answers.
    wait_for(lambda: by("search", None, *piece) == [], "the index answers again")
    client.logout()


def test_while_the_index_is_made_anew_nothing_is_missed(suite):
    name = "anew@example.test"
    letters(suite, name, 6)
    client = suite.imap(name)
    client.select("INBOX", readonly=True)
    for what in (["rebuild"], ["rebuild", "--account", name], None):
        suite.kill("indexd") if what is None else suite.run("index", *what)
        for _ in range(100):
            assert client.search(None, "TEXT", '"zeppelin"')[1][0].split() == [b"2", b"4", b"6"], what
            if what is not None and not suite.json("index", "status")["rebuild"]:
                break
    client.logout()

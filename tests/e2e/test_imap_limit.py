"""MESSAGELIMIT and SAVELIMIT (RFC 9738): the RFC's examples with ten messages for its thousand."""

import re

import pytest

from imap_lines import Client
from suite import Suite

CODE = r"OK \[MESSAGELIMIT 10 (\d+)\]"


@pytest.fixture(scope="module")
def limited():
    suite = Suite(config={"imapd": {"message_limit": 10}}).start()
    suite.add_domain("example.test")
    yield suite
    suite.remove()


@pytest.fixture
def client(limited, request):
    """With 25 messages in INBOX, of UIDs 2, 4, 6 ... 50."""
    name = request.node.name.split("[")[0].replace("_", "-")[5:55]
    client = Client(limited, limited.add_account(f"{name}@example.test"))
    client.append("INBOX", "the first")
    client.do("SELECT INBOX")
    for count in range(49):
        client.do("COPY 1 INBOX")
    client.do(f"UID STORE {','.join(str(uid) for uid in range(1, 21, 2))} +FLAGS.SILENT (\\Deleted)")
    client.do(f"UID STORE {','.join(str(uid) for uid in range(21, 41, 2))} +FLAGS.SILENT (\\Deleted)")
    client.do(f"UID STORE {','.join(str(uid) for uid in range(41, 51, 2))} +FLAGS.SILENT (\\Deleted)")
    client.do("EXPUNGE")
    return client


def fetched(said):
    return [int(found[1]) for line in said if (found := re.match(r"\* \d+ FETCH \(UID (\d+)", line))]


def test_the_limit_is_announced_and_without_uids_expunge_has_none(client):
    said = client.do("CAPABILITY")
    assert " MESSAGELIMIT=10" in said[0] and "SAVELIMIT" not in said[0]
    # The fixture had 25 of 50 expunged at once.
    assert client.do("STATUS INBOX (MESSAGES)")[0].endswith("(MESSAGES 25)")
    client.do("STORE 1:10 +FLAGS.SILENT (\\Deleted)")
    client.do("STORE 11:20 +FLAGS.SILENT (\\Deleted)")
    client.do("CLOSE")
    assert client.do("STATUS INBOX (MESSAGES)")[0].endswith("(MESSAGES 5)")


def test_fetch_answers_for_the_last(client):
    said = client.do("FETCH 3:20 (UID FLAGS)")
    assert fetched(said) == list(range(22, 42, 2)) and re.search(CODE, said[-1])[1] == "22"
    rest = client.do("UID FETCH 6:21 (FLAGS)")
    assert fetched(rest) == list(range(6, 22, 2)) and "MESSAGELIMIT" not in rest[-1]
    # Exactly as many as may be
    assert "MESSAGELIMIT" not in client.do("FETCH 1:10 FLAGS")[-1]
    # A part that PARTIAL or CHANGEDSINCE cuts out is what counts.
    assert "MESSAGELIMIT" not in client.do("UID FETCH 1:* (FLAGS) (PARTIAL -1:-10)")[-1]
    modseq = re.search(r"HIGHESTMODSEQ (\d+)", client.do("STATUS INBOX (HIGHESTMODSEQ)")[0])[1]
    client.do("STORE 1:2 +FLAGS.SILENT (\\Flagged)")
    said = client.do(f"UID FETCH 1:* (FLAGS) (CHANGEDSINCE {modseq})")
    assert fetched(said) == [2, 4] and "MESSAGELIMIT" not in said[-1]
    # What is not answered for is not read.
    client.do("FETCH 1:* BODY[TEXT]")
    assert client.do("STATUS INBOX (UNSEEN)")[0].endswith("(UNSEEN 15)")


def test_search_looks_at_the_last(client):
    client.do("UID STORE 30,40,50 +FLAGS.SILENT (\\Flagged)")
    said = client.do("UID SEARCH UID 4:44 UNDELETED")
    assert said[0] == "* SEARCH 26 28 30 32 34 36 38 40 42 44"
    assert re.search(CODE, said[-1])[1] == "26"
    # Those searched count, not those found.
    said = client.do("UID SEARCH FLAGGED")
    assert said[0] == "* SEARCH 40 50" and re.search(CODE, said[-1])[1] == "32"
    said = client.do("UID SEARCH UIDBEFORE 32 FLAGGED")
    assert said[0] == "* SEARCH 30" and re.search(CODE, said[-1])[1] == "12"
    said = client.do("UID SEARCH UIDBEFORE 32 UIDAFTER 11 FLAGGED")
    assert said[0] == "* SEARCH 30" and "MESSAGELIMIT" not in said[-1]
    assert client.do("UID SEARCH UIDAFTER 50")[0] == "* SEARCH"
    # What is saved is what was found.
    said = client.do("UID SEARCH RETURN (SAVE COUNT) SUBJECT first")
    assert said[0].endswith(" UID COUNT 10") and re.search(CODE, said[-1])[1] == "32"
    assert fetched(client.do("UID FETCH $ FLAGS")) == list(range(32, 52, 2))


def test_sort_thread_and_searches_that_are_kept_are_done_for_all_or_not_at_all(client):
    for command in ("SORT (ARRIVAL) UTF-8 ALL", "UID THREAD REFERENCES UTF-8 ALL", "SEARCH RETURN (UPDATE) ALL"):
        assert "NO [MESSAGELIMIT 10]" in client.do(command, ok=False)[-1]
    client.do("SORT (ARRIVAL) UTF-8 1:10")
    client.do("THREAD REFERENCES UTF-8 UID 1:20")
    client.do("SEARCH RETURN (UPDATE) 1:10")


def test_copy_is_done_for_all_or_not_at_all(client):
    client.do("CREATE Copies")
    assert "NO [MESSAGELIMIT 10]" in client.do("UID COPY 6:44 Copies", ok=False)[-1]
    assert client.do("STATUS Copies (MESSAGES)")[0].endswith("(MESSAGES 0)")
    client.do("COPY 1:10 Copies")


def test_move_store_and_uid_expunge_go_down_to_a_uid(client):
    client.do("CREATE Moved")
    said = client.do("UID MOVE 6:44 Moved")
    assert said[0].startswith("* OK [COPYUID ") and " 26,28,30,32,34,36,38,40,42,44 1:10]" in said[0]
    assert re.search(CODE, said[-1])[1] == "26"
    said = client.do("UID STORE 1:* +FLAGS (\\Deleted)")
    assert len(fetched(said)) == 10 and re.search(CODE, said[-1])[1] == "12"
    client.do("UID STORE 1:11 +FLAGS (\\Deleted)")
    client.do("ENABLE CONDSTORE")
    said = client.do("UID EXPUNGE 2:50")
    assert sum("EXPUNGE" in line for line in said[:-1]) == 10
    assert re.search(CODE, said[-1])[1] == "12" and any("[HIGHESTMODSEQ" in line for line in said)
    assert client.do("STATUS INBOX (MESSAGES)")[0].endswith("(MESSAGES 5)")


def test_a_conditional_store_tells_both(client):
    modseq = re.search(r"HIGHESTMODSEQ (\d+)", client.do("STATUS INBOX (HIGHESTMODSEQ)")[0])[1]
    client.do("UID STORE 50 +FLAGS.SILENT (\\Flagged)")
    said = client.do(f"UID STORE 1:* (UNCHANGEDSINCE {modseq}) +FLAGS.SILENT ($Seen)")
    assert "[MODIFIED 50]" in said[-1] and any(re.search(rf"\* {CODE}", line) for line in said)


def test_append_is_done_for_all_or_not_at_all(client):
    message = "Subject: one of many\r\n\r\ntext\r\n"
    parts = f" {{{len(message)}+}}\r\n{message}"
    client.do("CREATE Many")
    client.do("APPEND Many" + 10 * parts)
    assert "NO [MESSAGELIMIT 10]" in client.do("APPEND Many" + 11 * parts, ok=False)[-1]
    assert client.do("STATUS Many (MESSAGES)")[0].endswith("(MESSAGES 10)")


def test_savelimit_counts_what_is_stored_alone(make_suite):
    suite = make_suite(config={"imapd": {"save_limit": 10}})
    suite.add_domain("example.test")
    client = Client(suite, suite.add_account("saver@example.test"))
    said = client.do("CAPABILITY")
    assert " SAVELIMIT=10" in said[0] and "MESSAGELIMIT" not in said[0]
    client.append("INBOX", "x")
    client.do("SELECT INBOX")
    for _ in range(11):
        client.do("COPY 1 INBOX")
    assert "NO [MESSAGELIMIT 10]" in client.do("COPY 1:* INBOX", ok=False)[-1]
    assert "MESSAGELIMIT" not in client.do("FETCH 1:* FLAGS")[-1]
    assert "MESSAGELIMIT" not in client.do("STORE 1:* +FLAGS (\\Seen)")[-1]

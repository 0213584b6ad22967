"""NOTIFY (RFC 5465): what one session hears of another one's changes, without asking."""

import pytest

from imap_lines import Client


@pytest.fixture
def pair(shared, request):
    user = shared.add_account(f"{request.node.name.replace('_', '-')}@example.test")
    return Client(shared, user), Client(shared, user)


def test_the_selected_mailbox_tells_at_once(pair):
    watcher, other = pair
    other.append("INBOX", "one")
    watcher.do("SELECT INBOX")
    watcher.do("NOTIFY SET (SELECTED (MessageNew (UID BODY.PEEK[HEADER.FIELDS (SUBJECT)]) MessageExpunge FlagChange))")
    other.append("INBOX", "two")
    watcher.until(r"^\* 2 EXISTS$")
    assert watcher.until(r"\* 2 FETCH")[-1].startswith("* 2 FETCH (UID 2 BODY[HEADER.FIELDS (SUBJECT)] {")
    assert "Subject: two" in watcher.until("Subject")
    watcher.until(r"^\)$")
    other.do("SELECT INBOX")
    other.do("STORE 1 +FLAGS (\\Deleted)")
    watcher.until(r"^\* 1 FETCH \(UID 1 FLAGS \(\\Deleted\)\)$")
    other.do("EXPUNGE")
    watcher.until(r"^\* 1 EXPUNGE$")
    watcher.do("NOTIFY NONE")
    other.append("INBOX", "three")
    watcher.quiet()
    assert "* 2 EXISTS" in watcher.do("NOOP")


def test_delayed_expunges_wait_for_a_command(pair):
    watcher, other = pair
    other.append("INBOX", "one")
    other.append("INBOX", "two")
    watcher.do("SELECT INBOX")
    watcher.do("NOTIFY SET (SELECTED-DELAYED (MessageNew MessageExpunge))")
    other.do("SELECT INBOX")
    other.do("STORE 1 +FLAGS (\\Deleted)")
    other.do("EXPUNGE")
    other.append("INBOX", "three")
    # It counts what is gone, too; flags were not asked for
    assert watcher.until("EXISTS") == ["* 3 EXISTS"]
    watcher.until("RECENT")
    assert watcher.do("NOOP")[0] == "* 1 EXPUNGE"


def test_other_mailboxes_tell_by_status_and_list(pair):
    watcher, other = pair
    watcher.do("CREATE Lists")
    watcher.do("CREATE Work")
    other.append("Lists", "one")
    watcher.do("SELECT INBOX")
    said = watcher.do(
        "NOTIFY SET STATUS (SELECTED (MessageNew MessageExpunge)) (SUBTREE Lists (MessageNew MessageExpunge)) "
        "(PERSONAL (MailboxName SubscriptionChange))"
    )
    assert [line for line in said if line.startswith("* STATUS")][0].startswith("* STATUS \"Lists\" (MESSAGES 1 UIDNEXT 2 ")
    other.append("Work", "not asked for")
    other.append("Lists", "two")
    assert watcher.until("STATUS")[-1].startswith("* STATUS \"Lists\" (MESSAGES 2 UIDNEXT 3 ")
    other.do("CREATE Fresh")
    watcher.until(r'^\* LIST \(.*\) "/" "Fresh"$')
    other.do("RENAME Fresh Older")
    assert "OLDNAME" in watcher.until(r"LIST .*Older.*Fresh")[-1]
    other.do("SUBSCRIBE Older")
    watcher.until(r"LIST \(\\Subscribed\) .*Older")
    other.do("DELETE Older")
    watcher.until(r"LIST \(\\NonExistent\) .*Older")
    watcher.quiet()


def test_what_cannot_be_told(pair):
    watcher, _ = pair
    watcher.stream.sendall(b"x1 NOTIFY SET (PERSONAL (AnnotationChange))\r\n")
    assert "[BADEVENT (MessageNew " in watcher.until("^x1 NO")[-1]
    watcher.stream.sendall(b"x2 NOTIFY SET (PERSONAL (MessageNew))\r\n")
    watcher.until("^x2 BAD")


def test_annotations_are_told_without_their_values(pair):
    watcher, other = pair
    watcher.do("CREATE Colours")
    said = watcher.do("NOTIFY SET (PERSONAL (MailboxMetadataChange ServerMetadataChange))")
    assert not [line for line in said if "METADATA" in line]
    other.do('SETMETADATA Colours (/private/comment "red" /shared/vendor/x "blue")')
    assert watcher.until("METADATA")[-1] == '* METADATA "Colours" /private/comment /shared/vendor/x'
    other.do("SETMETADATA Colours (/private/comment NIL)")
    assert watcher.until("METADATA")[-1] == '* METADATA "Colours" /private/comment'
    other.do('SETMETADATA "" (/private/vendor/x "dark")')
    assert watcher.until("METADATA")[-1] == '* METADATA "" /private/vendor/x'
    # One's own changes are no news
    watcher.do('SETMETADATA Colours (/private/comment "green")')
    watcher.quiet()
    watcher.do("NOTIFY SET (MAILBOXES INBOX (MailboxMetadataChange))")
    other.do('SETMETADATA Colours (/private/comment "grey")')
    watcher.quiet()
    other.do('SETMETADATA INBOX (/private/comment "grey")')
    assert watcher.until("METADATA")[-1] == '* METADATA "INBOX" /private/comment'


def test_annotations_are_bounded(make_suite):
    suite = make_suite(config={
        "stored": {"metadata_bytes": 10, "metadata_entries": 2},
        "imapd": {"admin": "mailto:postmaster@example.test"},
    })
    suite.add_domain("example.test")
    client = Client(suite, suite.add_account("bounds@example.test"))
    refused = lambda command: client.do(command, ok=False)[-1]
    assert "NO [METADATA MAXSIZE 10] " in refused('SETMETADATA INBOX (/private/a "12345678901")')
    client.do('SETMETADATA INBOX (/private/a "1234567890" /private/b "2")')
    assert "NO [METADATA TOOMANY] " in refused('SETMETADATA INBOX (/private/c "3")')
    client.do('SETMETADATA INBOX (/private/c "3" /private/b NIL)')
    assert '* METADATA "" (/shared/admin "mailto:postmaster@example.test")' in client.do('GETMETADATA "" /shared/admin')

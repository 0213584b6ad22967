"""Mailboxes of other accounts and of shared groups (RFC 4314, RFC 2342), with several people at once."""

import pytest

from imap_lines import Client


@pytest.fixture
def people(shared, request):
    name = request.node.name.replace("_", "-")[:40]
    names = [shared.add_account(f"{name}-{part}@example.test") for part in ("owner", "guest")]
    return names, [Client(shared, name) for name in names]


def test_reading_a_message_marks_it_in_its_owners_mailbox(people):
    (owner_name, guest_name), (owner, guest) = people
    owner.append("INBOX", "one")
    owner.do(f"SETACL INBOX {guest_name} lrs")
    guest.append("INBOX", "mine")
    guest.do(f'SELECT "Other Users/{owner_name}/INBOX"')
    said = guest.do("FETCH 1 BODY[HEADER.FIELDS (SUBJECT)]")
    assert any("Subject: one" in line for line in said), said
    owner.do("SELECT INBOX")
    assert any("\\Seen" in line for line in owner.do("FETCH 1 FLAGS"))
    # The message with the same UID in the guest's own INBOX was not touched.
    assert any("(UNSEEN 1)" in line for line in guest.do("STATUS INBOX (UNSEEN)"))
    assert guest.do('UID SEARCH SUBJECT "one"')[0] == "* SEARCH 1"


def test_a_right_that_is_taken_counts_at_once(people):
    (owner_name, guest_name), (owner, guest) = people
    owner.append("INBOX", "one")
    owner.do(f"SETACL INBOX {guest_name} lr")
    guest.do(f'EXAMINE "Other Users/{owner_name}/INBOX"')
    owner.do(f"DELETEACL INBOX {guest_name}")
    guest.stream.sendall(b"x FETCH 1 BODY.PEEK[]\r\n")
    assert guest.line().startswith("* BYE ")


def test_close_without_the_right_to_expunge_only_closes(people):
    (owner_name, guest_name), (owner, guest) = people
    owner.append("INBOX", "one")
    owner.do(f"SETACL INBOX {guest_name} lrt")
    guest.do(f'SELECT "Other Users/{owner_name}/INBOX"')
    guest.do("STORE 1 +FLAGS (\\Deleted)")
    guest.do("CLOSE")
    assert any("(MESSAGES 1)" in line for line in owner.do("STATUS INBOX (MESSAGES)"))


def test_members_own_a_groups_mailboxes_together(shared, people):
    (one, two), _ = people
    group = f"team-of-{one}"
    shared.run("group", "add", group, "--shared", "true", "--member", one, "--member", two)
    # A login after the group was made: groups stand in the grant.
    first, second = Client(shared, one), Client(shared, two)
    first.do(f'CREATE "Groups/{group}/Plans"')
    first.append(f'"Groups/{group}/Plans"', "a plan")
    assert any('(("Groups/" "/"))' in line for line in second.do("NAMESPACE"))
    assert any(f"Groups/{group}/Plans" in line for line in second.do('LIST "" "*"'))
    second.do(f'SELECT "Groups/{group}/Plans"')
    second.do("COPY 1 INBOX")
    second.do(f'RENAME "Groups/{group}/Plans" "Groups/{group}/Done"')
    assert any("(MESSAGES 1)" in line for line in first.do(f'STATUS "Groups/{group}/Done" (MESSAGES)'))

"""Searches that go on (RFC 5267), that take several mailboxes (RFC 7377), that take what is nearly right (RFC 6203), and that
say how far they are (RFC 9585)."""

import re

import pytest

from imap_lines import Client
from suite import wait_for


@pytest.fixture
def pair(shared, request):
    user = shared.add_account(f"{request.node.name.replace('_', '-')}@example.test")
    return Client(shared, user), Client(shared, user)


def esearch(said):
    return [line for line in said if line.startswith("* ESEARCH")]


class Mirror:
    """A result as a client keeps it, by RFC 5267 4.3.3 and 4.3.4."""

    def __init__(self, tag, members, sort):
        self.tag, self.members, self.sort = tag, list(members), sort

    def follow(self, lines):
        for line in lines:
            match = re.fullmatch(rf'\* ESEARCH \(TAG "{self.tag}"\) UID (ADDTO|REMOVEFROM) \((.*)\)', line)
            if not match:
                continue
            words = match[2].split()
            for at, numbers in zip(map(int, words[::2]), map(spread, words[1::2])):
                assert (at > 0) == self.sort
                for offset, number in enumerate(numbers):
                    if match[1] == "REMOVEFROM":
                        assert not at or self.members[at - 1] == number
                        self.members.remove(number)
                    elif at:
                        self.members.insert(at - 1 + offset, number)
                    else:
                        self.members = sorted([*self.members, number])


def spread(text):
    found = []
    for part in text.split(","):
        low, _, high = part.partition(":")
        found.extend(range(int(low), int(high or low) + 1))
    return found


def result(client, command):
    """The UIDs of an ESEARCH ALL."""
    lines = esearch(client.do(command))
    assert len(lines) == 1, lines
    match = re.search(r" ALL (\S+)", lines[0])
    return spread(match[1]) if match else []


def test_a_search_goes_on(pair):
    watcher, other = pair
    for subject in ("one", "two", "three"):
        other.append("INBOX", subject)
    watcher.do("SELECT INBOX")
    watcher.do("UID STORE 2 +FLAGS (\\Deleted)")
    assert esearch(watcher.do("UID SEARCH RETURN (UPDATE ALL CONTEXT) UNDELETED")) == [
        f'* ESEARCH (TAG "t{watcher.number}") UID ALL 1,3']
    tag = f"t{watcher.number}"
    numbers = watcher.do("SEARCH RETURN (UPDATE COUNT) UNDELETED SUBJECT t")
    assert numbers[0] == f'* ESEARCH (TAG "t{watcher.number}") COUNT 1'
    by_number = f"t{watcher.number}"
    # A message that comes: behind EXISTS, since its number is valid from then on
    other.append("INBOX", "tomorrow")
    said = watcher.do("NOOP")
    assert said.index("* 4 EXISTS") < said.index(f'* ESEARCH (TAG "{by_number}") ADDTO (0 4)')
    assert f'* ESEARCH (TAG "{tag}") UID ADDTO (0 4)' in said
    # A flag that changes
    other.do("SELECT INBOX")
    other.do("UID STORE 1:2 FLAGS ()")
    said = watcher.do("NOOP")
    assert f'* ESEARCH (TAG "{tag}") UID ADDTO (0 2)' in said
    assert f'* ESEARCH (TAG "{by_number}") ADDTO (0 2)' in said
    # One that goes: before EXPUNGE, while its number is still its own
    other.do("UID STORE 1,3 +FLAGS (\\Deleted)")
    other.do("EXPUNGE")
    said = watcher.do("NOOP")
    assert said.index(f'* ESEARCH (TAG "{by_number}") REMOVEFROM (0 3)') < said.index("* 3 EXPUNGE")
    assert f'* ESEARCH (TAG "{tag}") UID REMOVEFROM (0 1,3)' in said
    # While IDLE
    watcher.stream.sendall(b"i IDLE\r\n")
    watcher.until(r"^\+ ")
    other.append("INBOX", "between")
    assert watcher.until("ADDTO.*5")[-1] == f'* ESEARCH (TAG "{tag}") UID ADDTO (0 5)'
    watcher.stream.sendall(b"DONE\r\n")
    watcher.until("^i OK")
    # A search that names messages keeps to them
    watcher.do("UID SEARCH RETURN (UPDATE COUNT) 1:* SEEN")
    frozen = f"t{watcher.number}"
    watcher.do(f'CANCELUPDATE "{tag}" "{by_number}"')
    other.append("INBOX", "the last")
    other.do("UID STORE 4,6 +FLAGS (\\Seen)")
    assert esearch(watcher.do("NOOP")) == [f'* ESEARCH (TAG "{frozen}") UID ADDTO (0 4)']
    # It ends with the mailbox
    watcher.do("SELECT INBOX")
    other.do("UID STORE 5 +FLAGS (\\Seen)")
    assert not esearch(watcher.do("NOOP"))


def test_a_tag_names_one_search(pair):
    watcher, _ = pair
    watcher.do("SELECT INBOX")
    for number in range(2):
        watcher.stream.sendall(b"B01 UID SEARCH RETURN (UPDATE COUNT) ALL\r\n")
        assert watcher.until("^B01")[-1].startswith("B01 OK" if number == 0 else "B01 BAD")


def test_what_cannot_be_followed_is_said(make_suite):
    suite = make_suite(config={"imapd": {"contexts": 1, "context_messages": 1}})
    suite.add_domain("example.test")
    client = Client(suite, suite.add_account("limits@example.test"))
    client.append("INBOX", "one")
    client.append("INBOX", "two")
    client.do("SELECT INBOX")
    said = client.do("UID SORT RETURN (UPDATE COUNT) (SIZE) UTF-8 ALL")
    assert said[0].endswith("UID COUNT 2") and said[1].startswith(f'* NO [NOUPDATE "t{client.number}"] ')
    client.do("UID SEARCH RETURN (UPDATE COUNT) SEEN")
    said = client.do("UID SEARCH RETURN (UPDATE COUNT) ALL")
    assert said[0].endswith("UID COUNT 2")
    assert said[1] == f'* NO [NOUPDATE "t{client.number}"] Too many contexts'


def test_a_sort_goes_on(pair):
    """A client that follows the changes has at each moment what a new sort would give it."""
    watcher, other = pair
    subjects = ["m", "c", "x", "a", "r", "c"]
    for subject in subjects:
        other.append("INBOX", subject)
    other.do("SELECT INBOX")
    watcher.do("SELECT INBOX")
    command = "UID SORT RETURN (UPDATE ALL) (REVERSE SUBJECT) UTF-8 UNFLAGGED"
    members = result(watcher, command)
    assert members == [3, 5, 1, 2, 6, 4]
    mirror = Mirror(f"t{watcher.number}", members, True)
    changes = [
        "UID STORE 2 +FLAGS (\\Flagged)", "append s", "append b", "UID STORE 6,3,8 +FLAGS (\\Flagged)", "UID STORE 2 -FLAGS (\\Flagged)",
        "append z", "UID STORE 1,5,9 +FLAGS (\\Deleted)", "EXPUNGE", "append c", "append d", "append e",
        "UID STORE 1:* FLAGS ()", "UID STORE 1:* FLAGS (\\Flagged)", "UID STORE 7:* FLAGS ()",
    ]
    for change in changes:
        if change.startswith("append"):
            other.append("INBOX", change.split()[1])
        else:
            other.do(change)
        mirror.follow(watcher.do("NOOP"))
        assert mirror.members == result(watcher, "UID SORT RETURN (ALL) (REVERSE SUBJECT) UTF-8 UNFLAGGED"), change
    assert len(mirror.members) == 5


def test_several_mailboxes_are_searched(pair):
    client, _ = pair
    for name in ("folder1", "folder2/banana", "folder2/peach/stone", "salads"):
        client.do(f"CREATE {name}")
        client.append(name, f"chad in {name}")
        client.append(name, "another")
    uidvalidity = lambda name: re.search(r"UIDVALIDITY (\d+)", client.do(f'STATUS "{name}" (UIDVALIDITY)')[0])[1]
    place = lambda name: f'(TAG "t{client.number}" MAILBOX "{name}" UIDVALIDITY {valid[name]}) UID'
    valid = {name: uidvalidity(name) for name in ("folder1", "folder2/banana", "folder2/peach/stone", "salads")}
    said = esearch(client.do('ESEARCH IN (mailboxes "folder1" subtree "folder2") subject "chad"'))
    assert said == [f"* ESEARCH {place(name)} ALL 1" for name in ("folder1", "folder2/banana", "folder2/peach/stone")]
    said = esearch(client.do('ESEARCH IN (subtree-one "folder2" mailboxes ("salads" "nowhere")) RETURN (COUNT MAX) unseen'))
    assert said == [f"* ESEARCH {place(name)} MAX 2 COUNT 2" for name in ("folder2/banana", "salads")]
    client.do("SUBSCRIBE salads")
    assert len(esearch(client.do("ESEARCH IN (subscribed) RETURN (PARTIAL 1:1) ALL"))) == 1
    assert len(esearch(client.do("ESEARCH IN (personal) CHARSET UTF-8 SUBJECT another"))) == 4
    assert not esearch(client.do('ESEARCH IN (personal) SUBJECT "not there"'))
    # The selected mailbox: only with one, and with all that a search can
    assert "BAD" in client.do("ESEARCH IN (selected) ALL", ok=False)[-1]
    client.do("SELECT folder1")
    assert esearch(client.do("ESEARCH SUBJECT another")) == [f"* ESEARCH {place('folder1')} ALL 2"]
    client.do("ESEARCH IN (selected) RETURN (SAVE) 2")
    assert "* 2 FETCH (UID 2)" in client.do("FETCH $ (UID)")
    both = esearch(client.do('ESEARCH IN (selected mailboxes "salads") RETURN (MIN) ALL'))
    assert both == [f"* ESEARCH {place(name)} MIN 1" for name in ("folder1", "salads")]
    for wrong in ('IN (personal) RETURN (SAVE) ALL', "IN (personal) 1:2", "IN (personal) $", "IN () ALL", "IN (selected-delayed) ALL",
                  'IN (personal ("scope")) ALL', "IN (nowhere) ALL"):
        assert "BAD" in client.do(f"ESEARCH {wrong}", ok=False)[-1], wrong


def test_mailboxes_of_others_are_searched_with_the_right_to_read(shared):
    owner, guest = (shared.add_account(f"multi-{who}@example.test") for who in ("owner", "guest"))
    one, other = Client(shared, owner), Client(shared, guest)
    one.do("CREATE open")
    one.do("CREATE shut")
    for name, rights in (("open", "lr"), ("shut", "l")):
        one.append(name, "hidden treasure")
        one.do(f"SETACL {name} {guest} {rights}")
    said = esearch(other.do(f'ESEARCH IN (subtree "Other Users") SUBJECT treasure'))
    assert len(said) == 1 and f'MAILBOX "Other Users/{owner}/open"' in said[0]
    assert not esearch(other.do("ESEARCH IN (personal) SUBJECT treasure"))


def test_what_is_nearly_right_is_found(make_suite):
    suite = make_suite()
    suite.add_domain("example.test")
    user = suite.add_account("fuzzy@example.test")
    client = Client(suite, user)
    for subject in ("The translation of meetings", "IMAP breaks again", "nothing at all", "a meeting, a meeting, a meeting"):
        client.append("INBOX", subject)
    wait_for(lambda: suite.json("index", "status")["missing"] == 0 and suite.json("index", "status")["documents"] >= 4, "the index has all")
    client.do("SELECT INBOX")
    assert client.do('SEARCH FUZZY (SUBJECT "IMAP break")')[0] == "* SEARCH 2"
    # One slip, and other forms; by itself a SUBJECT is exact
    assert client.do('SEARCH FUZZY SUBJECT "meetnig"')[0] == "* SEARCH 4"
    assert client.do('SEARCH FUZZY SUBJECT "meeting"')[0] == "* SEARCH 1 4"
    assert client.do('SEARCH SUBJECT "meetnig"')[0] == "* SEARCH"
    assert client.do('SEARCH FUZZY SUBJECT "meeting" SUBJECT "translation"')[0] == "* SEARCH 1"
    said = client.do('SEARCH RETURN (RELEVANCY ALL) FUZZY SUBJECT "meeting"')[0]
    scores = re.fullmatch(rf'\* ESEARCH \(TAG "t{client.number}"\) ALL 1,4 RELEVANCY \((\d+) (\d+)\)', said)
    assert scores and 1 <= int(scores[1]) < int(scores[2]) == 100, said
    assert client.do('SORT (RELEVANCY) UTF-8 FUZZY SUBJECT "meeting"')[0] == "* SORT 4 1"
    assert client.do('SORT (REVERSE RELEVANCY) UTF-8 FUZZY SUBJECT "meeting"')[0] == "* SORT 1 4"
    said = client.do('SORT RETURN (RELEVANCY PARTIAL 1:1) (RELEVANCY) UTF-8 FUZZY SUBJECT "meeting"')[0]
    assert said.endswith("PARTIAL (1:1 4) RELEVANCY (100)")
    # What is no text is exact
    assert client.do("SEARCH FUZZY UID 3")[0] == "* SEARCH 3"
    for wrong in ("SEARCH RETURN (RELEVANCY) SUBJECT x", "SORT (RELEVANCY) UTF-8 ALL", "SEARCH FUZZY"):
        assert "BAD" in client.do(wrong, ok=False)[-1], wrong
    # What the index does not know yet, and all of it when the index is away
    suite.kill("indexd")
    assert client.do('SEARCH FUZZY SUBJECT "meeting"')[0] == "* SEARCH 1 4"

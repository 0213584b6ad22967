"""Twenty clients at random on shared mailboxes, and what is left compared with what they were told.

POSTHOUSE_STRESS_SECONDS says for how long (`make stress`: 600), POSTHOUSE_STRESS_SEED makes a run like another.
"""

import os
import random
import threading
import time

import pytest

from strict import No, Strict, code, numbers
from suite import PASSWORD, Suite

SECONDS = float(os.environ.get("POSTHOUSE_STRESS_SECONDS", "25"))
SEED = int(os.environ.get("POSTHOUSE_STRESS_SEED", "0")) or random.randrange(1, 1 << 30)
CLIENTS = 20
ACCOUNT = "alice@example.test"
MAILBOXES = ["INBOX", "Archive", "Projects", "Projects/Ümlaut & Sons"]
# Beyond this nobody appends: the mailboxes stay small enough to be busy everywhere.
FULL = 400


@pytest.fixture(scope="module")
def suite():
    suite = Suite().start()
    suite.add_domain("example.test")
    suite.add_account(ACCOUNT)
    yield suite
    suite.remove()


class Ledger:
    """What the server has promised: which messages were made where, and which are gone."""

    def __init__(self):
        self.lock = threading.Lock()
        self.made = {}  # (mailbox, uid): identity
        self.gone = set()  # (mailbox, uid)
        self.doomed = set()  # (mailbox, uid): once marked \Deleted, anybody's EXPUNGE may take it unseen
        self.keywords = {}  # (mailbox, uid, keyword): bool, as its only writer left it
        self.operations = {}

    def make(self, mailbox, uid, identity):
        with self.lock:
            known = self.made.setdefault((mailbox, uid), identity)
        assert known == identity, f"UID {uid} of {mailbox} was given twice: {known}, {identity}"

    def remove(self, mailbox, uids):
        with self.lock:
            self.gone.update((mailbox, uid) for uid in uids)

    def doom(self, mailbox, uids):
        with self.lock:
            self.doomed.update((mailbox, uid) for uid in uids)

    def identity(self, mailbox, uid):
        with self.lock:
            return self.made.get((mailbox, uid))

    def mark(self, mailbox, uids, keyword, there):
        with self.lock:
            for uid in uids:
                self.keywords[mailbox, uid, keyword] = there

    def did(self, what):
        with self.lock:
            self.operations[what] = self.operations.get(what, 0) + 1


def wire(name):
    """Modified UTF-7 of the names used here (RFC 3501 5.1.3)."""
    return name.replace("&", "&-").replace("Ü", "&ANw-")


class Player:
    """One client, with a generator of its own."""

    def __init__(self, suite, ledger, number):
        self.random = random.Random(SEED * 100 + number)
        self.ledger, self.number = ledger, number
        self.keyword = f"mine{number}"
        # Half of them speak QRESYNC.
        self.client = Strict(suite.address("imaps"), ACCOUNT, PASSWORD, f"p{number}x", qresync=number % 2 == 1)
        self.appended = 0
        # Copies whose origin's identity is not known yet: checked at the end.
        self.copies = []

    def play(self, end):
        self.enter()
        while time.monotonic() < end:
            moves = [
                (self.append, 5), (self.store, 6), (self.delete, 2), (self.copy, 2), (self.move, 2), (self.fetch, 4),
                (self.search, 2), (self.noop, 3), (self.idle, 1), (self.enter, 1), (self.resync, 1), (self.follow, 2),
            ]
            move = self.random.choices([move for move, _ in moves], [weight for _, weight in moves])[0]
            try:
                move()
                self.ledger.did(move.__name__)
            except No as refused:
                # What somebody else removed meanwhile may be refused, and nothing else.
                assert any(word in str(refused) for word in ["NONEXISTENT", "EXPUNGEISSUED", "TRYCREATE"]), refused
                self.ledger.did("refused")
            self.note_removed()
        self.client.command("NOOP")
        self.note_removed()
        self.client.close()

    def note_removed(self):
        client = self.client
        if client.mailbox:
            self.ledger.remove(client.mailbox, client.removed)

    def enter(self):
        mailbox = self.random.choice(MAILBOXES)
        self.note_removed()
        self.client.mailbox = None
        self.client.forget()
        self.client.command("SELECT", f'"{wire(mailbox)}" (CONDSTORE)')
        self.client.mailbox = mailbox
        self.client.learn()

    def some(self):
        """UIDs of a few messages that are there as far as this client knows."""
        known = [uid for uid in self.client.picture if uid]
        if not known:
            return []
        start = self.random.randrange(len(known))
        return known[start:start + self.random.randint(1, 5)]

    def append(self):
        if len(self.client.picture) > FULL:
            return
        self.appended += 1
        identity = f"{self.number}.{self.appended}"
        mailbox = self.random.choice(MAILBOXES)
        size = self.random.choice([10, 500, 3000, 100_000])
        body = f"From: <a@example.net>\r\nSubject: stress {identity}\r\nX-Stress: {identity}\r\n\r\n".encode() + b"x" * size
        _, uid = self.client.append(wire(mailbox), body, self.random.choice(["", "\\Seen", self.keyword]))
        self.ledger.make(mailbox, int(uid), identity)

    def store(self):
        uids = self.some()
        if not uids:
            return
        there = self.random.random() < 0.6
        silent = self.random.choice(["", ".SILENT"])
        self.client.command("STORE", f"{listed(uids)} {'+' if there else '-'}FLAGS{silent} ({self.keyword})", uid=True)
        self.ledger.mark(self.client.mailbox, uids, self.keyword, there)

    def delete(self):
        uids = self.some()
        if not uids:
            return
        self.ledger.doom(self.client.mailbox, uids)
        self.client.command("STORE", f"{listed(uids)} +FLAGS.SILENT (\\Deleted)", uid=True)
        if self.random.random() < 0.5:
            self.client.command("EXPUNGE", listed(uids), uid=True)
        else:
            self.client.command("EXPUNGE")

    def transfer(self, verb):
        uids = self.some()
        target = self.random.choice([name for name in MAILBOXES if name != self.client.mailbox])
        if not uids:
            return
        untagged, said = self.client.command(verb, f'{listed(uids)} "{wire(target)}"', uid=True)
        for line in [*untagged, said]:
            found = code(line, r"COPYUID \d+ (\S+) (\S+)\]")
            if found:
                pairs = list(zip(numbers(found[0]), numbers(found[1]), strict=True))
                for source, made in pairs:
                    self.copies.append((self.client.mailbox, source, target, made))
                if verb == "MOVE":
                    self.ledger.remove(self.client.mailbox, [source for source, _ in pairs])

    def copy(self):
        self.transfer("COPY")

    def move(self):
        self.transfer("MOVE")

    def fetch(self):
        if not self.client.picture:
            return
        at = self.random.randint(1, len(self.client.picture))
        self.client.command("FETCH", f"{at} (UID FLAGS MODSEQ RFC822.SIZE BODY.PEEK[HEADER.FIELDS (X-STRESS)])")

    def search(self):
        untagged, _ = self.client.command("SEARCH", f"KEYWORD {self.keyword}", uid=True)
        found = [line for line in untagged if line.startswith(b"* SEARCH") or line.startswith(b"* ESEARCH")]
        assert len(found) == 1, untagged

    def follow(self):
        """A search or sort whose changes are told is at any time what a new one gives (RFC 5267)."""
        client = self.client
        verb, criteria = [
            ("SEARCH", f"UNSEEN UNKEYWORD {self.keyword}"), ("SORT", "(SIZE SUBJECT) UTF-8 UNDELETED"),
        ][self.number // 2 % 2]
        if not client.results:
            client.result(verb, "UPDATE ALL", criteria)
            return
        kept = list(next(iter(client.results.values())))
        found = client.result(verb, "ALL", criteria)
        assert (sorted(kept) if verb == "SEARCH" else kept) == found, (verb, kept, found)

    def noop(self):
        self.client.command("NOOP")
        self.client.learn()

    def idle(self):
        self.client.idle(self.random.random() * 0.3)

    def resync(self):
        """Comes back with what it knew, as a client that was away does."""
        client = self.client
        if not client.qresync or not client.highest or None in client.picture:
            return
        mailbox, known = client.mailbox, set(client.picture)
        validity, highest = client.uidvalidity, client.highest
        flags = dict(client.flags)
        self.note_removed()
        client.command("UNSELECT")
        client.mailbox = None
        client.forget()
        vanished, changed = set(), {}
        untagged, _ = client.command("SELECT", f'"{wire(mailbox)}" (QRESYNC ({validity} {highest}))')
        client.mailbox = mailbox
        for line in untagged:
            if line.startswith(b"* VANISHED (EARLIER)"):
                vanished.update(numbers(line.rsplit(b" ", 1)[1].decode()))
        changed, then = dict(client.flags), client.highest
        client.learn()
        # What changed after the answer to SELECT has a higher modseq, and is no matter of it.
        now = {uid for uid in client.picture if client.modseqs.get(uid, 0) <= then}
        quiet = known - vanished - set(client.picture) - client.removed
        assert not quiet, f"resync kept quiet about {sorted(quiet)[:5]}"
        for uid in now & known:
            if uid not in changed:
                theirs = client.flags[uid]
                assert theirs == flags.get(uid, theirs), f"resync kept quiet about the flags of {uid}"
        assert now - known <= set(changed), f"resync kept quiet about new {sorted(now - known - set(changed))[:5]}"


def listed(uids):
    return ",".join(map(str, uids))


@pytest.mark.timeout(SECONDS + 275)
def test_twenty_clients_at_random(suite):
    print(f"seed {SEED}, {SECONDS:g} s")
    ledger = Ledger()
    first = Strict(suite.address("imaps"), ACCOUNT, PASSWORD)
    for mailbox in MAILBOXES:
        if mailbox not in ("INBOX", "Archive"):
            first.command("CREATE", f'"{wire(mailbox)}"')
    players = [Player(suite, ledger, number) for number in range(CLIENTS)]
    end = time.monotonic() + SECONDS
    failures = []

    def run(player):
        try:
            player.play(end)
        except BaseException as failure:  # noqa: BLE001: shown below, with its seed
            failures.append((player.number, failure))

    threads = [threading.Thread(target=run, args=(player,)) for player in players]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS + 120)
    assert not any(thread.is_alive() for thread in threads), f"clients hang, seed {SEED}"
    if failures:
        raise AssertionError(f"seed {SEED}: {failures}") from failures[0][1]

    # Copies carry the identity of their origin, which may be a copy itself.
    copies = [copy for player in players for copy in player.copies]
    while copies:
        later = []
        for mailbox, source, target, made in copies:
            identity = ledger.identity(mailbox, source)
            if identity is None:
                later.append((mailbox, source, target, made))
            else:
                ledger.make(target, made, identity)
                # A copy has the flags of its origin.
                if (mailbox, source) in ledger.doomed:
                    ledger.doom(target, [made])
        assert len(later) < len(copies), f"copies of what nobody made: {later[:5]}"
        copies = later

    for mailbox in MAILBOXES:
        compare(first, ledger, mailbox)
    print(dict(sorted(ledger.operations.items())), len(ledger.made), "made", len(ledger.gone), "gone")
    assert ledger.operations.get("append", 0) > 10 and ledger.gone
    first.close()


def compare(client, ledger, mailbox):
    """The mailbox as it is, against the ledger: every message that was made and not removed, and no other."""
    client.forget()
    client.command("SELECT", f'"{wire(mailbox)}"')
    client.learn()
    expected = {uid for name, uid in ledger.made if name == mailbox} - {uid for name, uid in ledger.gone if name == mailbox}
    found = set(client.picture)
    lost = expected - found - {uid for name, uid in ledger.doomed if name == mailbox}
    assert not lost and found <= expected, (
        f"seed {SEED}, {mailbox}: lost {sorted(lost)[:10]}, phantom {sorted(found - expected)[:10]}"
    )
    untagged, _ = client.command("STATUS", f'"{wire(mailbox)}" (MESSAGES UIDNEXT)')
    status = code(next(line for line in untagged if line.startswith(b"* STATUS")), r"MESSAGES (\d+) UIDNEXT (\d+)")
    assert int(status[0]) == len(found), (status, len(found))
    assert all(uid < int(status[1]) for uid in found)
    if not found:
        return
    untagged, _ = client.command("FETCH", "1:* (UID BODY.PEEK[HEADER.FIELDS (X-STRESS)])")
    seen = 0
    for line in untagged:
        uid, identity = code(line, r"UID (\d+)"), code(line, r"X-Stress: (\S+)")
        if uid and identity:
            seen += 1
            assert ledger.identity(mailbox, int(uid[0])) == identity[0], (mailbox, uid, identity)
    assert seen == len(found), (seen, len(found))
    for (name, uid, keyword), there in ledger.keywords.items():
        if name == mailbox and uid in found:
            assert (keyword in client.flags[uid]) == there, f"seed {SEED}, {mailbox} {uid}: {keyword} {there}"

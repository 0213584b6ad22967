"""An IMAP client that believes nothing: it keeps its own picture of the mailbox and objects to whatever contradicts it."""

import re
import socket
import ssl


class Violation(AssertionError):
    """The server broke the protocol."""


class No(Exception):
    """A tagged NO: the command was not done."""


LITERAL = re.compile(rb"\{(\d+)\}$")
FETCH = re.compile(rb"\* (\d+) FETCH \((.*)\)$", re.S)
CODE = re.compile(rb"\* OK \[(HIGHESTMODSEQ|UIDVALIDITY|UIDNEXT|NOMODSEQ)\s*(\d*)\]")
# While one of these runs, no EXPUNGE may come (RFC 9051 7.5.1).
SILENT = {"FETCH", "STORE", "SEARCH", "SORT"}
UPDATE = re.compile(rb'\* ESEARCH \(TAG "(\w+)"\) UID (ADDTO|REMOVEFROM) \((.*)\)$')


class Strict:
    """One connection. `picture` is the selected mailbox: a list of UIDs, by sequence number from 1."""

    def __init__(self, address, user, password, name="c", qresync=False):
        raw = socket.create_connection(address, timeout=60)
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        self.socket = context.wrap_socket(raw)
        self.input = self.socket.makefile("rb")
        self.name, self.count = name, 0
        self.mailbox = None
        self.forget()
        self.qresync = False
        if not self.line().startswith(b"* OK"):
            raise Violation("no greeting")
        _, said = self.command("LOGIN", f'"{user}" "{password}"')
        if qresync and b"QRESYNC" in said:
            self.command("ENABLE", "QRESYNC")
            self.qresync = True

    def forget(self):
        self.picture = []
        self.flags = {}
        self.modseqs = {}
        self.uidvalidity = None
        self.highest = 0
        self.removed = set()
        self.results = {}

    def close(self):
        self.socket.close()

    # --- lines

    def line(self):
        """One response line, with its literals in it."""
        whole = b""
        while True:
            line = self.input.readline()
            if not line.endswith(b"\r\n"):
                raise Violation(f"{self.name}: the connection ended in {(whole + line)[-200:]!r}")
            whole += line[:-2]
            literal = LITERAL.search(line[:-2])
            if not literal:
                return whole
            octets = self.input.read(int(literal.group(1)))
            whole += b"\r\n" + octets

    def command(self, verb, arguments="", literal=None, uid=False, keeps=False):
        """Sends a command and takes its responses. Returns the untagged lines and the tagged text."""
        self.count += 1
        tag = f"{self.name}{self.count}"
        text = f"{tag} {'UID ' if uid else ''}{verb}{' ' + arguments if arguments else ''}"
        if literal is None:
            self.socket.sendall(text.encode() + b"\r\n")
        else:
            self.socket.sendall(text.encode() + b" {%d+}\r\n" % len(literal) + literal + b"\r\n")
        untagged = []
        while True:
            line = self.line()
            if line.startswith(b"* BYE"):
                raise Violation(f"{self.name}: {line!r} to {text}")
            if line.startswith(b"* "):
                untagged.append(line)
                update = UPDATE.match(line) if keeps else None
                if not update or update.group(1) != tag.encode():
                    self.take(line, None if uid else verb)
            elif line.startswith(tag.encode() + b" "):
                said = line[len(tag) + 1:]
                if said.startswith(b"OK"):
                    return untagged, said
                if said.startswith(b"NO"):
                    raise No(said.decode(errors="replace"))
                raise Violation(f"{self.name}: {said!r} to {text}")
            else:
                raise Violation(f"{self.name}: {line[:200]!r} while {text} runs")

    # --- the picture

    def take(self, line, verb):
        """Checks an untagged line against the picture, and brings it up to date."""
        code = CODE.match(line)
        if code:
            self.take_code(code.group(1), code.group(2))
            return
        update = UPDATE.match(line)
        if update:
            self.take_update(*(part.decode() for part in update.groups()))
            return
        words = line.split(b" ", 3)
        if len(words) >= 3 and words[1].isdigit():
            number, kind = int(words[1]), words[2].rstrip(b"\r\n")
            if kind == b"EXISTS":
                if number < len(self.picture):
                    raise Violation(f"{self.name}: EXISTS {number} after {len(self.picture)}")
                self.picture += [None] * (number - len(self.picture))
            elif kind == b"EXPUNGE":
                if verb in SILENT:
                    raise Violation(f"{self.name}: EXPUNGE during {verb}")
                if self.qresync:
                    raise Violation(f"{self.name}: EXPUNGE after ENABLE QRESYNC")
                if not 1 <= number <= len(self.picture):
                    raise Violation(f"{self.name}: EXPUNGE {number} of {len(self.picture)}")
                self.gone(self.picture.pop(number - 1))
            elif kind == b"FETCH":
                self.take_fetch(number, line)
        elif line.startswith(b"* VANISHED "):
            earlier = b"(EARLIER)" in line
            for uid in numbers(line.rsplit(b" ", 1)[1].decode()):
                if uid in self.picture:
                    if verb in SILENT and not earlier:
                        raise Violation(f"{self.name}: VANISHED during {verb}")
                    self.picture.remove(uid)
                elif not earlier:
                    self.forget_unknown(uid)
                self.gone(uid)

    def forget_unknown(self, uid):
        """A message has vanished whose UID this client had not asked for: it is one of those without, where it fits."""
        low = 0
        for at, known in enumerate(self.picture):
            if known is not None:
                if known > uid:
                    break
                low = at + 1
        if low < len(self.picture) and self.picture[low] is None:
            self.picture.pop(low)
        else:
            raise Violation(f"{self.name}: VANISHED {uid}, which was not there")

    def gone(self, uid):
        if uid is not None:
            self.removed.add(uid)
            self.flags.pop(uid, None)

    def take_code(self, code, number):
        if code == b"HIGHESTMODSEQ":
            if int(number) < self.highest:
                raise Violation(f"{self.name}: HIGHESTMODSEQ {int(number)} after {self.highest}")
            self.highest = int(number)
        elif code == b"UIDVALIDITY":
            self.uidvalidity = int(number)

    def take_fetch(self, number, line):
        if not 1 <= number <= len(self.picture):
            raise Violation(f"{self.name}: FETCH {number} of {len(self.picture)}")
        uid = re.search(rb"\bUID (\d+)", line)
        if uid:
            uid, known = int(uid.group(1)), self.picture[number - 1]
            if known is None:
                self.check_order(number, uid)
                if uid in self.removed:
                    raise Violation(f"{self.name}: UID {uid} is back from the dead")
                self.picture[number - 1] = uid
            elif known != uid:
                raise Violation(f"{self.name}: number {number} was UID {known}, is now {uid}")
        uid = self.picture[number - 1]
        flags = re.search(rb"FLAGS \(([^)]*)\)", line)
        if flags and uid:
            self.flags[uid] = frozenset(flags.group(1).decode().split())
        modseq = re.search(rb"MODSEQ \((\d+)\)", line)
        if modseq and uid:
            modseq = int(modseq.group(1))
            if modseq < self.modseqs.get(uid, 0):
                raise Violation(f"{self.name}: MODSEQ of {uid} went from {self.modseqs[uid]} to {modseq}")
            self.modseqs[uid] = modseq

    def take_update(self, tag, what, pairs):
        """A result that is kept changes (RFC 5267 4.3.3, 4.3.4)."""
        if tag not in self.results:
            raise Violation(f"{self.name}: {what} for {tag}, which is not kept")
        kept, words = self.results[tag], pairs.split()
        for at, uids in zip(map(int, words[::2]), map(numbers, words[1::2])):
            for offset, uid in enumerate(uids):
                if (uid in kept) == (what == "ADDTO"):
                    raise Violation(f"{self.name}: {what} {uid} at {at} of {kept}")
                if what == "ADDTO":
                    kept.insert(at - 1 + offset if at else len(kept), uid)
                elif at and kept[at - 1] != uid:
                    raise Violation(f"{self.name}: REMOVEFROM {uid} at {at} of {kept}")
                else:
                    kept.remove(uid)

    def result(self, verb, options, criteria):
        """The UIDs that a search or sort gives. With UPDATE they are kept in `results` under the tag."""
        tag = f"{self.name}{self.count + 1}"
        untagged, _ = self.command(verb, f"RETURN ({options}) {criteria}", uid=True, keeps="UPDATE" in options)
        updates = [update for update in map(UPDATE.match, untagged) if update and update.group(1) == tag.encode()]
        answer = next(line.decode() for line in untagged if line.startswith(b"* ESEARCH") and not UPDATE.match(line))
        everything = re.search(r" ALL (\S+)", answer)
        found = list(numbers(everything.group(1))) if everything else []
        if "UPDATE" in options:
            self.results[tag] = found
            for update in updates:
                self.take_update(*(part.decode() for part in update.groups()))
        return found

    def check_order(self, number, uid):
        before = [known for known in self.picture[: number - 1] if known]
        after = [known for known in self.picture[number:] if known]
        if before and before[-1] >= uid or after and after[0] <= uid:
            raise Violation(f"{self.name}: UID {uid} at {number} is out of order")

    # --- what one does with it

    def select(self, mailbox):
        self.mailbox = None
        self.forget()
        untagged, _ = self.command("SELECT", quoted(mailbox) + " (CONDSTORE)")
        self.mailbox = mailbox
        return untagged

    def learn(self):
        """Fetches UIDs and flags of everything, so that the picture is complete."""
        if self.picture:
            self.command("FETCH", "1:* (UID FLAGS MODSEQ)")
        # What EXISTS announced behind the last FETCH is asked for again.
        for _ in range(100):
            if None not in self.picture:
                return
            first, last = self.picture.index(None) + 1, len(self.picture)
            self.command("FETCH", f"{first}:{last} (UID FLAGS MODSEQ)")
            if first <= len(self.picture) and self.picture[first - 1] is None:
                raise Violation(f"{self.name}: FETCH left out {first} of {last}")

    def append(self, mailbox, octets, flags=""):
        _, said = self.command("APPEND", f"{quoted(mailbox)} ({flags})", octets)
        return code(said, r"APPENDUID (\d+) (\d+)")

    def idle(self, seconds):
        """Idles until something comes or the time is over."""
        self.count += 1
        tag = f"{self.name}{self.count}"
        self.socket.sendall(f"{tag} IDLE\r\n".encode())
        if not self.line().startswith(b"+"):
            raise Violation(f"{self.name}: no continuation for IDLE")
        heard = []
        self.socket.settimeout(seconds)
        try:
            heard.append(self.line())
        except TimeoutError:
            # The file object cannot be read after a time-out: make a new one. Nothing was in it.
            self.input = self.socket.makefile("rb")
        self.socket.settimeout(60)
        for line in heard:
            self.take(line, None)
        self.socket.sendall(b"DONE\r\n")
        while True:
            line = self.line()
            if line.startswith(tag.encode()):
                return
            self.take(line, None)


def quoted(name):
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'


def code(said, pattern):
    """The groups of a response code of a tagged answer."""
    found = re.search(pattern, said.decode())
    return found.groups() if found else None


def numbers(text):
    """The numbers of a set."""
    for part in text.split(","):
        low, _, high = part.partition(":")
        yield from range(int(low), int(high or low) + 1)

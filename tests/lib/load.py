"""A load of unique messages that knows what it was promised."""

import collections
import imaplib
import itertools
import re
import smtplib
import threading
import time

from suite import PASSWORD, wait_for


class Load:
    """Sends messages over some connections until so many are acknowledged, through whatever happens to the server.

    A message that was answered with 250 must arrive exactly once. One that was answered otherwise, or not at all, is in doubt:
    it may arrive, but not twice (RFC 5321 4.5.4.2 leaves such mail to the sender, who here sends a new one instead).
    """

    def __init__(self, suite, recipients, connections=16, size=2000, prefix="load"):
        self.prefix = prefix
        self.suite, self.recipients, self.connections, self.size = suite, recipients, connections, size
        self.acknowledged, self.doubtful, self.answers = {}, {}, collections.Counter()
        self.numbers = itertools.count()
        self.lock = threading.Lock()
        self.threads = []
        self.ended = threading.Event()
        self.broken = []

    def start(self, count, seconds=600):
        self.goal = len(self.acknowledged) + count
        self.deadline = time.monotonic() + seconds
        self.ended.clear()
        self.threads = [threading.Thread(target=self._guard, daemon=True) for _ in range(self.connections)]
        for thread in self.threads:
            thread.start()
        return self

    def stop(self):
        self.ended.set()
        self.join()

    def join(self):
        for thread in self.threads:
            thread.join()
        if self.broken:
            raise self.broken[0]

    def run(self, count, seconds=600):
        self.start(count, seconds).join()
        assert len(self.acknowledged) >= self.goal, f"{len(self.acknowledged)} of {self.goal} acknowledged; {self.answers}"

    def wait_acknowledged(self, more):
        """Until so many more are acknowledged, or the load is over."""
        until = len(self.acknowledged) + more
        over = lambda: not any(thread.is_alive() for thread in self.threads)
        wait_for(lambda: len(self.acknowledged) >= until or over(), lambda: f"progress: {self.answers}\n{self.suite.tail()}", 120)

    def _guard(self):
        try:
            self._work()
        except Exception as error:  # noqa: BLE001 - shown by join
            self.broken.append(error)

    def _work(self):
        client = None
        while not self.ended.is_set() and len(self.acknowledged) < self.goal and time.monotonic() < self.deadline:
            number = next(self.numbers)
            to = self.recipients[number % len(self.recipients)]
            name = f"{self.prefix}-{number}"
            body = (f"From: <load@example.net>\r\nTo: <{to}>\r\nSubject: {name}\r\nMessage-ID: <{name}@load.example.net>\r\n\r\n"
                    + "0123456789abcdef " * (self.size // 17) + "\r\n").encode()
            sent = False
            try:
                if client is None:
                    client = smtplib.SMTP(*self.suite.address("mx"), local_hostname="load.example.net", timeout=60)
                    client.ehlo()
                for code, text in (client.mail("load@example.net"), client.rcpt(to)):
                    if code != 250:
                        raise smtplib.SMTPResponseException(code, text)
                sent = True
                code, text = client.data(body)
                if code != 250:
                    raise smtplib.SMTPResponseException(code, text)
                with self.lock:
                    self.acknowledged[name] = to
                    self.answers[250] += 1
            except (smtplib.SMTPException, OSError) as error:
                code = getattr(error, "smtp_code", type(error).__name__)
                with self.lock:
                    if sent:
                        self.doubtful[name] = to
                    self.answers[code] += 1
                assert not (isinstance(code, int) and 500 <= code < 600), f"a lasting refusal: {error}"
                if client is not None:
                    client.close()
                client = None
                # A real sender pauses too.
                self.ended.wait(0.05)
        if client is not None:
            client.close()

    def arrived(self, suite=None, password=PASSWORD, recipients=None):
        """How often each message lies in the mailbox of its recipient."""
        found = collections.Counter()
        for person in recipients or self.recipients:
            client = (suite or self.suite).imap(person, password)
            _, (count,) = client.select("INBOX", readonly=True)
            answers = client.fetch("1:*", "(BODY.PEEK[HEADER.FIELDS (MESSAGE-ID)])")[1] if count != b"0" else []
            for answer in answers:
                if isinstance(answer, tuple):
                    found[re.search(rb"<(load-\d+)@", answer[1])[1].decode()] += 1
            client.logout()
        return found

    def wait_kept(self, seconds=120):
        """Every promise is kept: all that was acknowledged is there once, nothing twice."""
        found = {}

        def all_there():
            nonlocal found
            try:
                found = self.arrived()
            except (imaplib.IMAP4.error, OSError):
                # What is away comes back.
                return False
            return all(found[name] for name in self.acknowledged)

        missing = lambda: [name for name in self.acknowledged if not found.get(name)]
        wait_for(all_there, lambda: f"lost: {missing()[:20]} of {len(self.acknowledged)}; {self.answers}\n"
                                    f"queue: {self.suite.queue()[:3]}\n{self.suite.tail()}", seconds, 0.3)
        self.suite.wait_queue_empty(seconds)
        found = self.arrived()
        twice = {name: count for name, count in found.items() if count > 1}
        assert not twice, f"delivered more than once: {twice}"
        unknown = set(found) - set(self.acknowledged) - set(self.doubtful)
        assert not unknown, f"never sent so far: {unknown}"

"""A milter made with libmilter, for /usr/bin/python3 (Debian's python3-milter): does what a plan says, and writes down what it hears.

    milter_program.py SOCKET PLAN LOG

The plan is JSON, read again for each connection: what is answered at which stage, what is done at the end of a message.
"""

import json
import sys
import time

import Milter

SOCKET, PLAN, LOG = sys.argv[1:4]
WORDS = {
    "continue": Milter.CONTINUE,
    "accept": Milter.ACCEPT,
    "reject": Milter.REJECT,
    "tempfail": Milter.TEMPFAIL,
    "discard": Milter.DISCARD,
    "skip": Milter.SKIP,
}
log = open(LOG, "a", buffering=1)


def plan():
    with open(PLAN) as file:
        return json.load(file)


class Filter(Milter.Base):
    def __init__(self):
        self.number = Milter.uniqueID()
        self.plan = plan()
        self.size = 0

    def note(self, what, **more):
        log.write(json.dumps({"n": self.number, "what": what, **more}) + "\n")

    def say(self, stage):
        """The plan's word for a stage: a word of the protocol, or [code, enhanced code, lines...]."""
        word = self.plan.get(stage, "continue")
        if isinstance(word, dict):
            # For one recipient.
            word = word.get(self.last, "continue")
        if isinstance(word, list):
            self.setreply(*word)
            return Milter.TEMPFAIL if word[0].startswith("4") else Milter.REJECT
        return WORDS[word]

    def negotiate(self, opts):
        self.note("negotiate", offered=list(opts))
        if "symbols" in self.plan:
            for stage, names in self.plan["symbols"].items():
                self._ctx.setsymlist(int(stage), names)
        answer = super().negotiate(opts)
        if "steps" in self.plan:
            opts[1] = self.plan["steps"]
        return answer

    def macros(self, *names):
        return {name: self.getsymval(name) for name in names}

    def connect(self, name, family, address):
        self.note("connect", name=name, address=list(address) if isinstance(address, tuple) else address,
                  macros=self.macros("j", "v", "_", "{daemon_name}", "{client_addr}", "{client_port}", "{daemon_port}"))
        return self.say("connect")

    def hello(self, name):
        self.note("hello", name=name, macros=self.macros("{tls_version}", "{cipher}", "{cipher_bits}"))
        return self.say("hello")

    def envfrom(self, address, *parameters):
        self.plan = plan()
        self.size = 0
        self.fields = []
        self.note("mail", address=address, parameters=list(parameters),
                  macros=self.macros("i", "{auth_authen}", "{auth_type}", "{mail_addr}", "{mail_host}", "{mail_mailer}"))
        return self.say("mail")

    def envrcpt(self, address, *parameters):
        self.last = address
        self.note("rcpt", address=address, parameters=list(parameters),
                  macros=self.macros("{rcpt_addr}", "{rcpt_host}", "{rcpt_mailer}"))
        return self.say("rcpt")

    def data(self):
        self.note("data", macros=self.macros("i"))
        return self.say("data")

    def header(self, name, value):
        self.fields.append([name, value])
        return self.say("header")

    def eoh(self):
        self.note("eoh", fields=self.fields)
        return self.say("eoh")

    def body(self, chunk):
        self.size += len(chunk)
        self.note("body", size=len(chunk))
        return self.say("body")

    def eom(self):
        self.note("eom", size=self.size)
        for action, *arguments in self.plan.get("do", []):
            if action == "sleep":
                end = time.monotonic() + arguments[0]
                while time.monotonic() < end:
                    time.sleep(0.4)
                    if arguments[1:]:
                        self.progress()
            elif action == "body":
                self.replacebody(arguments[0].encode() * arguments[1])
            else:
                getattr(self, action)(*arguments)
        return self.say("eom")

    def abort(self):
        self.note("abort")
        return Milter.CONTINUE

    def close(self):
        self.note("close")
        return Milter.CONTINUE

    def unknown(self, line):
        self.note("unknown", line=line)
        return Milter.CONTINUE


Milter.factory = Filter
Milter.set_flags(
    Milter.ADDHDRS | Milter.CHGBODY | Milter.ADDRCPT | Milter.ADDRCPT_PAR | Milter.DELRCPT | Milter.CHGHDRS
    | Milter.QUARANTINE | Milter.CHGFROM | Milter.SETSYMLIST
)
Milter.runmilter("posthouse-test", SOCKET, 30)

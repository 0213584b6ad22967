"""ManageSieve as mail programs speak it."""

import base64
import hashlib
import hmac
import re
import socket

import pytest

from suite import PASSWORD, Suite, anybody

SCRIPT = 'require ["fileinto"];\r\nif header :contains "subject" "offer" {\r\n  fileinto "Junk";\r\n}\r\n'


@pytest.fixture(scope="module")
def suite():
    suite = Suite()
    suite.config["sieved"]["scripts"] = 3
    suite.write_config()
    suite.start()
    suite.add_domain("example.test")
    yield suite
    suite.remove()


@pytest.fixture
def account(suite, request):
    return suite.add_account(f"{request.node.name.replace('_', '-')[:50]}@example.test")


class Client:
    """The octets of a client, and whole responses of the server."""

    def __init__(self, suite):
        self.stream = socket.create_connection(suite.address("sieve"), timeout=30)
        self.file = self.stream.makefile("rb")
        self.greeting = self.response()

    def response(self):
        """The lines before the status, literals included, and the status."""
        lines = []
        while True:
            line = self.file.readline()
            assert line, f"closed after {lines}"
            while found := re.search(rb"\{(\d+)\}\r\n$", line):
                line += self.file.read(int(found[1])) + self.file.readline()
            if re.match(rb"(OK|NO|BYE)\b", line):
                return lines, line.decode()
            lines.append(line.decode())

    def say(self, octets):
        self.stream.sendall(octets if isinstance(octets, bytes) else octets.encode())

    def ask(self, line):
        self.say(line + "\r\n")
        return self.response()

    def tls(self):
        assert self.ask("STARTTLS")[1].startswith("OK")
        self.stream = anybody().wrap_socket(self.stream, server_hostname="mail.example.test")
        self.file = self.stream.makefile("rb")
        return self.response()

    def login(self, account):
        plain = base64.b64encode(f"\0{account}\0{PASSWORD}".encode()).decode()
        answer = self.ask(f'AUTHENTICATE "PLAIN" "{plain}"')[1]
        assert answer.startswith("OK"), answer
        return self


def put(name, script):
    script = script.encode()
    return f'PUTSCRIPT "{name}" {{{len(script)}+}}\r\n'.encode() + script + b"\r\n"


def test_sievelib_puts_activates_and_removes_scripts(suite, account, monkeypatch):
    managesieve = pytest.importorskip("sievelib.managesieve")
    context = anybody()
    monkeypatch.setattr(managesieve.ssllib, "create_default_context", lambda: context)
    client = managesieve.Client(*suite.address("sieve"))
    assert client.connect(account, PASSWORD, starttls=True, authmech="PLAIN")
    assert "fileinto" in client.get_sieve_capabilities()
    assert client.havespace("main", len(SCRIPT))
    assert client.putscript("main", SCRIPT), client.errmsg
    assert not client.putscript("broken", "keep;\r\nif true {\r\n  discard\r\n}\r\n")
    assert b"line 4" in client.errmsg
    assert client.setactive("main")
    assert client.listscripts() == ("main", [])
    assert client.getscript("main").split() == SCRIPT.split()
    assert client.putscript("second", "keep;\r\n")
    assert client.renamescript("second", "zweites")
    assert client.listscripts() == ("main", ["zweites"])
    assert not client.deletescript("main")
    assert client.setactive("")
    assert client.deletescript("main") and client.deletescript("zweites")
    assert client.listscripts() == (None, [])
    client.logout()


def test_what_was_put_is_what_the_operator_sees(suite, account):
    client = Client(suite).login(account)
    client.say(put("main", SCRIPT))
    assert client.response()[1].startswith("OK")
    # A client that was never told it was logged out finds everything again after a restart.
    suite.stop()
    suite.start()
    again = Client(suite).login(account)
    lines, status = again.ask('GETSCRIPT "main"')
    assert status.startswith("OK")
    assert "".join(lines) == f"{{{len(SCRIPT)}}}\r\n{SCRIPT}\r\n"


def test_scram_ends_in_the_response_code(suite, account):
    """RFC 5804 2.1: the server's signature comes with OK."""
    client = Client(suite)
    client.tls()
    first = f"n={account},r=fyko+d2lbbFgONRv9qkxdawL"
    encoded = base64.b64encode(f"n,,{first}".encode()).decode()
    client.say(f'AUTHENTICATE "SCRAM-SHA-256" "{encoded}"\r\n')
    line = client.file.readline().strip()
    server_first = base64.b64decode(line.strip(b'"')).decode()
    values = dict(part.split("=", 1) for part in server_first.split(","))
    salted = hashlib.pbkdf2_hmac("sha256", PASSWORD.encode(), base64.b64decode(values["s"]), int(values["i"]))
    bare = f"c=biws,r={values['r']}"
    signed = f"{first},{server_first},{bare}".encode()
    mac = lambda key, data: hmac.digest(key, data, "sha256")
    key = mac(salted, b"Client Key")
    proof = bytes(a ^ b for a, b in zip(key, mac(hashlib.sha256(key).digest(), signed)))
    final = base64.b64encode(f"{bare},p={base64.b64encode(proof).decode()}".encode())
    # As a literal, as some clients send it.
    client.say(b"{%d+}\r\n%s\r\n" % (len(final), final))
    status = client.response()[1]
    found = re.match(r'OK \(SASL "([^"]+)"\)', status)
    assert found, status
    expected = base64.b64encode(mac(mac(salted, b"Server Key"), signed)).decode()
    assert base64.b64decode(found[1]).decode() == f"v={expected}"
    assert client.ask("LISTSCRIPTS")[1].startswith("OK")


def test_limits_have_codes_and_replacing_is_no_addition(suite, account):
    client = Client(suite).login(account)
    for name in ("a", "b", "c"):
        client.say(put(name, "keep;\r\n"))
        assert client.response()[1].startswith("OK")
    client.say(put("d", "keep;\r\n"))
    assert client.response()[1].startswith("NO (QUOTA/MAXSCRIPTS)")
    assert client.ask('HAVESPACE "d" 10')[1].startswith("NO (QUOTA/MAXSCRIPTS)")
    assert client.ask('HAVESPACE "a" 10')[1].startswith("OK")
    client.say(put("a", "stop;\r\n"))
    assert client.response()[1].startswith("OK")
    client.say(put("a", "#" * 102_401))
    assert client.response()[1].startswith("NO (QUOTA/MAXSIZE)")
    lines, _ = client.ask('GETSCRIPT "a"')
    assert "stop;" in lines[0]


def test_pipelined_commands_are_answered_in_their_order(suite, account):
    client = Client(suite).login(account)
    client.say(put("a", "keep;\r\n") + b'SETACTIVE "a"\r\nLISTSCRIPTS\r\nSETACTIVE ""\r\nDELETESCRIPT "a"\r\nNOOP "end"\r\n')
    answers = [client.response() for _ in range(6)]
    assert all(status.startswith("OK") for _, status in answers), answers
    assert answers[2][0] == ['"a" ACTIVE\r\n']
    assert answers[5][1].startswith('OK (TAG "end")')


def test_guessing_ends_the_session(suite, account):
    client = Client(suite)
    wrong = base64.b64encode(f"\0{account}\0wrong".encode()).decode()
    answers = []
    while not answers or answers[-1].startswith("NO"):
        answers.append(client.ask(f'AUTHENTICATE "PLAIN" "{wrong}"')[1])
        assert len(answers) <= 3
    assert answers[-1].startswith("BYE") and client.file.read() == b""


def test_accounts_do_not_see_each_others_scripts(suite, account):
    other = suite.add_account("other-scripts@example.test")
    client = Client(suite).login(account)
    client.say(put("mine", "keep;\r\n"))
    assert client.response()[1].startswith("OK")
    stranger = Client(suite).login(other)
    assert stranger.ask("LISTSCRIPTS")[0] == []
    assert stranger.ask('GETSCRIPT "mine"')[1].startswith("NO (NONEXISTENT)")

"""Mailing lists: from the author's host, whose signatures dkimpy makes, through a list of ours with tag and footer, to members here
and elsewhere; what verifiers find of author and list; bounces, commands, loops, kills."""

import base64
import email
import email.policy
import re
import smtplib

import dkim
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from servers import Knot, zone
from sink import Sink
from suite import PASSWORD, Suite, anybody, body_of, message, wait_for
from verifiers import dkimpy, dkimpy_arc, mail_dkim_arc

HOST = "192.0.2.2"


def rsa_key():
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption())
    public = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    text = "v=DKIM1; k=rsa; p=" + base64.b64encode(public).decode()
    return pem, " ".join(f'"{text[at:at + 250]}"' for at in range(0, len(text), 250))


PEM, RECORD = rsa_key()
AUTHORS = {"strict.example": "reject", "easy.example": "none"}


class House:
    """A suite with lists in ours.example; clients at port 25 come through a proxy from the authors' host; mail for elsewhere goes to
    a sink."""

    def __init__(self):
        self.sink = Sink()
        relayd = {"route": [{"match": "*", "host": "127.0.0.1", "port": self.sink.port, "tls": "none"}]}
        zones = {name: zone(name, [f'@ TXT "v=spf1 ip4:{HOST} -all"', f"s._domainkey TXT {RECORD}", f'_dmarc TXT "v=DMARC1; p={policy}"'])
                 for name, policy in AUTHORS.items()}
        zones["example"] = zone("example", [])
        self.authors = Knot(zones)
        checks = {"nameservers": [f"127.0.0.1:{self.authors.port}"], "limits": {"dns_timeout": 1, "timeout": 5}}
        self.suite = Suite(config={"relayd": relayd, "smtpd": {"proxy_networks": ["127.0.0.0/8"], "checks": checks}}).start()
        self.suite.add_domain("ours.example")
        self.suite.add_account("jane@ours.example")
        self.suite.add_account("owner@ours.example")
        self.suite.run("dkim", "add", "ours.example", "--selector", "r")
        zones["ours.example"] = zone("ours.example", [self.suite.run("dns", "show", "ours.example").stdout])
        self.names = Knot(zones)

    def close(self):
        self.suite.remove()
        self.sink.close()
        self.names.remove()
        self.authors.remove()

    def make(self, name, *options, members=("member@far.example", "jane@ours.example")):
        address = f"{name}@ours.example"
        self.suite.run("list", "create", address, *options)
        if members:
            self.suite.run("list", "member", "import", address, stdin="\n".join(members))
        return address

    def client(self):
        """A stranger's connection from HOST."""
        return Proxied(*self.suite.address("mx"), local_hostname="mx.easy.example", timeout=60)

    def submit(self, user, to, mail):
        """From one of our users."""
        with Proxied(*self.suite.address("submission"), local_hostname="client.example.net", timeout=60) as client:
            client.starttls(context=anybody())
            client.login(user, PASSWORD)
            client.sendmail(user, [to], mail)

    def post(self, to, mail, sender):
        recipients = to if isinstance(to, list) else [to]
        with self.client() as client:
            client.sendmail(sender, recipients, mail)


class Proxied(smtplib.SMTP):
    def _get_socket(self, host, port, timeout):
        sock = super()._get_socket(host, port, timeout)
        sock.sendall(f"PROXY TCP4 {HOST} 127.0.0.1 4000 25\r\n".encode())
        return sock


def signed(author, text="Hello.\r\n", header=b"", to="all@ours.example"):
    domain = author.partition("@")[2].rstrip(">").encode()
    mail = b"From: " + author.encode() + b"\r\nTo: " + to.encode() + b"\r\nSubject: a letter\r\nMessage-ID: <" + \
        base64.b32encode(str(id(text)).encode()).lower().rstrip(b"=") + b"@x>\r\nDate: Sun, 29 Nov 2026 10:00:00 +0000\r\n" + \
        header + b"\r\n" + (text if isinstance(text, bytes) else text.encode())
    return dkim.sign(mail, b"s", domain, PEM, include_headers=[b"From", b"To", b"Subject", b"Message-ID", b"Date"]) + mail


@pytest.fixture(scope="module")
def whole_house():
    house = House()
    yield house
    house.close()


@pytest.fixture
def house(whole_house):
    """Without what an earlier test left on its way."""
    whole_house.suite.wait_queue_empty(120)
    whole_house.sink.mails.clear()
    return whole_house


def verdicts(mail, house):
    """What dkimpy says of the signatures by selector; beyond the last one it says `?`."""
    found = dkimpy(mail, house.names)
    found.pop("?", None)
    return found


def parsed(octets):
    return email.message_from_bytes(octets, policy=email.policy.default)


def field(octets, name):
    """Without quotes, as Python's email writes them where they must be and not where they were."""
    value = parsed(octets)[name]
    return value and str(value).replace('"', "")


def test_a_post_with_tag_and_footer(house):
    """The author's signature breaks, the list's is good, and the seal shows what was found on arrival."""
    address = house.make("all", "--posting", "anyone", "--tag", "all", "--footer=-- \nThe list of all", "--description", "All of us")
    house.post(address, signed("Ann <ann@easy.example>"), "ann@easy.example")
    ((path, recipients, mail),) = house.sink.take()
    assert (path, recipients) == ("all-bounces@ours.example", ["member@far.example"])
    (here,) = house.suite.wait_messages("jane@ours.example", 1)
    assert here.startswith(b"Return-Path: <all-bounces@ours.example>\r\n")
    for copy in (mail, here):
        assert field(copy, "Subject") == "[all] a letter"
        assert field(copy, "From") == "Ann <ann@easy.example>"
        assert field(copy, "List-Id").split("<")[1] == "all.ours.example>"
        assert field(copy, "List-Post") == "<mailto:all@ours.example>"
        assert field(copy, "List-Unsubscribe") == "<mailto:all-unsubscribe@ours.example>"
        assert field(copy, "Precedence") == "list"
        assert body_of(copy) == b"Hello.\r\n-- \r\nThe list of all\r\n"
    assert verdicts(mail, house) == {"s": False, "r": True}
    assert mail.startswith(b"ARC-Seal: i=1; a=rsa-sha256; cv=none; d=ours.example;"), mail[:300]
    assert dkimpy_arc(mail, house.names) == "pass"
    theirs = mail_dkim_arc(mail, house.names)
    assert theirs is None or theirs[0] == "pass", theirs
    found = mail[mail.index(b"ARC-Authentication-Results: i=1;"):].split(b"\r\nDKIM-")[0]
    assert b"dkim=pass" in found and b"dmarc=pass" in found and b"header.from=easy.example" in found
    # Whoever changes it now is found out.
    assert dkimpy_arc(mail.replace(b"The list of all", b"The list of none"), house.names) == "fail"


def test_without_changes_the_authors_signature_survives(house):
    address = house.make("plain", "--posting", "anyone", members=["member@far.example"])
    for author in ("ann@easy.example", "Bob <bob@strict.example>"):
        house.post(address, signed(author), author.split("<")[-1].rstrip(">"))
        ((_, _, mail),) = house.sink.take()
        assert verdicts(mail, house) == {"s": True, "r": True}
        assert field(mail, "From") == author and dkimpy_arc(mail, house.names) == "pass"


def test_from_is_ours_where_the_authors_domain_needs_it(house):
    address = house.make("strict", "--posting", "anyone", "--footer", "f", members=["member@far.example"])
    house.post(address, signed("Bob B <bob@strict.example>"), "bob@strict.example")
    ((_, _, mail),) = house.sink.take()
    assert field(mail, "From") == "Bob B via strict <strict@ours.example>"
    assert field(mail, "Reply-To") == "Bob B <bob@strict.example>"
    assert verdicts(mail, house) == {"s": False, "r": True}
    house.suite.run("list", "set", address, "--own-from", "never", "--reply-to", "list")
    house.post(address, signed("Bob B <bob@strict.example>"), "bob@strict.example")
    ((_, _, mail),) = house.sink.take()
    assert (field(mail, "From"), field(mail, "Reply-To")) == ("Bob B <bob@strict.example>", address)
    house.suite.run("list", "set", address, "--own-from", "always")
    house.post(address, signed("ann@easy.example"), "ann@easy.example")
    ((_, _, mail),) = house.sink.take()
    assert field(mail, "From") == "ann via strict <strict@ours.example>"
    assert (field(mail, "Cc"), field(mail, "Reply-To")) == ("ann@easy.example", address)


def test_who_may_post(house):
    address = house.make("closed", "--owner", "owner@ours.example", members=["ann@easy.example", "jane@ours.example", "bob@strict.example"])
    house.post(address, signed("ann@easy.example"), "ann@easy.example")
    assert len(house.sink.take()[0][1]) >= 1
    house.suite.wait_queue_empty()
    house.sink.mails.clear()
    # A stranger hears why not.
    house.post(address, signed("who@easy.example"), "who@easy.example")
    ((path, to, report),) = house.sink.take()
    assert (path, to) == ("", ["who@easy.example"]) and b"only its members may post here" in report and b"5.7.2" in report
    # A member whose mail is forged is none, and nobody hears of it.
    forged = message("<forged@x>", to=address, sender="bob@strict.example")
    with house.client() as client:
        # The domain wants it refused at once.
        with pytest.raises(smtplib.SMTPDataError):
            client.sendmail("x@easy.example", [address], forged)
    house.submit("jane@ours.example", address, message("<own@ours>", to=address, sender="jane@ours.example"))
    everybody = {"ann@easy.example", "bob@strict.example"}
    wait_for(lambda: {one for _, to, _ in house.sink.mails for one in to} == everybody, lambda: house.sink.mails)
    for path, _, mail in house.sink.mails:
        assert path == "closed-bounces@ours.example" and verdicts(mail, house) == {"r": True} and b"ARC-Seal" not in mail
    house.sink.mails.clear()
    house.suite.run("list", "set", address, "--posting", "owners")
    house.submit("jane@ours.example", address, message("<own2@ours>", to=address, sender="jane@ours.example"))
    wait_for(lambda: any(b"only its owners may post here" in one for one in house.suite.messages("jane@ours.example")), "a report")
    assert not house.sink.mails


SHAPES = {
    "8bit": (b"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n", "Grüße\r\n".encode()),
    "latin1": (b"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=iso-8859-1\r\nContent-Transfer-Encoding: quoted-printable\r\n",
               b"Gr=FC=DFe\r\n"),
    "base64": (b"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n",
               base64.encodebytes("Grüße\r\n".encode()).replace(b"\n", b"\r\n")),
    "html": (b"MIME-Version: 1.0\r\nContent-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n", "<p>Grüße</p>\r\n".encode()),
    "mixed": (b"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=\"b b\"\r\n",
              b"--b b\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n"
              + base64.b64encode("Grüße\r\n".encode()) + b"\r\n--b b\r\nContent-Type: image/png\r\n\r\nx\r\n--b b--\r\n"),
    "large": (b"", b"Gr\r\n" * 500_000),
}


@pytest.mark.parametrize("footer", ["The footer", "Der Fuß"])
@pytest.mark.parametrize("shape", SHAPES)
def test_footers_in_all_shapes(house, shape, footer):
    address = house.make(f"{shape}-{len(footer)}", "--posting", "anyone", "--footer", footer, members=["member@far.example"])
    header, body = SHAPES[shape]
    house.post(address, signed("ann@easy.example", body, header), "ann@easy.example")
    ((_, _, mail),) = house.sink.take(seconds=60)
    assert verdicts(mail, house) == {"s": False, "r": True}
    texts = [part.get_content() for part in parsed(mail).walk() if part.get_content_maintype() == "text"]
    whole = "".join(texts)
    assert whole.count(footer) == 1 and whole.rstrip().endswith(footer), whole[-300:]
    assert ("Grüße" in whole) == (shape != "large")
    for part in parsed(mail).walk():
        assert not part.defects, (shape, part.defects)


def test_a_post_in_chunks(house):
    address = house.make("chunks", "--posting", "anyone", "--footer", "f", members=["member@far.example"])
    mail = signed("ann@easy.example", "Grüße\r\n.\r\n" * 20_000)
    with house.client() as client:
        client.ehlo()
        assert client.mail("ann@easy.example", ["BODY=8BITMIME"])[0] == 250 and client.rcpt(address)[0] == 250
        for at in range(0, len(mail), 50_001):
            chunk = mail[at:at + 50_001]
            last = " LAST" if at + 50_001 >= len(mail) else ""
            client.send(f"BDAT {len(chunk)}{last}\r\n".encode() + chunk)
            assert client.getreply()[0] == 250
    ((_, _, posted),) = house.sink.take(seconds=60)
    assert body_of(posted) == body_of(mail) + b"f\r\n" and verdicts(posted, house) == {"s": False, "r": True}


def test_signed_mail_stays_whole(house):
    address = house.make("sealed", "--posting", "anyone", "--footer", "f", members=["member@far.example"])
    header = b'MIME-Version: 1.0\r\nContent-Type: multipart/signed; protocol="application/pgp-signature"; boundary=x\r\n'
    body = b"--x\r\n\r\nSigned.\r\n--x\r\nContent-Type: application/pgp-signature\r\n\r\nsignature\r\n--x--\r\n"
    house.post(address, signed("ann@easy.example", body, header), "ann@easy.example")
    ((_, _, mail),) = house.sink.take()
    assert mail.endswith(b"\r\n\r\n" + body)


def test_lists_that_are_members_of_each_other(house):
    """A post reaches the members of both once, and the circle ends without a word."""
    one = house.make("one", "--posting", "anyone", members=["m1@far.example", "two@ours.example"])
    house.make("two", "--posting", "anyone", members=["m2@far.example", "one@ours.example"])
    house.suite.run("alias", "add", "uno@ours.example", "one@ours.example")
    house.post(one, signed("ann@easy.example"), "ann@easy.example")
    house.suite.wait_queue_empty()
    assert sorted(to for _, to, _ in house.sink.mails) == [["m1@far.example"], ["m2@far.example"]]
    inner = next(mail for _, to, mail in house.sink.mails if to == ["m2@far.example"])
    assert field(inner, "List-Id") == "<two.ours.example>" and len(parsed(inner).get_all("List-Id")) == 1
    house.sink.mails.clear()
    # The same list by two addresses of one message: once.
    house.post([one, "uno@ours.example"], signed("ann@easy.example"), "ann@easy.example")
    house.suite.wait_queue_empty()
    reached = [to for _, to, _ in house.sink.mails]
    assert reached.count(["m1@far.example"]) == 1, reached
    house.sink.mails.clear()


def test_a_thousand_members(house):
    many = [f"m{number}@far.example" for number in range(1000)]
    address = house.make("many", "--posting", "anyone", "--footer", "f", members=many)
    assert house.suite.json("list", "show", address)["members"] == 1000
    house.post(address, signed("ann@easy.example", "Hello.\r\n" * 20_000), "ann@easy.example")
    wait_for(lambda: sum(len(to) for _, to, _ in house.sink.mails) >= 1000, lambda: len(house.sink.mails), 120)
    house.suite.wait_queue_empty()
    assert sorted(one for _, to, _ in house.sink.mails for one in to) == sorted(many)
    house.sink.mails.clear()


@pytest.mark.parametrize("role", ["deliverd", "queued"])
def test_killed_in_the_middle_everybody_gets_it_once(house, role):
    house.suite.wait_queue_empty()
    many = [f"k{number}@far.example" for number in range(600)]
    address = house.make(f"killed-{role}", "--posting", "anyone", "--footer", "f", members=[*many, "jane@ours.example"])
    before = len(house.suite.messages("jane@ours.example"))
    for number in range(5):
        house.post(address, signed("ann@easy.example", f"Hello {number}.\r\n"), "ann@easy.example")
        if number == 2:
            house.suite.kill(role)
            house.suite.wait_up()
    wait_for(lambda: sum(len(to) for _, to, _ in house.sink.mails) >= 3000, lambda: sum(len(to) for _, to, _ in house.sink.mails), 120)
    house.suite.wait_queue_empty(120)
    got = [(one, parsed(mail).get_content()) for _, to, mail in house.sink.mails for one in to]
    # relayd may have handed a message over that queued had not noted: a destination's share, as of any message (RFC 1047).
    assert len(set(got)) == 3000
    assert role == "queued" or len(got) == 3000, len(got)
    here = house.suite.messages("jane@ours.example")[before:]
    assert len(here) == 5, len(here)
    house.sink.mails.clear()


def test_bounces_suspend_members(house):
    address = house.make("bouncing", "--posting", "anyone", "--owner", "owner@ours.example", "--max-bounces", "1",
                         members=["gone@ours.example", "gone@far.example", "jane@ours.example"])
    house.post(address, signed("ann@easy.example"), "ann@easy.example")
    house.sink.take()
    suspended = lambda: {one["address"] for one in house.suite.json("list", "member", "list", address) if one["suspended"]}
    # One of our own, whom our own queue reports.
    wait_for(lambda: suspended() == {"gone@ours.example"}, lambda: suspended())
    report = (b"From: mailer-daemon@far.example\r\nSubject: failed\r\nMIME-Version: 1.0\r\n"
              b"Content-Type: multipart/report; report-type=delivery-status; boundary=x\r\n\r\n--x\r\n\r\nSorry.\r\n--x\r\n"
              b"Content-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; far.example\r\n\r\n"
              b"Original-Recipient: rfc822;gone@far.example\r\nFinal-Recipient: rfc822;g@far.example\r\nAction: failed\r\nStatus: 5.1.1\r\n\r\n--x--\r\n")
    house.post("bouncing-bounces@ours.example", report, "")
    wait_for(lambda: suspended() == {"gone@ours.example", "gone@far.example"}, lambda: suspended())
    notices = house.suite.wait_messages("owner@ours.example", 2)
    assert any(b"gone@far.example" in one for one in notices)
    house.suite.wait_queue_empty()
    house.sink.mails.clear()
    house.post(address, signed("ann@easy.example"), "ann@easy.example")
    house.suite.wait_queue_empty()
    assert not house.sink.mails
    house.suite.run("list", "member", "add", address, "gone@far.example")
    assert suspended() == {"gone@ours.example"}


def test_joining_and_leaving_by_mail(house):
    address = house.make("open", "--subscription", "confirm", members=[])
    members = lambda: [one["address"] for one in house.suite.json("list", "member", "list", address)]
    for command, wanted in (("open-subscribe@ours.example", ["new@easy.example"]), ("open-unsubscribe@ours.example", [])):
        house.post(command, signed("new@easy.example", to=command), "new@easy.example")
        ((path, to, question),) = house.sink.take()
        assert (path, to) == ("", ["new@easy.example"]) and field(question, "Auto-Submitted") == "auto-replied"
        confirm = re.search(r"open-confirm\+[^>]+@ours.example", field(question, "From"))[0]
        assert members() != wanted
        # Somebody else's guess.
        forged = re.sub(r"(-confirm\+[jl]\d+-)..", r"\g<1>00", confirm)
        if forged != confirm:
            house.post(forged, signed("new@easy.example", to=forged), "new@easy.example")
            house.suite.wait_queue_empty()
            assert members() != wanted and not house.sink.mails
        # Whoever else answers, it is about the one whom the question names; without that, about who answers.
        answer = signed("new@easy.example", to=confirm)
        house.post(confirm, answer, "new@easy.example")
        house.sink.take()
        assert members() == wanted
    # To each address once in an hour; never to a machine.
    house.post("open-subscribe@ours.example", signed("new@easy.example"), "new@easy.example")
    house.post("open-subscribe@ours.example", signed("robot@easy.example", header=b"Auto-Submitted: auto-generated\r\n"), "robot@easy.example")
    house.post("open-request@ours.example", signed("new@easy.example"), "new@easy.example")
    ((_, _, answer),) = house.sink.take()
    assert b"open-subscribe@ours.example" in answer
    house.suite.wait_queue_empty()
    assert not house.sink.mails

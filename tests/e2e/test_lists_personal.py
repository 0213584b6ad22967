"""Personal posts: a reverse-path and a link to leave for each member; bounces that name nobody; one click as mail programs do it; kills."""

import email
import email.policy
import re
import subprocess
from pathlib import Path

import pytest

from authority import open_folder
from exchangers import Authority
from servers import Knot, zone
from sink import Sink
from suite import Suite, free_port, wait_for

# Their house is ours, with more in it.
from e2e.test_lists import AUTHORS, HOST, House, RECORD, field, signed, verdicts

WEB = "mail.example.test"


class Personal(House):
    """The same house with httpd, whose certificate curl trusts."""

    def __init__(self):
        self.sink = Sink()
        self.https = free_port()
        folder = open_folder()
        self.ca = Authority(folder, "ca")
        zones = {name: zone(name, [f'@ TXT "v=spf1 ip4:{HOST} -all"', f"s._domainkey TXT {RECORD}", f'_dmarc TXT "v=DMARC1; p={policy}"'])
                 for name, policy in AUTHORS.items()}
        zones["example"] = zone("example", [])
        self.authors = Knot(zones)
        self.suite = Suite(config={
            "relayd": {"route": [{"match": "*", "host": "127.0.0.1", "port": self.sink.port, "tls": "none"}]},
            "smtpd": {"proxy_networks": ["127.0.0.0/8"],
                      "checks": {"nameservers": [f"127.0.0.1:{self.authors.port}"], "limits": {"dns_timeout": 1, "timeout": 5}}},
            "httpd": {"enabled": True, "https_address": f"127.0.0.1:{self.https}", "http_address": "", "connections_per_address": 0},
            "authd": {"personal_members": 700},
            "keyd": {"certificate": [self.ca.host(WEB).files(folder, "web")]}}).start()
        self.suite.add_domain("ours.example")
        for account in ("jane", "owner"):
            self.suite.add_account(f"{account}@ours.example")
        self.suite.run("dkim", "add", "ours.example", "--selector", "r")
        zones["ours.example"] = zone("ours.example", [self.suite.run("dns", "show", "ours.example").stdout])
        self.names = Knot(zones)

    def own(self, name, *options, members):
        return self.make(name, "--posting", "anyone", "--personal", "yes", *options, members=members)

    def members(self, address):
        return {one["address"] for one in self.suite.json("list", "member", "list", address)}

    def suspended(self, address):
        return {one["address"] for one in self.suite.json("list", "member", "list", address) if one["suspended"]}

    def curl(self, url, *options):
        """Status, fields and body."""
        done = subprocess.run(["curl", "-sS", "-i", "--max-time", "20", "--cacert", self.ca.file, "--connect-to", f"{WEB}::127.0.0.1:{self.https}",
                               *options, url], capture_output=True, timeout=60)
        assert done.returncode == 0, done.stderr
        head, _, body = done.stdout.partition(b"\r\n\r\n")
        first, *fields = head.decode().split("\r\n")
        return int(first.split()[1]), {name.lower(): value for name, _, value in (line.partition(": ") for line in fields)}, body.decode()

    def copies(self, address, count=1):
        """`{member: (reverse-path, octets)}` of a post."""
        self.post(address, signed("ann@easy.example"), "ann@easy.example")
        taken = self.sink.take(count, 60)
        assert all(len(to) == 1 for _, to, _ in taken)
        return {to[0]: (path, mail) for path, to, mail in taken}


@pytest.fixture(scope="module")
def whole_house():
    house = Personal()
    yield house
    house.close()


@pytest.fixture
def house(whole_house):
    whole_house.suite.wait_queue_empty(120)
    whole_house.sink.mails.clear()
    return whole_house


def link_of(mail):
    fields = email.message_from_bytes(mail, policy=email.policy.compat32).get_all("List-Unsubscribe")
    assert len(fields) == 1, fields
    link, mailto = [one.strip().strip("<>") for one in re.sub(r"\s+", " ", fields[0]).split(",")]
    return link, mailto


def signed_fields(mail):
    """The names in h= of the list's signature."""
    for value in email.message_from_bytes(mail).get_all("DKIM-Signature"):
        tags = dict(tag.strip().split("=", 1) for tag in re.sub(r"\s+", "", value).split(";") if "=" in tag)
        if tags["d"] == "ours.example":
            return tags["h"].lower().split(":")
    return []


ONE_CLICK = ["--data", "List-Unsubscribe=One-Click"]
FORM = ["--form", "List-Unsubscribe=One-Click"]


def test_each_member_gets_a_copy_of_their_own(house):
    far = [f"m{number}@far.example" for number in range(5)]
    address = house.own("own", "--tag", "own", "--archive", "owner@ours.example", members=[*far, "jane@ours.example"])
    assert house.suite.json("list", "show", address)["personal"] is True
    copies = house.copies(address, 5)
    assert set(copies) == set(far)
    paths = {path for path, _ in copies.values()}
    links = set()
    assert len(paths) == 5 and all(re.fullmatch(r"own-bounces\+[a-z2-7]{22}@ours\.example", path) for path in paths), paths
    for _, mail in copies.values():
        link, mailto = link_of(mail)
        links.add(link)
        assert re.fullmatch(rf"https://{WEB}/unsubscribe/[a-z2-7]{{28}}", link) and mailto == "mailto:own-unsubscribe@ours.example"
        assert field(mail, "List-Unsubscribe-Post") == "List-Unsubscribe=One-Click"
        assert field(mail, "Subject") == "[own] a letter" and field(mail, "List-Id") == "<own.ours.example>"
        assert verdicts(mail, house) == {"s": False, "r": True}
        # RFC 8058 4
        assert {"list-unsubscribe", "list-unsubscribe-post"} <= set(signed_fields(mail)), signed_fields(mail)
        assert verdicts(mail.replace(link.encode(), link.replace("/unsubscribe/", "/elsewhere/").encode()), house)["r"] is False
    assert len(links) == 5
    (here,) = house.suite.wait_messages("jane@ours.example", 1)
    path = re.match(rb"Return-Path: <(own-bounces\+[a-z2-7]{22})@ours\.example>", here)[1].decode()
    assert path + "@ours.example" not in paths and link_of(here)[0] not in links
    # The archive is no member, and names none.
    (kept,) = house.suite.wait_messages("owner@ours.example", 1)
    assert kept.startswith(b"Return-Path: <own-bounces@ours.example>") and b"/unsubscribe/" not in kept


def test_a_list_without_personal_posts_is_as_before(house):
    address = house.make("usual", "--posting", "anyone", members=["a@far.example", "b@far.example"])
    house.post(address, signed("ann@easy.example"), "ann@easy.example")
    ((path, to, mail),) = house.sink.take()
    assert (path, len(to)) == ("usual-bounces@ours.example", 2) and field(mail, "List-Unsubscribe-Post") is None


@pytest.mark.parametrize("form", [ONE_CLICK, FORM, [*ONE_CLICK, "--http1.1"]], ids=["urlencoded", "multipart", "http1"])
def test_one_click_is_enough(house, form):
    address = house.own(f"click-{len(form)}{form[0].strip('-')}", members=["stays@far.example", "leaves@far.example"])
    copies = house.copies(address, 2)
    link, _ = link_of(copies["leaves@far.example"][1])
    # To look at it does nothing, however often.
    for options in ([], ["-I"], ["-H", "Referer: https://elsewhere.example/"]):
        status, fields, body = house.curl(link, *options)
        assert status == 200 and "location" not in fields and "set-cookie" not in fields, fields
        assert fields["content-type"] == "text/html; charset=utf-8" and fields["referrer-policy"] == "no-referrer"
        assert "form-action 'self'" in fields["content-security-policy"] and "default-src 'none'" in fields["content-security-policy"]
        assert options == ["-I"] or ('<form method="post">' in body and address in body and "<script" not in body), body
    assert house.members(address) == {"stays@far.example", "leaves@far.example"}
    status, fields, body = house.curl(link, *form)
    assert status == 200 and "location" not in fields and "set-cookie" not in fields
    assert house.members(address) == {"stays@far.example"}
    # Once more, and to look again.
    assert house.curl(link, *form)[0] == 200 and house.curl(link)[0] == 200
    assert house.members(address) == {"stays@far.example"}
    assert set(house.copies(address)) == {"stays@far.example"}
    # Who comes back can leave by the same link.
    house.suite.run("list", "member", "add", address, "leaves@far.example")
    assert house.curl(link, *form)[0] == 200 and house.members(address) == {"stays@far.example"}


def test_what_is_no_click(house):
    address = house.own("noclick", members=["one@far.example", "two@far.example"])
    copies = house.copies(address, 2)
    (one, _), (two, _) = (link_of(copies[member][1]) for member in ("one@far.example", "two@far.example"))
    for options in (["--data", "x=y"], ["--data", ""], ["--data", "List-Unsubscribe=Two-Clicks"], ["-H", "Content-Type: text/plain", *ONE_CLICK],
                    ["--form", "x=One-Click"]):
        assert house.curl(one, *options)[0] == 400, options
    assert house.curl(one, "--data-binary", "x" * 20_000)[0] == 413
    status, fields, _ = house.curl(one, "-X", "DELETE")
    assert status == 405 and fields["allow"] == "GET, HEAD, POST"
    # Tokens that were not made here: of nobody, of two members, of another use. They say the same as any path.
    nothing = house.curl(f"https://{WEB}/nothing")
    path = copies["one@far.example"][0].split("+")[1].split("@")[0]
    base, letters = one.rsplit("/", 1)
    for wrong in ("a" * 28, letters[:12] + two.rsplit("/", 1)[1][12:], letters[:-1] + ("a" if letters[-1] != "a" else "b"), letters[1:], path, "x",
                  letters + "a", letters + "/", "%2e%2e", "a" * 200):
        for options in ([], ONE_CLICK, FORM):
            status, fields, body = house.curl(f"{base}/{wrong}", "--path-as-is", *options)
            assert (status, body) == (nothing[0], nothing[2]) == (404, "Not Found\n"), (wrong, status, body)
    assert house.members(address) == {"one@far.example", "two@far.example"}
    # No token is in the log.
    log = house.suite.log.read_text()
    assert "/unsubscribe/..." in log and letters not in log
    house.suite.run("list", "remove", address)
    assert house.curl(two, *ONE_CLICK)[0] == 200 and house.curl(two)[0] == 200
    assert house.curl(f"{base}/{'a' * 28}", *ONE_CLICK)[0] == 404


NAMELESS = b"From: mailer@far.example\r\nSubject: failure notice\r\n\r\nHi. This is the mail program at far.example.\r\nNo such user here.\r\n"
AWAY = b"From: m@far.example\r\nSubject: I am away\r\nAuto-Submitted: auto-replied (vacation)\r\n\r\nBack on Monday.\r\n"


def report(member, action="failed", status="5.1.1"):
    return (b"From: mailer@far.example\r\nSubject: report\r\nMIME-Version: 1.0\r\n"
            b"Content-Type: multipart/report; report-type=delivery-status; boundary=x\r\n\r\n--x\r\n\r\nSorry.\r\n--x\r\n"
            b"Content-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; far.example\r\n\r\n"
            b"Final-Recipient: rfc822;" + member.encode() + b"\r\nAction: " + action.encode() + b"\r\nStatus: " + status.encode() + b"\r\n\r\n--x--\r\n")


def test_bounces_count_against_whom_the_reverse_path_names(house):
    address = house.own("verp", "--owner", "owner@ours.example", "--max-bounces", "1",
                        members=["gone@far.example", "other@far.example", "third@far.example", "nobody@ours.example"])
    told = len(house.suite.messages("owner@ours.example"))
    copies = house.copies(address, 3)
    # One of our own that is not there: our own queue's report.
    wait_for(lambda: house.suspended(address) == {"nobody@ours.example"}, lambda: house.suspended(address))
    path, other = copies["gone@far.example"][0], copies["other@far.example"][0]
    local, _, domain = path.rpartition("@")
    swapped = f"{local[:-10]}{other.rpartition('@')[0][-10:]}@{domain}"
    # Forged: by name alone, with another's seal, with none, with a sender, and what is no failure.
    house.post("verp-bounces@ours.example", report("gone@far.example"), "")
    house.post(swapped, report("gone@far.example"), "")
    house.post(f"{local[:-10]}@{domain}", report("gone@far.example"), "")
    house.post("verp-bounces+gone=far.example@ours.example", NAMELESS, "")
    house.post(path, NAMELESS, "ann@easy.example")
    house.post(path, AWAY, "")
    house.post(path, report("gone@far.example", "delayed", "4.4.1"), "")
    house.suite.wait_queue_empty()
    assert house.suspended(address) == {"nobody@ours.example"}
    # What it says of others does not count.
    house.post(path.upper().replace("OURS.EXAMPLE", "ours.example"), NAMELESS, "")
    house.post(other, report("third@far.example"), "")
    wanted = {"nobody@ours.example", "gone@far.example", "other@far.example"}
    wait_for(lambda: house.suspended(address) == wanted, lambda: house.suspended(address))
    house.suite.wait_queue_empty()
    house.sink.mails.clear()
    assert set(house.copies(address)) == {"third@far.example"}
    notices = house.suite.wait_messages("owner@ours.example", told + 3)
    assert any(b"gone@far.example" in one for one in notices)


def test_nobody_outside_has_copies_made(house):
    house.own("inner", members=["m@far.example"])
    with house.client() as client:
        client.ehlo()
        client.mail("ann@easy.example")
        assert client.rcpt("inner-copies+aaaaaaaaaaaaaaaaaaaaaa@ours.example")[0] == 550
    house.suite.wait_queue_empty()
    assert not house.sink.mails


def test_limits(house):
    refused = house.suite.run("list", "create", f"{'l' * 34}@ours.example", "--personal", "yes", check=False)
    assert refused.returncode != 0 and "33 octets" in refused.stderr + refused.stdout
    address = house.make("limit", members=[f"m{number}@far.example" for number in range(701)])
    refused = house.suite.run("list", "set", address, "--personal", "yes", check=False)
    assert refused.returncode != 0 and "700 members" in refused.stderr + refused.stdout
    house.suite.run("list", "member", "remove", address, "m0@far.example")
    house.suite.run("list", "set", address, "--personal", "yes")
    refused = house.suite.run("list", "member", "add", address, "m0@far.example", check=False)
    assert refused.returncode != 0 and "700 members" in refused.stderr + refused.stdout
    house.suite.run("list", "set", address, "--personal", "no")
    house.suite.run("list", "member", "add", address, "m0@far.example")


@pytest.mark.parametrize("size", [1, 3_000, 200_000])
def test_many_members_get_bodies_of_all_sizes(house, size):
    many = [f"m{number}@far.example" for number in range(450)]
    address = house.own(f"many-{size}", "--footer", "f", members=[*many, "jane@ours.example"])
    before = len(house.suite.messages("jane@ours.example"))
    text = "Grüße\r\n" * (size // 7 + 1)
    house.post(address, signed("ann@easy.example", text.encode(), b"Content-Type: text/plain; charset=utf-8\r\n"), "ann@easy.example")
    wait_for(lambda: len(house.sink.mails) >= 450, lambda: len(house.sink.mails), 180)
    house.suite.wait_queue_empty(120)
    assert sorted(to[0] for _, to, _ in house.sink.mails) == sorted(many)
    assert len({path for path, _, _ in house.sink.mails}) == 450
    for _, _, mail in house.sink.mails[::90]:
        assert verdicts(mail, house) == {"s": False, "r": True} and email.message_from_bytes(mail).get_payload(decode=True).count("ü".encode()) == size // 7 + 1
    assert len(house.suite.wait_messages("jane@ours.example", before + 1)) == before + 1
    assert not [name for name in (house.suite.dir / "state" / "queue" / "spool").iterdir() if not name.name.startswith("slot-")]


@pytest.mark.parametrize("role", ["deliverd", "queued"])
def test_killed_in_the_middle_nobody_is_lost(house, role):
    many = [f"k{number}@far.example" for number in range(600)]
    address = house.own(f"killed-{role}", members=[*many, "jane@ours.example"])
    before = len(house.suite.messages("jane@ours.example"))
    for number in range(3):
        house.post(address, signed("ann@easy.example", f"Hello {number}.\r\n"), "ann@easy.example")
        # In the middle of the post: some have it, most do not.
        wait_for(lambda: len(house.sink.mails) > number * 600, "a first copy", 60, pause=0.005)
        if number < 2:
            house.suite.kill(role)
            house.suite.wait_up()
    wait_for(lambda: len({(to[0], field(mail, "Message-ID")) for _, to, mail in house.sink.mails}) >= 1800, lambda: len(house.sink.mails), 180)
    house.suite.wait_queue_empty(180)
    got = [(to[0], email.message_from_bytes(mail).get_payload()) for _, to, mail in house.sink.mails]
    assert len(set(got)) == 1800
    # A page again at most for each kill of queued, and what relayd had handed over without queued's knowing.
    assert max(got.count(one) for one in set(got)) <= 3
    assert role == "queued" or len(got) == 1800, len(got)
    assert len(house.suite.messages("jane@ours.example")) - before >= 3
    house.sink.mails.clear()

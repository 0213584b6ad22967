"""Each extension that is announced, through a real delivery: the scripts follow the examples of the RFC that is named."""

import re
import smtplib
import socket
import tempfile
import textwrap
from pathlib import Path

import pytest

from imap_lines import Client
from suite import Suite

PLAIN = b"""From: Joe Smith <joe+lists@example.net>
To: ken@example.test
Subject: [Posthouse] Price: 15 for you
Date: Mon, 23 Mar 2026 10:00:00 +0100
Message-ID: <one@example.net>
X-Spam-Level: *****
X-Priority: 2
Received: from a.example by b.example; Mon, 23 Mar 2026 11:00:00 +0100
Received: from x.example by a.example; Sun, 22 Mar 2026 11:00:00 +0100

MAKE MONEY FAST
""".replace(b"\n", b"\r\n")

MIXED = b"""From: joe@example.net
To: ken@example.test
Subject: with a part
Date: Mon, 23 Mar 2026 10:00:00 +0100
Message-ID: <two@example.net>
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary=b

--b
Content-Type: text/plain; charset=utf-8

The first part.
--b
Content-Type: application/x-msdownload; name="evil.exe"
Content-Disposition: attachment; filename="evil.exe"
Content-Transfer-Encoding: base64

TVqQAAM=
--b--
""".replace(b"\n", b"\r\n")

# What is required, the test that has to hold, the message.
TESTS = [
    ("RFC 5228 5.4", ["envelope"], 'envelope :is "from" "joe@example.net"', PLAIN),
    ("RFC 5228 2.4.2.4", ["encoded-character"], 'header :contains "subject" "${hex:50 72}ice"', PLAIN),
    ("RFC 5228 2.7.3", ["comparator-i;ascii-casemap"],
     'header :comparator "i;ascii-casemap" :contains "subject" "POSTHOUSE"', PLAIN),
    ("RFC 5228 2.7.3", ["comparator-i;octet"], 'not header :comparator "i;octet" :contains "subject" "POSTHOUSE"', PLAIN),
    ("RFC 4790 9.1", ["comparator-i;ascii-numeric", "relational"],
     'header :value "lt" :comparator "i;ascii-numeric" "x-priority" "10"', PLAIN),
    ("RFC 5173 5.3", ["body"], 'body :text :contains "make money fast"', PLAIN),
    ("RFC 5173 5.2", ["body"], 'body :content "text" :contains ["the first part"]', MIXED),
    ("RFC 5231 7", ["relational"], 'header :count "ge" "received" "2"', PLAIN),
    ("regex", ["regex", "variables"], 'header :regex "subject" "Price: [0-9]+"', PLAIN),
    ("RFC 5260 5", ["date"], 'date :zone "+0100" "date" "weekday" "1"', PLAIN),
    ("RFC 5260 5", ["date", "relational"], 'currentdate :value "ge" "date" "2020-01-01"', PLAIN),
    ("RFC 5260 6", ["index", "date", "relational"], 'date :value "eq" :index 1 :last :zone "+0100" "received" "date" "2026-03-22"', PLAIN),
    ("RFC 5233 4", ["subaddress"], 'address :detail "from" "lists"', PLAIN),
    ("RFC 5233 4", ["subaddress"], 'address :user "from" "joe"', PLAIN),
    ("RFC 5183 4", ["environment"], 'environment :is "name" "Posthouse"', PLAIN),
    ("RFC 5183 4.1", ["environment"], 'environment :is "location" "MDA"', PLAIN),
    ("RFC 5463", ["ihave"], 'ihave "fileinto"', PLAIN),
    ("RFC 5463", ["ihave"], 'not ihave ["vnd.example.nothing"]', PLAIN),
    ("RFC 5703 4.1", ["mime"], 'header :mime :anychild :contenttype "content-type" "application/x-msdownload"', MIXED),
    ("RFC 5490 3.2", ["mailbox"], 'mailboxexists "INBOX"', PLAIN),
    ("RFC 5490 3.2", ["mailbox"], 'not mailboxexists "Nowhere"', PLAIN),
    ("RFC 8579 3", ["special-use"], 'specialuse_exists "\\\\Junk"', PLAIN),
    ("RFC 9042 4.1", ["mailboxid"], 'not mailboxidexists "F999999"', PLAIN),
    # RFC 5235 2.2, 3.2: "0" says that nothing tested it.
    ("RFC 5235 2.2", ["spamtest", "relational", "comparator-i;ascii-numeric"],
     'spamtest :value "eq" :comparator "i;ascii-numeric" "0"', PLAIN),
    ("RFC 5235 2.3", ["spamtestplus", "relational", "comparator-i;ascii-numeric"],
     'spamtest :percent :value "eq" :comparator "i;ascii-numeric" "0"', PLAIN),
    ("RFC 5235 3.2", ["virustest", "relational", "comparator-i;ascii-numeric"],
     'virustest :value "eq" :comparator "i;ascii-numeric" "0"', PLAIN),
    ("RFC 5435 5", ["enotify"], 'valid_notify_method "mailto:ken@example.test"', PLAIN),
    ("RFC 5435 5", ["enotify"], 'not valid_notify_method "xmpp:ken@example.test"', PLAIN),
]


@pytest.fixture(scope="module")
def suite():
    suite = Suite().start()
    suite.add_domain("example.test")
    yield suite
    suite.remove()


@pytest.fixture
def account(suite, request):
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower())[-50:].strip("-")
    return suite.add_account(f"{name}@example.test")


def put(suite, account, text, name="main", active=True):
    script = suite.dir / f"{name}.sieve"
    script.write_text(textwrap.dedent(text).strip() + "\n")
    script.chmod(0o644)
    suite.run("script", "put", account, name, script)
    if active:
        suite.run("script", "activate", account, name)


@pytest.mark.parametrize("body", [PLAIN, MIXED], ids=["plain", "mixed"])
def test_tests_hold(suite, account, body):
    """Each row whose test holds says its number in a header: a script files into 14 places at most."""
    rows = [(number, row) for number, row in enumerate(TESTS) if row[3] is body]
    required = sorted({name for _, row in rows for name in row[1]} | {"editheader"})
    lines = [f"require [{', '.join(map(quoted, required))}];"]
    lines += [f'if {row[2]} {{ addheader "X-Held" "<{number}>"; }}' for number, row in rows]
    put(suite, account, "\n".join(lines))
    suite.send(account, body=body, sender="joe@example.net")
    raw = suite.wait_messages(account, 1)[0]
    missing = [row[:3] for number, row in rows if f"<{number}>".encode() not in raw]
    assert not missing


def quoted(text):
    return f'"{text}"'


def test_annotations(suite, account):
    """RFC 5490 3.1, 3.3"""
    client = Client(suite, account)
    client.do("CREATE Team")
    client.do('SETMETADATA Team (/private/vendor/x/route "yes")')
    client.do('SETMETADATA "" (/private/vendor/x/mode "away")')
    put(suite, account, """
        require ["mboxmetadata", "servermetadata", "fileinto"];
        if allof (metadata :is "Team" "/private/vendor/x/route" "yes",
                  metadataexists "Team" ["/private/vendor/x/route"],
                  not metadata :is "INBOX" "/private/vendor/x/route" "yes",
                  not metadataexists "Team" ["/private/vendor/x/route", "/private/other"],
                  servermetadata :matches "/private/vendor/x/mode" "aw*",
                  servermetadataexists ["/private/vendor/x/mode"],
                  not servermetadataexists "/private/vendor/x/route") {
            fileinto "Team";
        }
    """)
    suite.send(account, body=PLAIN)
    suite.wait_messages(account, 1, "Team")


def test_variables_and_flags(suite, account):
    """RFC 5229 4; RFC 5232 3, 4"""
    put(suite, account, """
        require ["variables", "imap4flags", "fileinto", "mailbox"];
        if header :matches "subject" "[*] *" { set :lower :upperfirst "list" "${1}"; }
        setflag "\\\\Flagged";
        addflag "$Work";
        removeflag "\\\\Flagged";
        if hasflag :is "$Work" { fileinto :create "Lists/${list}"; }
    """)
    suite.send(account, body=PLAIN)
    suite.wait_messages(account, 1, "Lists/Posthouse")
    imap = suite.imap(account)
    imap.select("Lists/Posthouse", readonly=True)
    flags = imap.fetch("1", "(FLAGS)")[1][0]
    imap.logout()
    assert b"$Work" in flags and b"\\Flagged" not in flags


def test_parts_are_replaced_and_read(suite, account):
    """RFC 5703 3, 5, 7: the example that takes executables out."""
    put(suite, account, """
        require ["foreverypart", "mime", "replace", "extracttext", "variables", "editheader"];
        foreverypart {
            if header :mime :param "filename" :matches "Content-Disposition" ["*.exe", "*.com"] {
                replace "The attachment was taken out.";
            }
            elsif header :mime :contenttype "content-type" "text/plain" {
                extracttext :first 9 "beginning";
            }
        }
        addheader "X-Beginning" "${beginning}";
    """)
    suite.send(account, body=MIXED)
    raw = suite.wait_messages(account, 1)[0]
    assert b"The attachment was taken out." in raw and b"TVqQAAM" not in raw
    assert b"X-Beginning: The first" in raw


def test_enclose(suite, account):
    """RFC 5703 6"""
    put(suite, account, """
        require "enclose";
        enclose :subject "Warning" text:
        This may be harmful.
        .
        ;
    """)
    suite.send(account, body=PLAIN)
    raw = suite.wait_messages(account, 1)[0]
    assert b"Subject: Warning" in raw and b"message/rfc822" in raw and b"MAKE MONEY FAST" in raw


def test_included_scripts_share_variables(suite, account):
    """RFC 6609 3"""
    put(suite, account, """
        require ["include", "variables"];
        global "place";
        set "place" "Included";
    """, "helper", active=False)
    put(suite, account, """
        require ["include", "variables", "fileinto", "mailbox"];
        global "place";
        include :personal "helper";
        include :optional :personal "not-there";
        fileinto :create "${place}";
    """)
    suite.send(account, body=PLAIN)
    suite.wait_messages(account, 1, "Included")


def test_special_use_and_id_name_the_place(suite, account):
    """RFC 8579 4, RFC 9042 4.2"""
    imap = suite.imap(account)
    imap.create("ById")
    _, (found,) = imap.status("ById", "(MAILBOXID)")
    number = re.search(rb"MAILBOXID \(([^)]+)\)", found)[1].decode()
    imap.logout()
    put(suite, account, f"""
        require ["fileinto", "special-use", "mailboxid", "mailbox", "copy"];
        fileinto :copy :specialuse "\\\\Junk" "Nowhere";
        fileinto :mailboxid "{number}" "Nowhere";
    """)
    suite.send(account, body=PLAIN)
    suite.wait_messages(account, 1, "ById")
    suite.wait_messages(account, 1, "Junk")


def test_vacation_seconds_with_a_copy_of_the_answer(suite, account):
    """RFC 6131 2, RFC 8580 3"""
    friend = suite.add_account("fcc-friend@example.test")
    put(suite, account, """
        require ["vacation", "vacation-seconds", "fcc", "mailbox"];
        vacation :seconds 1800 :fcc "Answers" :create "I am away.";
    """)
    suite.send(account, sender=friend)
    assert b"I am away." in suite.wait_messages(friend, 1)[0]
    assert b"I am away." in suite.wait_messages(account, 1, "Answers")[0]


def test_ereject(suite, account):
    """RFC 5429 2.1"""
    sender = suite.add_account("ereject-sender@example.test")
    put(suite, account, 'require "ereject"; ereject "No solicitation.";')
    suite.send(account, sender=sender)
    assert b"No solicitation." in suite.wait_messages(sender, 1)[0]
    assert suite.messages(account) == []


def test_notify_and_redirect_with_reports(suite, account):
    """RFC 5435 3, RFC 5436; RFC 6009 5"""
    phone = suite.add_account("phone@example.test")
    other = suite.add_account("dsn-other@example.test")
    sender = suite.add_account("dsn-sender@example.test")
    put(suite, account, f"""
        require ["enotify", "redirect-dsn", "copy"];
        notify :message "You got mail" "mailto:{phone}";
        redirect :copy :notify "SUCCESS" :ret "HDRS" "{other}";
    """)
    suite.send(account, sender=sender)
    note = suite.wait_messages(phone, 1)[0]
    assert b"Subject: You got mail" in note and b"Auto-Submitted: auto-notified" in note
    suite.wait_messages(other, 1)
    suite.wait_messages(account, 1)
    assert b"Action: delivered" in suite.wait_messages(sender, 1)[0]


def test_envelope_dsn(suite, account):
    """RFC 6009 4: each condition is tested for itself, and what was not given matches nothing."""
    put(suite, account, """
        require ["envelope", "envelope-dsn", "fileinto", "mailbox"];
        if allof (envelope :is "notify" "SUCCESS", envelope :is "notify" "DELAY", not envelope :is "notify" "FAILURE",
                  envelope :is "ret" "HDRS", envelope :is "envid" "QQ=314159",
                  envelope :is "orcpt" "rfc822;Ken@elsewhere.example") {
            fileinto :create "Told";
        }
        elsif not envelope :matches ["notify", "ret", "envid", "orcpt"] "*" {
            fileinto :create "Silent";
        }
    """)
    with smtplib.SMTP(*suite.address("mx")) as client:
        client.sendmail("joe@example.net", [account], PLAIN, mail_options=["RET=HDRS", "ENVID=QQ+3D314159"],
                        rcpt_options=["NOTIFY=SUCCESS,DELAY", "ORCPT=rfc822;Ken@elsewhere.example"])
    suite.wait_messages(account, 1, "Told")
    suite.send(account, body=PLAIN)
    suite.wait_messages(account, 1, "Silent")


def test_lists_of_the_administrator(make_suite):
    """RFC 6134 2.1, 2.2, 2.4"""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        partners = Path(folder) / "partners"
        partners.write_text("# ours\njoe+lists@example.net\none@example.test\ntwo@example.test\n@example.test\n")
        partners.chmod(0o644)
        name = "tag:lists@example.test,2026:partners"
        suite = make_suite(config={"deliverd": {"sieve": {"lists": {name: partners}}}})
        suite.add_domain("example.test")
        account, one, two = (suite.add_account(f"{who}@example.test") for who in ("ken", "one", "two"))
        put(suite, account, f"""
            require ["extlists", "fileinto", "mailbox", "envelope", "copy", "variables"];
            if allof (address :list "from" "{name}",
                      not header :list "subject" "{name}",
                      envelope :list "to" ["tag:lists@example.test,2026:nobody", "{name}"],
                      valid_ext_list "{name}",
                      not valid_ext_list ["{name}", ":addrbook:default"],
                      string :list "JOE+lists@example.net" "{name}",
                      not address :list "to" "tag:lists@example.test,2026:nobody") {{
                fileinto :create "Partners";
                redirect :copy :list "{name}";
            }}
        """)
        suite.send(account, body=PLAIN)
        suite.wait_messages(account, 1, "Partners")
        assert b"MAKE MONEY FAST" in suite.wait_messages(one, 1)[0]
        suite.wait_messages(two, 1)


def test_a_loop_of_redirects_ends_and_keeps_the_mail(suite, account):
    other = suite.add_account("loop-other@example.test")
    sender = suite.add_account("loop-sender@example.test")
    put(suite, account, f'require "copy"; redirect :copy "{other}";')
    put(suite, other, f'require "copy"; redirect :copy "{account}";')
    suite.send(account, sender=sender)
    suite.wait_messages(account, 1)
    suite.wait_messages(other, 1)
    suite.wait_queue_empty()
    assert len(suite.messages(account)) == 1 and len(suite.messages(other)) == 1


def test_a_bare_loop_of_redirects_is_reported(suite, account):
    """Without a copy nobody has it: the sender must hear of that."""
    other = suite.add_account("bare-other@example.test")
    sender = suite.add_account("bare-sender@example.test")
    put(suite, account, f'redirect "{other}";')
    put(suite, other, f'redirect "{account}";')
    suite.send(account, sender=sender)
    suite.wait_queue_empty()
    assert b"multipart/report" in suite.wait_messages(sender, 1)[0]


def test_what_is_announced_is_tested(suite):
    announced = set()
    with socket.create_connection(suite.address("sieve"), timeout=30) as stream:
        for line in stream.makefile("r", newline="\r\n"):
            if line.startswith('"SIEVE"'):
                announced = set(line.split('"')[3].split())
            if line.startswith("OK"):
                break
    assert "fileinto" in announced and "mboxmetadata" in announced
    tested = {name for row in TESTS for name in row[1]}
    here = Path(__file__).parent
    for file in ("test_sieve.py", "test_sieve_extensions.py", "test_terms.py"):
        for required in re.findall(r'require (?:\[([^\]]*)\]|("[^"]*"))', (here / file).read_text()):
            tested |= set(re.findall(r'"([^"]+)"', "".join(required)))
    assert announced - tested == set()

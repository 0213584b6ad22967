"""Ordinary mail programs, as people use them."""

import imaplib
import mailbox
import os
import shutil
import smtplib
import subprocess

import pytest

from suite import PASSWORD, anybody, body_of, message, wait_for


def client(program):
    found = shutil.which(program)
    if not found:
        pytest.skip(f"{program} is not installed (tests/setup)")
    return found


def run(*command, **options):
    result = subprocess.run([str(part) for part in command], capture_output=True, timeout=60, **options)
    assert result.returncode == 0, (command, result.stdout, result.stderr)
    return result.stdout


def test_swaks_from_another_server(shared, account):
    run(client("swaks"), "--server", "%s:%d" % shared.address("mx"), "--from", "you@example.net", "--to", account,
        "--header", "Subject: by swaks", "--body", "line one\nline two", "--tls-optional")
    (mail,) = shared.wait_messages(account, 1)
    assert b"Subject: by swaks" in mail and b"line one\r\nline two" in mail
    # RFC 5321 4.4: who it came from stands in front, in this order.
    lines = mail.decode().splitlines()
    assert lines[0] == "Return-Path: <you@example.net>"
    assert any(line.startswith("Received: from ") for line in lines[:4]), lines[:6]
    assert "\tby mail.example.test" in mail.decode() or " by mail.example.test" in mail.decode()


@pytest.mark.parametrize("listener,tls", [("submission", "--tls"), ("submissions", "--tls-on-connect")])
@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_swaks_submits_with_a_password(shared, account, listener, tls, mechanism):
    run(client("swaks"), "--server", "%s:%d" % shared.address(listener), tls, "--auth", mechanism, "--auth-user", account,
        "--auth-password", PASSWORD, "--from", account, "--to", account, "--header", "Subject: to myself")
    (mail,) = shared.wait_messages(account, 1)
    assert b"Subject: to myself" in mail
    # RFC 3848: with ESMTPSA says that TLS and a login were used.
    assert b"ESMTPSA" in mail


def test_swaks_is_refused_with_a_wrong_password(shared, account):
    result = subprocess.run([client("swaks"), "--server", "%s:%d" % shared.address("submissions"), "--tls-on-connect", "--auth",
                             "PLAIN", "--auth-user", account, "--auth-password", "wrong", "--from", account, "--to", account],
                            capture_output=True, timeout=60)
    assert result.returncode == 28, result.stdout  # swaks: authentication failed
    assert shared.messages(account) == []


def test_swaks_over_lmtp(shared, account):
    run(client("swaks"), "--protocol", "LMTP", "--server", "%s:%d" % shared.address("lmtp"), "--from", "a@example.net", "--to",
        account)
    shared.wait_messages(account, 1)


def test_curl_sends_and_reads(shared, account, tmp_path):
    curl = client("curl")
    (tmp_path / "mail").write_bytes(message("<curl@example.net>", to=account, subject="by curl", sender=account))
    host, port = shared.address("submission")
    run(curl, "--silent", "--show-error", "--insecure", "--ssl-reqd", "--url", f"smtp://{host}:{port}/client.example.net",
        "--user", f"{account}:{PASSWORD}", "--mail-from", account, "--mail-rcpt", account, "--upload-file", tmp_path / "mail")
    shared.wait_messages(account, 1)
    host, port = shared.address("imaps")
    login = ["--silent", "--show-error", "--insecure", "--user", f"{account}:{PASSWORD}"]
    assert b"Subject: by curl" in run(curl, *login, f"imaps://{host}:{port}/INBOX;MAILINDEX=1")
    assert b"SEARCH 1" in run(curl, *login, f"imaps://{host}:{port}/INBOX?ALL")
    assert b"INBOX" in run(curl, *login, f"imaps://{host}:{port}/")
    # curl appends an upload.
    run(curl, *login, "--upload-file", tmp_path / "mail", f"imaps://{host}:{port}/INBOX")
    shared.wait_messages(account, 2)


def test_msmtp_submits(shared, account, tmp_path):
    host, port = shared.address("submission")
    config = tmp_path / "msmtprc"
    config.write_text(f"account default\nhost {host}\nport {port}\nfrom {account}\nauth plain\nuser {account}\n"
                      f"password {PASSWORD}\ntls on\ntls_starttls on\ntls_certcheck off\n")
    config.chmod(0o600)
    run(client("msmtp"), f"--file={config}", account, input=message("<msmtp@example.net>", to=account, sender=account))
    (mail,) = shared.wait_messages(account, 1)
    assert b"<msmtp@example.net>" in mail


def test_mbsync_both_ways(shared, account, tmp_path):
    mbsync = client("mbsync")
    sent = [shared.send(account, subject=f"letter {n}") for n in range(20)]
    shared.wait_messages(account, 20)
    host, port = shared.address("imaps")
    trusted = tmp_path / "certificate.pem"
    import ssl
    trusted.write_text(ssl.get_server_certificate((host, port)))
    (tmp_path / "mail").mkdir()
    config = tmp_path / "mbsyncrc"
    config.write_text(f"""
IMAPAccount suite
Host {host}
Port {port}
User {account}
Pass "{PASSWORD}"
SSLType IMAPS
CertificateFile {trusted}

IMAPStore far
Account suite

MaildirStore near
Path {tmp_path}/mail/
Inbox {tmp_path}/mail/INBOX
SubFolders Verbatim

Channel all
Far :far:
Near :near:
Patterns *
Create Both
Expunge Both
SyncState *
""")
    sync = lambda: run(mbsync, "--config", config, "--all", env={**os.environ, "HOME": str(tmp_path)})
    sync()
    near = mailbox.Maildir(tmp_path / "mail/INBOX", create=False)
    assert sorted(mail["Message-ID"] for mail in near) == sorted(sent)
    # What mbsync wrote is what IMAP shows, but for line ends and mbsync's own X-TUID.
    far = {mail.replace(b"\r\n", b"\n") for mail in shared.messages(account)}
    for mail in near:
        octets = b"".join(line for line in mail.as_bytes().splitlines(True) if not line.startswith(b"X-TUID"))
        assert octets in far
    # Now changes on both sides: a new mail and a flag here, a removal there.
    key = near.add(mailbox.MaildirMessage(message("<made-near@example.net>").replace(b"\r\n", b"\n")))
    assert key
    first = sorted(near.keys())[0]
    gone = near[first]["Message-ID"] if near[first]["Message-ID"] != "<made-near@example.net>" else sent[0]
    imap = shared.imap(account)
    imap.select("INBOX")
    _, (found,) = imap.search(None, "HEADER", "Message-ID", gone)
    imap.store(found.split()[0], "+FLAGS", "\\Deleted")
    imap.expunge()
    imap.create("Projects")
    imap.append("Projects", "(\\Seen)", None, message("<in-projects@example.net>"))
    imap.logout()
    sync()
    near = mailbox.Maildir(tmp_path / "mail/INBOX", create=False)
    assert {mail["Message-ID"] for mail in near} == set(sent) - {gone} | {"<made-near@example.net>"}
    far = b"".join(shared.messages(account))
    assert b"<made-near@example.net>" in far and gone.encode() not in far
    projects = mailbox.Maildir(tmp_path / "mail/Projects", create=False)
    assert [mail["Message-ID"] for mail in projects] == ["<in-projects@example.net>"]
    assert [mail.get_flags() for mail in projects] == ["S"]


def test_imapclient(shared, account):
    import imapclient
    shared.send(account, subject="for imapclient")
    shared.wait_messages(account, 1)
    host, port = shared.address("imaps")
    with imapclient.IMAPClient(host, port, ssl_context=anybody()) as client:
        client.login(account, PASSWORD)
        assert client.has_capability("IDLE") and client.has_capability("MOVE") and client.has_capability("CONDSTORE")
        assert client.select_folder("INBOX")[b"EXISTS"] == 1
        found = client.fetch("1:*", ["ENVELOPE", "FLAGS", "BODYSTRUCTURE", "INTERNALDATE", "RFC822.SIZE"])[1]
        assert found[b"ENVELOPE"].subject == b"for imapclient"
        assert found[b"ENVELOPE"].to[0].mailbox == account.split("@")[0].encode()
        client.add_flags(1, ["\\Seen", "$Label1"])
        assert set(client.get_flags(1)[1]) >= {b"\\Seen", b"$Label1"}
        client.create_folder("Grüße & mehr")
        client.copy(1, "Grüße & mehr")
        assert "Grüße & mehr" in [name for _, _, name in client.list_folders()]
        assert client.folder_status("Grüße & mehr", ["MESSAGES"])[b"MESSAGES"] == 1
        client.idle()
        shared.send(account, subject="while idle")
        wait_for(lambda: any(b"EXISTS" in r for r in client.idle_check(timeout=1) if len(r) > 1), "EXISTS while idling", 20)
        client.idle_done()
        client.move([1], "Grüße & mehr")
        assert client.search(["ALL"]) == [2]


def test_python_imaplib_in_clear_text_with_starttls(shared, account):
    client = imaplib.IMAP4(*shared.address("imap"), timeout=20)
    client.starttls(anybody())
    client.login(account, PASSWORD)
    assert client.select()[0] == "OK"
    client.logout()


def test_scram_is_offered_and_works(shared, account):
    """SCRAM-SHA-256 (RFC 7677) by hand: no password goes over the wire."""
    import base64
    import hashlib
    import hmac
    import secrets
    client = smtplib.SMTP_SSL(*shared.address("submissions"), context=anybody(), timeout=20)
    client.ehlo()
    assert "SCRAM-SHA-256" in client.esmtp_features["auth"]
    nonce = base64.b64encode(secrets.token_bytes(15)).decode()
    bare = f"n={account},r={nonce}"
    code, text = client.docmd("AUTH", "SCRAM-SHA-256 " + base64.b64encode(f"n,,{bare}".encode()).decode())
    assert code == 334, text
    first = base64.b64decode(text).decode()
    fields = dict(part.split("=", 1) for part in first.split(","))
    assert fields["r"].startswith(nonce)
    salted = hashlib.pbkdf2_hmac("sha256", PASSWORD.encode(), base64.b64decode(fields["s"]), int(fields["i"]))
    mac = lambda key, text: hmac.new(key, text, "sha256").digest()
    client_key = mac(salted, b"Client Key")
    final = f"c=biws,r={fields['r']}"
    auth = f"{bare},{first},{final}".encode()
    proof = bytes(a ^ b for a, b in zip(client_key, mac(hashlib.sha256(client_key).digest(), auth)))
    code, text = client.docmd(base64.b64encode(f"{final},p={base64.b64encode(proof).decode()}".encode()).decode())
    if code == 334:
        signature = base64.b64decode(text).decode()
        code, text = client.docmd("")
    else:
        signature = base64.b64decode(text.split()[-1]).decode()
    assert code == 235, text
    assert signature == "v=" + base64.b64encode(mac(mac(salted, b"Server Key"), auth)).decode()


def test_posthouse_send(shared, account):
    shared.run("send", "--from", account, "--subject", "from the shell", "--text", "hello", account)
    (mail,) = shared.wait_messages(account, 1)
    assert b"from the shell" in mail and b"hello" in body_of(mail)

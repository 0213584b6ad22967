"""What an account has, as an IMAP client sees it: to compare before and after."""

import hashlib
import re


def contents(client):
    """Folders, subscriptions, and for each folder its messages in order: (flags, INTERNALDATE, hash of the octets)."""
    folders = {}
    for name in sorted(names(client, "list")):
        status, _ = client.select(f'"{name}"', readonly=True)
        if status == "OK":
            folders[name] = messages(client)
    return {"folders": folders, "subscribed": sorted(names(client, "lsub"))}


def names(client, command):
    status, lines = getattr(client, command)()
    assert status == "OK", lines
    found = set()
    for line in filter(None, lines):
        line = line if isinstance(line, bytes) else b" ".join(line)
        if b"\\Noselect" in line or b"\\NonExistent" in line:
            continue
        found.add(line.rsplit(b' "/" ', 1)[1].strip(b'"').decode())
    return found


def messages(client):
    status, fetched = client.uid("FETCH", "1:*", "(FLAGS INTERNALDATE BODY.PEEK[])")
    assert status == "OK", fetched
    found = []
    for item in fetched:
        if isinstance(item, tuple):
            found.append([item[0], item[1]])
        elif item and found and len(found[-1]) == 2:
            found[-1][0] += item
    return [describe(head, octets) for head, octets in found]


def describe(head, octets):
    flags = re.search(rb"FLAGS \(([^)]*)\)", head).group(1).decode().split()
    date = seconds(re.search(rb'INTERNALDATE "([^"]*)"', head).group(1).decode())
    flags = tuple(sorted(flag for flag in flags if flag != "\\Recent"))
    return flags, date, hashlib.sha256(octets).hexdigest()


def seconds(text):
    from datetime import datetime

    return int(datetime.strptime(text.strip(), "%d-%b-%Y %H:%M:%S %z").timestamp())


def everything(suite, users):
    """All that a restore must bring back, as clients and operators see it: `contents`, and with it UIDs, UIDVALIDITY, modseqs,
    ids, special uses, access lists, quotas, scripts, and the directory."""
    found = {kind: suite.json(kind, "list") for kind in ["account", "alias", "group", "domain", "block"]}
    found["users"] = {user: _of_user(suite, user) for user in users}
    return found


def _of_user(suite, user):
    client = suite.imap(user)
    try:
        everything = contents(client)
        client._simple_command("LIST", '""', '"*"', "RETURN", "(SPECIAL-USE SUBSCRIBED)")
        everything["list"] = sorted(client._untagged_response("OK", [None], "LIST")[1])
        everything["quota"] = client.getquotaroot("INBOX")[1]
        everything["mailboxes"] = {name: _of_mailbox(client, name) for name in everything["folders"]}
        scripts = suite.json("script", "list", user)
        everything["scripts"] = scripts, [suite.run("script", "show", user, one["name"]).stdout for one in scripts]
        return everything
    finally:
        client.logout()


def _of_mailbox(client, name):
    status = client.status(f'"{name}"', "(MESSAGES UIDNEXT UIDVALIDITY UNSEEN HIGHESTMODSEQ MAILBOXID)")[1]
    rights = client.myrights(f'"{name}"')[1]
    # NO, where we may not see it.
    acl = client.getacl(f'"{name}"')[1]
    client.select(f'"{name}"', readonly=True)
    fetched = client.uid("FETCH", "1:*", "(FLAGS INTERNALDATE RFC822.SIZE MODSEQ EMAILID THREADID ENVELOPE)")[1]
    return status, rights, acl, fetched

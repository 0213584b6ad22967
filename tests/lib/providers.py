"""DNS providers as their documentation has them: paths, authentication, bodies, errors. None of them is the real one, which cannot be
had in a test; the zones that they keep are real, and a name server shows them.

Providers whose address cannot be set are reached through a proxy (HTTPS_PROXY) that speaks TLS in their names."""

import base64
import hashlib
import hmac
import http.server
import itertools
import json
import re
import threading
import time
import urllib.parse
import xml.etree.ElementTree as xml

import dns.rdata
import dns.rdataclass
import dns.rdatatype
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from names import Names

IN = dns.rdataclass.IN


def rdata(kind, text):
    return dns.rdata.from_text(IN, dns.rdatatype.from_text(kind), text)


class Zone(Names):
    """A name server that shows what the provider has, from one moment to the next."""

    def __init__(self, provider):
        super().__init__()
        self.provider = provider
        self.load({provider.zone: []})

    def _find(self, key, rdtype):
        found = [rdata(kind, text) for name, kind, _, text in self.provider.shown() if name == key]
        same = [one for one in found if one.rdtype == rdtype]
        aliases = [one for one in found if one.rdtype == dns.rdatatype.CNAME]
        if aliases and not same:
            return aliases, dns.name.from_text(str(aliases[0].target))
        return same, None


class Provider:
    """`records` has (id, name, type, TTL, data as a zone file has it). `failures` are the next answers, whatever is asked: a status and
    a body, and headers. `asked` has a line for each request."""

    hosts = ()
    zone = "shop.example"

    def __init__(self):
        self.records, self.failures, self.asked = [], [], []
        self.numbers = itertools.count(1001)
        self.lock = threading.Lock()

    def shown(self):
        with self.lock:
            return [(name, kind, ttl, text) for _, name, kind, ttl, text in self.records]

    def add(self, name, kind, ttl, text):
        # What no name server could load is no record.
        rdata(kind, text)
        self.records.append((next(self.numbers), name.lower().rstrip("."), kind, ttl, text))
        return self.records[-1]

    def one(self, number):
        return next((record for record in self.records if str(record[0]) == str(number)), None)

    def answer(self, method, host, path, query, headers, body):
        """A status, headers and a body."""
        with self.lock:
            self.asked.append(f"{method} {host} {path}")
            if self.failures and host != "oauth2.googleapis.com":
                status, content, *more = self.failures.pop(0)
                return status, more[0] if more else {}, content
            return self.serve(method, host, path, query, headers, body)


def as_json(status, content=None):
    return status, {"Content-Type": "application/json"}, "" if content is None else json.dumps(content)


def bare(text):
    """The text of a TXT record without its quotes."""
    return b"".join(rdata("TXT", text).strings).decode()


def quoted(text):
    octets = text.encode()
    pieces = [octets[at:at + 255].decode() for at in range(0, max(len(octets), 1), 255)]
    return " ".join('"' + piece.replace("\\", "\\\\").replace('"', '\\"') + '"' for piece in pieces)


class Cloudflare(Provider):
    """API v4: https://developers.cloudflare.com/api/resources/dns/subresources/records/"""

    hosts = ("api.cloudflare.com",)
    token = "cf-" + "t" * 37
    settings = {"provider": "cloudflare"}
    secret = token
    errors = {
        "denied": (403, json.dumps({"success": False, "errors": [{"code": 10000, "message": "Authentication error"}], "messages": [],
                                    "result": None}), "Authentication error"),
        "broken": (500, json.dumps({"success": False, "errors": [{"code": 10013, "message": "An unknown error has occurred"}],
                                    "messages": [], "result": None}), "HTTP 500"),
    }

    def serve(self, method, host, path, query, headers, body):
        good = lambda result, **more: as_json(200, {"result": result, "success": True, "errors": [], "messages": [], **more})
        bad = lambda status, code, text: as_json(status, {"result": None, "success": False, "messages": [],
                                                          "errors": [{"code": code, "message": text}]})
        if headers["Authorization"] != f"Bearer {self.token}":
            return bad(401, 1000, "Invalid API Token")
        if path == "/client/v4/zones":
            there = query.get("name") == [self.zone]
            return good([{"id": "023e105f4ecef8ad9ca31a8372d0c353", "name": self.zone, "status": "active"}] if there else [],
                        result_info={"page": 1, "per_page": 20, "total_pages": 1, "count": int(there), "total_count": int(there)})
        found = re.fullmatch(r"/client/v4/zones/023e105f4ecef8ad9ca31a8372d0c353/dns_records(?:/(\w+))?", path)
        if not found:
            return bad(404, 7003, "Could not route to the path, perhaps your object identifier is invalid?")
        number = found[1]
        if method == "GET":
            rows = [self.row(one) for one in self.records if (one[1], one[2]) == (query["name"][0], query["type"][0])]
            return good(rows, result_info={"page": 1, "per_page": 100, "total_pages": 1, "count": len(rows), "total_count": len(rows)})
        if method == "DELETE":
            if not self.one(number):
                return bad(404, 81044, "Record does not exist.")
            self.records.remove(self.one(number))
            return good({"id": number})
        wanted = json.loads(body)
        if wanted["ttl"] != 1 and not 60 <= wanted["ttl"] <= 86400:
            return bad(400, 9021, "Invalid TTL. Must be between 60 and 86400 seconds, or 1 for Automatic.")
        kind, data = wanted["type"], wanted.get("data")
        if data and kind == "SRV":
            text = f"{data['priority']} {data['weight']} {data['port']} {data['target'].rstrip('.')}."
        elif data and kind == "TLSA":
            text = f"{data['usage']} {data['selector']} {data['matching_type']} {data['certificate']}"
        elif data and kind == "CAA":
            text = f"{data['flags']} {data['tag']} \"{data['value']}\""
        elif kind == "MX":
            text = f"{wanted['priority']} {wanted['content'].rstrip('.')}."
        elif kind == "CNAME":
            text = wanted["content"].rstrip(".") + "."
        else:
            text = wanted["content"]
        if any((one[1], one[2], one[4]) == (wanted["name"], kind, text) for one in self.records):
            return bad(400, 81058, "An identical record already exists.")
        return good(self.row(self.add(wanted["name"], kind, wanted["ttl"], text)))

    def row(self, record):
        number, name, kind, ttl, text = record
        row = {"id": str(number), "name": name, "type": kind, "ttl": ttl, "proxied": False, "proxiable": False, "settings": {}, "meta": {},
               "comment": None, "tags": [], "content": text}
        parts = text.split()
        if kind in ("MX", "CNAME"):
            row["content"] = parts[-1].rstrip(".")
        if kind == "MX":
            row["priority"] = int(parts[0])
        if kind == "SRV":
            row["data"] = dict(zip(("priority", "weight", "port"), map(int, parts)), target=parts[3].rstrip(".") or ".")
        if kind == "TLSA":
            row["data"] = dict(zip(("usage", "selector", "matching_type"), map(int, parts)), certificate=parts[3])
        if kind == "CAA":
            row["data"] = {"flags": int(parts[0]), "tag": parts[1], "value": text.split('"')[1]}
        return row


class DigitalOcean(Provider):
    """API v2: https://docs.digitalocean.com/reference/api/digitalocean/#tag/Domain-Records. Names are sent with a final dot and come back
    without one; a page has 200 records; there is no TLSA."""

    hosts = ("api.digitalocean.com",)
    token = "dop_v1_" + "d" * 64
    settings = {"provider": "digitalocean"}
    secret = token
    lacks = {"TLSA"}
    errors = {
        "denied": (403, json.dumps({"id": "forbidden", "message": "You are not authorized to perform this operation"}), "not authorized"),
        "broken": (500, json.dumps({"id": "server_error", "message": "Unexpected server-side error"}), "Unexpected server-side error"),
    }

    def serve(self, method, host, path, query, headers, body):
        if headers["Authorization"] != f"Bearer {self.token}":
            return as_json(401, {"id": "unauthorized", "message": "Unable to authenticate you"})
        missing = as_json(404, {"id": "not_found", "message": "The resource you were accessing could not be found."})
        found = re.fullmatch(rf"/v2/domains/{self.zone}/records(?:/(\d+))?", path)
        if not found:
            return missing
        if method == "GET":
            rows = [self.row(one) for one in self.records if one[1] == query["name"][0] and one[2] == query["type"][0]]
            size, page = int(query["per_page"][0]), int(query["page"][0])
            more = len(rows) > size * page
            links = {"pages": {"next": f"https://api.digitalocean.com{path}?page={page + 1}", "last": "https://x"}} if more else {}
            return as_json(200, {"domain_records": rows[size * (page - 1):size * page], "links": links, "meta": {"total": len(rows)}})
        if method == "DELETE":
            if not self.one(found[1]):
                return missing
            self.records.remove(self.one(found[1]))
            return 204, {}, ""
        wanted = json.loads(body)
        kind, data = wanted["type"], wanted["data"]
        invalid = lambda text: as_json(422, {"id": "unprocessable_entity", "message": text})
        if wanted["ttl"] < 30:
            return invalid("TTL must be at least 30")
        if kind in ("CNAME", "MX", "SRV") and not data.endswith("."):
            return invalid("Data needs to end with a dot (.)")
        text = {"MX": lambda: f"{wanted['priority']} {data}",
                "SRV": lambda: f"{wanted['priority']} {wanted['weight']} {wanted['port']} {data}",
                "CAA": lambda: f"{wanted['flags']} {wanted['tag']} \"{data}\"",
                "TXT": lambda: quoted(data)}.get(kind, lambda: data)()
        name = self.zone if wanted["name"] == "@" else f"{wanted['name']}.{self.zone}"
        return as_json(201, {"domain_record": self.row(self.add(name, kind, wanted["ttl"], text))})

    def row(self, record):
        number, name, kind, ttl, text = record
        parts = text.split()
        row = {"id": number, "type": kind, "name": name.removesuffix(f".{self.zone}") if name != self.zone else "@", "data": text,
               "priority": None, "port": None, "ttl": ttl, "weight": None, "flags": None, "tag": None}
        if kind in ("CNAME", "MX", "SRV"):
            row["data"] = parts[-1].rstrip(".") or "."
        if kind == "MX":
            row["priority"] = int(parts[0])
        if kind == "SRV":
            row.update(dict(zip(("priority", "weight", "port"), map(int, parts))))
        if kind == "CAA":
            row.update(flags=int(parts[0]), tag=parts[1], data=text.split('"')[1])
        if kind == "TXT":
            row["data"] = bare(text)
        return row


class Ovh(Provider):
    """API 1.0: https://eu.api.ovh.com/console/?section=%2Fdomain. Requests are signed, and nothing is served before a refresh."""

    hosts = ("eu.api.ovh.com",)
    key, secret, consumer = "7kbG7Bk7S9Nt7ZSV", "EXEgWIz07P0HYwtQDs7cNIqCiQaWSuHF", "MtSwSrPpNjqfVSmJhLbPyr2i45lSwPU1"
    settings = {"provider": "ovh", "user": key, "server": "ovh-eu"}
    errors = {
        "denied": (403, json.dumps({"class": "Client::Forbidden", "message": "This call has not been granted", "errorCode":
                                    "NOT_GRANTED_CALL", "httpCode": "403 Forbidden"}), "Zone shop.example not found or not accessible"),
        "broken": (500, json.dumps({"class": "Server::InternalServerError", "message": "Internal server error"}), "not accessible"),
    }

    def __init__(self):
        super().__init__()
        self.fresh = []

    def shown(self):
        return list(self.fresh)

    def serve(self, method, host, path, query, headers, body):
        url = f"https://{host}{path}" + ("?" + "&".join(f"{k}={v[0]}" for k, v in query.items()) if query else "")
        signed = "+".join([self.secret, self.consumer, method, url, body, headers["X-Ovh-Timestamp"]])
        right = "$1$" + hashlib.sha1(signed.encode()).hexdigest()
        if headers["X-Ovh-Application"] != self.key:
            return as_json(403, {"message": "This application key is invalid", "errorCode": "INVALID_KEY"})
        if headers["X-Ovh-Consumer"] != self.consumer or headers["X-Ovh-Signature"] != right:
            return as_json(400, {"message": "Invalid signature", "httpCode": "400 Bad Request", "errorCode": "INVALID_SIGNATURE"})
        if abs(int(headers["X-Ovh-Timestamp"]) - time.time()) > 60:
            return as_json(400, {"message": "Query out of time", "errorCode": "QUERY_TIME_OUT"})
        base = f"/1.0/domain/zone/{self.zone}"
        if path == base:
            return as_json(200, {"name": self.zone, "dnssecSupported": True, "hasDnsAnycast": False, "nameServers": []})
        if path == base + "/refresh" and method == "POST":
            self.fresh = [(name, kind, ttl, text) for _, name, kind, ttl, text in self.records]
            return as_json(200)
        if path == base + "/record" and method == "GET":
            name = f"{query['subDomain'][0]}.{self.zone}" if query["subDomain"][0] else self.zone
            return as_json(200, [one[0] for one in self.records if (one[1], one[2]) == (name, query["fieldType"][0])])
        if path == base + "/record" and method == "POST":
            wanted = json.loads(body)
            text, kind = wanted["target"], wanted["fieldType"]
            text = quoted(text) if kind == "TXT" and not text.startswith('"') else text
            name = f"{wanted['subDomain']}.{self.zone}" if wanted["subDomain"] else self.zone
            return as_json(200, self.row(self.add(name, kind, wanted["ttl"], text)))
        found = re.fullmatch(base + r"/record/(\d+)", path)
        if found and self.one(found[1]) and method == "GET":
            return as_json(200, self.row(self.one(found[1])))
        if found and self.one(found[1]) and method == "DELETE":
            self.records.remove(self.one(found[1]))
            return as_json(200)
        return as_json(404, {"class": "Client::NotFound", "message": "The requested object does not exist"})

    def row(self, record):
        number, name, kind, ttl, text = record
        return {"id": number, "zone": self.zone, "subDomain": name.removesuffix(self.zone).rstrip("."), "fieldType": kind, "ttl": ttl,
                "target": bare(text) if kind == "TXT" else text}


class GoogleCloudDns(Provider):
    """API v1: https://cloud.google.com/dns/docs/reference/rest/v1/changes. A token for an assertion that the service account's key
    signed (RFC 7523); changes delete what is there exactly and add what is not."""

    hosts = ("dns.googleapis.com", "oauth2.googleapis.com")
    errors = {
        "denied": (403, json.dumps({"error": {"code": 403, "message": "Forbidden", "status": "PERMISSION_DENIED", "errors": [
            {"message": "Forbidden", "domain": "global", "reason": "forbidden"}]}}), "Forbidden"),
        "broken": (500, json.dumps({"error": {"code": 500, "message": "Internal error", "status": "INTERNAL"}}), "Internal error"),
    }

    def __init__(self):
        super().__init__()
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        pem = self.key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        self.secret = json.dumps({
            "type": "service_account", "project_id": "shop-project", "private_key_id": "1", "private_key": pem.decode(),
            "client_email": "certd@shop-project.iam.gserviceaccount.com", "client_id": "1",
            "token_uri": "https://oauth2.googleapis.com/token",
        })
        self.settings = {"provider": "google-cloud-dns", "user": "shop-project"}

    def token(self, body):
        form = urllib.parse.parse_qs(body)
        assert form["grant_type"] == ["urn:ietf:params:oauth:grant-type:jwt-bearer"]
        head, claims, signature = form["assertion"][0].split(".")
        octets = lambda text: base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        self.key.public_key().verify(octets(signature), f"{head}.{claims}".encode(), padding.PKCS1v15(), hashes.SHA256())
        claims = json.loads(octets(claims))
        assert claims["aud"] == "https://oauth2.googleapis.com/token" and claims["exp"] > time.time()
        assert claims["scope"] == "https://www.googleapis.com/auth/ndev.clouddns.readwrite"
        return as_json(200, {"access_token": "ya29.token", "expires_in": 3599, "token_type": "Bearer"})

    def serve(self, method, host, path, query, headers, body):
        error = lambda code, text: as_json(code, {"error": {"code": code, "message": text}})
        if host == "oauth2.googleapis.com":
            return self.token(body) if (method, path) == ("POST", "/token") else error(404, "Not Found")
        if headers["Authorization"] != "Bearer ya29.token":
            return error(401, "Request had invalid authentication credentials.")
        base = "/dns/v1/projects/shop-project/managedZones"
        if path == base:
            return as_json(200, {"kind": "dns#managedZonesListResponse", "managedZones": [
                {"kind": "dns#managedZone", "id": "1", "name": "shop-zone", "dnsName": f"{self.zone}.", "visibility": "public"}]})
        if path == base + "/shop-zone/rrsets":
            name, kind = query["name"][0].rstrip("."), query["type"][0]
            return as_json(200, {"kind": "dns#resourceRecordSetsListResponse", "rrsets": self.sets(name, kind)})
        if path != base + "/shop-zone/changes" or method != "POST":
            return error(404, f"The 'parameters.managedZone' resource named '{path}' does not exist.")
        change = json.loads(body)
        for one in change.get("deletions") or []:
            plain = lambda rrset: {key: rrset[key] for key in ("name", "type", "ttl", "rrdatas")}
            if [plain(one)] != [plain(rrset) for rrset in self.sets(one["name"].rstrip("."), one["type"])]:
                return error(412, "Precondition not met for 'entity.change.deletions[0]'")
            self.records = [old for old in self.records if (old[1], old[2]) != (one["name"].rstrip("."), one["type"])]
        for one in change.get("additions") or []:
            if self.sets(one["name"].rstrip("."), one["type"]):
                return error(409, "The resource 'entity.change.additions[0]' already exists")
            assert one["name"].endswith(".")
            for text in one["rrdatas"]:
                self.add(one["name"], one["type"], one["ttl"], text)
        return as_json(200, {"kind": "dns#change", "id": "1", "status": "pending", **change})

    def sets(self, name, kind):
        found = [one for one in self.records if (one[1], one[2]) == (name, kind)]
        return [{"kind": "dns#resourceRecordSet", "name": name + ".", "type": kind, "ttl": found[0][3],
                 "rrdatas": [one[4] for one in found]}] if found else []


class Route53(Provider):
    """API 2013-04-01: https://docs.aws.amazon.com/Route53/latest/APIReference/. Signature Version 4; XML; a batch is all or nothing.
    It is the one of these whose address and region can be set."""

    key, secret, region = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "cn-northwest-1"
    space = "https://route53.amazonaws.com/doc/2013-04-01/"
    errors = {
        "denied": (403, f'<ErrorResponse xmlns="{space}"><Error><Type>Sender</Type><Code>AccessDenied</Code><Message>User is not authorized '
                        "to access this resource</Message></Error><RequestId>1</RequestId></ErrorResponse>", "AccessDenied"),
        "broken": (500, f'<ErrorResponse xmlns="{space}"><Error><Type>Receiver</Type><Code>InternalFailure</Code></Error></ErrorResponse>',
                   "InternalFailure"),
    }

    def __init__(self):
        super().__init__()
        self.settings = {"provider": "route53", "user": self.key, "region": self.region}

    def wrong(self, status, code, text):
        return status, {"Content-Type": "text/xml"}, (f'<?xml version="1.0"?>\n<ErrorResponse xmlns="{self.space}"><Error><Type>Sender'
                                                      f"</Type><Code>{code}</Code><Message>{text}</Message></Error></ErrorResponse>")

    def signed(self, method, path, query, headers, body):
        """Whether the signature is right (SigV4)."""
        found = re.fullmatch(r"AWS4-HMAC-SHA256 Credential=(\S+?)/(\d{8})/(\S+?)/route53/aws4_request, SignedHeaders=(\S+), "
                             r"Signature=([0-9a-f]{64})", headers["Authorization"] or "")
        if not found or found[1] != self.key or found[3] != self.region:
            return False
        quote = lambda text: urllib.parse.quote(text, safe="-_.~")
        pairs = sorted((quote(k), quote(v)) for k, values in query.items() for v in values)
        names = found[4].split(";")
        assert "host" in names and "x-amz-date" in names
        canonical = "\n".join([method, path, "&".join(f"{k}={v}" for k, v in pairs),
                               *[f"{name}:{headers[name]}" for name in names], "", found[4], hashlib.sha256(body.encode()).hexdigest()])
        to_sign = "\n".join(["AWS4-HMAC-SHA256", headers["X-Amz-Date"], f"{found[2]}/{self.region}/route53/aws4_request",
                             hashlib.sha256(canonical.encode()).hexdigest()])
        key = b"AWS4" + self.secret.encode()
        for part in (found[2], self.region, "route53", "aws4_request"):
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        return hmac.compare_digest(hmac.new(key, to_sign.encode(), hashlib.sha256).hexdigest(), found[5])

    def serve(self, method, host, path, query, headers, body):
        if not self.signed(method, path, query, headers, body):
            return self.wrong(403, "SignatureDoesNotMatch", "The request signature we calculated does not match the signature you provided.")
        if path == "/2013-04-01/hostedzonesbyname":
            # A page of its own for each zone.
            zones = ["aardvark.example", self.zone]
            at = zones.index(query["dnsname"][0].rstrip(".")) if "dnsname" in query else 0
            one = lambda name: (f"<HostedZone><Id>/hostedzone/Z{zones.index(name)}</Id><Name>{name}.</Name><CallerReference>1"
                                "</CallerReference><Config><PrivateZone>false</PrivateZone></Config></HostedZone>")
            more = f"<IsTruncated>true</IsTruncated><NextDNSName>{zones[1]}.</NextDNSName><NextHostedZoneId>Z1</NextHostedZoneId>"
            return self.good("ListHostedZonesByNameResponse", f"<HostedZones>{one(zones[at])}</HostedZones>"
                             + (more if at == 0 else "<IsTruncated>false</IsTruncated>") + "<MaxItems>1</MaxItems>")
        if path != "/2013-04-01/hostedzone/Z1/rrset":
            return self.wrong(404, "NoSuchHostedZone", "No hosted zone found with ID")
        if method == "GET":
            return self.list(query["name"][0].rstrip("."), query["type"][0])
        return self.change(xml.fromstring(body))

    def good(self, root, content):
        return 200, {"Content-Type": "text/xml"}, f'<?xml version="1.0" encoding="UTF-8"?>\n<{root} xmlns="{self.space}">{content}</{root}>'

    def sets(self):
        order = lambda one: (one[1].split(".")[::-1], one[2])
        return itertools.groupby(sorted(self.records, key=order), key=lambda one: (one[1], one[2]))

    def list(self, name, kind):
        sets, later = [], (name.split(".")[::-1], kind)
        for (name, kind), rows in self.sets():
            if (name.split(".")[::-1], kind) < later:
                continue
            rows = list(rows)
            if rows[0][3] is None:
                sets.append(f"<ResourceRecordSet><Name>{name}.</Name><Type>{kind}</Type><AliasTarget><HostedZoneId>Z2</HostedZoneId><DNSName>"
                            "lb.example.</DNSName><EvaluateTargetHealth>false</EvaluateTargetHealth></AliasTarget></ResourceRecordSet>")
                continue
            values = "".join(f"<ResourceRecord><Value>{escape(row[4])}</Value></ResourceRecord>" for row in rows)
            sets.append(f"<ResourceRecordSet><Name>{name}.</Name><Type>{kind}</Type><TTL>{rows[0][3]}</TTL><ResourceRecords>{values}"
                        "</ResourceRecords></ResourceRecordSet>")
        return self.good("ListResourceRecordSetsResponse", f"<ResourceRecordSets>{''.join(sets[:100])}</ResourceRecordSets>"
                         "<IsTruncated>false</IsTruncated><MaxItems>300</MaxItems>")

    def change(self, root):
        at = {"r": self.space}
        assert root.tag == f"{{{self.space}}}ChangeResourceRecordSetsRequest"
        after = list(self.records)
        for change in root.iterfind(".//r:Change", at):
            action = change.findtext("r:Action", namespaces=at)
            rrset = change.find("r:ResourceRecordSet", at)
            name, kind = rrset.findtext("r:Name", namespaces=at).rstrip("."), rrset.findtext("r:Type", namespaces=at)
            ttl = int(rrset.findtext("r:TTL", namespaces=at))
            values = [one.text for one in rrset.iterfind(".//r:Value", at)]
            there = [one for one in after if (one[1], one[2]) == (name, kind)]
            if action == "DELETE" and (sorted(one[4] for one in there) != sorted(values) or any(one[3] != ttl for one in there)):
                return self.wrong(400, "InvalidChangeBatch", f"Tried to delete resource record set [name='{name}.', type='{kind}'] but the "
                                                             "values provided do not match the current values")
            after = [one for one in after if one not in there]
            if action == "UPSERT":
                for text in values:
                    # RFC 1035 5.1: names in values are read as complete ones here.
                    full = text if kind not in ("MX", "SRV", "CNAME") or text.endswith(".") else text + "."
                    rdata(kind, full)
                    after.append((next(self.numbers), name, kind, ttl, full))
        self.records = after
        return self.good("ChangeResourceRecordSetsResponse", "<ChangeInfo><Id>/change/C1</Id><Status>PENDING</Status></ChangeInfo>")


def escape(text):
    return text.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")


class Gateway:
    """One server for a provider: plain HTTP at `url`, and a proxy (CONNECT) that is each of its hosts with a certificate of `authority`.
    What is asked of others is refused, and stands in `strangers`."""

    def __init__(self, provider, authority):
        gateway = self
        self.strangers = []
        identities = {host: authority.host(host) for host in provider.hosts}

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # Head and body in one packet.
            wbufsize = -1
            host = None

            def do_CONNECT(self):
                host = self.path.rpartition(":")[0]
                if host not in identities:
                    gateway.strangers.append(self.path)
                    return self.send_error(403)
                self.send_response(200)
                self.end_headers()
                self.wfile.flush()
                secured = identities[host].context.wrap_socket(self.connection, server_side=True)
                inside = type("Inside", (Handler,), {"host": host})
                try:
                    inside(secured, self.client_address, self.server)
                finally:
                    secured.close()
                    self.close_connection = True

            def do(self):
                body = self.rfile.read(int(self.headers["Content-Length"] or 0)).decode()
                path, _, query = self.path.partition("?")
                query = urllib.parse.parse_qs(query, keep_blank_values=True)
                try:
                    status, headers, content = provider.answer(self.command, self.host or self.headers["Host"], path, query, self.headers,
                                                               body)
                except Exception as error:  # noqa: BLE001 - a request that the documentation does not have
                    gateway.strangers.append(f"{self.command} {self.path} {body}: {error!r}")
                    status, headers, content = 400, {}, repr(error)
                octets = content.encode()
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                if status != 204:
                    self.send_header("Content-Length", str(len(octets)))
                self.end_headers()
                self.wfile.write(octets)

            do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do

            def log_message(self, *_):
                pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_):
                pass

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()

"""A stand-in for a Meilisearch server, over HTTP on loopback.

It is not Meilisearch: none of the registries that the tests may use has a server. It was written from what is known of the interface, not from
recorded answers, as far as indexd uses it: indexes, settings, documents, tasks that are done later, search and multi-search with filters, phrases, the beginning
of the last word, one slip, ten words of a query, index swaps, figures, API keys, and its error objects. It knows no ranking.
"""

import json
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

QUERY_WORDS = 10


class Refused(Exception):
    def __init__(self, status, code, message):
        super().__init__(message)
        self.status = status
        self.body = {"message": message, "code": code, "type": "invalid_request", "link": f"https://docs.meilisearch.com/errors#{code}"}


def slips(one, other):
    """Whether at most one slip (another letter, one more or less, two exchanged) lies between two words."""
    if one == other:
        return True
    if abs(len(one) - len(other)) > 1:
        return False
    at = next((i for i, (a, b) in enumerate(zip(one, other)) if a != b), min(len(one), len(other)))
    if at == 0:  # a slip in the first letter counts as two
        return False
    rest, other_rest = one[at:], other[at:]
    return rest[1:] == other_rest[1:] or rest[1:] == other_rest or rest == other_rest[1:] or (rest[:2] == other_rest[1::-1] and rest[2:] == other_rest[2:])


def pieces(value):
    values = value if isinstance(value, list) else [] if value is None else [value]
    return [re.findall(r"\w+", str(one).lower()) for one in values]


def phrases(query):
    """The parts of a query: a phrase is a list of words, a word is a string with whether it may go on."""
    parts, text = [], query
    for match in re.finditer(r'"([^"]*)"|(\w+)', text.lower()):
        if match[1] is not None:
            parts.append((re.findall(r"\w+", match[1])[:QUERY_WORDS], False))
        else:
            parts.append((match[2], match.end() == len(text)))
    return parts[:QUERY_WORDS]


def condition(document, text):
    """The filters that are in use: account = 1 AND content IN [1, 2]; EXISTS; NOT IN."""
    for part in text.split(" AND "):
        match = re.fullmatch(r"(\w+) (?:= (\d+)|(NOT )?IN \[([\d, ]*)\]|(EXISTS))", part)
        if not match:
            raise Refused(400, "invalid_search_filter", f"cannot read the filter {part}")
        name, equal, negated, numbers, exists = match.groups()
        value = document.get(name)
        if equal is not None:
            good = value == int(equal)
        elif exists:
            good = name in document
        else:
            good = (value in [int(number) for number in numbers.split(",") if number.strip()]) != bool(negated)
        if not good:
            return False
    return True


class Meilisearch:
    def __init__(self, key="sesame"):
        self.key, self.indexes, self.tasks, self.requests = key, {}, {}, []
        self.lock, self.server, self.port, self.fail = threading.RLock(), None, 0, 0
        self.delay = 0.02

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def start(self):
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def answer(self):
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                try:
                    if self.headers.get("authorization") != f"Bearer {outer.key}":
                        raise Refused(403, "invalid_api_key", "The provided API key is invalid.")
                    with outer.lock:
                        outer.requests.append((self.command, self.path))
                        status, value = outer.route(self.command, self.path.strip("/").split("/"), json.loads(body) if body else None)
                except Refused as refused:
                    status, value = refused.status, refused.body
                octets = json.dumps(value).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(octets)))
                self.end_headers()
                self.wfile.write(octets)

            do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = answer

        class Server(ThreadingHTTPServer):
            allow_reuse_address = daemon_threads = True
            open_connections = set()

            def process_request(self, request, client_address):
                self.open_connections.add(request)
                super().process_request(request, client_address)

        self.server = Server(("127.0.0.1", self.port), Handler)
        self.server.open_connections = set()
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def stop(self):
        """Away: open connections end, too. What it has stays."""
        if self.server:
            self.server.shutdown()
            self.server.server_close()
            for connection in self.server.open_connections:
                try:
                    connection.shutdown(2)
                except OSError:
                    pass
            self.server = None

    # --- the interface

    def index(self, uid):
        if uid not in self.indexes:
            raise Refused(404, "index_not_found", f"Index `{uid}` not found.")
        return self.indexes[uid]

    def documents(self, uid):
        """What an index holds, the version aside."""
        with self.lock:
            return [one for one in self.indexes[uid]["documents"].values() if "account" in one]

    def later(self, work):
        uid = len(self.tasks)
        self.tasks[uid] = {"uid": uid, "status": "enqueued", "error": None, "due": time.monotonic() + self.delay, "work": work}
        return 202, {"taskUid": uid, "status": "enqueued", "enqueuedAt": "2024-01-01T00:00:00Z"}

    def settle(self):
        """Tasks are done in their order, when their time has come."""
        for task in self.tasks.values():
            if task["status"] == "enqueued" and task["due"] <= time.monotonic():
                try:
                    if self.fail:
                        self.fail -= 1
                        raise Refused(500, "no_space_left_on_device", "No space left on device.")
                    task["work"]()
                    task["status"] = "succeeded"
                except Refused as refused:
                    task["status"], task["error"] = "failed", refused.body

    def route(self, method, path, body):
        self.settle()
        match method, path:
            case "GET", ["tasks", uid]:
                return 200, {name: value for name, value in self.tasks[int(uid)].items() if name not in ("due", "work")}
            case "POST", ["indexes"]:
                return self.later(lambda: self.create(body))
            case "POST", ["swap-indexes"]:
                return self.later(lambda: self.swap(body))
            case "POST", ["multi-search"]:
                return 200, {"results": [dict(self.search(query["indexUid"], query), indexUid=query["indexUid"]) for query in body["queries"]]}
            case "DELETE", ["indexes", uid]:
                return self.later(lambda: self.index(uid) and self.indexes.pop(uid))
            case "PATCH", ["indexes", uid, "settings"]:
                return self.later(lambda: self.index(uid)["settings"].update(body))
            case "POST", ["indexes", uid, "documents"]:
                return self.later(lambda: self.index(uid)["documents"].update({one["key"]: one for one in body}))
            case "POST", ["indexes", uid, "documents", "delete-batch"]:
                return self.later(lambda: [self.index(uid)["documents"].pop(key, None) for key in body])
            case "POST", ["indexes", uid, "documents", "delete"]:
                return self.later(lambda: self.delete(uid, body["filter"]))
            case "DELETE", ["indexes", uid, "documents", key]:
                return self.later(lambda: self.index(uid)["documents"].pop(key, None))
            case "GET", ["indexes", uid]:
                return 200, {"uid": uid, "createdAt": self.index(uid)["created"], "primaryKey": "key"}
            case "GET", ["indexes", uid, "stats"]:
                return 200, {"numberOfDocuments": len(self.index(uid)["documents"]), "rawDocumentDbSize": 4096, "isIndexing": False}
            case "GET", ["indexes", uid, "documents", key]:
                if key not in self.index(uid)["documents"]:
                    raise Refused(404, "document_not_found", f"Document `{key}` not found.")
                return 200, self.index(uid)["documents"][key]
            case "POST", ["indexes", uid, "documents", "fetch"]:
                return 200, self.fetch(uid, body)
        raise Refused(404, "not_found", "/".join(path))

    def create(self, body):
        if body["uid"] in self.indexes:
            raise Refused(409, "index_already_exists", f"Index `{body['uid']}` already exists.")
        self.indexes[body["uid"]] = {"created": f"{time.time_ns()}", "documents": {}, "settings": {}}

    def swap(self, body):
        for pair in body:
            one, other = pair["indexes"]
            self.indexes[one], self.indexes[other] = self.index(other), self.index(one)

    def filtered(self, uid, text):
        index = self.index(uid)
        for name in re.findall(r"(\w+) (?:=|EXISTS|NOT IN|IN)", text or ""):
            if name not in index["settings"].get("filterableAttributes", []):
                raise Refused(400, "invalid_search_filter", f"Attribute `{name}` is not filterable.")
        return [one for one in index["documents"].values() if not text or condition(one, text)]

    def delete(self, uid, text):
        for one in self.filtered(uid, text):
            del self.indexes[uid]["documents"][one["key"]]

    def fetch(self, uid, body):
        found = self.filtered(uid, body.get("filter"))
        offset, limit = body.get("offset", 0), body.get("limit", 20)
        shown = [{name: one[name] for name in body["fields"] if name in one} for one in found[offset : offset + limit]]
        return {"results": shown, "offset": offset, "limit": limit, "total": len(found)}

    def search(self, uid, body):
        found = self.filtered(uid, body.get("filter"))
        settings = self.index(uid)["settings"]
        names = body.get("attributesToSearchOn") or settings["searchableAttributes"]
        for name in names:
            if name not in settings["searchableAttributes"]:
                raise Refused(400, "invalid_search_attributes_to_search_on", f"Attribute `{name}` is not searchable.")
        parts = phrases(body.get("q", ""))
        found = [one for one in found if all(self.has(one, names, part, settings) for part in parts)]
        for rule in body.get("sort", []):
            name, order = rule.split(":")
            if name not in settings["sortableAttributes"]:
                raise Refused(400, "invalid_search_sort", f"Attribute `{name}` is not sortable.")
            found.sort(key=lambda one: one.get(name, 0), reverse=order == "desc")
        limit = min(body.get("limit", 20), settings.get("pagination", {}).get("maxTotalHits", 1000))
        shown = [{name: one[name] for name in body["attributesToRetrieve"] if name in one} for one in found[:limit]]
        if body.get("showRankingScore"):
            shown = [dict(one, _rankingScore=0.9) for one in shown]
        return {"hits": shown, "estimatedTotalHits": len(found), "limit": limit, "offset": 0, "processingTimeMs": 1, "query": body.get("q", "")}

    @staticmethod
    def has(document, names, part, settings):
        wanted, goes_on = part
        for name in names:
            tolerant = name not in settings["typoTolerance"]["disableOnAttributes"]
            for words in pieces(document.get(name)):
                if isinstance(wanted, list):
                    if any(words[at : at + len(wanted)] == wanted for at in range(len(words) - len(wanted) + 1)):
                        return True
                elif any(
                    word == wanted or (goes_on and word.startswith(wanted)) or (tolerant and len(wanted) >= 5 and slips(word, wanted)) for word in words
                ):
                    return True
        return False

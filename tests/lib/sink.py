"""A mail exchanger that takes everything and keeps the octets as they came: what relayd sends, before anybody touches it."""

import contextlib
import re
import socketserver
import threading
import time

from suite import wait_for


class Sink:
    """`mails` has a tuple (sender, recipients, octets) for each message, `sessions` one (client's address, EHLO name, MAIL's line,
    time), `rcpts` the lines of RCPT, `arrivals` one (Message-ID, time). It offers `offers`, too, and takes `delay` seconds for each
    message, as a slow host does. While it is `closed`, it tells everybody to come later."""

    def __init__(self, host="127.0.0.1", port=0, offers=(), delay=0):
        sink = self
        self.mails = []
        self.sessions = []
        self.rcpts = []
        self.arrivals = []
        self.closed = False
        self.offers = list(offers)
        self.delay = delay

        class Session(socketserver.StreamRequestHandler):
            def handle(self):
                with contextlib.suppress(ConnectionError):
                    sink._session(self.rfile, self.wfile, self.client_address[0])

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address = True
            request_queue_size = 500
            daemon_threads = True

        self.server = Server((host, port), Session)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def _session(self, lines, out, client):
        def say(text):
            out.write(text.encode() + b"\r\n")
            out.flush()

        say("220 sink.example ESMTP")
        sender, recipients, name, mail = None, [], None, None
        for line in lines:
            verb = line[:4].upper()
            path = line[line.find(b"<") + 1:line.rfind(b">")].decode(errors="replace")
            if verb in (b"EHLO", b"HELO"):
                name = line[5:].strip().decode()
                more = "".join(f"250-{offer}\r\n" for offer in self.offers)
                say(f"250-sink.example\r\n{more}250-8BITMIME\r\n250-SMTPUTF8\r\n250 SIZE 100000000")
            elif verb == b"MAIL":
                sender, recipients = line[line.find(b"<") + 1:line.find(b">")].decode(errors="replace"), []
                mail = line.decode(errors="replace").strip()
                say("250 ok")
            elif verb == b"RCPT" and self.closed:
                say("451 4.7.1 later")
            elif verb == b"RCPT":
                recipients.append(path)
                self.rcpts.append(line.decode(errors="replace").strip())
                say("250 ok")
            elif verb == b"DATA":
                say("354 go on")
                octets = []
                for piece in lines:
                    if piece == b".\r\n":
                        break
                    octets.append(piece[1:] if piece.startswith(b".") else piece)
                else:
                    # The other side is gone in the middle of its message.
                    return
                if self.delay:
                    # A host that is slow by nature: nothing is waited for here.
                    threading.Event().wait(self.delay)
                self.sessions.append((client, name, mail, time.monotonic()))
                named = re.search(rb"(?mi)^message-id: <([^>]+)>", b"".join(octets))
                self.arrivals.append((named and named[1].decode(), time.monotonic()))
                self.mails.append((sender, recipients, b"".join(octets)))
                say("250 taken")
            elif verb == b"QUIT":
                say("221 bye")
                return
            else:
                say("250 ok")

    def take(self, count=1, seconds=30):
        """Waits for so many, and forgets them."""
        wait_for(lambda: len(self.mails) >= count, lambda: f"{count} mails in the sink, has {len(self.mails)}", seconds)
        taken, self.mails[:] = self.mails[:count], self.mails[count:]
        return taken

    def close(self):
        self.server.shutdown()
        self.server.server_close()

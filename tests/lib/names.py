"""A name server for the published suites of checks, whose names and silences knot cannot have: real DNS over UDP and TCP, of any
labels, with questions that are never answered."""

import socket
import socketserver
import struct
import threading

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rdtypes.ANY.CNAME
import dns.rdtypes.ANY.MX
import dns.rdtypes.ANY.PTR
import dns.rdtypes.ANY.TXT
import dns.rrset

IN = dns.rdataclass.IN
SILENCE = object()


def name(text):
    """A name of whatever labels; None if there can be no such name."""
    labels = [label.encode() for label in text.split(".") if label]
    if any(len(label) > 63 for label in labels):
        return None
    return dns.name.Name([*labels, b""])


def rdata(kind, value):
    """The data of a record, as the suites write it."""
    rdtype = dns.rdatatype.from_text(kind)
    if kind in ("A", "AAAA"):
        return dns.rdata.from_text(IN, rdtype, value)
    if kind in ("TXT", "SPF"):
        strings = [value] if isinstance(value, (str, bytes)) else value
        octets = [part if isinstance(part, bytes) else part.encode() for part in strings]
        pieces = [part[at : at + 255] for part in octets for at in range(0, max(len(part), 1), 255)]
        return dns.rdtypes.ANY.TXT.TXT(IN, rdtype, pieces or [b""]) if kind == "TXT" else None
    if kind == "MX":
        return dns.rdtypes.ANY.MX.MX(IN, rdtype, value[0], name(value[1]))
    kinds = {"PTR": dns.rdtypes.ANY.PTR.PTR, "CNAME": dns.rdtypes.ANY.CNAME.CNAME}
    return kinds[kind](IN, rdtype, name(value)) if kind in kinds else None


class Names:
    """Serves `{name: [(type, value) or SILENCE, ...]}`; what stands behind SILENCE in a list is not reached."""

    def __init__(self):
        self.zones = {}
        handler = self
        # One port for both: what is too long for UDP is asked for again by TCP.
        while True:
            self.udp = _Udp(("127.0.0.1", 0), None)
            self.port = self.udp.server_address[1]
            try:
                self.tcp = _Tcp(("127.0.0.1", self.port), None)
                break
            except OSError:
                self.udp.server_close()
        for server in (self.udp, self.tcp):
            server.names = handler
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def load(self, zones):
        self.zones = {key.lower().strip("."): records for key, records in zones.items()}

    def close(self):
        for server in (self.udp, self.tcp):
            server.shutdown()
            server.server_close()

    def answer(self, octets, limit):
        """The octets of the answer, or None for silence."""
        query = dns.message.from_wire(octets)
        response = dns.message.make_response(query)
        response.flags |= dns.flags.AA | dns.flags.RA
        (question,) = query.question
        wanted, rdtype = question.name, question.rdtype
        for _ in range(10):
            key = b".".join(wanted.labels[:-1]).decode(errors="surrogateescape").lower()
            found, further = self._find(key, rdtype)
            if found is SILENCE:
                return None
            if found:
                rrset = dns.rrset.RRset(wanted, IN, found[0].rdtype)
                for data in found:
                    rrset.add(data, 60)
                response.answer.append(rrset)
            if further is None:
                break
            wanted = further
        if not response.answer:
            there = any(known == key or known.endswith("." + key) for known in self.zones)
            response.set_rcode(dns.rcode.NOERROR if there else dns.rcode.NXDOMAIN)
            soa = dns.rdata.from_text(IN, dns.rdatatype.SOA, ". . 1 1 1 1 1")
            response.authority.append(dns.rrset.from_rdata(dns.name.root, 1, soa))
        wire = response.to_wire(max_size=65535)
        if len(wire) > limit(query):
            short = dns.message.make_response(query)
            short.flags |= dns.flags.TC
            wire = short.to_wire()
        return wire

    def _find(self, key, rdtype):
        """Records of that type, and where a CNAME leads."""
        found = []
        for record in self.zones.get(key, ()):
            if record is SILENCE:
                return (found, None) if found else (SILENCE, None)
            kind, value = record
            same = dns.rdatatype.from_text(kind) == rdtype
            if same and value is SILENCE:
                return SILENCE, None
            if value is SILENCE:
                continue
            if same and (data := rdata(kind, value)):
                found.append(data)
            elif kind == "CNAME" and not same:
                return [rdata(kind, value)], name(value)
        return found, None


class _Udp(socketserver.ThreadingUDPServer):
    daemon_threads = True

    def finish_request(self, request, client):
        octets, sock = request
        wire = self.names.answer(octets, lambda query: max(query.payload, 512))
        if wire is not None:
            sock.sendto(wire, client)


class _Tcp(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True

    def finish_request(self, connection, client):
        connection.settimeout(5)
        try:
            while length := connection.recv(2, socket.MSG_WAITALL):
                octets = connection.recv(*struct.unpack("!H", length), socket.MSG_WAITALL)
                wire = self.names.answer(octets, lambda query: 65535)
                if wire is None:
                    return
                connection.sendall(struct.pack("!H", len(wire)) + wire)
        except (OSError, struct.error):
            pass

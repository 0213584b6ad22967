"""Other people's verifiers of DKIM signatures and ARC chains: dkimpy, and Perl's Mail::DKIM."""

import subprocess

import dkim

_DKIM = """
use Mail::DKIM::Verifier; use Mail::DKIM::DNS; use Net::DNS::Resolver; binmode STDIN;
Mail::DKIM::DNS::resolver(Net::DNS::Resolver->new(nameservers => ['127.0.0.1'], port => $ARGV[0]));
my $v = Mail::DKIM::Verifier->new(); local $/; $v->PRINT(<STDIN>); $v->CLOSE;
print join("\\n", map { $_->algorithm . " " . $_->domain . " " . $_->selector . " " . $_->result } $v->signatures), "\\n";
"""

_ARC = """
use Mail::DKIM::ARC::Verifier; use Mail::DKIM::DNS; use Net::DNS::Resolver; binmode STDIN;
Mail::DKIM::DNS::resolver(Net::DNS::Resolver->new(nameservers => ['127.0.0.1'], port => $ARGV[0]));
my $v = Mail::DKIM::ARC::Verifier->new(); local $/; $v->PRINT(<STDIN>); $v->CLOSE;
print $v->result, "\\n", $v->result_detail, "\\n";
"""


def lookup(knot):
    """How dkimpy asks this name server."""
    return lambda name, timeout=5: knot.txt(name.decode() if isinstance(name, bytes) else name)


def dkimpy(mail, knot):
    """`{selector: passed}` of all signatures."""
    verdicts = {}
    for number in range(mail.partition(b"\r\n\r\n")[0].lower().count(b"dkim-signature:")):
        one = dkim.DKIM(mail)
        try:
            passed = one.verify(idx=number, dnsfunc=lookup(knot))
        except dkim.DKIMException:
            passed = False
        verdicts[one.signature_fields.get(b"s", b"?").decode()] = passed
    return verdicts


def mail_dkim(mail, knot):
    """`{selector: result}` of the RSA signatures: Debian's version knows no Ed25519. None if it is not installed."""
    return _perl(_DKIM, mail, knot, lambda out: {
        line.split()[2]: line.split()[3] for line in out.splitlines() if line.startswith("rsa")})


def dkimpy_arc(mail, knot):
    """What dkimpy says of the chain: `pass`, `fail` or `none`."""
    verdict, _, _ = dkim.arc_verify(mail, dnsfunc=lookup(knot))
    return verdict.decode()


def mail_dkim_arc(mail, knot):
    """The result of the chain, and its details. None if it is not installed."""
    return _perl(_ARC, mail, knot, lambda out: tuple(out.splitlines()[:2]))


def _perl(script, mail, knot, read):
    done = subprocess.run(["perl", "-e", script, str(knot.port)], input=mail, capture_output=True, timeout=60)
    if b"Can't locate Mail/DKIM" in done.stderr:
        return None
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return read(done.stdout.decode())

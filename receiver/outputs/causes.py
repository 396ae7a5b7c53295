"""Why a server cannot be had, in words that say what to do; what the library said stands behind them, without passwords.

Each library wraps the same few causes in errors of its own, some as text alone. The text is all they have in common, so it
is looked at here and nowhere else; what is not known is passed on as it is.
"""

import re
from collections.abc import Iterable
from urllib.parse import unquote, urlsplit

_LONGEST = 300
_CAUSES = tuple(
    (re.compile(pattern, re.IGNORECASE), words)
    for pattern, words in (
        (
            r"(hostname|IP address) mismatch",
            "the server's certificate is for another name than the one we connect to: use a name that stands in it",
        ),
        (r"certificate has expired", "the server's certificate has expired: renew it there, and compare the clocks"),
        (r"certificate is not yet valid", "the server's certificate holds from later on: compare the clocks"),
        (
            r"SSL routines::certificate verify failed",  # librdkafka does not tell the two apart
            "the server's certificate is not signed by anyone we trust, or is for another name than the one we connect to: "
            "see to ca_file and servers",
        ),
        (
            r"certificate verify failed",
            "the server's certificate is not signed by anyone we trust: put the certificate of its authority into ca_file",
        ),
        (
            r"alert (bad certificate|certificate (required|unknown)|unknown ca)|requires a valid client certificate",
            "the server wants a certificate of ours, one that it trusts: see to cert_file and key_file",
        ),
        (r"wrong.version.number|record.layer.failure", "what answers there does not speak TLS: compare port and tls"),
        (
            r"authorization violation|not authorized|bad user name or password|username-password|authentication|"
            r"no password supplied|ACCESS_REFUSED|role .* does not exist|not permitted to log in",
            "the server refuses our login: compare user and password with its own",
        ),
        (r"connection refused|connect call failed|errno 111\b|multiple exceptions", "nobody listens there: is it running?"),
    )
)


def describe(error: BaseException | str, secrets: Iterable[str] = ()) -> str:
    """Return what is wrong and what to do, with the library's words; none of ``secrets`` stands in it.

    A secret that is an address holds another, its password, which is not shown either, as written or decoded.
    """
    if isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    told = (str(error) or type(error).__name__).strip()
    words = next((words for pattern, words in _CAUSES if pattern.search(told)), "")
    for part in sorted({part for secret in secrets for part in _parts(secret)}, key=len, reverse=True):
        told = told.replace(part, "***")
    told = told if len(told) <= _LONGEST else f"{told[:_LONGEST]}…"
    return f"{words} ({told})" if words else told


def _parts(secret: str) -> set[str]:
    """Return the texts that must not be shown: the secret and, of an address, its password, as written and decoded."""
    found = {secret, unquote(secret)}
    if "://" in secret:
        password = urlsplit(secret).netloc.rpartition("@")[0].partition(":")[2]
        found |= {password, unquote(password)}
    return found - {""}

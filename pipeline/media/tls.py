"""TLS to sources: whose certificates are trusted, and why a connection was refused.

A server must show a certificate that is valid, vouched for by somebody who is trusted, and for the very name or address
that was given. Nothing switches that off; a private authority is named instead (`source.ca_file`).
"""

from __future__ import annotations

import ssl

from pipeline.errors import Unreachable
from pipeline.media.source_base import SourceOptions

SCHEMES = frozenset({"https", "rtmps", "rtsps"})

_OTHER_NAME = (62, 64)  # OpenSSL's X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH
_PERIOD = (9, 10)  # X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED


def context(options: SourceOptions) -> ssl.SSLContext:
    """Return what a connection is secured with: it trusts whom the system trusts, and who is in `options.ca_file`.

    Raises:
        Unreachable: the file cannot be read, or holds no certificate.
    """
    made = ssl.create_default_context()
    if options.ca_file:
        try:
            made.load_verify_locations(options.ca_file)
        except OSError as error:  # ssl.SSLError is one: the file is there, but holds something else
            said = "it holds no certificate" if isinstance(error, ssl.SSLError) else error.strerror
            raise Unreachable(
                f"source.ca_file cannot be used: {said}", where=options.ca_file, hint="give a file in PEM form"
            ) from error
    return made


def refused(error: ssl.SSLError, *, where: str) -> Unreachable:
    """Return what it means that no secure connection came about, in words."""
    if not isinstance(error, ssl.SSLCertVerificationError):
        said = error.reason or error.strerror or "the server broke off"
        return Unreachable(f"no secure connection: {said}", where=where, hint="check that the server speaks TLS there")
    if error.verify_code in _OTHER_NAME:
        hint = "use the name or address that the certificate is for, or have it issued for this one"
    elif error.verify_code in _PERIOD:
        hint = "have the server's certificate renewed, and check this machine's clock"
    else:
        hint = "if the server is yours, name the certificate of its authority in source.ca_file"
    return Unreachable(f"no secure connection: {error.verify_message.rstrip('.')}", where=where, hint=hint)

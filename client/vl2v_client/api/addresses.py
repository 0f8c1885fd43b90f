"""The vendor's address as people write it, and whether it is the other scheme that answers there."""

import re
from typing import Final

import httpx

from vl2v_client.core.errors import UsageError
from vl2v_contract.wire.headers import PROBLEM_JSON

_OF_THE_WIRE: Final = re.compile(r"/v1(/(embeddings|models|billing)(/.*)?)?/*$")
_OTHER_SCHEME: Final = {"http": "https", "https": "http"}
_PROBE_SECONDS: Final = 5.0
_UNTRUSTED: Final = "CERTIFICATE_VERIFY_FAILED"


def base_url(url: str) -> str:
    """Return the address below which every path of the wire begins.

    A `/v1` at the end, which OpenAI's clients want there, is left out, and so is a whole path of the wire.

    Raises:
        UsageError: It is no HTTP address.
    """
    try:
        is_usable = url.startswith(("http://", "https://")) and bool(httpx.URL(url).host)
    except httpx.InvalidURL:
        is_usable = False
    if not is_usable:
        raise UsageError(f"the vendor URL {url!r} must look like http://host:port or https://host")
    origin, _, path = url.partition("://")[2].partition("/")
    return f"{url.partition('://')[0]}://{origin}{_OF_THE_WIRE.sub('', f'/{path}')}".rstrip("/")


def is_untrusted(error: httpx.RequestError) -> bool:
    """Return whether the connection failed at a certificate that no authority known here has signed."""
    return _UNTRUSTED in str(error)


def other_scheme(
    url: str, failure: httpx.Response | httpx.RequestError, transport: httpx.BaseTransport | None = None
) -> str | None:
    """Return the same address under the other scheme, if that is what this failure comes from.

    Args:
        url: The address as it was used.
        failure: What came of the first requests to it.
        transport: Replaces the network, in tests; it is left open.
    """
    asked = httpx.URL(url)
    if not _is_suspect(asked, failure):
        return None
    other = str(asked.copy_with(scheme=_OTHER_SCHEME[asked.scheme])).rstrip("/")
    http = httpx.Client(transport=transport, timeout=_PROBE_SECONDS)  # no API key: plain HTTP would show it to anybody
    try:
        http.get(f"{other}/healthz")
    except httpx.RequestError as error:
        return other if is_untrusted(error) else None
    finally:
        if transport is None:
            http.close()
    return other


def _is_suspect(asked: httpx.URL, failure: httpx.Response | httpx.RequestError) -> bool:
    """Return whether a failure is one of those that the wrong scheme has."""
    is_plain = asked.scheme == "http"
    if isinstance(failure, httpx.Response):  # as web servers answer plain HTTP at the port of their TLS
        of_a_vendor = failure.headers.get("content-type") == PROBLEM_JSON
        return is_plain and failure.status_code == httpx.codes.BAD_REQUEST and not of_a_vendor
    if isinstance(failure, httpx.ConnectError):  # each scheme has a port of its own, unless one is named
        is_tls = "SSL" in str(failure) or "TLS" in str(failure)
        return asked.port is None or (is_tls and not is_untrusted(failure))
    return is_plain and isinstance(failure, httpx.RemoteProtocolError | httpx.ReadError)

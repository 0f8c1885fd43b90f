"""What an `Accept` header prefers (RFC 9110, 12.5.1)."""

from __future__ import annotations


def preference(accept: str | None, media_type: str) -> float:
    """The weight that the header gives a media type by its full name, 0 to 1; 0 if it does not name it.

    Ranges such as `*/*` name nothing: who sends them takes whatever is usual.
    """
    for part in (accept or "").split(","):
        name, _, parameters = part.partition(";")
        if name.strip().lower() == media_type:
            return _weight(parameters)
    return 0.0


def _weight(parameters: str) -> float:
    for parameter in parameters.split(";"):
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "q":
            try:
                return min(max(float(value), 0.0), 1.0)
            except ValueError:
                return 0.0
    return 1.0

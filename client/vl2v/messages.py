"""Errors in the words of Python: an option is named by its keyword."""

from collections.abc import Iterator
from contextlib import contextmanager

from vl2v_client.config.names import option_name, rename_options
from vl2v_client.core.errors import ClientError


@contextmanager
def keyword_names() -> Iterator[None]:
    """Name options by their keywords in what the block raises: `max_queries` for `purchase.max_queries`.

    Raises:
        ClientError: As the block.
    """
    try:
        yield
    except ClientError as error:
        error.args = (rename_options(str(error), option_name),)
        raise

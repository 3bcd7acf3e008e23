"""What of an address may be printed, stored and sent on: never a user's name and password."""

import re
from urllib.parse import urlsplit

_USER = re.compile(
    r"""(?<=://)(?:
        [^\s/?\#]*@  # user:password@
        | [^\s/?\#:@\[]*:(?!\d{1,5}(?:[/?\#\s]|$))[^\s@]*@  # the same, a / in the password
    )""",
    re.VERBOSE,
)


def without_credentials(text: str) -> str:
    """Return `text` without the user names and passwords of the addresses in it.

    Also of those that no program accepts: an error that quotes an address must not show more.
    """
    return _USER.sub("", text)


def names_a_host(address: str) -> bool:
    """Return whether host and port of an address can be told.

    Where they cannot, as with a / in the password, libraries quote the password as the port.
    """
    try:
        parts = urlsplit(address)
        return bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False

"""On the path of a program, this refuses it every network but loopback, and notes what it asked for.

The file named by LOOPBACK_ONLY gets one line for each attempt; programs that it starts are held to it, too.
"""

import ipaddress
import os
import sys
from typing import Any


def _elsewhere(host: object) -> bool:
    text = host.decode() if isinstance(host, bytes) else str(host)
    if text in ("", "None", "localhost"):
        return False
    try:
        return not ipaddress.ip_address(text).is_loopback
    except ValueError:
        return True


def _watch(event: str, args: tuple[Any, ...]) -> None:
    if event == "socket.getaddrinfo":
        host = args[0]
    elif event == "socket.connect" and isinstance(args[1], tuple):
        host = args[1][0]
    else:
        return
    if _elsewhere(host):
        with open(os.environ["LOOPBACK_ONLY"], "a") as notes:
            notes.write(f"{event} {host}\n")
        raise PermissionError(f"only loopback may be asked, not {host}")


if os.environ.get("LOOPBACK_ONLY"):
    sys.addaudithook(_watch)

"""Where a page may listen. Imports nothing slow: the command looks here before it imports torch."""

from __future__ import annotations

import ipaddress
import socket
from importlib.util import find_spec


def check_gradio() -> None:
    """Refuse to go on without gradio.

    Raises:
        ImportError: with what to run.
    """
    if find_spec("gradio") is None:
        raise ImportError(
            "the web page needs gradio, which is not installed; run: pip install 'mmclipdis[web]'"
        )


def is_loopback(host: str) -> bool:
    """Whether an address is that of this machine itself, which no other one reaches."""
    if host.strip("[]").lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_port(host: str, port: int) -> None:
    """Refuse an address that cannot be listened on, before anything slow.

    Raises:
        OSError: another program does, or this machine has no such address.
        ValueError: no port.
    """
    if not isinstance(port, int) or isinstance(port, bool) or not 1 <= port <= 65535:
        raise ValueError(f"a port is a number from 1 to 65535, got {port!r}")
    try:
        family, *_, address = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(address)
    except OSError as error:
        raise OSError(
            f"cannot listen on {host}:{port} ({error.strerror or error}); if another program "
            f"does, give another port, such as --port {port + 1 if port < 65535 else 7860}"
        ) from error

"""A server that answers with the client's address, and its client. Nodes run it as `python3 -c TEXT`.

serve NAME PORT LOG        in the background; it listens already when the command ends
ask ADDRESS PORT SECONDS   prints `practice-right was asked by 172.31.3.1`, or why there was no answer
"""

from __future__ import annotations

import os
import socket
import sys


def serve(name: str, port: str, log: str) -> None:
    """Listen on the port, then answer in a forked process until it is killed."""
    listening = socket.create_server(("", int(port)), backlog=16)
    if os.fork():
        os._exit(0)
    os.setsid()
    devnull = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):  # the caller reads the output to its end, so the server must close it
        os.dup2(devnull, stream)
    with open(log, "a", buffering=1) as lines:
        while True:
            connection, (client, _) = listening.accept()
            with connection:
                try:
                    connection.settimeout(5)
                    connection.recv(4096)
                    answer = f"{name} was asked by {client}\n"
                    connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\n" + answer.encode())
                    lines.write(answer)
                except OSError:
                    pass  # the client closed the connection


def ask(address: str, port: str, seconds: str) -> None:
    """Print the answer of a server; exit with the reason when there is none."""
    try:
        with socket.create_connection((address, int(port)), float(seconds)) as connection:
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            answer = b"".join(iter(lambda: connection.recv(4096), b""))
    except TimeoutError:
        sys.exit(f"no answer within {seconds} s")
    except OSError as error:
        sys.exit((error.strerror or str(error)).lower())
    print(answer.decode(errors="replace").rpartition("\r\n")[2].strip())


if __name__ == "__main__":
    {"serve": serve, "ask": ask}[sys.argv[1]](*sys.argv[2:])

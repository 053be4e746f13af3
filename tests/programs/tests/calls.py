# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
"""Calls that TCP ends by itself, and options set before there is a connection. Prints no times."""

import os
import socket
import sys
import threading

LONG = 20


def listener(backlog=None):
    server = socket.create_server(("127.0.0.1", 0), backlog=backlog)
    server.settimeout(LONG)
    return server


def pair():
    """Two ends in use, so of SMC if they may be."""
    with listener() as server:
        accepted = []
        thread = threading.Thread(target=lambda: accepted.append(server.accept()[0]))
        thread.start()
        client = socket.create_connection(server.getsockname(), timeout=LONG)
        thread.join()
    server = accepted[0]
    server.settimeout(LONG)
    thread = threading.Thread(target=lambda: server.sendall(server.recv(1)))
    thread.start()
    client.sendall(b".")
    assert client.recv(1) == b"."
    thread.join()
    return client, server


def cork(sock, data):
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
    sock.send(data)


def more(sock, data):
    sock.send(data, socket.MSG_MORE)


def held_back(send):
    """What is held back for more arrives though there is no more, as it does with TCP after 200 ms."""
    client, server = pair()
    with client, server:
        send(client, b"request")
        assert server.recv(100) == b"request"
        server.sendall(b"answer")
        assert client.recv(100) == b"answer"


def last_words(send):
    """And if the process ends."""
    with listener() as server:
        child = os.fork()
        if child == 0:
            try:
                client = socket.create_connection(server.getsockname(), timeout=LONG)
                client.sendall(b".")
                assert client.recv(1) == b"."
                send(client, b"last words")
                os._exit(0)
            except BaseException as error:
                print("client:", repr(error), file=sys.stderr)
                os._exit(1)
        accepted, _ = server.accept()
        with accepted:
            accepted.settimeout(LONG)
            accepted.sendall(accepted.recv(1))
            assert os.waitpid(child, 0)[1] == 0
            assert accepted.recv(100) == b"last words"
            assert accepted.recv(100) == b""


def main():
    cases = {
        "more": lambda: held_back(more),
        "cork": lambda: held_back(cork),
        "last words, more": lambda: last_words(more),
        "last words, cork": lambda: last_words(cork),
    }
    for name in sys.argv[1:] or cases:
        cases[name]()
        print(name, flush=True)


main()

# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
"""Programs that connect and send before anybody accepts, and what they see. Prints no times."""

import os
import select
import socket
import sys
import threading

LONG = 20


def listener():
    server = socket.create_server(("127.0.0.1", 0))
    server.settimeout(LONG)
    return server


def all_of(sock):
    parts = []
    while part := sock.recv(65536):
        parts.append(part)
    return b"".join(parts)


def one_thread():
    """Connects to itself, sends, accepts, reads, answers."""
    with listener() as server:
        client = socket.create_connection(server.getsockname(), timeout=LONG)
        client.sendall(b"before")
        accepted, _ = server.accept()
        accepted.settimeout(LONG)
        assert accepted.recv(100) == b"before"
        accepted.sendall(b"after")
        assert client.recv(100) == b"after"
        client.sendall(b"more")
        client.shutdown(socket.SHUT_WR)
        assert all_of(accepted) == b"more"
        accepted.close()
        assert client.recv(1) == b""
        client.close()


def closed_before():
    """The client has closed before it is accepted; its bytes and its end are there."""
    with listener() as server:
        client = socket.create_connection(server.getsockname(), timeout=LONG)
        client.sendall(b"x" * 50000)
        client.close()
        accepted, _ = server.accept()
        accepted.settimeout(LONG)
        assert len(all_of(accepted)) == 50000
        accepted.close()


def by_child(act):
    """Runs a client in a process of its own; it says so when it has sent."""
    with listener() as server:
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                act(server.getsockname(), writer)
                os._exit(0)
            except BaseException as error:
                print("client:", repr(error), file=sys.stderr)
                os._exit(1)
        os.close(writer)
        assert os.read(reader, 1) == b"s"
        accepted, _ = server.accept()
        accepted.settimeout(LONG)
        assert accepted.recv(7) == b"request"
        accepted.sendall(b"reply")
        accepted.sendall(b" and more")
        rest = all_of(accepted)
        accepted.close()
        os.close(reader)
        assert os.waitpid(child, 0)[1] == 0
        return rest


def blocking(address, writer):
    with socket.create_connection(address, timeout=LONG) as sock:
        sock.sendall(b"request")
        os.write(writer, b"s")
        got = b""
        while len(got) < 14:
            got += sock.recv(100)
        assert got == b"reply and more", got


def polled(address, writer):
    with socket.create_connection(address, timeout=LONG) as sock:
        sock.sendall(b"request")
        sock.setblocking(False)
        waiter = select.poll()
        waiter.register(sock, select.POLLIN | select.POLLOUT)
        assert waiter.poll(0) == [(sock.fileno(), select.POLLOUT)]
        os.write(writer, b"s")
        waiter.register(sock, select.POLLIN)
        got = b""
        while len(got) < 14:
            assert waiter.poll(LONG * 1000) == [(sock.fileno(), select.POLLIN)]
            got += sock.recv(100)
        assert got == b"reply and more", got
        sock.setblocking(True)


def by_epoll(flags):
    def act(address, writer):
        with socket.create_connection(address, timeout=LONG) as sock, select.epoll() as epoll:
            sock.sendall(b"request")
            sock.setblocking(False)
            epoll.register(sock, select.EPOLLIN | select.EPOLLOUT | flags)
            events = epoll.poll(LONG)
            assert events == [(sock.fileno(), select.EPOLLOUT)], events
            os.write(writer, b"s")
            got = b""
            while len(got) < 14:
                if flags & select.EPOLLONESHOT:
                    assert epoll.poll(0) == []
                epoll.modify(sock, select.EPOLLIN | flags)
                for _, events in epoll.poll(LONG):
                    assert events & select.EPOLLIN, events
                    try:
                        while part := sock.recv(4):
                            got += part
                    except BlockingIOError:
                        pass
            assert got == b"reply and more", got

    return act


def forked():
    """The client has a child with the connection, which waits for the answer and sends on after its parent's close."""

    def act(address, writer):
        sock = socket.create_connection(address, timeout=LONG)
        sock.sendall(b"request")
        child = os.fork()
        if child == 0:
            try:
                sock.setblocking(False)
                waiter = select.poll()
                waiter.register(sock, select.POLLIN)
                os.write(writer, b"s")
                got = b""
                while len(got) < 14:
                    assert waiter.poll(LONG * 1000) == [(sock.fileno(), select.POLLIN)]
                    got += sock.recv(100)
                assert got == b"reply and more", got
                sock.sendall(b"rest")
                os._exit(0)
            except BaseException as error:
                print("client's child:", repr(error), file=sys.stderr)
                os._exit(1)
        sock.close()
        assert os.waitpid(child, 0)[1] == 0

    assert by_child(act) == b"rest"


def killed():
    """A client that has sent and is killed before it is accepted."""
    with listener() as server:
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            sock = socket.create_connection(server.getsockname(), timeout=LONG)
            sock.sendall(b"last words")
            os.write(writer, b"s")
            select.select([], [], [], LONG)
            os._exit(1)
        assert os.read(reader, 1) == b"s"
        os.kill(child, 9)
        os.waitpid(child, 0)
        accepted, _ = server.accept()
        accepted.settimeout(LONG)
        assert all_of(accepted) == b"last words"
        accepted.close()


def ordinary():
    """One that is accepted at once, and so is SMC's."""
    with listener() as server:
        accepted = []
        thread = threading.Thread(target=lambda: accepted.append(server.accept()[0]))
        thread.start()
        client = socket.create_connection(server.getsockname(), timeout=LONG)
        thread.join()
        echo = threading.Thread(target=lambda: accepted[0].sendall(accepted[0].recv(100)))
        echo.start()
        client.sendall(b"hello")
        assert client.recv(100) == b"hello"
        echo.join()
        accepted[0].close()
        client.close()


def main():
    cases = {
        # First: after a fork an accepted connection is left alone for a child to begin with.
        "ordinary": ordinary,
        "one thread": one_thread,
        "closed before": closed_before,
        "killed": killed,
        "blocking": lambda: by_child(blocking),
        "polled": lambda: by_child(polled),
        "epoll": lambda: by_child(by_epoll(0)),
        "edge": lambda: by_child(by_epoll(select.EPOLLET)),
        "forked": forked,
        "one shot": lambda: by_child(by_epoll(select.EPOLLONESHOT)),
    }
    for name in sys.argv[1:] or cases:
        cases[name]()
        print(name)


main()

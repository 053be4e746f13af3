# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
"""Calls that TCP ends by itself, and options set before there is a connection. Prints no times."""

import array
import errno
import fcntl
import os
import select
import signal
import socket
import struct
import sys
import termios
import threading

LONG = 20


def listener(backlog=None):
    server = socket.create_server(("127.0.0.1", 0), backlog=backlog)
    server.settimeout(LONG)
    return server


def pair(low_water=1):
    """Two ends in use, so of SMC if they may be. SO_RCVLOWAT is set before there is a connection."""
    first = b"." * low_water
    client = socket.socket()
    with listener() as server:
        for sock in (server, client) if low_water > 1 else ():
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, low_water)
        accepted = []
        thread = threading.Thread(target=lambda: accepted.append(server.accept()[0]))
        thread.start()
        client.connect(server.getsockname())
        thread.join()
    server = accepted[0]
    client.settimeout(LONG)
    server.settimeout(LONG)
    thread = threading.Thread(target=lambda: server.sendall(server.recv(100)))
    thread.start()
    client.sendall(first)
    assert client.recv(100) == first
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


def at_any_time(act):
    """What `act` gives though signals come all the time, whose handler restarts nothing."""
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.siginterrupt(signal.SIGALRM, True)
    signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
    try:
        return act()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def shut_before_accept(how, blocking):
    """A direction is shut before the server accepts, which it does when that is done."""
    with listener() as server:
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(writer)
            try:
                assert os.read(reader, 1) == b"s"
                accepted, _ = server.accept()
                accepted.settimeout(LONG)
                assert accepted.recv(100) == (b"request" if how == socket.SHUT_RD else b"")
                accepted.sendall(b"answer")
                accepted.close()
                os._exit(0)
            except BaseException as error:
                print("server:", repr(error), file=sys.stderr)
                os._exit(1)
        client = socket.create_connection(server.getsockname())
        client.setblocking(blocking)
        at_any_time(lambda: client.shutdown(how))
        if how != socket.SHUT_RD:
            try:
                client.send(b"more")
                raise AssertionError("it sends")
            except BrokenPipeError:
                pass
        if how != socket.SHUT_WR:
            assert client.recv(100) == b""
        os.write(writer, b"s")
        client.settimeout(LONG)
        if how == socket.SHUT_RD:
            client.sendall(b"request")
        if how == socket.SHUT_WR:
            assert client.recv(100) == b"answer"
            assert client.recv(100) == b""
        assert os.waitpid(child, 0)[1] == 0
        client.close()


def shut_while_connecting():
    """TCP is not yet connected, and will not be."""
    with listener(0) as full:
        clients = [socket.socket() for _ in range(4)]
        for client in clients:
            client.setblocking(False)
            assert client.connect_ex(full.getsockname()) in (0, errno.EINPROGRESS)
        last = clients[-1]
        # In vain: nobody accepts.
        signal.alarm(LONG)
        last.shutdown(socket.SHUT_RDWR)
        signal.alarm(0)
        poller = select.poll()
        poller.register(last, select.POLLOUT)
        (_, events), = poller.poll()
        assert events & select.POLLHUP, events
        for client in clients:
            client.close()


def is_readable(sock):
    poller = select.poll()
    poller.register(sock, select.POLLIN)
    return poller.poll(0) != []


def low_water():
    """Fewer bytes than SO_RCVLOWAT are there, and are not said to be."""
    client, server = pair(10)
    with client, server:
        for near, far in ((client, server), (server, client)):
            there = array.array("i", [0])
            far.sendall(b"12345")
            while there[0] < 5:
                assert not is_readable(near)
                fcntl.ioctl(near, termios.FIONREAD, there)
            assert not is_readable(near)
            far.sendall(b"67890")
            assert near.recv(100) == b"1234567890"


def reset():
    """Who waits for the end only hears of a reset."""
    client, server = pair()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    server.close()
    for events in (0, select.POLLIN):
        poller = select.poll()
        poller.register(client, events)
        [(_, said)] = poller.poll(LONG * 1000)
        assert said == events | select.POLLERR | select.POLLHUP, said
    client.close()


def exclusive():
    """A connection that is added with EPOLLEXCLUSIVE, and accepted when it was found writable."""
    with listener() as server:
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                client = socket.socket()
                client.setblocking(False)
                client.connect_ex(server.getsockname())
                with select.epoll() as epoll:
                    flags = select.EPOLLIN | select.EPOLLOUT | select.EPOLLEXCLUSIVE
                    epoll.register(client, flags)
                    assert epoll.poll(LONG) == [(client.fileno(), select.EPOLLOUT)]
                    client.sendall(b"request")
                    os.write(writer, b"s")
                    while not epoll.poll(LONG)[0][1] & select.EPOLLIN:
                        pass
                    assert client.recv(100) == b"answer"
                os._exit(0)
            except BaseException as error:
                print("client:", repr(error), file=sys.stderr)
                os._exit(1)
        os.close(writer)
        assert os.read(reader, 1) == b"s"
        accepted, _ = server.accept()
        accepted.settimeout(LONG)
        assert accepted.recv(100) == b"request"
        accepted.sendall(b"answer")
        assert os.waitpid(child, 0)[1] == 0
        accepted.close()


def main():
    cases = {
        # First: after a fork an accepted connection is left alone for a child to begin with.
        "more": lambda: held_back(more),
        "cork": lambda: held_back(cork),
        "low water": low_water,
        "reset": reset,
        "shut while connecting": shut_while_connecting,
        "exclusive": exclusive,
        "shut, reads": lambda: shut_before_accept(socket.SHUT_WR, True),
        "shut, does not wait": lambda: shut_before_accept(socket.SHUT_WR, False),
        "shut, sends": lambda: shut_before_accept(socket.SHUT_RD, True),
        "shut, both": lambda: shut_before_accept(socket.SHUT_RDWR, False),
        "last words, more": lambda: last_words(more),
        "last words, cork": lambda: last_words(cork),
    }
    for name in sys.argv[1:] or cases:
        cases[name]()
        print(name, flush=True)


main()

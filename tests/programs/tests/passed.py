# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
"""Sockets that other processes get, by SCM_RIGHTS and by exec, and what those read. Prints no times."""

import errno
import os
import socket
import subprocess
import sys

LONG = 20
REQUEST = b"a request\n"
ANSWER = b"got a request\n"
SHELL = ["/bin/sh", "-c", "read line; echo got $line"]


def exactly(sock, size):
    got = b""
    while len(got) < size:
        part = sock.recv(size - len(got))
        assert part, got
        got += part
    return got


def child(act, *arguments):
    """Runs something in a child."""
    process = os.fork()
    if process == 0:
        status = 1
        try:
            act(*arguments)
            status = 0
        finally:
            os._exit(status)
    return process


def ended(process):
    assert os.waitpid(process, 0)[1] == 0


def listen():
    return socket.create_server(("127.0.0.1", 0))


def client(address, has_sent):
    with socket.create_connection(address, timeout=LONG) as sock:
        sock.sendall(REQUEST)
        has_sent.send(b"x")
        assert exactly(sock, len(ANSWER)) == ANSWER
        # Nothing of a handshake lies behind.
        assert sock.recv(1) == b""


def answer(sock):
    with sock:
        sock.settimeout(LONG)
        assert exactly(sock, len(REQUEST)) == REQUEST
        sock.sendall(ANSWER)


def received(way):
    """A socket that comes by SCM_RIGHTS."""
    return socket.socket(fileno=socket.recv_fds(way, 1, 1)[1][0])


def pass_on(way, sock):
    with sock:
        socket.send_fds(way, [b"x"], [sock.fileno()])


def accepts_from_what_it_gets(way):
    with received(way) as listener:
        answer(listener.accept()[0])


def answers_what_it_gets(way):
    answer(received(way))


def exchange(listener, serve, waits=False):
    """A client's request, of which `serve` sees the accepted socket."""
    address = listener.getsockname()
    own, others = socket.socketpair()
    with own, others:
        process = child(client, address, others)
        sock, _ = listener.accept()
        if waits:
            # Over TCP it waits for nobody's answer, so a client of SMC gives up its proposal for that.
            own.recv(1)
        serve(sock)
        ended(process)
    print(serve.__name__, waits, flush=True)


def a_listener_is_passed_on():
    own, others = socket.socketpair()
    with own, others:
        # It has never had a listener.
        worker = child(accepts_from_what_it_gets, others)
        listener = listen()
        address = listener.getsockname()
        pass_on(own, listener)
        client(address, own)
        ended(worker)
    print("listener", flush=True)


def to_worker(sock):
    own, others = socket.socketpair()
    with own, others:
        worker = child(answers_what_it_gets, others)
        pass_on(own, sock)
        ended(worker)


def to_program(sock):
    """As inetd has it: the program knows nothing of its parent's environment."""
    with sock:
        sock.setblocking(True)
        subprocess.run(SHELL, stdin=sock, stdout=sock, env={}, check=True)


def execute(sock):
    for number in (0, 1):
        os.dup2(sock.fileno(), number)
    os.execve(SHELL[0], SHELL, {})


def to_child_that_executes(sock):
    with sock:
        process = child(execute, sock)
    ended(process)


def one_in_use():
    """It is refused, and goes on."""
    with listen() as listener:
        own, others = socket.socketpair()
        with own, others:
            process = child(client, listener.getsockname(), others)
            sock, _ = listener.accept()
            sock.settimeout(LONG)
            assert exactly(sock, len(REQUEST)) == REQUEST
            try:
                socket.send_fds(own, [b"x"], [sock.fileno()])
            except OSError as error:
                print(error.errno == errno.EOPNOTSUPP, flush=True)
            with sock:
                sock.sendall(ANSWER)
            ended(process)


def main():
    a_listener_is_passed_on()
    with listen() as listener:
        for waits in (False, True):
            for serve in (to_worker, to_program, to_child_that_executes):
                exchange(listener, serve, waits)
        exchange(listener, answer)


one_in_use() if sys.argv[1:] else main()

# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
"""Programs whose peers stop, whose daemon dies, and who have no descriptors or memory left.

Each case asserts what a program sees; what it prints besides is for the reader."""

import itertools
import mmap
import os
import resource
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

LONG = 30
LOG = os.environ["FAULTS_LOG"]


def log_count(text):
    with open(LOG, encoding="utf-8", errors="replace") as log:
        return log.read().count(text)


def kib(pid, *names):
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        lines = dict(line.split(":", 1) for line in status)
    return sum(int(lines[name].split()[0]) for name in names)


def size(pid):
    """Descriptors, and resident KiB that no file backs."""
    return len(os.listdir(f"/proc/{pid}/fd")), kib(pid, "RssAnon", "RssShmem")


def echo(connection):
    with connection:
        try:
            while part := connection.recv(65536):
                connection.sendall(part)
        except ConnectionError:
            pass


def serve(server, threads):
    while True:
        connection, _ = server.accept()
        if threads:
            threading.Thread(target=echo, args=(connection,), daemon=True).start()
        else:
            echo(connection)


def answer(connection):
    """Echoes what is there; false: it has ended."""
    try:
        part = connection.recv(65536)
        connection.sendall(part)
    except BlockingIOError:
        return True
    except ConnectionError:
        return False
    return bool(part)


def serve_events(server, nested, turns):
    """An echo server with one thread that sleeps in epoll, or in an instance around that one."""
    inner = select.epoll()
    outer = select.epoll() if nested else None
    if nested:
        outer.register(inner.fileno(), select.EPOLLIN)
    inner.register(server.fileno(), select.EPOLLIN)
    known = {}
    turn = 0
    while True:
        turn += 1
        turns[:8] = struct.pack("<Q", turn)
        if nested:
            outer.poll()
        for fd, _ in inner.poll(0 if nested else None):
            if fd == server.fileno():
                connection, _ = server.accept()
                connection.setblocking(False)
                known[connection.fileno()] = connection
                inner.register(connection.fileno(), select.EPOLLIN)
            elif not answer(known[fd]):
                inner.unregister(fd)
                known.pop(fd).close()


class Server:
    """An echo server in a process of its own, forked before there is any connection."""

    def __init__(self, threads, serve=serve):
        listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.address = listener.getsockname()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                serve(listener, threads)
            finally:
                os._exit(1)
        listener.close()

    def connect(self):
        return socket.create_connection(self.address, timeout=LONG)

    def end(self):
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


def exchange(connection, data):
    connection.sendall(data)
    got = b""
    while len(got) < len(data):
        part = connection.recv(65536)
        assert part, "an end in the middle"
        got += part
    assert got == data, "other bytes"


def once(server, number):
    with server.connect() as connection:
        exchange(connection, struct.pack("<Q", number) * 2)


def churn():
    """Many connections, one after another, leave nothing."""
    many = int(os.environ["FAULTS_CONNECTIONS"])
    server = Server(threads=False)
    processes = [os.getpid(), server.pid, int(os.environ["FAULTS_DAEMON_PID"])]
    for number in range(many // 10):
        once(server, number)
    before = [size(pid) for pid in processes]
    start = time.monotonic()
    for number in range(many):
        once(server, number)
    took = time.monotonic() - start
    after = [size(pid) for pid in processes]
    print(f"{many} connections in {took:.1f} s; client, server, daemon: {before} -> {after}")
    for (fds, memory), (fds_now, memory_now) in zip(before, after):
        assert fds_now <= fds + 2, "descriptors"
        assert memory_now <= memory + (8 << 10), "memory"
    server.end()
    # On a busy machine some may have been accepted too late.
    assert log_count(": SMC-D\n") >= 2 * many * 0.9, "few were SMC's"


def stopped():
    """A peer that is stopped costs its own connections bounded memory, and others nothing."""
    stops, other = Server(threads=True), Server(threads=True)
    connection, another = connect_smc(stops), connect_smc(other)
    own, daemon = os.getpid(), int(os.environ["FAULTS_DAEMON_PID"])
    before = [size(pid)[1] for pid in (own, daemon)]
    os.kill(stops.pid, signal.SIGSTOP)
    connection.setblocking(False)
    sent = 0
    data = bytes(range(256)) * 256
    end = time.monotonic() + float(os.environ["FAULTS_SECONDS"])
    rounds = 0
    while time.monotonic() < end:
        try:
            sent += connection.send(data[sent % 256 :])
        except BlockingIOError:
            pass
        exchange(another, data)
        rounds += 1
        if rounds % 16 == 0:
            once(other, rounds)
    assert not select.select([], [connection], [], 0)[1], "room without an end"
    after = [size(pid)[1] for pid in (own, daemon)]
    print(f"{sent} bytes to the stopped peer, {rounds} rounds with the other; KiB {before} -> {after}")
    assert 0 < sent < 4 << 20, sent
    # Rings are filled for the first time.
    assert all(now <= was + (16 << 10) for was, now in zip(before, after)), "memory"
    os.kill(stops.pid, signal.SIGCONT)
    connection.settimeout(LONG)
    got = 0
    while got < sent:
        part = connection.recv(65536)
        assert part and all(byte == (got + at) % 256 for at, byte in enumerate(part))
        got += len(part)
    exchange(connection, b"end")
    stops.end()
    other.end()


def start_daemon():
    environment = {k: v for k, v in os.environ.items() if k != "LD_PRELOAD"}
    command = [os.environ["FAULTS_DAEMON"], "--config", os.environ["FAULTS_CONFIG"]]
    return subprocess.Popen(command, env=environment)


def daemon():
    """The daemon is killed under load: resets, then TCP, then SMC again when it is back."""
    server = Server(threads=True)
    connections = [connect_smc(server) for _ in range(4)]
    moving = threading.Barrier(len(connections) + 1)
    ends = []

    def load(connection):
        try:
            for number in itertools.count():
                exchange(connection, bytes(50000))
                if number == 10:
                    moving.wait(LONG)
        except OSError as error:
            ends.append((time.monotonic(), error))

    threads = [threading.Thread(target=load, args=(it,)) for it in connections]
    for thread in threads:
        thread.start()
    moving.wait(LONG)
    assert not ends, ends
    start = time.monotonic()
    os.kill(int(os.environ["FAULTS_DAEMON_PID"]), signal.SIGKILL)
    for thread in threads:
        thread.join(LONG)
    assert len(ends) == 4, "some hang"
    assert all(isinstance(error, (ConnectionError)) for _, error in ends), ends
    print(f"all reset after {max(at for at, _ in ends) - start:.3f} s")
    for number in range(20):
        once(server, number)
    again = start_daemon()
    try:
        before = log_count(": SMC-D\n")
        # A try that failed stands for ten seconds, at either end.
        end = time.monotonic() + 2 * LONG
        while log_count(": SMC-D\n") < before + 2:
            assert time.monotonic() < end, "no SMC after the daemon was back"
            once(server, 1)
            time.sleep(0.2)
        print(f"SMC again after {time.monotonic() - start:.1f} s")
    finally:
        again.kill()
        again.wait()
    server.end()


def connect_smc(server):
    """A connection of SMC, as soon as there can be one."""
    end = time.monotonic() + 2 * LONG
    while True:
        before = log_count(": SMC-D\n")
        connection = server.connect()
        exchange(connection, b"first")
        if log_count(": SMC-D\n") == before + 2:
            return connection
        connection.close()
        assert time.monotonic() < end, "no SMC"
        time.sleep(0.2)


def loops():
    """Event loops neither spin while the daemon is dead nor sleep for ever when it is back."""
    loops = []
    for nested in (False, True):
        turns = mmap.mmap(-1, 8)
        serve = lambda listener, nested, turns=turns: serve_events(listener, nested, turns)
        loops.append((Server(nested, serve), turns))
    kept = [connect_smc(server) for server, _ in loops]
    os.kill(int(os.environ["FAULTS_DAEMON_PID"]), signal.SIGKILL)
    for (server, turns), connection in zip(loops, kept):
        try:
            assert not connection.recv(1), "bytes from nowhere"
        except ConnectionError:
            pass
        connection.close()
        once(server, 1)
        before = struct.unpack("<Q", turns[:8])[0]
        time.sleep(1)
        after = struct.unpack("<Q", turns[:8])[0]
        print(f"{after - before} turns with nothing to do")
        assert after - before < 100, "it spins"
    again = start_daemon()
    try:
        for server, _ in loops:
            with connect_smc(server) as connection:
                for number in range(20):
                    # It is to sleep.
                    time.sleep(0.02)
                    exchange(connection, bytes([number]) * 100)
    finally:
        again.kill()
        again.wait()
    for server, _ in loops:
        server.end()


def descriptors():
    """With no descriptor left, a program gets EMFILE where it asks for one, and nothing else."""
    server = Server(threads=True)
    used = len(os.listdir("/proc/self/fd"))
    for room in (3, 4, 5, 6, 8, 12, 40):
        child = os.fork()
        if child == 0:
            connections = []
            try:
                resource.setrlimit(resource.RLIMIT_NOFILE, (used + room, used + room))
                while True:
                    try:
                        connections.append(server.connect())
                    except OSError as error:
                        assert error.errno == 24, error
                        break
                    for connection in connections:
                        exchange(connection, b"x" * 100)
                assert len(connections) >= 1
                os._exit(0)
            except BaseException as error:
                print(f"room for {room}, {len(connections)} connections: {error!r}", file=sys.stderr)
                os._exit(1)
        assert os.waitpid(child, 0)[1] == 0, f"room for {room}"
    server.end()


def memory():
    """With little address space left a connection is SMC's or TCP's, and works."""
    server = Server(threads=True)
    for room in (1, 2, 4, 8, 16, 32, 64):
        child = os.fork()
        if child == 0:
            try:
                most = (kib("self", "VmSize") << 10) + (room << 20)
                resource.setrlimit(resource.RLIMIT_AS, (most, most))
                for number in range(5):
                    once(server, number)
                os._exit(0)
            except BaseException as error:
                print(f"room for {room} MiB: {error!r}", file=sys.stderr)
                os._exit(1)
        assert os.waitpid(child, 0)[1] == 0, f"room for {room} MiB"
    server.end()


def quota():
    """More connections at a time than the daemon lets a process have DMBs for."""
    server = Server(threads=True)
    # Both are members from here on, so those that follow are in time.
    connect_smc(server).close()
    connections = [server.connect() for _ in range(24)]
    for number, connection in enumerate(connections):
        exchange(connection, bytes([number]) * 3000)
    for connection in connections:
        connection.close()
    # What was given back serves the next ones.
    for number in range(5):
        once(server, number)
    server.end()


def main():
    cases = [churn, stopped, daemon, loops, descriptors, memory, quota]
    {case.__name__: case for case in cases}[sys.argv[1]]()


main()

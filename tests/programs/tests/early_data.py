# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
"""A server and a client with TCP_FASTOPEN and TCP_DEFER_ACCEPT, and what they see. Prints no times."""

import os
import socket

LONG = 20
MSG_FASTOPEN = 0x20000000
TCP_FASTOPEN_CONNECT = 30
REQUEST, ANSWER = b"hello server", b"answer"


def all_of(sock, most=1 << 20):
    parts, size = [], 0
    while size < most and (part := sock.recv(most - size)):
        parts.append(part)
        size += len(part)
    return b"".join(parts)


def ordinary(address):
    return socket.create_connection(address, timeout=LONG)


def fast_open_at_first_write(address):
    sock = socket.socket()
    sock.settimeout(LONG)
    sock.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1)
    sock.connect(address)
    return sock


def fast_open_by_sendto(address):
    sock = socket.socket()
    sock.settimeout(LONG)
    assert sock.sendto(REQUEST[:5], MSG_FASTOPEN, address) == 5
    return sock


def client(address, connect):
    with connect(address) as sock:
        sock.sendall(REQUEST[5:] if connect is fast_open_by_sendto else REQUEST)
        assert all_of(sock) == ANSWER


def server(listener):
    sock, _ = listener.accept()
    with sock:
        sock.settimeout(LONG)
        assert all_of(sock, len(REQUEST)) == REQUEST
        sock.sendall(ANSWER)


def fast_opens():
    """How many connections of this network namespace carried data in the SYN."""
    with open("/proc/self/net/netstat") as table:
        names, values = [line.split() for line in table if line.startswith("TcpExt:")]
    return int(values[names.index("TCPFastOpenActive")])


def exchange(name, listener, connect):
    child = os.fork()
    if child == 0:
        status = 1
        try:
            client(listener.getsockname(), connect)
            status = 0
        finally:
            os._exit(status)
    server(listener)
    assert os.waitpid(child, 0)[1] == 0
    print(name, connect.__name__, flush=True)


def main():
    with open("/proc/sys/net/ipv4/tcp_fastopen", "w") as setting:
        setting.write("3")
    with socket.create_server(("127.0.0.1", 0)) as fast:
        fast.setsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN, 5)
        # The first of them gets the cookie that the next ones need.
        for connect in [ordinary] + 2 * [fast_open_at_first_write] + 2 * [fast_open_by_sendto]:
            exchange("fast", fast, connect)
        assert fast_opens() > 0, "nothing was in a SYN"
    with socket.socket() as deferred:
        deferred.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 5)
        deferred.bind(("127.0.0.1", 0))
        deferred.listen(5)
        for _ in range(3):
            exchange("deferred", deferred, ordinary)


main()

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Programs that give connections to their children, and to the programs that these execute.

use anyhow::Result;
use ism_programs::{
    Running, Way, compare, compare_strictly, need, output, unused_port, wait_for_port,
};

/// Runs a server and a client in Python, each with the port and a folder as its arguments; what the client says.
fn exchange(way: Way<'_>, server: &str, client: &str) -> Result<String> {
    let port = unused_port()?;
    let folder = tempfile::tempdir()?;
    let start = |script: &str| {
        let mut command = way.command("python3");
        command.args(["-c", &format!("{PRELUDE}{script}"), &port.to_string()]).arg(folder.path());
        command
    };
    let server = Running::start(&mut start(server))?;
    wait_for_port(port)?;
    let said = output(&mut start(client))?;
    server.finish()?;
    Ok(String::from_utf8_lossy(&said).into_owned())
}

/// What both scripts begin with.
const PRELUDE: &str = "
import os, signal, socket, sys, time
port = int(sys.argv[1])
def say(word):
    open(os.path.join(sys.argv[2], word), 'x').close()
def hear(word):
    end = time.monotonic() + 60
    while not os.path.exists(os.path.join(sys.argv[2], word)):
        assert time.monotonic() < end, word
        time.sleep(0.01)
def listen():
    return socket.create_server(('127.0.0.1', port))
def connect():
    s = socket.create_connection(('127.0.0.1', port))
    s.settimeout(20)
    return s
def all(s):
    got = b''
    try:
        while piece := s.recv(65536):
            got += piece
        return got
    except ConnectionResetError:
        return got + b' reset'
def exactly(s, n):
    got = b''
    while len(got) < n:
        piece = s.recv(n - len(got))
        assert piece, got
        got += piece
    return got
";

#[test]
fn a_connection_that_nobody_has_used_is_the_executed_programs() {
    need("python3", "python3");
    let server = "
listener = listen()
first, _ = listener.accept()
first.sendall(all(first))
first.close()
second, _ = listener.accept()
child = os.fork()
if child == 0:
    for number in (0, 1):
        os.dup2(second.fileno(), number)
    os.execlp('cat', 'cat')
second.close()
os.waitpid(child, 0)
third, _ = listener.accept()
import subprocess
subprocess.run(['sh', '-c', 'read line; echo got $line'], stdin=third, stdout=third)
third.close()
fourth, _ = listener.accept()
for number in (0, 1):
    os.dup2(fourth.fileno(), number)
os.execlp('cat', 'cat')
";
    let client = "
for n in range(4):
    s = connect()
    s.sendall(b'%d' % n * 100000 + b'\\n')
    s.shutdown(socket.SHUT_WR)
    got = all(s)
    print(n, len(got), got[:10], got[-3:])
";
    compare(|way| exchange(way, server, client));
}

#[test]
fn a_connection_in_use_is_its_parents_and_its_childs() {
    need("python3", "python3");
    let server = "
listener = listen()
c, _ = listener.accept()
c.sendall(b'hello ' + exactly(c, 5))
child = os.fork()
if child == 0:
    got = exactly(c, 1000000)
    c.sendall(b'child ' + got[-5:])
    c.close()
    os._exit(0)
os.waitpid(child, 0)
c.sendall(b' parent ' + exactly(c, 5))
child = os.fork()
if child == 0:
    for n in range(100):
        c.sendall(exactly(c, 1 + n * 99))
    os._exit(0)
c.close()
os.waitpid(child, 0)
";
    let client = "
s = connect()
s.sendall(b'first')
print(exactly(s, 11))
time.sleep(0.1)
s.sendall(b'x' * 999995 + b'abcde')
print(exactly(s, 11))
s.sendall(b'again')
print(exactly(s, 13))
for n in range(100):
    s.sendall(b'%c' % n * (1 + n * 99))
    got = exactly(s, 1 + n * 99)
    assert got == b'%c' % n * (1 + n * 99)
    if n % 10 == 0:
        time.sleep(0.02)
print(all(s))
";
    compare(|way| exchange(way, server, client));
}

#[test]
fn a_parent_sends_while_its_child_reads() {
    need("python3", "python3");
    let server = "
listener = listen()
c, _ = listener.accept()
c.sendall(all(c)[::-1])
";
    let client = "
s = connect()
s.sendall(b'before')
sent = os.fork()
if sent == 0:
    got = all(s)
    print(len(got), got[:6], got[-6:], flush=True)
    os._exit(0)
s.sendall(b'y' * 300000)
time.sleep(0.1)
s.sendall(b'behind')
s.shutdown(socket.SHUT_WR)
print(os.waitpid(sent, 0)[1])
";
    compare(|way| exchange(way, server, client));
}

#[test]
fn a_connection_outlives_all_its_holders_but_the_last() {
    need("python3", "python3");
    let server = "
listener = listen()
def fork(what):
    child = os.fork()
    if child == 0:
        try:
            what()
        finally:
            os._exit(0)
    return child
def kill(child):
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
# A child is killed, and its parent goes on.
c, _ = listener.accept()
c.sendall(exactly(c, 5))
kill(fork(lambda: time.sleep(60)))
time.sleep(0.1)
c.sendall(exactly(c, 5))
# The last holder is killed: with all bytes read the end, with some unread a reset.
child = fork(lambda: time.sleep(60))
c.close()
time.sleep(0.1)
kill(child)
c, _ = listener.accept()
c.sendall(exactly(c, 5))
child = fork(lambda: time.sleep(60))
c.close()
say('closed')
hear('sent')
kill(child)
# The parent ends, and its child goes on; and a grandchild.
c, _ = listener.accept()
listener.close()
c.sendall(exactly(c, 5))
def grandchild():
    c.sendall(exactly(c, 5))
    time.sleep(0.1)
    c.sendall(exactly(c, 5))
def child():
    c.sendall(exactly(c, 5))
    fork(grandchild)
fork(child)
os._exit(0)
";
    let client = "
s = connect()
for word in (b'first', b'other'):
    s.sendall(word)
    print(exactly(s, 5))
print(all(s))
s = connect()
s.sendall(b'third')
print(exactly(s, 5))
hear('closed')
s.sendall(b'unread')
say('sent')
print(all(s))
s = connect()
for word in (b'one 1', b'two 2', b'three', b'four4'):
    s.sendall(word)
    print(exactly(s, 5))
    time.sleep(0.2)
print(all(s))
";
    compare(|way| exchange(way, server, client));
}

#[test]
fn forking_servers_of_python_answer() {
    need("python3", "python3");
    let server = "
import socketserver, multiprocessing
class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            self.wfile.write(line.upper())
class Server(socketserver.ForkingMixIn, socketserver.TCPServer):
    allow_reuse_address = True
with Server(('127.0.0.1', port), Handler) as server:
    for _ in range(5):
        server.handle_request()
    # And one that has been used before it is handed to a process.
    c, _ = server.socket.accept()
    c.sendall(exactly(c, 3))
    def work(c):
        c.sendall(all(c))
    worker = multiprocessing.get_context('fork').Process(target=work, args=(c,))
    worker.start()
    c.close()
    worker.join()
";
    let client = "
for n in range(6):
    s = connect()
    s.sendall(b'abc')
    if n == 5:
        print(exactly(s, 3))
    s.sendall(b'def\\n')
    s.shutdown(socket.SHUT_WR)
    print(all(s))
";
    compare(|way| exchange(way, server, client));
}

#[test]
fn threads_that_fork_at_once_share_their_connections() {
    need("python3", "python3");
    let server = "
import threading
listener = listen()
listener.listen(64)
def serve(c):
    c.sendall(exactly(c, 5))
    child = os.fork()
    if child == 0:
        for n in range(20):
            c.sendall(exactly(c, 1000))
        os._exit(0)
    # Half of them are the child's alone from here on.
    if child % 2:
        c.close()
    assert os.waitpid(child, 0)[1] == 0
    c.close()
threads = []
for n in range(24):
    c, _ = listener.accept()
    threads.append(threading.Thread(target=serve, args=(c,)))
    threads[-1].start()
for thread in threads:
    thread.join()
";
    let client = "
import threading
ends = []
def run(n):
    s = connect()
    s.sendall(b'first')
    assert exactly(s, 5) == b'first'
    for m in range(20):
        s.sendall(bytes([65 + n]) * 1000)
        assert exactly(s, 1000) == bytes([65 + n]) * 1000
    ends.append(all(s))
for _ in range(3):
    threads = [threading.Thread(target=run, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
print(len(ends), set(ends))
";
    compare(|way| exchange(way, server, client));
}

/// What daemons do when they begin, and a little more: they close all that they do not know, by range and one by one, open
/// files where there is room, and put one onto each number that is open nevertheless.
const DETACH: &str = "
import subprocess, tempfile
def numbers():
    return {int(it) for it in os.listdir('/proc/self/fd')}
def without_error(act, *args):
    try:
        act(*args)
    except OSError:
        pass
def detach(*sockets):
    kept = {0, 1, 2} | {it.fileno() for it in sockets}
    bounds = sorted(kept) + [2**31 - 1]
    for first, last in zip(bounds, bounds[1:]):
        os.closerange(first + 1, last)
    for number in range(5000):
        if number not in kept:
            without_error(os.close, number)
    name = tempfile.mktemp()
    first = os.open(name, os.O_CREAT | os.O_RDWR)
    files = [first] + [os.open(name, os.O_RDWR) for _ in range(99)]
    for number in numbers() - kept - set(files):
        without_error(os.dup2, first, number)
    os.unlink(name)
    assert max(files) < 128, files
    return lambda: os.fstat(first).st_size
def answer(c, word, rounds):
    for _ in range(rounds):
        c.sendall(word + exactly(c, 5))
";

#[test]
fn daemons_that_close_all_descriptors_keep_their_connections_and_their_files() {
    need("python3", "python3");
    let server = "
listener = listen()
c, _ = listener.accept()
answer(c, b'before', 1)
child = os.fork()
written = detach(listener, c)
if child == 0:
    answer(c, b'child ', 10)
    grandchild = os.fork()
    if grandchild == 0:
        detach(c)
        answer(c, b'grand ', 10)
    else:
        os.waitpid(grandchild, 0)
        assert written() == 0, written()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
answer(c, b'parent', 10)
# It makes connections of its own, and what it executes has none of the library's descriptors.
other, _ = listener.accept()
answer(other, b'other ', 10)
other.sendall(subprocess.run(['ls', '/proc/self/fd'], capture_output=True).stdout)
assert written() == 0, written()
";
    let client = "
def ask(s, rounds):
    for n in range(rounds):
        s.sendall(b'%05d' % n)
        print(exactly(s, 11))
        time.sleep(0.01)
s = connect()
ask(s, 1)
for _ in range(3):
    ask(s, 10)
other = connect()
ask(other, 10)
print(all(other), all(s))
";
    let server = format!("{DETACH}{server}");
    compare_strictly(|way| exchange(way, &server, client));
}

/// Epoll instances in another one: who waits on the outer one is in the kernel alone. They are nested before they have
/// connections.
const NESTED: &str = "
import select
def nested():
    inner, outer = select.epoll(), select.epoll()
    outer.register(inner, select.EPOLLIN)
    return inner, outer
def answer(inner, outer, rounds, *sockets):
    woken = done = 0
    while done < rounds:
        assert outer.poll(20), (done, woken)
        woken += 1
        assert woken < 100 * rounds + 10000, (done, woken)
        for number, _ in inner.poll(0):
            c = next(it for it in sockets if it.fileno() == number)
            c.sendall(exactly(c, 5))
            done += 1
";

#[test]
fn epoll_instances_that_are_nested_before_they_have_connections_wake_parents_and_children() {
    need("python3", "python3");
    let server = "
listener = listen()
inner, outer = nested()
first, _ = listener.accept()
inner.register(first, select.EPOLLIN)
answer(inner, outer, 20, first)
child = os.fork()
if child == 0:
    inner, outer = nested()
    inner.register(first, select.EPOLLIN)
    answer(inner, outer, 20, first)
    # It makes connections of its own from here on.
    second, _ = listener.accept()
    inner.register(second, select.EPOLLIN)
    answer(inner, outer, 40, first, second)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
answer(inner, outer, 20, first)
# Nobody passes signals on to a child whose parent has ended.
if os.fork() == 0:
    ready, parent = os.getppid(), os.getppid
    inner, outer = nested()
    inner.register(first, select.EPOLLIN)
    answer(inner, outer, 1, first)
    while parent() == ready:
        time.sleep(0.01)
    answer(inner, outer, 20, first)
    os._exit(0)
exactly(listener.accept()[0], 1)
os._exit(0)
";
    let client = "
def ask(rounds, *all):
    for n in range(rounds):
        for s in all:
            s.sendall(b'%05d' % n)
            assert exactly(s, 5) == b'%05d' % n
            time.sleep(0.01)
    print(rounds, 'rounds')
first = connect()
ask(40, first)
second = connect()
ask(20, first, second)
print(all(second))
ask(20, first)
ask(1, first)
end = connect()
end.sendall(b'.')
ask(20, first)
print(all(first), all(end))
";
    let server = format!("{NESTED}{server}");
    compare(|way| exchange(way, &server, client));
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! epoll instances that several threads, descriptors or processes have before there is a connection in them.
//!
//! Invariant: who waits for one is given the program's events, each of them, and none of the library's.

use anyhow::Result;
use ism_programs::{Way, compare, need, output};

/// What the scripts begin with: a connection of the process with itself, whose ends are `a` and `b`.
const PRELUDE: &str = "
import os, select, socket, subprocess, threading, time
listener = socket.create_server(('127.0.0.1', 0))
def pair():
    a = socket.socket()
    connecting = threading.Thread(target=a.connect, args=(listener.getsockname(),))
    connecting.start()
    b, _ = listener.accept()
    connecting.join()
    return a, b
def asleep(thread):
    # Until it is in the kernel.
    end = time.monotonic() + 10
    while 'poll' not in (where := open(f'/proc/self/task/{thread.native_id}/wchan').read()):
        assert time.monotonic() < end, where
        time.sleep(0.01)
";

fn said(way: Way<'_>, script: &str) -> Result<String> {
    let said = output(way.command("python3").args(["-c", &format!("{PRELUDE}{script}")]))?;
    Ok(String::from_utf8_lossy(&said).into_owned())
}

fn compare_script(script: &str) {
    need("python3", "python3");
    compare(|way| said(way, script));
}

#[test]
fn threads_that_sleep_already_are_woken_by_the_first_connections() {
    compare_script(
        "
for n in range(30):
    e = select.epoll()
    found = []
    wait = lambda: found.extend(e.poll(20, 1))
    waiters = [threading.Thread(target=wait) for _ in range(1 + n % 3)]
    for waiter in waiters:
        waiter.start()
        asleep(waiter)
    pairs = [pair() for _ in waiters]
    for a, b in pairs:
        e.register(b.fileno(), select.EPOLLIN | select.EPOLLONESHOT)
        a.sendall(b'x')
    for waiter in waiters:
        waiter.join()
    assert sorted(found) == sorted((b.fileno(), select.EPOLLIN) for _, b in pairs), (n, found)
    for it in [e, *sum(pairs, ())]:
        it.close()
print('all')
",
    );
}

#[test]
fn threads_that_put_their_first_connections_into_one_instance_at_once_hear_of_both() {
    compare_script(
        "
for n in range(30):
    e = select.epoll()
    pairs = [pair() for _ in range(3)]
    start = threading.Barrier(3)
    def put(b):
        start.wait()
        e.register(b.fileno(), select.EPOLLIN | select.EPOLLONESHOT)
    threads = [threading.Thread(target=put, args=(b,)) for _, b in pairs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = set()
    for a, b in pairs:
        a.sendall(b'x')
    while len(found) < 3:
        some = e.poll(20)
        assert some, (n, found)
        found.update(some)
    assert found == {(b.fileno(), select.EPOLLIN) for _, b in pairs}, (n, found)
    for it in [e, *sum(pairs, ())]:
        it.close()
print('all')
",
    );
}

#[test]
fn a_copy_made_before_the_first_connection_is_the_same_instance() {
    compare_script(
        "
e = select.epoll()
stale = os.dup(e.fileno())
os.close(stale)
copies = [os.dup(e.fileno()), 90]
os.dup2(e.fileno(), 90)
copies = [select.epoll.fromfd(fd) for fd in copies]
other = select.epoll()
os.dup(other.fileno())
a, b = pair()
e.register(b.fileno(), select.EPOLLIN)
c, d = pair()
copies[0].register(d.fileno(), select.EPOLLIN)
print([copy.poll(0.1) for copy in copies], other.poll(0))
a.sendall(b'x')
print([copy.poll(20) == [(b.fileno(), select.EPOLLIN)] for copy in copies])
b.recv(1)
e.close()
c.sendall(b'y')
print([copy.poll(20) == [(d.fileno(), select.EPOLLIN)] for copy in copies])
d.recv(1)
print([copy.poll(0.1) for copy in copies], other.poll(0))
",
    );
}

#[test]
fn an_entry_whose_number_is_closed_stays_and_its_number_is_free() {
    compare_script(
        "
r, w = os.pipe()
for n in range(10):
    e = select.epoll()
    a, b = pair()
    c, d = pair()
    fd = b.fileno()
    e.register(fd, select.EPOLLIN)
    if n % 2:
        # No handshake goes on any more.
        b.sendall(b'b')
        a.recv(1)
    copy = b.dup()
    os.dup2(r, fd)
    a.sendall(b'x')
    print(n, e.poll(20) == [(fd, select.EPOLLIN)], copy.recv(1))
    os.dup2(d.fileno(), fd)
    e.register(fd, select.EPOLLIN)
    c.sendall(b'y')
    print(n, e.poll(20) == [(fd, select.EPOLLIN)], d.recv(1))
    e.unregister(fd)
    a.sendall(b'z')
    print(n, e.poll(20) == [(fd, select.EPOLLIN)], copy.recv(1))
    copy.close()
    print(n, e.poll(0))
    for it in a, b, c, d, e:
        it.close()
",
    );
}

#[test]
fn a_child_of_fork_is_not_given_what_the_library_has_in_its_parents_instance() {
    compare_script(
        "
early, late = select.epoll(), select.epoll()
r, w = os.pipe()
for e in early, late:
    e.register(r, select.EPOLLIN)
a, b = pair()
early.register(b.fileno(), select.EPOLLIN)
ready, go = os.pipe()
heard, tell = os.pipe()
child = os.fork()
if child == 0:
    os.read(ready, 1)
    start = time.time()
    found = [e.poll(0.3) for e in (early, late)]
    print(found, time.time() - start >= 0.6, flush=True)
    os.write(tell, b'1')
    os.read(ready, 1)
    print([e.poll(20) == [(r, select.EPOLLIN)] for e in (early, late)], flush=True)
    os._exit(0)
c, d = pair()
late.register(d.fileno(), select.EPOLLIN)
# Whoever sleeps on them in a way that the library does not see makes their bells ring aloud.
outer = select.epoll()
for e in early, late:
    outer.register(e.fileno(), select.EPOLLIN)
for end, other in (a, b), (c, d):
    end.sendall(b'x')
    other.recv(1)
os.write(go, b'1')
os.read(heard, 1)
os.write(w, b'z')
os.write(go, b'2')
os.waitpid(child, 0)
",
    );
}

#[test]
fn a_child_of_vfork_changes_nothing_of_what_its_parent_has() {
    compare_script(
        "
outer, inner = select.epoll(), select.epoll()
a, b = pair()
# The child puts something else at the number of the parent's instance.
os.dup2(inner.fileno(), 0)
outer.register(0, select.EPOLLIN)
subprocess.run(['true'], stdin=subprocess.DEVNULL)
again = select.epoll.fromfd(0)
again.register(b.fileno(), select.EPOLLIN)
for n in range(5):
    a.sendall(b'x')
    print(n, len(outer.poll(20)), len(again.poll(1)))
    b.recv(1)
    again.poll(0)
",
    );
}

#[test]
fn a_connection_is_no_instance() {
    compare_script(
        "
a, b = pair()
# Both ends' handshakes have ended then.
a.sendall(b'x')
b.sendall(b.recv(1))
a.recv(1)
for wait in 0, 0.1, -1:
    try:
        print(select.epoll.fromfd(os.dup(b.fileno())).poll(wait))
    except OSError as error:
        print(error.errno)
",
    );
}

#[test]
fn a_wait_may_be_longer_than_the_clock_goes() {
    compare_script(
        "
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
longest = (ctypes.c_int64 * 2)((1 << 63) - 1, 0)
events = (ctypes.c_uint32 * 3)()
r, w = os.pipe()
os.write(w, b'x')
a, b = pair()
a.sendall(b'x')
for fd in r, b.fileno():
    e = select.epoll()
    e.register(fd, select.EPOLLIN)
    print(libc.epoll_pwait2(e.fileno(), events, 1, longest, None), ctypes.get_errno())
    asked = (ctypes.c_int32 * 2)(fd, select.POLLIN)
    print(libc.ppoll(asked, 1, longest, None), ctypes.get_errno())
header = (ctypes.c_int64 * 8)()
print(libc.recvmmsg(b.fileno(), header, 1, 0, longest))
",
    );
}

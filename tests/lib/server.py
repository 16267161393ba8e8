"""Servers that are not genq's, for tests: each a child process with its log in the test's folder, that can
be stopped, killed, paused and started again on its data."""
import os
import random
import shutil
import signal
import socket
import subprocess
import sys

from genq import Process, read_file, wait_for

START_S = 120  # one or two are enough, but not on a machine that others keep busy: 19 were seen
STOP_S = 20
SKIPPED = 77


def skip(why):
    print("skipped: " + why, file=sys.stderr)
    sys.exit(SKIPPED)


def require(*programs):
    missing = [p for p in programs if not shutil.which(p)]
    if missing:
        skip("no %s; deploy/packages.sh test installs it" % ", no ".join(missing))


def free_ports(n):
    """Distinct free ports of 127.0.0.1, below those that the kernel gives to clients: while a killed
    server is away, no client may be given its port, nor connect to itself there."""
    end = int(read_file("/proc/sys/net/ipv4/ip_local_port_range").split()[0])
    bound = []
    try:
        while len(bound) < n:
            s = socket.socket()
            try:
                s.bind(("127.0.0.1", random.randrange(end // 2, end)))
                bound.append(s)
            except OSError:
                s.close()
        return [s.getsockname()[1] for s in bound]
    finally:
        for s in bound:
            s.close()


def fails(call, words):
    """Checks that it fails by an AssertionError with these words in it."""
    try:
        call()
    except AssertionError as e:
        assert words in str(e), e
    else:
        raise AssertionError("did not fail with " + words)


class Server:
    """A program that says in its log when it is ready. It ends with the thread that started it."""

    def __init__(self, folder, name, arguments, ready):
        self.folder, self.name, self.arguments, self.ready = folder, name, arguments, ready
        self.log = os.path.join(folder, name + ".log")
        self.process = None
        self.is_paused = False

    @property
    def is_running(self):
        return self.process is not None and self.process.child.poll() is None

    @property
    def pid(self):
        return self.process.pid

    def launch(self):
        """The first half of start(), which does not wait; await_ready() is the other."""
        assert not self.is_running, self.name + " runs already"
        if os.path.exists(self.log):
            os.rename(self.log, self.log + ".before")
        self.process = Process(["setpriv", "--pdeathsig", "KILL", "--", *self.arguments],
                               self.folder, self.name)
        self.is_paused = False

    def await_ready(self):
        wait_for(lambda: self.process.check() or self.ready in read_file(self.log),
                 "'%s' of %s" % (self.ready, self.name), START_S)

    def start(self):
        self.launch()
        self.await_ready()

    def pause(self):
        """The process stands still and its sockets stay open, as of a machine that hangs."""
        os.kill(self.pid, signal.SIGSTOP)
        self.is_paused = True

    def resume(self):
        os.kill(self.pid, signal.SIGCONT)
        self.is_paused = False

    def ask_to_stop(self):
        """The first half of stop(), which does not wait."""
        if self.is_running:
            if self.is_paused:
                self.resume()
            os.kill(self.pid, signal.SIGTERM)

    def stop(self):
        """A clean end; it must come in time."""
        self.ask_to_stop()
        try:
            self.process.child.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError("%s did not stop:\n%s" % (self.name, read_file(self.log)[-4000:])) from None

    def kill(self):
        """SIGKILL; it is gone when this returns. Nothing happens when it was gone before."""
        if self.process:
            self.process.end(signal.SIGKILL)

"""The doors of network.py do what they say, to a plain echo server."""
import os
import socket
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from genq import run  # noqa: E402
from network import Network  # noqa: E402


class Echo:
    """Counts what it was sent."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port, self.n = self.listener.getsockname()[1], 0
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            s, _ = self.listener.accept()
            threading.Thread(target=self.talk, args=(s,), daemon=True).start()

    def talk(self, s):
        try:
            while data := s.recv(65536):
                self.n += len(data)
                s.sendall(data)
        except OSError:
            pass
        s.close()

    def await_n(self, n):
        while self.n < n:
            time.sleep(0.001)


def connect(door):
    return socket.create_connection(("127.0.0.1", door.port), 60)


def read(s, n):
    data = b""
    while len(data) < n:
        more = s.recv(n - len(data))
        assert more, data
        data += more
    return data


def is_silent(s, for_s=0.3):
    s.settimeout(for_s)
    try:
        return s.recv(1) is None
    except TimeoutError:
        return True
    finally:
        s.settimeout(60)


def is_reset(s):
    try:
        return s.recv(1) is None
    except ConnectionResetError:
        return True


def test_bytes_pass_in_order_and_ends_too():
    with Network() as network:
        s, data = connect(network.door(Echo().port)), os.urandom(3000000)
        threading.Thread(target=s.sendall, args=(data,)).start()
        assert read(s, len(data)) == data
        s.shutdown(socket.SHUT_WR)
        assert s.recv(1) == b""


def test_half_open():
    with Network() as network:
        echo = Echo()
        door = network.door(echo.port)
        old = connect(door)
        door.set(up=False, down=False)
        new = connect(door)
        for s in (old, new):
            s.sendall(b"x")
            assert is_silent(s) and echo.n == 0
        door.heal()
        for s in (old, new):
            assert read(s, 1) == b"x"


def test_one_way_and_what_a_reset_loses():
    with Network() as network:
        echo = Echo()
        door = network.door(echo.port)
        s = connect(door)
        door.set(down=False)
        s.sendall(b"x")
        echo.await_n(1)
        assert is_silent(s)
        door.reset()
        assert is_reset(s)
        door.set(up=False)
        s = connect(door)
        s.sendall(b"x")
        assert is_silent(s) and echo.n == 1


def test_delay():
    with Network() as network:
        door = network.door(Echo().port)
        s = connect(door)
        door.set(delay_ms=(100, 200))
        began = time.monotonic()
        s.sendall(b"xyz")
        assert read(s, 3) == b"xyz" and time.monotonic() - began >= 0.2


def test_cut():
    with Network() as network:
        door = network.door(Echo().port)
        s = connect(door)
        s.sendall(b"x")
        assert read(s, 1) == b"x"
        door.set(is_cut=True)
        assert is_reset(s)
        try:
            assert is_reset(connect(door))
        except ConnectionResetError:
            pass  # before connect() was over
        door.heal()
        s = connect(door)
        s.sendall(b"y")
        assert read(s, 1) == b"y"


run(globals())

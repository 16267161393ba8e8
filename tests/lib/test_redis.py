"""The rig itself: a real Redis that is killed and comes back with what it was told, that locks its door, and that
runs out of memory."""
import os
import socket
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from genq import read_file, run, wait_for  # noqa: E402
from redis import RedisServer  # noqa: E402
from server import fails  # noqa: E402


def test_crash():
    with RedisServer() as redis:
        redis.cli("SET", "name", "two\nlines")
        redis.kill()
        fails(lambda: redis.cli("GET", "name"), "Could not connect")
        redis.start()
        redis.pause()
        wait_for(lambda: "T (stopped)" in read_file("/proc/%d/status" % redis.pid), "the pause")
        redis.resume()
        assert redis.cli("GET", "name") == "two\nlines"
        redis.stop()
        redis.start()
        with socket.create_connection(("127.0.0.1", redis.port)) as door:
            door.sendall(b"GET name\r\n")
            assert door.recv(100) == b"$9\r\ntwo\nlines\r\n"


def test_passwords():
    with RedisServer(requirepass="secret", user="reader on >open ~jobs:* +get") as redis:
        assert redis.cli("SET", "jobs:1", "one") == "OK"
        assert redis.cli("GET", "jobs:1", user="reader", password="open") == "one"
        fails(lambda: redis.cli("SET", "jobs:1", "two", user="reader", password="open"), "NOPERM")
        fails(lambda: redis.cli("GET", "jobs:1", password="wrong"), "WRONGPASS")
        redis.password = None
        fails(lambda: redis.cli("GET", "jobs:1"), "NOAUTH")


def test_full():
    with RedisServer(maxmemory="2mb", maxmemory_policy="noeviction") as redis:
        fails(lambda: [redis.cli("APPEND", "name", "x" * 100000) for _ in range(20)], "OOM")


run(globals())

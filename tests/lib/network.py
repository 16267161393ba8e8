"""A network that fails: TCP doors between programs, each a port that leads to another port of 127.0.0.1. A door
may stand at another address of 127.0.0.0/8, under the number of the port that it leads to.

    with Network() as network:
        door = network.door(port_of_a_server)    # clients connect to door.port
        door.set(up=False, down=False)           # half-open: it still accepts, and forwards nothing
        door.set(up=True, down=False)            # what clients send arrives, no answer comes back
        door.set(delay_ms=(200, 500))            # in both directions, in order
        door.set(is_cut=True)                    # all connections are reset, and each new one
        door.heal()                              # what was held goes on, as TCP sends again
        door.reset()                             # all present connections end by RST

A direction that is shut swallows nothing: it holds the bytes and the ends (FIN) of connections until heal(),
or until reset() loses them. The doors are a program of their own, one thread, commanded over its stdin.
"""
import asyncio
import json
import random
import socket
import struct
import subprocess
import sys

from server import free_ports

CHUNK_BYTES, CHUNKS = 65536, 256
CONNECT_S = 5
AT_ONCE = {"up": True, "down": True, "delay_ms": (0, 0), "is_cut": False}


class Door:
    def __init__(self, network, host, port):
        self.network, self.host, self.port = network, host, port

    def set(self, **state):
        """What is not named is as after heal()."""
        self.network.command(at=(self.host, self.port), set={**AT_ONCE, **state})

    def heal(self):
        self.set()

    def reset(self):
        self.network.command(at=(self.host, self.port), reset=True)


class Network:
    def __enter__(self):
        self.child = subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE,
                                      stdout=subprocess.PIPE, text=True)
        return self

    def __exit__(self, *_):
        self.child.kill()
        self.child.communicate()

    def command(self, **what):
        """It is done when this returns. One thread at a time."""
        self.child.stdin.write(json.dumps(what) + "\n")
        self.child.stdin.flush()
        answer = self.child.stdout.readline()
        assert answer == "done\n", "%s: %s" % (what, answer)

    def door(self, to_port, port=None, host="127.0.0.1"):
        door = Door(self, host, port or free_ports(1)[0])
        self.command(at=(door.host, door.port), open=to_port)
        return door


# ---- the program ----

def rst(s):
    try:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    except OSError:
        pass
    s.close()


class Way:
    """One direction of one connection."""

    def __init__(self, here, source, sink):
        self.here, self.source, self.sink = here, source, sink
        self.chunks = asyncio.Queue(CHUNKS)

    async def pull(self):
        data = True
        while data:
            data = await asyncio.get_running_loop().sock_recv(self.source, CHUNK_BYTES)
            await self.chunks.put((self.here.due(), data))

    async def push(self, is_open):
        while True:
            due, data = await self.chunks.get()
            await asyncio.sleep(max(0, due - asyncio.get_running_loop().time()))
            await is_open.wait()
            if not data:
                self.sink.shutdown(socket.SHUT_WR)
                return
            await asyncio.get_running_loop().sock_sendall(self.sink, data)


class Here:
    """A door, where it really is."""

    def __init__(self, at, to_port):
        self.to_port, self.links = to_port, set()
        self.is_open = {"up": asyncio.Event(), "down": asyncio.Event()}
        self.listener = socket.create_server(at, backlog=512)
        self.listener.setblocking(False)
        self.set(AT_ONCE)
        self.task = asyncio.create_task(self.accept())

    def due(self):
        return asyncio.get_running_loop().time() + random.uniform(*self.delay_ms) / 1000

    def set(self, state):
        self.delay_ms, self.is_cut = state["delay_ms"], state["is_cut"]
        for way, event in self.is_open.items():
            event.set() if state[way] else event.clear()
        if self.is_cut:
            self.reset()

    def reset(self):
        for task in self.links:
            task.cancel()

    async def accept(self):
        while True:
            near, _ = await asyncio.get_running_loop().sock_accept(self.listener)
            if self.is_cut:
                rst(near)
                continue
            task = asyncio.create_task(self.link(near))
            self.links.add(task)
            task.add_done_callback(self.links.discard)

    async def link(self, near):
        far = socket.socket()
        try:
            for s in (near, far):
                s.setblocking(False)
                s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await asyncio.wait_for(asyncio.get_running_loop().sock_connect(
                far, ("127.0.0.1", self.to_port)), CONNECT_S)
            up, down = Way(self, near, far), Way(self, far, near)
            work = [asyncio.ensure_future(w) for w in (
                up.pull(), up.push(self.is_open["up"]), down.pull(), down.push(self.is_open["down"]))]
            try:
                await asyncio.gather(*work)
            finally:
                for w in work:
                    w.cancel()
                await asyncio.gather(*work, return_exceptions=True)
            near.close()
            far.close()
        except (OSError, asyncio.TimeoutError, asyncio.CancelledError):
            rst(near)
            rst(far)


async def serve():
    loop, doors = asyncio.get_running_loop(), {}
    while True:
        line = await loop.run_in_executor(None, sys.stdin.readline)
        if not line:
            return
        what = json.loads(line)
        at = tuple(what["at"])
        if "open" in what:
            doors[at] = Here(at, what["open"])
        elif "set" in what:
            doors[at].set(what["set"])
        else:
            doors[at].reset()
        await asyncio.sleep(0)
        print("done", flush=True)


if __name__ == "__main__":
    asyncio.run(serve())

"""A real redis-server for tests, on a port and a socket of its own.

    with RedisServer() as redis:
        ... redis.port, redis.socket, redis.url ...
        redis.cli("SET", "name", "value")
        redis.kill()                            # and stop, pause, resume
        redis.start()

Without the program a test ends with 77 (ctest: skipped).
"""
import os
import subprocess
import tempfile

from server import Server, free_ports, require

LIMIT_S = 60


class RedisServer(Server):
    """What was written before a kill is there after it. settings: lines of redis.conf, with _ for -, before
    ours: requirepass="secret", maxmemory="2mb", maxmemory_policy="allkeys-lru",
    user="genq on >secret ~* +@all". The default user needs no password unless settings say so."""

    def __init__(self, **settings):
        require("redis-server", "redis-cli", "setpriv")
        self.folder_owner = tempfile.TemporaryDirectory(prefix="genq-redis-")
        folder = self.folder_owner.name
        self.socket, self.port = os.path.join(folder, "redis.sock"), free_ports(1)[0]
        self.url = "redis://127.0.0.1:%d" % self.port
        self.password = settings.get("requirepass")
        settings = {"bind": "127.0.0.1", "port": self.port, "unixsocket": self.socket, "dir": folder,
                    "save": '""', "appendonly": "yes", **settings}
        conf = os.path.join(folder, "redis.conf")
        with open(conf, "w", encoding="utf-8") as f:
            f.writelines("%s %s\n" % (k.replace("_", "-"), v) for k, v in settings.items())
        super().__init__(folder, "redis", ["redis-server", conf], "Ready to accept connections")

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.kill()
        self.folder_owner.cleanup()

    def cli(self, *arguments, user="default", password=None):
        """Gives what redis-cli prints, without the last line end. An error of Redis, or a silence of a
        minute, is an AssertionError."""
        password = password or self.password
        who = ["--user", user, "--pass", password, "--no-auth-warning"] if password else []
        try:
            done = subprocess.run(["redis-cli", "-e", "-s", self.socket, *who, *map(str, arguments)],
                                  stdin=subprocess.DEVNULL, capture_output=True, text=True,
                                  timeout=LIMIT_S)
        except subprocess.TimeoutExpired:
            raise AssertionError("no answer: %s" % (arguments,)) from None
        assert done.returncode == 0, "%s: %s" % (arguments, done.stdout + done.stderr)
        return done.stdout[:-1]

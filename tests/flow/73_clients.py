"""docs/clients.md, played again on a real Kafka and a real Redis: the commands are the page's, and what they
print is what it shows, but for ids and places that genq or chance chose."""
import importlib.util
import os
import re
import signal
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from distributed import Distributed  # noqa: E402
from genq import LIMIT_S, read_file, run, wait_for  # noqa: E402
from kafka import KafkaCluster  # noqa: E402
from redis import RedisServer  # noqa: E402
from server import require  # noqa: E402

PAGE = read_file(os.path.join(os.environ["SOURCE_DIR"], "docs", "clients.md"))
BY_CHANCE = ((r"\bk[0-9a-f]{16}\b", "ID"), (r"(jobs\.\w+\.\w+)/\d+/\d+", r"\1/P/O"))


def section(title):
    return re.search(r"^## %s.*?\n(.*?)(?=^## |\Z)" % title, PAGE, re.M | re.S).group(1)


def typed(text):
    """(terminal, command, what it prints) of each: indented lines after `$`, which go on after | and \\."""
    found = []
    for line in re.findall(r"^    (.*)$", text, re.M):
        prompt = re.match(r"([12]?)\$ (.*)", line)
        if prompt:
            found.append([prompt.group(1), prompt.group(2), ""])
        elif found and not found[-1][2] and found[-1][1].endswith(("|", "\\")):
            found[-1][1] += "\n" + line
        elif found:
            found[-1][2] += line + "\n"
    return found


def masked(text):
    for pattern, name in BY_CHANCE:
        text = re.sub(pattern, name, text)
    return text


class Terminal:
    """The page's shell. What runs in terminal 1 goes on until it has printed what the page shows."""

    def __init__(self, d, redis):
        self.redis, self.folder = redis, d.folder
        self.environment = {**os.environ, "K": d.kafka.servers, "R": redis.url,
                            "U": "http://127.0.0.1:%d" % d.gateways[0].port}
        self.running = []

    def shell(self, command, **how):
        return subprocess.Popen(["bash", "-c", command], env=self.environment, cwd=self.folder, text=True,
                                stdin=subprocess.DEVNULL, start_new_session=True, **how)

    def output(self, command):
        child = self.shell(command, stdout=subprocess.PIPE)
        try:
            return child.communicate(timeout=LIMIT_S)[0]
        finally:
            self.end(child)

    @staticmethod
    def end(child):
        try:
            os.killpg(child.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        child.wait()

    def leave_running(self, command):
        """Until it listens: kcat says so, and of redis-cli the server knows."""
        paths = [os.path.join(self.folder, "%s%d" % (n, len(self.running))) for n in ("out", "err")]
        with open(paths[0], "wb") as out, open(paths[1], "wb") as err:
            self.running.append((self.shell(command, stdout=out, stderr=err), paths[0]))
        if command.startswith("redis-cli"):
            wait_for(lambda: self.redis.cli("PUBSUB", "NUMSUB", "genq:completions").endswith("1"), command)
        else:
            wait_for(lambda: "Reached end of topic" in read_file(paths[1]), command)

    def close(self):
        for child, _ in self.running:
            self.end(child)


def await_output(command, wanted, look):
    seen = []
    try:
        wait_for(lambda: seen.append(masked(look())) or seen[-1] == masked(wanted))
    except AssertionError:
        raise AssertionError("%s\nprints:\n%s" % (command, seen[-1])) from None


def play(terminal, commands):
    shown = []  # of terminal 1
    for place, command, wanted in commands:
        if place == "1":
            terminal.leave_running(command)
            shown.append((command, wanted, terminal.running[-1][1]))
        elif command.startswith("redis-cli"):  # the copy in Redis is a moment behind
            await_output(command, wanted, lambda c=command: terminal.output(c))
        else:
            got = masked(terminal.output(command))
            assert got == masked(wanted), "%s\nprints:\n%s" % (command, got)
    for command, wanted, path in shown:
        await_output(command, wanted, lambda p=path: read_file(p))


def test_the_page():
    with KafkaCluster() as kafka, RedisServer() as redis, \
            Distributed(kafka, config='redis: {url: "%s"}\n' % redis.url,
                        stub=["--model", "llama3.2"]) as d:
        terminal = Terminal(d, redis)
        try:
            for title, n_commands in (("curl", 4), ("kcat", 5), ("redis-cli", 5)):
                commands = typed(section(title))
                assert len(commands) == n_commands, commands
                play(terminal, commands)
            if importlib.util.find_spec("confluent_kafka"):
                program = section("A program")
                with open(os.path.join(d.folder, "ask.py"), "w", encoding="utf-8") as f:
                    f.write(re.search(r"```python\n(.*?)```", program, re.S).group(1))
                play(terminal, typed(program))
            else:
                print("# its Python program is left out: no confluent_kafka here")
        finally:
            terminal.close()


require("curl", "jq")
run(globals())

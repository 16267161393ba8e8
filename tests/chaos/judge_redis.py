"""What Redis has after a chaos run, and what a foreign subscriber heard, against the completion topic."""
import collections
import json
import os
import signal
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "lib"))
from genq import Process, read_file  # noqa: E402
from rig import wait_for  # noqa: E402

LOOP = "while :; do redis-cli -s %s subscribe genq:completions; sleep 0.05; done"
HASHES = ("local out = {} for _, k in ipairs(redis.call('KEYS', 'genq:job:*')) do "
          "out[#out + 1] = k .. ' ' .. (redis.call('HGET', k, 'status') or '') end return out")


class Subscriber:
    """redis-cli, begun again whenever Redis went."""

    def __init__(self, redis, folder):
        self.process = Process(["setpriv", "--pdeathsig", "KILL", "--", "sh", "-c", LOOP % redis.socket],
                               folder, "subscriber")
        wait_for("a subscription", 30, lambda: "genq:completions" in read_file(self.process.log))

    def end(self):
        """How often it heard each id."""
        time.sleep(0.2)
        self.process.end(signal.SIGKILL)
        return collections.Counter(json.loads(line)["id"]
                                   for line in read_file(self.process.log).splitlines()
                                   if line.startswith("{"))


def counted(redis):
    n = collections.Counter()
    for key in redis.cli("KEYS", "genq:usage:*").split():
        for status in ("succeeded", "failed", "cancelled", "expired"):
            n[status] += int(redis.cli("HGET", key, status) or 0)
    return +n


def check_redis(judge, redis, subscriber, is_all_heard):
    """Hashes, counters and publications are those of the first completions, each once."""
    heard = subscriber.end()
    for id_, n in heard.items():
        if n > 1:
            judge.violate("twice", f"{id_} was published {n} times in Redis")
    if is_all_heard:
        for id_ in judge.first.keys() - heard.keys():
            judge.violate("lost", f"{id_} was not published in Redis")
    wanted = collections.Counter(c.status for c in judge.first.values())
    if counted(redis) != wanted:
        judge.violate("torn", f"Redis counts {counted(redis)}, the topic has {wanted}")
    hashes = dict(line.rsplit(" ", 1) for line in redis.cli("EVAL", HASHES, 0).splitlines())
    for c in judge.first.values():
        if hashes.get(f"genq:job:default/{c.id}") != c.status:
            judge.violate("changed", f"{c}; in Redis {hashes.get(f'genq:job:default/{c.id}')}")
    print(f"Redis: {sum(wanted.values())} counted, {len(heard)} heard, {len(hashes)} hashes")

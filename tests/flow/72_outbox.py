"""Results while Kafka is away: a real broker is paused and killed under a stream of completions, and the
process that publishes them is killed too. Judged by kcat: nothing is lost; a second copy needs a kill of
the process."""
import collections
import os
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from genq import LIMIT_S, run, wait_for  # noqa: E402
from kafka import KafkaCluster  # noqa: E402

LOOP = os.environ["PUBLISH_LOOP"]
SOURCE = "genq.jobs.default.high/0/%d"


class Loop:
    """One publish_loop, with what it said so far."""

    def __init__(self, servers, data, n, per_second):
        self.child = subprocess.Popen([LOOP, servers, data, str(n), str(per_second)], text=True,
                                      stdout=subprocess.PIPE)
        self.said = collections.defaultdict(list)
        self.reader = threading.Thread(target=self.read)
        self.reader.start()

    def read(self):
        for line in self.child.stdout:
            word, *numbers = line.split()
            self.said[word].append([int(n) for n in numbers])

    def count(self, word):
        return len(self.said[word])

    def wait(self, word, n):
        wait_for(lambda: self.count(word) >= n or self.child.poll() is not None, word)
        assert self.count(word) >= n, (word, self.count(word), self.child.poll())

    def end(self):
        code = self.child.wait(timeout=LIMIT_S)
        self.reader.join()
        assert code == 0 and self.count("drained") == 1, (code, self.said.keys())
        assert not self.said["failed"], self.said["failed"]

    def kill(self):
        self.child.kill()
        self.child.wait()
        self.reader.join()

    def on_disk(self):
        return [i for i, offset in self.said["acked"] if offset == -1]

    def kept(self):
        """Of these the ones that Kafka has not taken since: a slow one may have, before it was paused."""
        taken = {i for i, _ in self.said["finished"]}
        return [i for i in self.on_disk() if i not in taken]


def make(kafka):
    for name in "completions", "dead":
        kafka.client().create("genq." + name, 1)


def sources(kafka):
    """How often each stands in the log, in its order."""
    return collections.Counter(
        dict(r["headers"])["genq_source"] for r in kafka.client().consume("genq.completions"))


def test_broker_is_paused_and_killed():
    n = 12000
    with KafkaCluster() as kafka, tempfile.TemporaryDirectory(prefix="genq-outbox-") as data:
        make(kafka)
        broker = kafka.brokers[0]
        loop = Loop(kafka.servers, data, n, 1000)
        loop.wait("finished", 500)
        broker.pause()
        time.sleep(3)
        assert loop.count("acked") > loop.count("finished") + 500, "nothing went to disk"
        broker.resume()
        loop.wait("finished", loop.count("acked"))
        broker.kill()
        wait_for(lambda: loop.count("acked") > loop.count("finished") + 500, "the outbox")
        broker.start()
        loop.end()
        assert loop.on_disk()
        offsets = [offset for _, offset in loop.said["finished"]]
        assert offsets == sorted(set(offsets)), "not in the order of the log"
        assert sources(kafka) == {SOURCE % i: 1 for i in range(n)}


def test_process_is_killed_while_kafka_is_away():
    n = 2000
    with KafkaCluster() as kafka, tempfile.TemporaryDirectory(prefix="genq-outbox-") as data:
        make(kafka)
        broker = kafka.brokers[0]
        loop = Loop(kafka.servers, data, n, 1000)
        loop.wait("finished", 300)
        broker.pause()
        wait_for(lambda: len(loop.kept()) > 300, "the outbox")
        loop.kill()
        kept = loop.kept()
        broker.resume()
        again = Loop(kafka.servers, data, n, 100000)
        again.end()
        assert again.said["owed"][0][0] >= len(kept), (again.said["owed"], len(kept))
        there = sources(kafka)
        assert set(there) == {SOURCE % i for i in range(n)}, len(there)
        assert {i for i, _ in again.said["finished"]} >= set(kept)


run(globals())

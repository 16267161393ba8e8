"""A killed worker's jobs run again within the session time-out, a heartbeat and a second, with the default
settings (10 s, 0.5 s); a restarted one goes on at once. On a real Kafka; measured by the engine's log."""
import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "lib"))
from distributed import Distributed  # noqa: E402
from genq import run, wait_for  # noqa: E402
from kafka import KafkaCluster  # noqa: E402

KAFKA = KafkaCluster()
SESSION_S, HEARTBEAT_S = 10.0, 0.5
LIMIT_S = SESSION_S + HEARTBEAT_S + 1.0
# What a busy machine of two cores may add: a broker, four processes and this one take turns on them.
LOADED_S = 1.0
# A start, a join and a look at what is finished, on such a machine: 0.3 s on an idle one.
AT_ONCE_S = 3.0
SLOTS = 4


class Taken(Distributed):
    """Engine 0, of worker 0, does not answer while the test runs; the others do at once."""
    n = 0

    def __init__(self, worker_config="", **options):
        Taken.n += 1
        super().__init__(KAFKA, prefix="k%d" % Taken.n, session_ms=int(SESSION_S * 1000),
                         has_engine_each=True, stub=["--latency-ms", "600000"], **options)
        with open(self.workers[0].config, "a", encoding="utf-8") as f:
            f.write(worker_config)
        for engine in self.engines[1:]:
            engine.latency(0)

    def running(self):
        """Posts until worker 0 has its slots full; gives the keys of what it runs."""
        i = 0
        while len(self.calls(0, self.engines[:1])) < SLOTS:
            self.gateways[0].submit(id="j%d" % i, prompt="key=j%d" % i)
            i += 1
        return set(self.calls(0, self.engines[:1]))

    def calls(self, since, engines=None):
        """{key: when it was first received after `since`}, in seconds of the monotonic clock."""
        found = {}
        for engine in self.engines if engines is None else engines:
            for line in engine.events("recv"):
                at = int(line[0]) / 1e6
                if at > since:
                    found[line[3]] = min(at, found.get(line[3], at))
        return found

    def kill(self, is_back):
        """SIGKILL at worker 0; gives how long after it each of its jobs was received again."""
        keys = self.running()
        killed = time.monotonic()
        self.workers[0].kill()
        if is_back:
            self.engines[0].latency(0)
            self.workers[0].start()
        wait_for(lambda: keys <= set(self.calls(killed)), "the jobs of the killed worker")
        calls = self.calls(killed)
        for key in keys:
            assert self.gateways[0].finished(key)["status"] == "succeeded"
        return [calls[key] - killed for key in keys]


def report(what, waits):
    print("# %s: %.2f to %.2f s" % (what, min(waits), max(waits)))
    return max(waits)


def test_the_others_take_over():
    for n in (2, 4):
        with Taken(workers=n) as d:
            assert report("one of %d killed" % n, d.kill(is_back=False)) <= LIMIT_S + LOADED_S


def test_a_restarted_one_with_a_name_goes_on_at_once():
    with Taken("worker: {name: one}\n", workers=2) as d:
        assert report("restarted, with a name", d.kill(is_back=True)) <= AT_ONCE_S


def test_also_where_it_has_to_ask_for_its_queues():
    with Taken("worker: {name: one}\n", workers=2,
               config="queues: {other: {}}\nmodels: {x: {queue: other}}\n") as d:
        assert report("restarted, with queues", d.kill(is_back=True)) <= AT_ONCE_S


def test_a_restarted_one_without_a_name_waits_for_its_old_session():
    with Taken(workers=2) as d:
        assert report("restarted, without a name", d.kill(is_back=True)) <= LIMIT_S + LOADED_S


with KAFKA:
    run(globals())

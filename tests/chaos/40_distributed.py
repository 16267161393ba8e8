"""Gateways and workers on a real Kafka are killed, stopped and put to sleep at random, a broker and Redis too,
under clients that post single jobs, arrays and batches to any gateway, cancel some at another, and
write bare records with kcat, and subscribers to the completions' events. The verdict is
judge_distributed.py's, and judge_redis.py's.

A full run: CHAOS_KILLS=100 CHAOS_BROKERS=3 CHAOS_WORKERS=3 CHAOS_JOBS=10000.
"""
import os
import shutil
import sys
import time

sys.path.insert(0, os.path.dirname(__file__))
from rig_distributed import (BROKERS, CLIENTS, PATIENCE_S, Faults, Tails, World, client,  # noqa: E402
                             distributed, follow, judge_all, settle)
from judge_redis import Subscriber, check_redis  # noqa: E402
from kafka import KafkaCluster  # noqa: E402
from redis import RedisServer  # noqa: E402
from rig import Folder, Thread  # noqa: E402

GATEWAYS = 2


def judged(d):
    world, faults, tails = World(d), Faults(d), Tails(d)
    subscriber = Subscriber(d.redis, d.folder)
    clients = [Thread(client, world, f"c{n}") for n in range(CLIENTS)]
    reader = Thread(follow, world)
    world.subscribe()
    started = time.monotonic()
    faults.run()
    print(f"{len(faults.told)} faults in {time.monotonic() - started:.0f} s; {faults.report()}",
          flush=True)
    world.is_over = True
    for thread in clients:
        thread.join(PATIENCE_S)
    settle(world, tails, reader)
    reader.join(30)
    judge = judge_all(d, world, faults, tails)
    check_redis(judge, d.redis, subscriber, is_all_heard=False)
    print(f"{world.report()}; {time.monotonic() - started:.0f} s")
    return judge


def main():
    folder = Folder("distributed")
    with RedisServer(appendfsync="no") as redis, KafkaCluster(BROKERS) as kafka, \
            distributed(kafka, GATEWAYS, 100, 400, redis=redis) as d:
        try:
            judged(d).require()
        except BaseException:
            shutil.copytree(d.folder, folder("world"))
            raise
    folder.remove()


if __name__ == "__main__":
    main()

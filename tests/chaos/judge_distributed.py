"""The verdict on a run of gateways and workers with kills. It links nothing of genq: it reads the logs of
the stub engines (one a worker), the topics as kcat gives them, when each completion was there for a
foreign reader, the group's commits, and each gateway's database with Python's sqlite3. Only "this worker
lost its partitions" is genq's own word, from its log. Names of violations:

    lost        a job that was accepted, or is in a job topic, and has no completion; a completion that a
                subscriber never saw
    open        a job record that the group's commits do not count as finished
    twice       two ends of one job in a store, in the feed as read, or in a subscriber's stream
    changed     a store, the feed or a stream that tells another end than the first completion in the
                topic, or in another order; an end that nobody asked for
    torn        tables that do not agree: counters, batches, SQLite's own check, two gateways
    repeat      an engine call for a job whose earlier call was not cut off by a kill, a stop or a loss
                before its completion was in the topic
    poison      a job failed as poison that was not in flight at two kills
    ledger      rows that the engine did not answer, or answers missing though their worker lived on
    cancel      an engine call that began, or went on, long after the job was cancelled
"""
import collections
import json
import os

from judge import OUTCOMES, STATES, Database, check_counters, read_log

FIRST_END = 3  # of STATES: from here on they are terminal
# An answer is in the topic, or in its worker's outbox, this long after it came: one second until the
# outbox takes it, the rest for a machine that others keep busy.
KEPT_WITHIN_US = 5_000_000
CANCELLED_WITHIN_US = 3_000_000
STALE_WITHIN_US = 500_000

# What was done to a member: kill, term, pause. From before the signal until the process was gone, or
# ran on.
Fault = collections.namedtuple("Fault", "name kind begin_us end_us")
Completion = collections.namedtuple("Completion", "off id key status reason")


def key_of(j):
    """A job's name in its prompt: its id, or of a bare record what it has instead."""
    return j.get("custom_id") or j["id"]


def read_completion(record):
    j = json.loads(record["payload"])
    return Completion(record["offset"], j["id"], key_of(j), j["status"],
                      (j["error"] or {}).get("code"))


class Judge:
    def __init__(self):
        self.violations = []
        self.cut, self.excuses = [], collections.Counter()

    def violate(self, name, text):
        self.violations.append((name, text))

    def names(self):
        return sorted({name for name, _ in self.violations})

    # ---- what there is to judge ----

    def take_topics(self, jobs, completions, arrivals):
        """Records of the job topics and of `completions`, as kcat gives them; arrivals: when (us) a
        reader had each completion, by offset."""
        self.jobs = [(f"{r['topic']}/{r['partition']}/{r['offset']}", json.loads(r["payload"]))
                     for r in jobs]
        self.all = [read_completion(r) for r in completions]
        self.first = {}
        for c in self.all:
            self.first.setdefault(c.id, c)
        self.end_of = {}  # key -> completions of its jobs
        for c in self.first.values():
            self.end_of.setdefault(c.key, []).append(c)
        self.done_us = {c.key: arrivals[c.off] for c in self.first.values()}

    def take_calls(self, logs, faults, lost):
        """logs: {worker: path of its engine's log}; lost: {worker: [us]}, when it said so."""
        self.calls = sorted((c.recv_us, name, c) for name, path in logs.items()
                            for c in read_log(path))
        self.faults = collections.defaultdict(list)
        for f in faults:
            self.faults[f.name].append(f)
        for name, times in lost.items():
            self.faults[name] += [Fault(name, "loss", at, at) for at in times]

    # ---- jobs ----

    def check_jobs(self, accepted, cancelled):
        self.cancelled = cancelled
        for id_ in accepted - self.end_of.keys():
            self.violate("lost", f"{id_} was accepted and has no completion")
        for at, j in self.jobs:
            if key_of(j) not in self.end_of:
                self.violate("lost", f"{at} has no completion: {str(j)[:100]}")
        for c in self.first.values():
            if c.reason == "poison":
                self.check_poison(c)
            elif c.status not in ("succeeded", "cancelled" if c.id in cancelled else "succeeded"):
                self.violate("changed", f"{c}: nobody asked for this end")
        for id_, answer in cancelled.items():
            if id_ in self.first and answer is not None and \
                    answer != (self.first[id_].status == "cancelled"):
                self.violate("changed", f"DELETE {id_} said {answer}, it ended "
                                        f"{self.first[id_].status}")

    def check_poison(self, c):
        n_cut = sum(self.excuse(name, call, self.done_us[c.key]) == "kill"
                    for _, name, call in self.calls if call.key == c.key)
        if n_cut < 2:
            self.violate("poison", f"{c}: in flight at {n_cut} kills")

    def check_commits(self, commits, ends):
        """Both {(topic, partition): offset}; nothing runs any more."""
        for at, end in ends.items():
            if end and commits.get(at) != end:
                self.violate("open", f"{at}: committed {commits.get(at)} of {end}")

    def check_feed(self, feed):
        """feed: [(id, status)] as it was read by cursor, at one gateway or the other."""
        ids = collections.Counter(id_ for id_, _ in feed)
        for id_, n in ids.items():
            if n > 1:
                self.violate("twice", f"{id_} is {n} times in the feed")
        wanted = [(c.id, c.status) for c in self.first.values()]
        if feed != wanted:
            at = next((i for i, (a, b) in enumerate(zip(feed, wanted)) if a != b),
                      min(len(feed), len(wanted)))
            self.violate("changed", f"the feed as read has {len(feed)} completions, the topic "
                                    f"{len(wanted)}; at {at}: {feed[at:at + 1]}, "
                                    f"{wanted[at:at + 1]}")

    def check_stream(self, name, events):
        """events: [(cursor, id, status)], as a subscriber has them over all its connections."""
        ids = collections.Counter(id_ for _, id_, _ in events)
        for id_, n in ids.items():
            if n > 1:
                self.violate("twice", f"{name} saw {id_} {n} times")
        for id_ in self.first.keys() - ids.keys():
            self.violate("lost", f"{name} never saw {id_}")
        wanted = [(c.off + 1, c.id, c.status) for c in self.first.values()]
        if events != wanted:
            at = next((i for i, (a, b) in enumerate(zip(events, wanted)) if a != b),
                      min(len(events), len(wanted)))
            self.violate("changed", f"{name} has {len(events)} completions, the topic {len(wanted)}; at "
                                    f"{at}: {events[at:at + 1]}, {wanted[at:at + 1]}")

    # ---- engine calls ----

    def excuse(self, name, call, done_us):
        """The fault that cut this call off before its job was done, or None."""
        for f in self.faults[name]:
            if f.end_us >= call.recv_us and f.begin_us <= done_us:
                return f.kind
        return None

    def is_stale(self, name, call):
        """Its worker fell asleep while it was about to send the request, and sent it on waking."""
        return any(f.kind == "pause" and f.end_us <= call.recv_us <= f.end_us + STALE_WITHIN_US
                   for f in self.faults[name])

    def check_repeats(self):
        by_key = collections.defaultdict(list)
        for _, name, call in self.calls:
            by_key[call.key].append((name, call))
        known = {key_of(j) for _, j in self.jobs}
        for key, calls in by_key.items():
            if key not in known:
                self.violate("repeat", f"{key} was called, and there is no such job")
            elif len(self.end_of.get(key, ())) == 1:
                self.check_calls(key, calls)

    def check_calls(self, key, calls):
        for i, (name, call) in enumerate(calls[:-1]):
            why = self.excuse(name, call, self.done_us[key])
            if not why and self.is_stale(*calls[i + 1]):
                why = "stale"
            self.excuses[why] += 1
            if not why:
                self.violate("repeat", f"{key}: {self.told(name, call)}, done at "
                                       f"{self.done_us[key]}, and again "
                                       f"{self.told(*calls[i + 1])}")

    @staticmethod
    def told(name, call):
        return f"{name} {call.recv_us}-{call.end_us} {call.event}"

    def check_cancelled(self):
        ended = {c.key: self.done_us[c.key] for c in self.first.values() if c.status == "cancelled"}
        for _, name, call in self.calls:
            late_us = ended.get(call.key, call.recv_us) + CANCELLED_WITHIN_US
            if call.key not in ended or (call.end_us or late_us + 1) <= late_us:
                continue
            if not self.is_disturbed(name, call, late_us):
                self.violate("cancel", f"{call.key} was cancelled at {ended[call.key]}; "
                                       f"{self.told(name, call)}")

    def is_disturbed(self, name, call, late_us):
        """The worker, or a broker, was away when the order came; or a gateway when it was to write it, which
        it does once the end is in the log, and before it answers."""
        def is_away(who, from_us, to_us):
            return any(f.begin_us <= to_us and f.end_us >= from_us for f in self.faults[who])

        from_us, to_us = late_us - 3 * CANCELLED_WITHIN_US, call.end_us or late_us
        return is_away(name, from_us, to_us) or is_away("broker", from_us, to_us) or \
            not self.cancelled.get(call.key) and any(
                is_away(who, late_us - 2 * CANCELLED_WITHIN_US, late_us)
                for who in list(self.faults) if who.startswith("gateway"))

    # ---- a gateway's store ----

    def check_store(self, name, data):
        with Database(data) as db:
            check_counters(db, lambda kind, text: self.violate(kind, f"{name}: {text}"))
            self.check_rows(name, db)
            return self.check_ledger(name, db)

    def check_rows(self, name, db):
        rows = [(off, json.loads(value)["id"]) for off, value in
                db.rows('SELECT off, value FROM "genq.completions" ORDER BY off')]
        for id_, n in collections.Counter(id_ for _, id_ in rows).items():
            if n > 1:
                self.violate("twice", f"{name}: {n} completions of {id_}")
        if rows != [(c.off, c.id) for c in self.first.values()]:
            odd = set(rows) ^ {(c.off, c.id) for c in self.first.values()}
            self.violate("changed", f"{name}: its feed is not the topic's: {sorted(odd)[:4]}")
        ids = collections.Counter()
        for id_, state, off in db.rows("SELECT id, state, completion_off FROM job"):
            ids[id_] += 1
            c = self.first.get(id_)
            if not c or state < FIRST_END or (STATES[state], off) != (c.status, c.off):
                self.violate("changed", f"{name}: {id_} is {STATES[state]} by {off}; {c}")
        for id_ in self.first.keys() - ids.keys():
            self.violate("changed", f"{name}: no job {id_}")
        for id_, n in ids.items():
            if n > 1:
                self.violate("twice", f"{name}: {n} rows of {id_}")

    def check_ledger(self, name, db):
        """Gives the rows, for a comparison of gateways."""
        rows = db.rows("SELECT j.id, c.id, outcome, is_wasted, c.prompt_tokens, c.completion_tokens"
                       " FROM call c JOIN job j ON j.seq=c.job")
        answered, kept = collections.defaultdict(list), collections.defaultdict(list)
        for _, worker, call in self.calls:
            if call.event == "sent" and call.status == 200:
                answered[call.key].append((worker, call))
        n_good = collections.Counter()
        for id_, _, outcome, is_wasted, prompt, completion in rows:
            if OUTCOMES[outcome] == "ok" and id_ in self.first:
                kept[self.first[id_].key].append((prompt, completion))
                n_good[id_] += not is_wasted
        for key in answered.keys() | kept.keys():
            self.compare(name, key, answered[key], kept[key])
        for c in self.first.values():
            if n_good[c.id] != (c.status == "succeeded"):
                self.violate("ledger", f"{name}: {c.id} is {c.status} and has {n_good[c.id]} calls "
                                       "that were not wasted")
        return sorted(rows)

    def compare(self, name, key, answered, kept):
        left = collections.Counter((c.prompt, c.completion) for _, c in answered)
        left.subtract(kept)
        if any(n < 0 for n in left.values()):
            self.violate("ledger", f"{name}: {key} has {len(kept)} answered calls {kept}, the "
                                   f"engines know {[self.told(*a) for a in answered]}")
            return
        n_lost = sum(left.values())
        cut = [a for a in answered if self.is_cut(*a)]
        if any(c.status == "cancelled" for c in self.end_of.get(key, ())):
            return  # an answer that met the order to cancel is not an answer
        if n_lost > len(cut):
            self.violate("ledger", f"{name}: {n_lost} answers of {key} are missing, and {len(cut)} "
                                   f"were cut by a kill: {[self.told(*a) for a in answered]}")
        self.cut += [(name, key, worker) for worker, _ in cut[:n_lost]]

    def is_cut(self, worker, call):
        """Its worker was killed before the answer could be kept."""
        return any(f.kind == "kill" and call.end_us <= f.end_us and
                   f.begin_us <= call.end_us + KEPT_WITHIN_US + self.asleep_us(worker, call)
                   for f in self.faults[worker])

    def asleep_us(self, worker, call):
        return sum(f.end_us - f.begin_us for f in self.faults[worker] if f.kind == "pause" and
                   f.end_us > call.end_us and f.begin_us < call.end_us + KEPT_WITHIN_US)

    # ---- all of it ----

    def verdict(self, gateways):
        """gateways: {name: data directory}; what was taken is judged, and the stores."""
        self.check_repeats()
        self.check_cancelled()
        ledgers = {name: self.check_store(name, data) for name, data in gateways.items()}
        name, *others = ledgers
        for other in others:
            if ledgers[other] != ledgers[name]:
                odd = collections.Counter(ledgers[name])
                odd.subtract(ledgers[other])
                self.violate("torn", f"the ledgers of {name} and {other} differ: "
                                     f"{[r for r, n in odd.items() if n][:4]}")
        return not self.violations

    def report(self):
        states = collections.Counter(c.status for c in self.first.values())
        n_sent = sum(c.event == "sent" for _, _, c in self.calls)
        repeats = ", ".join(f"{n} after a {why}" for why, n in sorted(self.excuses.items(), key=str))
        late = len(self.all) - len(self.first)
        text = (f"{len(self.jobs)} job records, {len(self.first)} jobs ended ({dict(states)}), "
                f"{late} late completions in the topic; {len(self.calls)} engine calls, {n_sent} "
                f"answered; {sum(self.excuses.values())} repeats ({repeats}); answers that a kill "
                f"cut off: {len({(k, w) for _, k, w in self.cut})}")
        if os.environ.get("CHAOS_NOTES"):
            text = "\n".join(f"cut: {c}" for c in self.cut) + "\n" + text
        return text

    def require(self):
        print(self.report(), flush=True)
        for name, text in self.violations[:100]:
            print(f"VIOLATION {name}: {text}")
        assert not self.violations, f"{len(self.violations)} violations: {', '.join(self.names())}"

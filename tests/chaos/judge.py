"""The verdict on a run with kills. It links nothing of genq: it reads what the engine saw (the stub's
log), what was durable right after each kill and at the end (the database, with Python's sqlite3, on
copies), and the output. Every violation is listed; each has a name, which is what 21_left_out.py
looks for:

    open        a job that never ended, or a record that still waits in a work topic
    twice       two ends of one job, or an end without its job
    changed     an end that was durable at a kill and is different, or gone, later
    torn        tables that do not agree: counters, offsets, batches, SQLite's own check
    repeat      an engine call for a job whose completion was durable, or twice in one life
    poison      a job failed as poison without two kills in flight, or ran a third time
    ledger      calls and tokens that the engine answered and the ledger does not have, or has more
    cancel      an engine call that went on after its job was cancelled
    output      a line of the output that is missing, twice, out of order or another's
"""
import collections
import json
import os
import re
import shutil
import sqlite3
import struct
import tempfile

STATES = ("scheduled", "queued", "running", "succeeded", "failed", "cancelled", "expired")
OUTCOMES = ("ok", "failed", "timeout", "cut", "cancelled", "refused")
PRIORITIES = ("high", "normal", "low")
DURABLE_WITHIN_US = 5_000_000  # an answer older than this at a kill must not be lost
ABORTED_WITHIN_US = 2_000_000

Call = collections.namedtuple("Call", "key recv_us end_us event status prompt completion")
End = collections.namedtuple("End", "off tenant id status key reason text")
Row = collections.namedtuple("Row", "tenant id key outcome is_wasted prompt completion")


def read_log(path):
    """The stub's log as calls, in the order of their arrival; jobs only."""
    calls, on = [], {}
    with open(path) as f:
        for line in f:
            if not line.endswith("\n"):
                break
            at, event, conn, key, _, status, prompt, completion = line.split()
            if key == "-":
                continue
            if event == "recv":
                on[conn] = len(calls)
                calls.append(Call(key, int(at), None, None, 0, int(prompt), 0))
            elif conn in on:
                i = on.pop(conn) if event != "fault" else on[conn]
                calls[i] = calls[i]._replace(end_us=int(at), event=event, status=int(status),
                                             completion=int(completion))
    return calls


def topic_hash(name):
    """Topics in starts.journal: FNV-1a."""
    h = 0xCBF29CE484222325
    for c in name.encode():
        h = (h ^ c) * 0x100000001B3 % (1 << 64)
    return h


def read_journal(path):
    """(topic's hash, offset) of the jobs that were in flight when the process died."""
    if not os.path.exists(path):
        return set()
    with open(path, "rb") as f:
        image = f.read()
    slots = struct.iter_unpack("<QqiHBBQ", image[32:32 + (len(image) - 32) // 32 * 32])
    return {(topic, offset) for topic, offset, _, _, _, state, _ in slots if state == 1}


class Database:
    """A copy of a data directory's database, as it is now; SQLite replays the copied log."""

    def __init__(self, data):
        self.folder = tempfile.mkdtemp(prefix="snapshot-", dir=os.path.dirname(data))
        for name in ("genq.db", "genq.db-wal"):
            if os.path.exists(os.path.join(data, name)):
                shutil.copyfile(os.path.join(data, name), os.path.join(self.folder, name))
        self.db = sqlite3.connect(os.path.join(self.folder, "genq.db"))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.db.close()
        shutil.rmtree(self.folder)

    def rows(self, sql, *values):
        return self.db.execute(sql, values).fetchall()

    def one(self, sql, *values):
        return self.rows(sql, *values)[0][0]

    def has(self, table):
        return bool(self.rows("SELECT 1 FROM sqlite_master WHERE name=?", table))

    def topics(self, start):
        return [n for (n,) in self.rows("SELECT name FROM sqlite_master WHERE type='table'")
                if n.startswith(start)]


def check_counters(db, violate):
    """Tables of the store that must agree, and SQLite's own check."""
    for (text,) in db.rows("PRAGMA integrity_check"):
        if text != "ok":
            violate("torn", f"integrity_check: {text}")
    unfinished = db.one("SELECT count(*) FROM job WHERE state < 3")
    if unfinished != db.one("SELECT value FROM fact WHERE name='unfinished'"):
        violate("torn", f"{unfinished} unfinished jobs, the counter says otherwise")
    for seq, id_, *told in db.rows("SELECT seq, id, n_total, n_succeeded, n_failed, n_cancelled,"
                                   " n_expired FROM batch"):
        is_ = list(db.rows("SELECT count(*), sum(state=3), sum(state=4), sum(state=5),"
                           " sum(state=6) FROM job WHERE batch=?", seq)[0])
        if [x or 0 for x in is_] != told:
            violate("torn", f"batch {id_}: counts {told}, jobs are {is_}")
    for batch, line, job in db.rows(
            "SELECT l.batch, l.line, l.job FROM batch_line l LEFT JOIN job j ON j.seq=l.job"
            " WHERE j.seq IS NULL"):
        violate("torn", f"line {line} of batch {batch} has no job {job}")


class Period:
    """One life of a genq process."""

    def __init__(self, start_us, n_ends):
        self.start_us, self.end_us, self.was_killed = start_us, None, False
        self.n_ends = n_ends       # durable completions when it started
        self.ends_at_end = n_ends  # and when it ended
        self.calls = []            # engine calls that arrived from it
        self.ledger = []           # rows that it added
        self.live = set()          # (tenant, id) that its journal says were in flight


class Judge:
    def __init__(self, data, log):
        self.data, self.log = data, log
        self.periods, self.ends = [], []
        self.last_call = 0
        self.has_journal = True  # False: it goes with the power, and no job is poison
        self.cancelled = {}  # key -> monotonic us of the answer 202
        self.violations, self.notes = [], []

    def violate(self, name, text):
        self.violations.append((name, text))

    # ---- watching ----

    def started(self, now_us):
        self.periods.append(Period(now_us, len(self.ends)))

    def ended(self, now_us, was_killed):
        """The process is dead, the next one is not started: what is durable?"""
        p = self.periods[-1]
        p.end_us, p.was_killed = now_us, was_killed
        if os.path.exists(os.path.join(self.data, "genq.db")):
            with Database(self.data) as db:
                if db.has("job") and db.has("genq.completions"):
                    self.take(db, p)
        p.ends_at_end = len(self.ends)

    def take(self, db, p):
        after = self.ends[-1].off if self.ends else -1
        self.ends += self.read_ends(db, after)
        for seq, tenant, id_, outcome, wasted, prompt, completion in db.rows(
                "SELECT c.seq, j.tenant, j.id, outcome, is_wasted, prompt_tokens,"
                " completion_tokens FROM call c JOIN job j ON j.seq=c.job WHERE c.seq>?"
                " ORDER BY c.seq", self.last_call):
            self.last_call = seq
            p.ledger.append(Row(tenant, id_, None, OUTCOMES[outcome], bool(wasted), prompt,
                                completion))
        live = read_journal(os.path.join(self.data, "starts.journal"))
        for tenant, id_, queue, priority, off in db.rows(
                "SELECT tenant, id, queue, priority, off FROM job WHERE state IN (1, 2)"
                " AND off IS NOT NULL") if live else ():
            topic = f"genq.jobs.{queue}.{PRIORITIES[priority]}"
            if (topic_hash(topic), off) in live:
                p.live.add((tenant, id_))

    @staticmethod
    def read_ends(db, after=-1):
        ends = []
        for off, id_, value in db.rows(
                'SELECT off, key, value FROM "genq.completions" WHERE off>? ORDER BY off', after):
            j = json.loads(value)
            text = (j.get("output") or {}).get("text")
            ends.append(End(off, j["tenant"], id_, j["status"], j["custom_id"] or base_id(id_),
                            (j.get("error") or {}).get("code"), text))
        return ends

    # ---- judging ----

    def verdict(self, left_over=()):
        """After the last process ended by itself. left_over: keys of lines that are not in the input
        any more; the run may end before their jobs do."""
        self.violations = []
        self.sort_calls()
        self.keys = {(e.tenant, e.id): e.key for e in self.ends}
        self.n_jobs = collections.Counter(e.key for e in self.ends)
        with Database(self.data) as db:
            self.check_jobs(db, set(left_over))
            self.check_tables(db)
        self.check_repeats()
        self.check_poison()
        self.check_ledger()
        self.check_cancelled()
        return not self.violations

    def sort_calls(self):
        starts = [p.start_us for p in self.periods] + [float("inf")]
        at = 0
        for p in self.periods:
            p.calls = []
        for call in read_log(self.log):
            while call.recv_us >= starts[at + 1]:
                at += 1
            self.periods[at].calls.append(call)

    def check_jobs(self, db, left_over):
        jobs = {(t, i): (STATES[s], off) for t, i, s, off in
                db.rows("SELECT tenant, id, state, completion_off FROM job")}
        final = self.read_ends(db)
        for e, now in zip(self.ends, final):
            if e != now:
                self.violate("changed", f"completion {e} became {now}")
        for e in self.ends[len(final):]:
            self.violate("changed", f"completion {e} is gone")
        seen = set()
        for e in final:
            who = (e.tenant, e.id)
            if who in seen:
                self.violate("twice", f"{who}: a second completion at {e.off}")
            seen.add(who)
            if jobs.get(who) != (e.status, e.off) and who in jobs:
                self.violate("torn", f"{who}: the row says {jobs[who]}, the feed {e}")
            if who not in jobs:
                self.violate("twice", f"{who}: a completion without a job")
        waits = {id_: key for id_, key in db.rows(
            "SELECT id, ifnull(custom_id, id) FROM job WHERE state < 3") if key in left_over}
        self.n_jobs.update(waits.values())
        for who, (state, off) in jobs.items():
            if who[1] in waits:
                continue
            if state in STATES[:3] or off is None:
                self.violate("open", f"{who} is {state}")
            elif who not in seen:
                self.violate("open", f"{who} is {state} without a completion")
        for topic in db.topics("genq.jobs.") + ["genq.scheduled", "genq.control"]:
            for off, key in db.rows(f'SELECT off, key FROM "{topic}"'):
                if key not in waits:
                    self.violate("open", f"{topic}/{off} still waits: {key}")
        failed = {who[1] for who, (state, _) in jobs.items() if state == "failed"}
        for off, key in db.rows('SELECT off, key FROM "genq.dead"'):
            if key not in failed:
                self.violate("open", f"genq.dead/{off}: {key}")

    def check_tables(self, db):
        for name, next_off, n_rows in db.rows("SELECT name, next_off, n_rows FROM log_topic"):
            n, last = db.rows(f'SELECT count(*), max(off) FROM "{name}"')[0]
            if n != n_rows or (last is not None and last >= next_off):
                self.violate("torn", f"{name}: {n} rows up to {last}, but {n_rows} and {next_off}")
        check_counters(db, self.violate)

    def ends_before(self, n):
        return collections.Counter(e.key for e in self.ends[:n])

    def check_repeats(self):
        """In one life, a key may be called once for each of its jobs that had not ended before."""
        done, at = collections.Counter(), 0
        self.n_calls = self.n_cut = 0
        self.cut_in = collections.Counter()  # kills that a key was in flight at
        for i, p in enumerate(self.periods):
            for e in self.ends[at:p.n_ends]:
                done[e.key] += 1
            at = max(at, p.n_ends)
            arrived = collections.Counter(c.key for c in p.calls)
            ended = collections.Counter(e.key for e in self.ends[p.n_ends:p.ends_at_end])
            self.n_calls += len(p.calls)
            for key, n in arrived.items():
                if n > self.n_jobs[key] - done[key]:
                    self.violate("repeat", f"key {key}: {n} calls in life {i}, when {done[key]} of "
                                           f"its {self.n_jobs[key]} jobs had ended before it")
                if n > ended[key] and p.was_killed:
                    self.cut_in[key] += 1
                    self.n_cut += n - ended[key]
                    self.notes.append(f"life {i}: call of {key} was cut by the kill")
        called = collections.Counter(c.key for p in self.periods for c in p.calls)
        self.n_repeats = sum(max(0, n - self.n_jobs[key]) for key, n in called.items())

    def check_poison(self):
        live = collections.Counter(who for p in self.periods if p.was_killed for who in p.live)
        for e in self.ends:
            if e.reason == "poison" and max(self.cut_in[e.key], live[(e.tenant, e.id)]) < 2:
                self.violate("poison", f"{e.id} ({e.key}) was in flight at {self.cut_in[e.key]} "
                                       "kills only")
        for key, n in self.cut_in.items():
            if self.has_journal and n > 2 * max(1, self.n_jobs[key]):
                self.violate("poison", f"key {key} of {self.n_jobs[key]} jobs was in flight at {n} "
                                       "kills")

    def check_ledger(self):
        """Answers are in the ledger, but for those that a kill or a cancel met on their way."""
        odd = {e.key for e in self.ends if e.status in ("cancelled", "expired")}
        self.tokens = [0, 0]
        self.n_lost = 0
        for i, p in enumerate(self.periods):
            sent, kept = collections.defaultdict(list), collections.defaultdict(list)
            for c in p.calls:
                if c.event == "sent" and c.status == 200:
                    sent[c.key].append(c)
            for r in p.ledger:
                key = self.keys.get((r.tenant, r.id))
                if r.outcome == "ok":
                    kept[key].append((r.prompt, r.completion))
                    self.tokens[0] += r.prompt
                    self.tokens[1] += r.completion
            for key in sent.keys() | kept.keys():
                self.compare_ledger(i, p, key, sent[key], kept[key], key in odd)

    def compare_ledger(self, i, p, key, sent, kept, is_odd):
        left = collections.Counter((c.prompt, c.completion) for c in sent)
        left.subtract(kept)
        more = {t: -n for t, n in left.items() if n < 0}
        n_lost = sum(n for n in left.values() if n > 0)
        if more:
            self.violate("ledger", f"key {key}, life {i}: the ledger has {more} (prompt, "
                                   "completion) that the engine did not answer")
        if n_lost == 0:
            return
        self.n_lost += n_lost
        age_ms = (p.end_us - max(c.end_us for c in sent)) / 1000
        if not p.was_killed and not is_odd:
            self.violate("ledger", f"key {key}, life {i}: {n_lost} answers are not in the ledger")
        elif not is_odd and age_ms * 1000 > DURABLE_WITHIN_US:
            self.violate("ledger", f"key {key}, life {i}: answered {age_ms:.0f} ms before the kill "
                                   "and lost")

    def check_cancelled(self):
        for c in (c for p in self.periods for c in p.calls):
            at_us = self.cancelled.get(c.key)
            if at_us and (c.end_us is None or c.end_us > at_us + ABORTED_WITHIN_US):
                self.violate("cancel", f"key {c.key}: its call went on {c.event or 'for ever'} "
                                       "after the job was cancelled")

    # ---- the output of a batch run ----

    def check_output(self, path, wanted):
        """wanted: for each input line (key, text of the answer), or (None, reason of its failure)."""
        with open(path) as f:
            text = f.read()
        if text and not text.endswith("\n"):
            self.violate("output", "the last line has no end")
        lines = text.split("\n")[:-1]
        if len(lines) != len(wanted):
            self.violate("output", f"{len(lines)} lines for {len(wanted)} of input")
        for n, (line, (key, answer)) in enumerate(zip(lines, wanted)):
            got = read_result(line)
            if got != (key, answer):
                self.violate("output", f"line {n + 1}: {got}, expected {(key, answer)}")

    # ---- telling ----

    def names(self):
        return sorted({name for name, _ in self.violations})

    def report(self):
        n_kills = sum(p.was_killed for p in self.periods)
        poison = sum(e.reason == "poison" for e in self.ends)
        text = (f"{n_kills} kills, {len(self.ends)} jobs ended, {self.n_calls} engine calls, of them "
                f"{self.n_repeats} repeats, {self.n_cut} cut by kills ({self.n_lost} of them "
                f"answered), {poison} poison, tokens in the ledger {self.tokens[0]}+"
                f"{self.tokens[1]}")
        if os.environ.get("CHAOS_NOTES"):
            text = "\n".join(self.notes + [text])
        return text

    def require(self):
        """Prints the report; fails with every violation."""
        print(self.report(), flush=True)
        for name, text in self.violations[:200]:
            print(f"VIOLATION {name}: {text}")
        assert not self.violations, f"{len(self.violations)} violations: {', '.join(self.names())}"


def base_id(id_):
    """A batch run tries a failed line again under <id>.r<n>."""
    return re.sub(r"\.r\d+$", "", id_)


def read_result(line):
    """(custom_id, answer's text) of an output line of either form; (custom_id, reason) if it
    failed."""
    try:
        j = json.loads(line)
    except ValueError:
        return None, f"no JSON: {line[:80]}"
    try:
        key = j["custom_id"]
        if "response" in j:
            return key, (j["response"]["body"]["choices"][0]["message"]["content"]
                         if j["response"] else j["error"]["code"])
        return key, j["output"]["text"] if j["status"] == "succeeded" else j["error"]["code"]
    except (KeyError, TypeError):
        return None, f"no result: {line[:80]}"

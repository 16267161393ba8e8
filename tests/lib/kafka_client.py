"""A client of Kafka that is not genq's: kcat for records, kafka_admin (environment: KAFKA_ADMIN) for the rest.
A refusal or a silence of a minute is an AssertionError with their words."""
import json
import os
import subprocess

LIMIT_S = 60
BEFORE_VALUE, BEFORE_RECORD = "\x1f", "\x1e"  # JSON holds neither


class KafkaClient:
    """properties: of librdkafka, such as {"security.protocol": "ssl"}."""

    def __init__(self, servers, properties=None):
        self.servers, self.properties = servers, properties or {}

    def command(self, program, *arguments):
        options = [word for pair in self.properties.items() for word in ("-X", "%s=%s" % pair)]
        return [program, *options, *arguments]

    def call(self, *arguments, stdin=""):
        command = self.command(*arguments)
        try:
            done = subprocess.run(command, input=stdin, text=True, capture_output=True,
                                  timeout=LIMIT_S)
        except subprocess.TimeoutExpired as e:
            raise AssertionError("no answer: %s\n%s" % (command, e.stderr)) from None
        assert done.returncode == 0, "%s: %s" % (command, done.stderr)
        return done.stdout

    def admin(self, *arguments):
        """See kafka_admin.c; gives its answers as dicts."""
        text = self.call(os.environ["KAFKA_ADMIN"], self.servers, *map(str, arguments))
        return [json.loads(line) for line in text.splitlines()]

    def create(self, topic, partitions=1, copies=-1, **settings):
        """Settings with _ for the dots: retention_ms=1000."""
        self.admin("create", topic, partitions, copies,
                   *("%s=%s" % (k.replace("_", "."), v) for k, v in settings.items()))

    def offsets(self, topic):
        """{partition: (of the first record kept, of the next one to come)}"""
        return {o["partition"]: (o["low"], o["high"]) for o in self.admin("offsets", topic)}

    def group(self, group):
        """{(topic, partition): (committed offset, metadata)}"""
        return {(c["topic"], c["partition"]): (c["offset"], c["metadata"])
                for c in self.admin("group", group)}

    def produce(self, topic, *records, headers=(), partition=None):
        """records: (key, value); None is Kafka's null. A null among the values makes the empty ones null.
        headers: (name, value), of all of them. All are acknowledged when this returns."""
        arguments = ["-P", "-b", self.servers, "-t", topic, "-K", BEFORE_VALUE, "-D", BEFORE_RECORD]
        for pair in headers:
            arguments += ["-H", "%s=%s" % pair]
        if partition is not None:
            arguments += ["-p", str(partition)]
        if any(value is None for _, value in records):
            arguments.append("-Z")
        self.call("kcat", *arguments, stdin=BEFORE_RECORD.join(
            (value or "") if key is None else key + BEFORE_VALUE + (value or "")
            for key, value in records))

    def consume(self, topic, partition=None):
        """All that the topic holds, up to its present end; of a partition in order. Dicts of topic,
        partition, offset, ts, key, payload, headers (a list of pairs)."""
        arguments = ["-C", "-b", self.servers, "-t", topic, "-J", "-e", "-o", "beginning",
                     "-X", "fetch.wait.max.ms=10"]
        if partition is not None:
            arguments += ["-p", str(partition)]
        # A leader just elected shows records only once its followers have said what they have: its
        # present end is short of what was acknowledged. It tells offsets only when that is over.
        self.offsets(topic)
        records = [json.loads(line) for line in self.call("kcat", *arguments).splitlines()]
        for record in records:
            flat = record.get("headers", [])
            record["headers"] = list(zip(flat[::2], flat[1::2]))
        return records

"""Includes point to lower layers only, there is no ring, and each library has one includer."""
import os
import re
import sys

ROOT = os.environ.get("SOURCE_DIR", os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
MAY = {
    "base": {"base"},
    "schema": {"base", "schema"},
    "broker-config": {"base", "schema", "broker-config"},
    "store": {"base", "schema", "broker-config", "store"},
    "producer": {"base", "schema", "broker-config", "store", "producer"},
    "worker": {"base", "schema", "broker-config", "store", "worker"},
}
INCLUDERS = {
    "sqlite3.h": ["base/db.c"],
    "cjson/cJSON.h": ["base/json.c"],
    "yaml.h": ["base/yaml.c"],
    "curl/curl.h": ["base/fetch_internal.h"],
    "hiredis/hiredis.h": ["base/redis_reply.c"],
    "librdkafka/rdkafka.h": ["broker-config/kafka.h"],
    "microhttpd.h": ["producer/http/connection.h", "producer/http/request.c",
                     "producer/http/server.c"],
}
BANNED = re.compile(r"\b(sprintf|vsprintf|strcpy|strcat|strtok|atoi|gets|alloca|system)\s*\(")


def sources():
    for layer in MAY:
        for folder, _, files in os.walk(os.path.join(ROOT, layer)):
            for name in files:
                if name.endswith((".c", ".h", ".def")):
                    yield os.path.relpath(os.path.join(folder, name), ROOT)


def includes(path):
    with open(os.path.join(ROOT, path), encoding="utf-8") as f:
        text = f.read()
    return re.findall(r'^\s*#\s*include\s+[<"]([^">]+)[">]', text, re.M), text


def find_ring(graph):
    state, trail = {}, []

    def visit(node):
        state[node] = 1
        trail.append(node)
        for to in sorted(graph.get(node, ())):
            if state.get(to) == 1:
                return trail[trail.index(to):] + [to]
            if to not in state:
                ring = visit(to)
                if ring:
                    return ring
        state[node] = 2
        trail.pop()
        return None

    for node in sorted(graph):
        if node not in state:
            ring = visit(node)
            if ring:
                return ring
    return None


def check(files):
    faults, graph = [], {}
    for path in files:
        layer = path.split("/")[0]
        found, text = includes(path)
        for inc in found:
            if inc in INCLUDERS and path not in INCLUDERS[inc]:
                faults.append(f"{path}: includes {inc}, which only {INCLUDERS[inc]} may")
            top = inc.split("/")[0]
            if "/" not in inc or top not in MAY:
                continue
            if top not in MAY[layer]:
                faults.append(f"{path}: {layer} may not include {inc}")
            if not inc.endswith(".def"):
                graph.setdefault(path, set()).add(inc)
        for match in BANNED.finditer(re.sub(r"/\*.*?\*/", "", text, flags=re.S)):
            faults.append(f"{path}: {match.group(1)} is banned")
    ring = find_ring(graph)
    if ring:
        faults.append("include ring: " + " -> ".join(ring))
    return faults, len(graph)


def main():
    files = list(sources())
    faults, n = check(files)
    if n < 40:
        faults.append(f"only {n} files with includes found: is SOURCE_DIR right?")
    print("\n".join(faults) or f"{len(files)} files, layers hold, no ring")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())

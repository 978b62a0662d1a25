"""Which processes of builders ran when and on which machine: written down by Recorder while a farm runs, and compared by
check_history.py with what the ledger says of attempts. All machines of a test have one clock, and one /proc."""

import collections
import json
import os
import threading
import time

ORPHANED_MS = 5000  # promised: so long after its attempt has ended, none of its processes runs (INV-11)


def _read(path):
    try:
        with open(path, "rb") as f:
            return f.read()
    except OSError:  # it has just ended, or there is no such control group
        return b""


def is_frozen(pid):
    """Whether the process's control group stands still; in a vfork version 1 says FREEZING for good, and means it."""
    for line in _read(f"/proc/{pid}/cgroup").decode().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "freezer" and _read(f"/sys/fs/cgroup/freezer{path}/freezer.state").startswith(b"FR"):
            return True
        if not controllers and any(b"frozen 1" in _read(f"/sys/fs/cgroup/{mount}{path}/cgroup.events") for mount in ("unified", ".")):
            return True
    return False


class Recorder(threading.Thread):
    """Looks at all processes with that word in their environment, again and again, from start() to stop()."""

    INTERVAL_S = 0.2

    def __init__(self, word, nodes, file):
        """`nodes()`: {process id of a daemon: the name of its node}."""
        super().__init__(daemon=True)
        self.word, self.nodes, self.file, self.over = word.encode(), nodes, file, threading.Event()
        self.node_of = {}  # of each process that was seen: it is still that node's when its daemon is gone

    def run(self):
        with open(self.file, "w", encoding="utf-8") as f:
            over = False
            while not over: # the last look comes after stop(), for what is there at the end
                over = self.over.wait(self.INTERVAL_S)
                now = int(time.time() * 1000)
                print(json.dumps({"ms": now, "processes": self.look()}), file=f, flush=True)

    def stop(self):
        self.over.set()
        self.join()

    def look(self):
        parents, found = {}, {}
        for name in filter(str.isdigit, os.listdir("/proc")):
            stat = _read(f"/proc/{name}/stat").rpartition(b")")[2].split()
            if not stat or stat[0] in (b"Z", b"X"):
                continue
            parents[int(name)] = int(stat[1])
            environment = dict(pair.split(b"=", 1) for pair in _read(f"/proc/{name}/environ").split(b"\0") if b"=" in pair)
            if environment.get(b"word") == self.word:
                found[int(name), int(stat[19])] = environment.get(b"name", b"?").decode()
        nodes = self.nodes()
        return [{"pid": pid, "name": name, "node": self._node(pid, start, parents, nodes), "frozen": is_frozen(pid)}
                for (pid, start), name in found.items()]

    def _node(self, pid, start, parents, nodes):
        at = pid
        while at in parents and at not in nodes:
            at = parents[at]
        if at in nodes:
            self.node_of[pid, start] = nodes[at]
        return self.node_of.get((pid, start))


def sure(recording):
    """Of each look, what was also there in the one before: {(derivation's name, node): how many processes ran}. A look
    takes a moment, in which one process may be frozen and another begun."""
    former = {}
    for look in recording:
        now = collections.Counter((p["name"], p["node"]) for p in look["processes"] if not p["frozen"])
        yield look["ms"], {key: count for key, count in now.items() if key in former}
        former = now


def exclusive_runs(e):
    """INV-1t: no two machines run the same derivation at a time."""
    told = set()
    for recording in e.processes:
        for _, running in sure(recording):
            for name, count in collections.Counter(name for name, _ in running).items():
                if count > 1 and name not in told:
                    told.add(name)
                    yield f"INV-1t: {name} ran on {' and on '.join(sorted(str(n) for d, n in running if d == name))} at a time"


def no_orphans(e):
    """INV-11: what runs belongs to an attempt that has not ended, or only just."""
    spans = collections.defaultdict(list)
    for a in e.ledger.attempts:
        spans[a["drv"][33:].removesuffix(".drv"), a["node"]].append((a["started_ms"], a["ended_ms"]))
    told = set()
    for recording in e.processes:
        for ms, running in sure(recording):
            for key in set(running) - told:
                if not any(began - ORPHANED_MS <= ms and (ended is None or ms <= ended + ORPHANED_MS) for began, ended in spans[key]):
                    told.add(key)
                    yield f"INV-11: {key[0]} runs on {key[1]} at {ms}, where its attempts were {spans[key]}"
        if recording and recording[-1]["processes"]:
            yield f"INV-11: at the end there are still processes of {sorted({p['name'] for p in recording[-1]['processes']})}"

#!/usr/bin/env python3
"""What a farm that is stopped left behind, against what it promised (docs/reliability.md, section 3). It trusts nobody:
it uses none of the farm's code, reads the ledger's rows, hashes every byte of the store, and compares both with what was
recorded of events, attempts and answers while the farm ran.

    check_history.py STATE_DIR [--etcd FILE] [--events FILE]... [--attempts FILE]... [--answers FILE]...
                     [--processes FILE]... [--stock FILE]...

FILEs are what `coppice-admin events -f --json --since 0`, `coppice-admin attempts --json`, and `coppice build --json`,
`coppice status --json` or `coppice-admin requests --json` have printed, at any times; what process_history.py has written
down; and what stock Nix's `nix path-info --json` says of the outputs that it has built of the same derivations. `--etcd`: the
ledger is not in the directory, but what `etcdctl get --prefix /coppice/ -w json` has printed. Prints a
line for each broken promise and ends with 1, or says what it has looked at and ends with 0. Needs zstd and libsodium."""

import argparse
import base64
import collections
import contextlib
import ctypes
import ctypes.util
import fcntl
import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile

import process_history

FREE, QUEUED, BUILDING, PARTIAL, REALISED = range(5)
# What the numbers mean in a ledger that does not say so itself.
WORDS = {
    "phase": ["free", "queued", "building", "partial", "realised"],
    "request": ["open", "succeeded", "failed", "cancelled"],
    "failure": ["success", "build_failed", "timed_out", "silent", "log_limit", "output_limit", "hash_mismatch", "output_rejected",
                "unsupported", "unplaceable", "inputs_missing", "store_down", "infra", "poisoned", "cancelled", "dependency_failed",
                "oom", "pids", "disk_limit", "not_deterministic"],
}


# --- formats


def unpack(data):
    """The value that these bytes of msgpack are."""
    at = 0

    def take(count):
        nonlocal at
        if at + count > len(data):
            raise ValueError("msgpack that is cut off")
        at += count
        return data[at - count:at]

    def number(count, signed=False):
        return int.from_bytes(take(count), "big", signed=signed)

    def array(count):
        return [value() for _ in range(count)]

    def table(count):
        return {value(): value() for _ in range(count)}

    def value():
        tag = number(1)
        if tag <= 0x7f or tag >= 0xe0:
            return tag if tag <= 0x7f else tag - 256
        if tag <= 0x9f:
            return (table if tag <= 0x8f else array)(tag & 15)
        if tag <= 0xbf:
            return take(tag & 31).decode("utf-8", "surrogateescape")
        if tag in (0xc0, 0xc2, 0xc3):
            return {0xc0: None, 0xc2: False, 0xc3: True}[tag]
        if 0xc4 <= tag <= 0xc6:
            return take(number(1 << (tag - 0xc4)))
        if 0xcc <= tag <= 0xd3:
            return number(1 << (tag - 0xcc & 3), tag >= 0xd0)
        if 0xd9 <= tag <= 0xdb:
            return take(number(1 << (tag - 0xd9))).decode("utf-8", "surrogateescape")
        if 0xdc <= tag <= 0xdf:
            return (array if tag <= 0xdd else table)(number(2 << (tag & 1)))
        raise ValueError(f"msgpack with the tag {tag:#x}")

    result = value()
    if at != len(data):
        raise ValueError("bytes follow the msgpack")
    return result


def base32(digest):
    """As Nix writes hashes."""
    bits = int.from_bytes(digest, "little")
    digits = (len(digest) * 8 + 4) // 5
    return "".join("0123456789abcdfghijklmnpqrsvwxyz"[bits >> 5 * i & 31] for i in reversed(range(digits)))


def hash_bytes(text):
    """Of 'sha256-<base 64>' or 'sha256:<Nix base 32>'."""
    if text.startswith("sha256-"):
        return base64.b64decode(text[7:])
    number = 0
    for c in text.removeprefix("sha256:"):
        number = number * 32 + "0123456789abcdfghijklmnpqrsvwxyz".index(c)
    return number.to_bytes(32, "little")


def is_signed(text, signature, key):
    """Whether "name:base64" is the signature by the key "name:base64"."""
    name, _, value = signature.partition(":")
    key_name, _, public = key.partition(":")
    raw = base64.b64decode(value)
    sodium = ctypes.CDLL(ctypes.util.find_library("sodium"))
    return name == key_name and len(raw) == 64 and sodium.crypto_sign_ed25519_verify_detached(
        raw, text.encode(), ctypes.c_ulonglong(len(text.encode())), base64.b64decode(public)) == 0


def hash_and_size(stream):
    digest, size = hashlib.sha256(), 0
    while chunk := stream.read(1 << 20):
        digest.update(chunk)
        size += len(chunk)
    return digest.digest(), size


def blob_facts(file):
    """sha256 and size of the file, and of what it is decompressed."""
    with open(file, "rb") as f:
        outside = hash_and_size(f)
    with subprocess.Popen(["zstd", "-dcq", file], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as zstd:
        inside = hash_and_size(zstd.stdout)
    return outside, inside if zstd.returncode == 0 else (b"", 0)


def json_lines(file):
    """What has been printed whole."""
    with open(file, encoding="utf-8") as f:
        return [json.loads(line) for line in f.read().splitlines(keepends=True) if line.endswith("\n")]


def base_name(path):
    return path.rsplit("/", 1)[-1]


# --- the evidence


class Ledger:
    """The rows, by table, as dicts."""

    def __init__(self, state):
        with tempfile.TemporaryDirectory() as copy:  # opening it would write to it
            for file in ("ledger.sqlite", "ledger.sqlite-wal"):
                if os.path.exists(os.path.join(state, file)):
                    shutil.copy(os.path.join(state, file), copy)
            self._read(os.path.join(copy, "ledger.sqlite"))

    def _read(self, file):
        with contextlib.closing(sqlite3.connect(f"file:{file}?mode=rw", uri=True)) as db:
            db.row_factory = sqlite3.Row
            self.damage = [row[0] for row in db.execute("PRAGMA integrity_check") if row[0] != "ok"]
            table = lambda name: [dict(row) for row in db.execute(f"SELECT * FROM {name}")]
            self.words = {(w["kind"], w["number"]): w["word"] for w in table("word")}
            self.inhashes = {row["inhash"]: row for row in table("inhash")}
            self.attempts, self.outputs, self.sources = table("attempt"), table("realisation"), table("source")
            self.requests = {row["id"]: row for row in table("request")}
            self.blobs = {row["blob"]: row for row in table("blob")}
            self.outbox = {row["inhash"] for row in table("outbox")}
        for row in self.requests.values():
            row["answer"] = unpack(row["result"]) if row["result"] else None


class EtcdLedger:
    """The same rows, out of etcd's keys."""

    def __init__(self, file, prefix="/coppice/"):
        with open(file, encoding="utf-8") as f:
            keys = {base64.b64decode(kv["key"]).decode().removeprefix(prefix): base64.b64decode(kv.get("value", ""))
                    for kv in json.load(f)["kvs"]}
        self.damage = []
        self.words = {(kind, number): word for kind, words in WORDS.items() for number, word in enumerate(words)}
        of = lambda kind: [unpack(value) for key, value in keys.items() if key.startswith(kind + "/") and value]
        locks, attempts, requests, blobs, sources = map(of, ("lock", "attempt", "request", "blob", "path"))
        states = [record[1] for record in locks]
        self.inhashes = {s[1]: {"inhash": s[1], "fence": s.get(2, 0), "phase": s.get(3, 0), "node": s.get(6, ""), "drv": s.get(7, ""),
                                "published": s.get(9, False)} for s in states}
        self.outputs = [{"inhash": s[1], "output": o[1], **self._info(o[2])} for s in states for o in s.get(10, [])]
        self.outbox = {record[1][1] for record in locks if record.get(4)}
        self.attempts = [{"inhash": a[1], "fence": a.get(2, 0), "drv": a.get(3, ""), "node": a.get(4, ""), "started_ms": a.get(5, 0),
                          "ended_ms": a.get(6), "result": a.get(7, 0), "reason": a.get(8, "")} for a in attempts]
        self.sources = [self._info(row) for row in sources]
        self.requests = {r[1]: {"id": r[1], "state": r.get(4, 0), "closure": r[3][2], "answer": r.get(9)} for r in requests}
        self.blobs = {b[1]: {"blob": b[1], "gen": b.get(2, 0), "present": b.get(3, False)} for b in blobs}

    @staticmethod
    def _info(row):
        return {"path": row[1], "nar_hash": row[2], "nar_size": row.get(3, 0), "refs": " ".join(row.get(4, [])), "deriver": row.get(5),
                "ca": row.get(6, ""), "blob": row[7], "blob_size": row.get(8, 0), "gen": row.get(9, 0)}


class Evidence:
    def __init__(self, state, etcd=None, events=(), attempts=(), answers=(), processes=(), stock=(), lost=(), upstream=False, opened=False):
        self.ledger = EtcdLedger(etcd) if etcd else Ledger(state)
        self.store = os.path.join(state, "cache")
        with open(os.path.join(state, "keys/cache.public"), encoding="utf-8") as f:
            self.key = f.read().strip()
        self.events = [json_lines(file) for file in events]
        self.attempts = [row for file in attempts for row in json_lines(file)]
        self.answers = [row for file in answers for row in json_lines(file)]
        self.processes = [json_lines(file) for file in processes]
        self.stock = [row for file in stock for printed in json_lines(file) for row in printed]
        self.lost = {base_name(drv) for drv in lost}  # derivations whose outputs the store was made to lose
        self.upstream = upstream  # outputs may come from elsewhere
        self.opened = opened  # requests may still be open

    def told(self):
        return (e for recording in self.events for e in recording)


# --- the promises: each gives a text for whatever breaks it


def tokens_rise(e):
    """INV-7 and INV-1: an inhash's tokens only grow, and who takes one has the former attempt ended."""
    highest = collections.Counter()
    attempts = sorted(e.ledger.attempts, key=lambda a: (a["inhash"], a["fence"]))
    for a in attempts:
        row = e.ledger.inhashes.get(a["inhash"])
        highest[a["inhash"]] = max(highest[a["inhash"]], a["fence"])
        if row is None or a["fence"] > row["fence"]:
            yield f"INV-7: attempt {name(a)} has a token that its inhash never came to"
        elif a["ended_ms"] is None and (row["phase"] not in (BUILDING, PARTIAL) or row["fence"] != a["fence"]):
            yield f"INV-1: attempt {name(a)} never ended, and does not hold its inhash any more"
    for a, b in zip(attempts, attempts[1:]):
        if a["inhash"] == b["inhash"] and a["started_ms"] > b["started_ms"]:
            yield f"INV-7: attempt {name(b)} began before {name(a)}, whose token is lower"
    for recording in e.events:
        seen, running, epoch = {}, {}, None
        for event in recording:
            if event["epoch"] != epoch or event["event"] == "gap":  # some of what happened before was not heard
                epoch, running = event["epoch"], {}
            if event["event"] == "attempt_started":
                key, token = bytes.fromhex(event["inhash"]), event["token"]
                if token <= seen.get(key, 0):
                    yield f"INV-7: token {token} of {event['drv']} was told after {seen[key]}"
                if key in running:
                    yield f"INV-1: token {token} of {event['drv']} was given while {running[key]} had not ended"
                seen[key] = running[key] = token
            elif event["event"] == "attempt_ended":
                running.pop(bytes.fromhex(event["inhash"]), None)
        for key, token in seen.items():
            if token > e.ledger.inhashes.get(key, {"fence": 0})["fence"]:
                yield f"INV-7: token {token} of {key.hex()} was told, and the ledger has not come to it"


def name(attempt):
    return f"{attempt['fence']} at {attempt['drv']} ({attempt['inhash'].hex()[:8]})"


def history_stays(e):
    """What was told of an attempt stays so: history is only appended to."""
    rows = {(a["inhash"].hex(), a["fence"]): a for a in e.ledger.attempts}
    told = [({"drv": x["drv"], "node": x["node"], "result": x.get("result", "running")}, x) for x in e.told()
            if x["event"] in ("attempt_started", "attempt_ended")] + [(x, x) for x in e.attempts]
    for says, where in told:
        row = rows.get((where["inhash"], where["token"]))
        if row is None:
            yield f"INV-6: attempt {where['token']} at {where['drv']} was told, and the ledger does not know it"
            continue
        result = "running" if row["ended_ms"] is None else e.ledger.words["failure", row["result"]]
        if base_name(says["drv"]) != row["drv"] or says["node"] != row["node"] or says["result"] not in ("running", result):
            yield f"INV-4: attempt {name(row)} was told as {says['result']} on {says['node']}, and is {result} on {row['node']}"


def one_success(e):
    """INV-12, once: an inhash is built with success at most once, unless the store lost it."""
    successes = collections.Counter(a["inhash"] for a in e.ledger.attempts if a["ended_ms"] is not None and a["result"] == 0)
    for key, count in successes.items():
        if count > 1 and e.ledger.inhashes[key]["drv"] not in e.lost:
            yield f"INV-12: {e.ledger.inhashes[key]['drv']} was built with success {count} times"


def as_stock_nix(e):
    """INV-16, INV-3: what stock Nix makes of the same derivations was made, and is the same."""
    rows = {"/nix/store/" + row["path"]: row for row in e.ledger.outputs}
    for info in e.stock:
        row = rows.get(info["path"])
        if row is None:
            yield f"INV-3: {info['path']}, which stock Nix has built, was not"
            continue
        ours = ("sha256:" + base32(row["nar_hash"]), row["nar_size"], sorted(row["refs"].split()))
        theirs = ("sha256:" + base32(hash_bytes(info["narHash"])), info["narSize"], sorted(map(base_name, info["references"])))
        if ours != theirs:
            yield f"INV-16: {info['path']} is {ours}, and stock Nix's is {theirs}"


def realised_by_somebody(e):
    """INV-1 and INV-9: what is realised was committed under the token that its inhash has, or came from an upstream cache."""
    won = {(a["inhash"], a["fence"]) for a in e.ledger.attempts if a["ended_ms"] is not None and a["result"] == 0}
    substituted = {bytes.fromhex(x["inhash"]) for x in e.told() if x["event"] == "substituted"}
    gaps = len({x["epoch"] for x in e.told()}) > 1
    named = {row["inhash"] for row in e.ledger.outputs}
    for key, row in e.ledger.inhashes.items():
        if (row["phase"] == REALISED) != (key in named):
            yield f"INV-4: {row['drv']} is {e.ledger.words['phase', row['phase']]}, and has{'' if key in named else ' no'} outputs"
        from_upstream = e.upstream and (key in substituted or gaps)
        if key in named and (key, row["fence"]) not in won and not from_upstream:
            yield f"INV-1: {row['drv']} is realised under token {row['fence']}, under which no attempt succeeded"
    for key in named - set(e.ledger.inhashes):
        yield f"INV-4: outputs of the inhash {key.hex()}, which there is not"


def blobs_are_there(e):
    """INV-8 and INV-16: every blob that is named is there, in that generation, and is what its names say."""
    def present(key, gen=None):
        blob = e.ledger.blobs.get(key, {"present": 0})
        return blob["present"] and gen in (None, blob["gen"])

    for key, row in e.ledger.requests.items():
        closure = row["closure"] if row["state"] == 0 else None
        if closure and not (present(closure) and is_closure(e, closure)):
            yield f"INV-6: the derivations of request {key.hex()}, which is open, are not there"
    for row in e.ledger.outputs + e.ledger.sources:
        if not present(row["blob"], row["gen"]):
            yield f"INV-8: the blob of {row['path']} in generation {row['gen']} is not what the ledger has present"
        file = os.path.join(e.store, nar_name(row))
        if not os.path.isfile(file):
            yield f"INV-8: the blob of {row['path']} is gone: {nar_name(row)}"
            continue
        outside, inside = blob_facts(file)
        if outside != (row["blob"], row["blob_size"]):
            yield f"INV-16: the blob of {row['path']} is not the bytes that it is named after"
        if inside != (row["nar_hash"], row["nar_size"]):
            yield f"INV-16: the NAR of {row['path']} is not what is registered"


def is_closure(e, blob):
    file = os.path.join(e.store, f"closures/{blob.hex()}.{e.ledger.blobs[blob]['gen']}")
    if not os.path.isfile(file):
        return False
    with open(file, "rb") as f:
        return hash_and_size(f)[0] == blob


def nar_name(row):
    return f"nar/{row['blob'].hex()}.{row['gen']}.nar.zst"


def narinfos_are_the_rows(e):
    """INV-4 and INV-3: a narinfo says what the ledger has, signed; what is published has one, and the rest waits for it."""
    rows = {row["path"][:32]: row for row in e.ledger.sources + e.ledger.outputs}
    files = {file[:32] for file in os.listdir(e.store) if file.endswith(".narinfo")}
    for part in files - set(rows):
        yield f"INV-4: the narinfo {part} is of nothing that the ledger has"
    for part in files & set(rows):
        with open(os.path.join(e.store, part + ".narinfo"), encoding="utf-8") as f:
            yield from narinfo_faults(f.read(), rows[part], e.key)
    for row in e.ledger.outputs:
        key = row["inhash"]
        published = e.ledger.inhashes.get(key, {"published": 0})["published"]
        if published == (key in e.ledger.outbox):
            yield f"INV-3: {row['path']} is {'' if published else 'not '}published, and {'' if published else 'not '}in the outbox"
        if published and row["path"][:32] not in files:
            yield f"INV-3: {row['path']} is published, and has no narinfo"


def narinfo_faults(text, row, key):
    fields = [line.split(": ", 1) for line in text.splitlines()]
    says = {field[0]: field[1] for field in fields if len(field) == 2 and field[0] != "Sig"}
    references = row["refs"].split()
    expected = {"StorePath": "/nix/store/" + row["path"], "URL": nar_name(row), "Compression": "zstd",
                "FileHash": "sha256:" + base32(row["blob"]), "FileSize": str(row["blob_size"]),
                "NarHash": "sha256:" + base32(row["nar_hash"]), "NarSize": str(row["nar_size"]), "References": " ".join(references)}
    for field, value in (("Deriver", row["deriver"]), ("CA", row["ca"])):
        if value:
            expected[field] = value
    for field in sorted(set(says) | set(expected)):
        if says.get(field) != expected.get(field):
            yield f"INV-4: the narinfo of {row['path']} says {field} {says.get(field)}, and the ledger {expected.get(field)}"
    paths = ",".join("/nix/store/" + r for r in sorted(references))
    fingerprint = f"1;/nix/store/{row['path']};sha256:{base32(row['nar_hash'])};{row['nar_size']};{paths}"
    if not any(is_signed(fingerprint, field[1], key) for field in fields if field[0] == "Sig"):
        yield f"INV-4: no signature of {row['path']} is the farm's"


def requests_end_once(e):
    """INV-2, INV-5 and INV-6: whatever was accepted is in the ledger, ends once, and has one answer."""
    count = collections.Counter("open" if row["state"] == 0 else "over" for row in e.ledger.requests.values())
    accepted = {x["request"] for x in e.told() if x["event"] == "request_accepted"}
    answered = {x["id"] for x in e.answers if "id" in x}
    known = {key.hex() for key in e.ledger.requests}
    for request in sorted((accepted | answered) - known):
        yield f"INV-6: request {request} was accepted, and the ledger does not know it"
    if count["open"] and not e.opened:
        yield f"INV-2: {count['open']} of {len(known)} requests have not ended"
    for key, row in e.ledger.requests.items():
        if (row["state"] == 0) != (row["answer"] is None) or row["answer"] and row["answer"].get(1) != row["state"]:
            yield f"INV-5: request {key.hex()} is {e.ledger.words['request', row['state']]}, and its answer is of another kind"
    for recording in e.events:
        for (kind, what), times in collections.Counter(once(x) for x in recording if once(x)).items():
            if times > 1:
                yield f"INV-5: {kind} of {what} was told {times} times"
    ends = [(x["request"], x["result"]) for x in e.told() if x["event"] == "request_ended"]
    ends += [(x["id"], x["state"]) for x in e.answers if x.get("state", "open") != "open"]
    for request, state in ends:
        row = e.ledger.requests.get(bytes.fromhex(request))
        if row and e.ledger.words["request", row["state"]] != state:
            yield f"INV-5: request {request} was told as {state}, and is {e.ledger.words['request', row['state']]}"
    results = collections.defaultdict(set)
    for x in e.answers:
        if x.get("result") and "id" in x:
            results[x["id"]].add(json.dumps(x["result"], sort_keys=True))
    for request, answers in results.items():
        if len(answers) > 1:
            yield f"INV-5: request {request} was answered in {len(answers)} ways"


def once(event):
    """What must not be told twice: its kind and what it is of."""
    if event["event"] in ("request_accepted", "request_ended"):
        return event["event"], event["request"]
    if event["event"] in ("attempt_started", "attempt_ended"):
        return event["event"], (event["inhash"], event["token"])
    return None


def answers_agree(e):
    """INV-5, INV-3 and INV-4: whoever asks for a root is told the same outputs, which are those of the ledger."""
    realised = collections.defaultdict(set)
    for row in e.ledger.outputs:
        realised[row["path"]].add((row["nar_hash"], row["nar_size"], tuple(row["refs"].split())))
    told = collections.defaultdict(set)  # by derivation and output: everything that anybody was told
    for key, row in e.ledger.requests.items():
        for root in (row["answer"] or {}).get(2, []):
            for output in root.get(2, []):
                info = output[2]
                told[root[1], output[1]].add(info[1])
                facts = (info[2], info.get(3, 0), tuple(info.get(4, [])))
                if root[1] not in e.lost and facts not in realised[info[1]]:
                    yield f"INV-3: request {key.hex()} was answered with {info[1]}, which is not realised like that"
    results = [x.get("result") for x in e.answers if "id" in x]
    for root in [x for x in e.answers if "id" not in x] + [r for x in results if x for r in x["roots"]]:
        for output, path in root["outputs"].items():
            told[base_name(root["drv"]), output].add(base_name(path))
            if base_name(root["drv"]) not in e.lost and base_name(path) not in realised:
                yield f"INV-3: somebody was told of {path}, which is not realised"
    for (drv, output), paths in told.items():
        if len(paths) > 1:
            yield f"INV-5: output {output} of {drv} was told as {' and as '.join(sorted(paths))}"
    for path, contents in realised.items():
        if len(contents) > 1:
            yield f"INV-4: {path} has {len(contents)} contents"


def tables_are_whole(e):
    """INV-10, as far as rows go: none is there twice, which is what their keys and this say."""
    return (f"the ledger is damaged: {text}" for text in e.ledger.damage)


PROMISES = [tables_are_whole, tokens_rise, history_stays, one_success, realised_by_somebody, blobs_are_there,
            narinfos_are_the_rows, requests_end_once, answers_agree, as_stock_nix, process_history.exclusive_runs,
            process_history.no_orphans]


def faults(evidence):
    """All that is wrong."""
    return [fault for promise in PROMISES for fault in promise(evidence)]


def still_serves(state):
    with contextlib.suppress(FileNotFoundError), open(os.path.join(state, "lock"), "rb") as f:
        try:
            fcntl.flock(f, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("state", help="the state directory of the node that has the ledger and serves no more")
    for kind in ("events", "attempts", "answers", "processes", "stock"):
        parser.add_argument(f"--{kind}", action="append", default=[], metavar="FILE")
    parser.add_argument("--etcd", metavar="FILE", help="the ledger's keys and values in etcd")
    parser.add_argument("--lost", action="append", default=[], metavar="DRV", help="its outputs were taken from the store")
    parser.add_argument("--upstream", action="store_true", help="the farm asks upstream caches")
    parser.add_argument("--open", dest="opened", action="store_true", help="requests may still be open")
    options = parser.parse_args()
    if still_serves(options.state):
        parser.error(f"a node still serves from {options.state}")
    try:
        evidence = Evidence(**vars(options))
    except (OSError, ValueError, sqlite3.DatabaseError) as e:
        sys.exit(f"cannot read what the farm left behind: {e}")
    found = faults(evidence)
    print(*found, sep="\n", end="\n" if found else "")
    ledger = evidence.ledger
    print(f"{len(found)} faults in {len(ledger.requests)} requests, {len(ledger.attempts)} attempts, {len(ledger.outputs)} outputs, "
          f"{len(ledger.sources)} sources, {sum(map(len, evidence.events))} events, {len(evidence.answers)} answers, "
          f"{sum(map(len, evidence.processes))} looks at processes, {len(evidence.stock)} outputs of stock Nix")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()

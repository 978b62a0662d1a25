"""What a farm leaves behind keeps its promises, and the checker of that (tests/support/check_history.py) finds whatever
does not: planted faults of each kind, in what a real node has left behind."""

import base64
import contextlib
import json
import os
import re
import shutil
import sqlite3
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import farm
from check_history import Evidence, faults
from farm import FAILED, OK, Hub, wait_until
from net import Network

GRAPH = '''let
  leaves = map (i: step "leaf-${toString i}" "echo ${toString i} > $out") [ 0 1 2 3 ];
  slow = step "slow" "cat ${toString leaves} > $out; sleep 1"; in
  make { src = ./data; } "top" "cat ${slow} $src > $out"'''
DERIVATIONS = 6


class Copy:
    """What a node has left behind, to be tampered with."""

    def __init__(self, farm_dir, events, attempts, answers):
        self.state = farm_dir
        self.events, self.attempts, self.answers = ([dict(x) for x in rows] for rows in (events, attempts, answers))
        self.processes, self.stock, self.options = [], [], {}

    def sql(self, *statements):
        with contextlib.closing(sqlite3.connect(self.file("ledger.sqlite"))) as db:
            for statement in statements:
                assert db.execute(statement).rowcount > 0, f"nothing to change: {statement}"
            db.commit()

    def file(self, *parts):
        return os.path.join(self.state, *parts)

    def blob(self, drv):
        """The file of a derivation's output."""
        with contextlib.closing(sqlite3.connect(self.file("ledger.sqlite"))) as db:
            (blob, gen), = db.execute("SELECT hex(blob), gen FROM realisation WHERE deriver LIKE ?", (f"%-{drv}.drv",))
        return self.file("cache/nar", f"{blob.lower()}.{gen}.nar.zst")

    def narinfo(self, name):
        """The file of a path's narinfo."""
        with contextlib.closing(sqlite3.connect(self.file("ledger.sqlite"))) as db:
            (path,), = db.execute("SELECT DISTINCT path FROM realisation WHERE path LIKE ?", (f"%-{name}",))
        return self.file("cache", path[:32] + ".narinfo")

    def edit(self, file, pattern, new):
        text = farm.read(file)
        assert re.search(pattern, text), f"nothing to change in {text}"
        farm.write(file, re.sub(pattern, new, text, count=1))

    def event(self, kind, drv=""):
        return next(e for e in self.events if e["event"] == kind and e.get("drv", "").endswith(drv))

    def tell_again(self, told, **other):
        """The same event once more, behind itself, but for some fields."""
        self.events.insert(self.events.index(told) + 1, {**told, **other})

    def answer(self, state="succeeded"):
        return next(x for x in self.answers if x.get("state") == state)

    def runs(self, drv, *nodes, late_ms=0):
        """That derivation was seen to run on these, when its attempt began or so much later."""
        with contextlib.closing(sqlite3.connect(self.file("ledger.sqlite"))) as db:
            (ms, node), = db.execute("SELECT started_ms, node FROM attempt WHERE drv LIKE ?", (f"%-{drv}.drv",))
        there = [{"pid": 7, "name": drv, "node": n or node, "frozen": False} for n in nodes]
        self.processes += [{"ms": ms + late_ms + i, "processes": there} for i in range(2)] + [{"ms": ms + late_ms + 2, "processes": []}]

    def as_stock(self, drv, **other):
        """Stock Nix has built it, likewise but for some fields."""
        with contextlib.closing(sqlite3.connect(self.file("ledger.sqlite"))) as db:
            (path, digest, size, refs), = db.execute("SELECT path, nar_hash, nar_size, refs FROM realisation WHERE path LIKE ?", (f"%-{drv}",))
        info = {"path": "/nix/store/" + path, "narHash": "sha256-" + base64.b64encode(digest).decode(), "narSize": size,
                "references": ["/nix/store/" + r for r in refs.split()]}
        self.stock.append([{**info, **other}])

    def faults(self):
        files = {}
        for kind in ("events", "attempts", "answers", "processes", "stock"):
            text = "".join(json.dumps(row) + "\n" for row in getattr(self, kind))
            files[kind] = [farm.write(self.file(f"{kind}.json"), text)]
        return faults(Evidence(self.state, **files, **self.options))


TOP = "drv LIKE '%-top.drv'"
ATTEMPT = "drv, node, {}, {}, {}, reason, name, 0, 0, 0, 0, 0 FROM attempt WHERE " + TOP


def flip(file):
    with open(file, "r+b") as f:
        f.seek(20)
        byte = f.read(1)[0]
        f.seek(20)
        f.write(bytes([byte ^ 1]))


def later_token(c):
    c.sql(f"UPDATE inhash SET fence = fence + 1 WHERE {TOP}")


def other_path(c):
    c.answers.append(json.loads(json.dumps(c.answer())))
    c.answers[-1]["id"] = "0" * 32
    c.answers[-1]["result"]["roots"][0]["outputs"]["out"] = "/nix/store/" + "0" * 32 + "-top"


def answered_again(c):
    again = json.loads(json.dumps(c.answer()))
    again["result"]["built"] += 1
    c.answers.append(again)


# What is done to the evidence, and what the checker says of it.
PLANTED = {
    "a token that was never given": (
        lambda c: c.sql(f"UPDATE attempt SET fence = 100 WHERE {TOP}"), "INV-7: attempt 100 .* never came to"),
    "tokens that fall": (
        lambda c: c.sql("INSERT INTO attempt SELECT inhash, 1, " + ATTEMPT.format("started_ms + 9000", "ended_ms + 9000", 1)),
        "INV-7: attempt 2 .* began before 1 "),
    "an attempt that goes on without its token": (
        lambda c: c.sql("UPDATE attempt SET ended_ms = NULL WHERE drv LIKE '%-bad.drv'"), "INV-1: attempt 2 .* never ended"),
    "a token told after a higher one": (
        lambda c: c.tell_again(c.event("attempt_ended", "top.drv"), event="attempt_started", token=1), "INV-7: token 1 .* after 2"),
    "two attempts at once": (
        lambda c: c.tell_again(c.event("attempt_started", "top.drv"), token=3), "INV-1: token 3 .* while 2 had not ended"),
    "a ledger that went back": (
        lambda c: c.tell_again(c.event("attempt_ended", "top.drv"), event="attempt_started", token=9),
        "INV-7: token 9 .* has not come to it"),
    "an attempt that ended otherwise": (
        lambda c: c.sql("UPDATE attempt SET result = 2 WHERE drv LIKE '%-bad.drv'"), "INV-4: attempt 2 .* told as build_failed .* is timed_out"),
    "an attempt elsewhere": (
        lambda c: c.attempts[0].update(node="elsewhere"), "INV-4: attempt .* on elsewhere, and is"),
    "an attempt that is forgotten": (
        lambda c: c.sql("DELETE FROM attempt WHERE drv LIKE '%-bad.drv'"), "INV-6: attempt 2 .* the ledger does not know"),
    "a second success": (
        lambda c: c.sql("INSERT INTO attempt SELECT inhash, 1, " + ATTEMPT.format("started_ms - 1", "ended_ms", 0)),
        "INV-12: .*top.drv was built with success 2 times"),
    "a realisation under a later token": (
        later_token, "INV-1: .*top.drv is realised under token 3"),
    "outputs of what is free": (
        lambda c: c.sql(f"UPDATE inhash SET phase = 0 WHERE {TOP}"), "INV-4: .*top.drv is free, and has outputs"),
    "a realisation without outputs": (
        lambda c: c.sql("DELETE FROM realisation WHERE path LIKE '%-top'"), "INV-4: .*top.drv is realised, and has no outputs"),
    "outputs of nothing": (
        lambda c: c.sql(f"DELETE FROM inhash WHERE {TOP}"), "INV-4: outputs of the inhash .* which there is not"),
    "a blob that is gone": (lambda c: os.unlink(c.blob("slow")), "INV-8: the blob of .*-slow is gone"),
    "a flipped bit": (lambda c: flip(c.blob("slow")), "INV-16: the blob of .*-slow is not the bytes"),
    "another NAR than registered": (
        lambda c: c.sql("UPDATE realisation SET nar_hash = zeroblob(32) WHERE path LIKE '%-slow'"), "INV-16: the NAR of .*-slow"),
    "a blob of a former generation": (lambda c: c.sql("UPDATE blob SET gen = gen + 1"), "INV-8: the blob of .* in generation 1 is not"),
    "a narinfo that says otherwise": (
        lambda c: c.edit(c.narinfo("top"), r"NarSize: \d+", "NarSize: 7"), "INV-4: the narinfo of .*-top says NarSize 7"),
    "a narinfo with fewer references": (
        lambda c: c.edit(c.narinfo("refers"), r"References: .+", "References: "), "INV-4: the narinfo of .*-refers says References"),
    "a forged signature": (
        lambda c: c.edit(c.narinfo("top"), r"(Sig: [^:]+):....", r"\1:AAAA"), "INV-4: no signature of .*-top is the farm's"),
    "a signature by another key": (
        lambda c: c.edit(c.file("keys/cache.public"), ":....", ":AAAA"), "INV-4: no signature of .* is the farm's"),
    "a narinfo of nothing": (
        lambda c: shutil.copy(c.narinfo("top"), c.file("cache", "0" * 32 + ".narinfo")), "INV-4: the narinfo 0{32} is of nothing"),
    "a publication that is not there": (lambda c: os.unlink(c.narinfo("top")), "INV-3: .*-top is published, and has no narinfo"),
    "a publication that is not done": (
        lambda c: c.sql(f"INSERT INTO outbox (inhash) SELECT inhash FROM inhash WHERE {TOP}"), "INV-3: .*-top is published, and in the outbox"),
    "a request that was lost": (lambda c: c.sql("DELETE FROM request WHERE number = 1"), "INV-6: request .* was accepted"),
    "a request without an end": (lambda c: c.sql("UPDATE request SET state = 0, result = NULL WHERE number = 1"), "INV-2: 1 of 4 requests"),
    "a request without its derivations": (
        lambda c: (c.sql("UPDATE request SET state = 0, result = NULL WHERE number = 1"), shutil.rmtree(c.file("cache/closures"))),
        "INV-6: the derivations of request"),
    "a state that is not the answer's": (lambda c: c.sql("UPDATE request SET state = 3 WHERE state = 1"), "INV-5: request .* of another kind"),
    "an end that is told twice": (
        lambda c: c.tell_again(c.event("request_ended")), "INV-5: request_ended of .* was told 2 times"),
    "an end that was told otherwise": (lambda c: c.event("request_ended").update(result="cancelled"), "INV-5: request .* told as cancelled"),
    "another state told to a client": (lambda c: c.answer().update(state="failed"), "INV-5: request .* told as failed, and is succeeded"),
    "two answers to one request": (answered_again, "INV-5: request .* was answered in 2 ways"),
    "other outputs of one root": (other_path, "INV-5: output out of .*.drv was told as .* and as "),
    "a client that was told of nothing": (other_path, "INV-3: somebody was told of /nix/store/0{32}-top"),
    "a substitution that nobody told of": (
        lambda c: (later_token(c), c.options.update(upstream=True)), "INV-1: .*top.drv is realised under token 3"),
    "a path with two contents": (
        lambda c: c.sql("INSERT INTO realisation SELECT inhash, 'twin', path, nar_hash, 1, refs, deriver, ca, blob, blob_size, gen "
                        "FROM realisation WHERE path LIKE '%-top'"), "INV-4: .*-top has 2 contents"),
    "a derivation that runs on two machines at a time": (
        lambda c: c.runs("slow", None, "elsewhere"), "INV-1t: slow ran on .* and on elsewhere at a time|INV-1t: slow ran on elsewhere and on"),
    "a builder whose attempt is long over": (lambda c: c.runs("slow", None, late_ms=600_000), "INV-11: slow runs on"),
    "a builder that is left at the end": (
        lambda c: (c.runs("slow", None), c.processes.pop()), r"INV-11: at the end there are still processes of \['slow'\]"),
    "an output that stock Nix makes otherwise": (lambda c: c.as_stock("slow", narSize=1), "INV-16: /nix/store/.*-slow is .* stock Nix's is"),
    "an output that only stock Nix has": (
        lambda c: c.as_stock("slow", path="/nix/store/" + "0" * 32 + "-slow"), "INV-3: /nix/store/0{32}-slow, which stock Nix has built, was not"),
    "an answer that is not realised": (
        lambda c: c.sql("UPDATE realisation SET nar_size = nar_size + 1 WHERE path LIKE '%-top'"), "INV-3: request .* not realised like that"),
}


class Checker(farm.TestCase):
    def copy(self, node, evidence, name):
        place = self.scratch.file("copies", re.sub(r"\W", "-", name))
        os.makedirs(os.path.join(place, "keys"))
        shutil.copytree(os.path.join(node.state, "cache"), os.path.join(place, "cache"))
        shutil.copy(os.path.join(node.state, "keys/cache.public"), os.path.join(place, "keys"))
        for part in ("", "-wal"):
            with contextlib.suppress(FileNotFoundError):
                shutil.copy(os.path.join(node.state, "ledger.sqlite" + part), place)
        return Copy(place, *evidence)

    def test_each_planted_fault_is_found_and_named(self):
        node = farm.Farm(self.scratch).start().record()
        farm.write(self.scratch.file("work", "data"), "of a source\n")
        drv, = self.instantiate(GRAPH)
        bad, refers = self.instantiate('[ (step "bad" "exit 1") (step "refers" "echo ${step "to" "echo > $out"} > $out") ]', name="more")
        ends = [self.ends_with(node.build(d, "--json"), code) for d, code in ((drv, OK), (drv, OK), (bad, FAILED), (refers, OK))]
        wait_until("all is written down", lambda: len(node.recorded("request_ended")) == 4)
        checker = node.history(*ends)
        rows = lambda option: [json.loads(line) for i, word in enumerate(checker) if checker[i - 1] == option for line in farm.read(word).splitlines()]
        evidence = [rows("--events"), rows("--attempts"), rows("--answers")]
        self.assertEqual(node.stop().code, 0)
        done = self.ends_with(self.scratch.run([sys.executable, *checker]), 0)
        self.assertRegex(done.out, f"^0 faults in 4 requests, {DERIVATIONS + 3} attempts, {DERIVATIONS + 2} outputs, 1 sources, .* 8 answers, ")
        for name, (plant, says) in PLANTED.items():
            with self.subTest(name):
                tampered = self.copy(node, evidence, name)
                plant(tampered)
                self.assertRegex("\n".join(tampered.faults()), says)
        lost = self.copy(node, evidence, "lost on purpose")
        PLANTED["a second success"][0](lost)
        lost.options["lost"] = [drv]
        self.assertEqual(lost.faults(), [])
        sound = self.copy(node, evidence, "as it should be")
        sound.runs("slow", None)
        sound.as_stock("slow")
        self.assertEqual(sound.faults(), [])
        substituted = self.copy(node, evidence, "substituted")
        later_token(substituted)
        substituted.options["upstream"] = True
        substituted.tell_again(substituted.event("attempt_ended", "top.drv"), event="substituted")
        self.assertEqual(substituted.faults(), [])
        broken = self.copy(node, evidence, "a file that is damaged")
        with open(broken.file("ledger.sqlite"), "r+b") as f:
            f.write(b"no ledger at all")
        done = self.ends_with(self.scratch.run([sys.executable, farm.CHECKER, broken.state]), 1)
        self.assertIn("cannot read what the farm left behind", done.err)


class Kept(farm.TestCase):
    def test_a_hub_on_a_machine_of_its_own_keeps_its_promises_though_it_is_killed_and_stopped_in_the_middle(self):
        net = Network(1)
        self.addCleanup(net.close)
        node = Hub(self.scratch, net.machine(1)).start().record()
        self.assertEqual((node.ready["node"], node.ready["listen"]), ("hub", "tcp://10.77.0.1:5000"))
        farm.write(self.scratch.file("work", "data"), "of a source\n")
        drv, = self.instantiate(GRAPH)
        client = node.build(drv, "--json", start=True)
        wait_until("the slow one is being built", lambda: "slow" in [farm.drv_name(e["drv"]) for e in node.recorded("attempt_started")])
        node.kill()
        node.start()
        node.pause()
        asking = node.start_coppice("status", "--json")
        wait_until("it is stopped", lambda: "\nState:\tT" in farm.read(f"/proc/{node.daemon.pid}/status"))
        self.assertTrue(asking.running())
        node.resume()
        self.ends_with(asking.end(), OK)
        ends = [self.ends_with(client.end(), OK), self.ends_with(node.build(drv, "--json"), OK)]
        self.assertEqual(ends[0].out, ends[1].out)
        self.assertIn(b"nix/store", node.http("nix-cache-info"))
        self.assertRegex(self.promises_kept(node, *ends), f"0 faults in 2 requests, {DERIVATIONS + 1} attempts")


if __name__ == "__main__":
    farm.main()

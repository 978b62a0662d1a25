"""A farm of a hub and two members, each in a network of its own, that builds while something bad happens to it; then what
it has made is compared with what stock Nix makes of the same derivations, and all that was recorded with what is promised
(check_history.py)."""

import contextlib
import functools
import json
import os
import time
import unittest

import farm
from farm import OK, Hub, Nix, Scratch
from net import Network
from process_history import Recorder, is_frozen

wait_until = functools.partial(farm.wait_until, every=0.2)  # most conditions start a program

HUB, ELM, OAK, OUTSIDE = 1, 2, 3, 4  # outside are clients
PORT, HTTP_PORT = 5000, 8080
SLOW = 'features = ["slow"]\n'  # of members: what is held may be built there, and not on the hub
GRACE_S = 0.5
TTL_S = 6  # a lease that is not renewed ends after it


def lease(ttl_s):
    return f'[lease]\nttl = "{ttl_s} s"\nrenew = "500 ms"\nguard = "200 ms"\nfreeze_max = "10 min"\n[limits]\nkill_grace = "500 ms"\n'


LEASE = lease(TTL_S)
# a build is tried again at once, and no death of a machine is ever the derivation's fault here
FAILURES = '[failures]\nattempts_max = 1000\npoison_max = 1000\nretry_first = "100 ms"\nretry_max = "1 s"\n'

# Layers that refer to all below, no two with the same contents; outputs of more than one name, a fixed one. What is `held` is being built until it is let
# go, and has two megabytes to be uploaded.
GRAPH = '''let
  fixed = make { outputHashMode = "flat"; outputHashAlgo = "sha256";
                 outputHash = builtins.hashString "sha256" "fixed\\n"; } "fixed" "echo fixed > $out";
  row = n: below: map (i: make { outputs = [ "out" "dev" ]; } "s-${toString n}-${toString i}"
    "sleep 0.5; mkdir $out; seq ${toString (10 * n + i)} 20000 > $out/numbers; ln -s numbers $out/link; echo ${toString below} $out > $dev") [ 1 2 3 4 ];
  rows = n: if n == 0 then [ ] else row n (map (s: s.dev) (rows (n - 1)));
  held = make { requiredSystemFeatures = [ "slow" ]; } "held"
    "echo words; sleep 100000 || true; mkdir $out; seq 300000 > $out/numbers; echo ${fixed} $out > $out/refs";
in step "top" "echo ${held} ${toString (map (s: s.dev) (rows 3))} > $out"'''


def requisites(nix, drv):
    return [p for p in nix.lines("nix-store", "--query", "--requisites", drv) if p.endswith(".drv")]


class Stock:
    """What stock Nix makes of a graph: its derivation, and a file with `path-info` of all outputs."""

    def __init__(self, nix, drv, at_work=lambda: None):
        """`drv`: as a path in /nix/store; calls at_work() again and again while Nix builds."""
        self.drv = nix.real(drv)
        begun = time.monotonic()
        build = nix.scratch.start(["nix-store", "--realise", drv, "--max-jobs", "8"], nix.env)
        while build.running():
            at_work()
            time.sleep(0.05)
        if build.end().code != 0:
            raise AssertionError(str(build.end()))
        self.seconds = time.monotonic() - begun
        self.graph = requisites(nix, drv)
        outputs = nix.lines("nix-store", "--query", "--outputs", *self.graph)
        self.infos = json.loads(nix.run("nix", "path-info", "--json", *outputs).out)
        self.file = nix.scratch.file("out", "stock")
        self.expect_all_but()

    def expect_all_but(self, *names):
        """The farm is to make what Nix has made but for these."""
        expected = [info for info in self.infos if farm.drv_name(info.get("deriver", "")) not in names]
        farm.write(self.file, json.dumps(expected) + "\n")

    def outputs(self, name):
        """Of the derivation of that name."""
        return [info["path"] for info in self.infos if farm.drv_name(info["deriver"]) == name]


class Chaos(farm.TestCase):
    """`self.hub`, and members `self.elm` and `self.oak`, which serve; `self.stock` is GRAPH, which stock Nix has built once
    for all tests of a class."""

    GRAPH = GRAPH
    MORE = ""  # settings of all nodes
    LEASE = LEASE
    FAILURES = FAILURES
    JOBS = 2  # of each node
    TEMPORARY = ("running", "uploads", "kept", "spool", "local/staging", "cache/.tmp")  # below a node's state

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        scratch = Scratch()
        cls.addClassCleanup(scratch.close)
        cls.stock_word = farm.new_word()
        cls.stock = cls.built_by_stock_nix(scratch, Nix(scratch, settings={"system-features": "slow"}))

    @classmethod
    def built_by_stock_nix(cls, scratch, nix):
        test = cls("setUp")
        test.scratch, test.word = scratch, cls.stock_word
        drv, = nix.instantiate(test.expression(cls.GRAPH))
        return Stock(nix, "/nix/store/" + farm.base_name(drv), lambda: test.end_sleepers(0))

    def setUp(self):
        super().setUp()
        self.word = self.stock_word
        self.net = Network(OUTSIDE)
        self.addCleanup(self.net.close)
        self.before_hub()
        settings = self.MORE + self.LEASE + self.FAILURES
        self.hub = Hub(self.scratch, self.net.machine(HUB), settings=settings, jobs=self.JOBS).start().record()
        self.elm, self.oak = (self.hub.member(self.net.machine(number), name, SLOW + self.MORE + self.LEASE, self.JOBS).start()
                              for number, name in ((ELM, "elm"), (OAK, "oak")))
        wait_until("both offer themselves", lambda: {"elm", "oak"} <= self.online())
        self.nodes = {"hub": self.hub, "elm": self.elm, "oak": self.oak}
        self.numbers = {"hub": HUB, "elm": ELM, "oak": OAK}
        self.recorder = Recorder(self.word, lambda: {n.daemon.pid: name for name, n in self.nodes.items()},
                                 self.scratch.file("out", "processes"))
        self.recorder.start()
        self.addCleanup(self.recorder.stop)

    def before_hub(self):
        """Prepares self.scratch.file("hub"), where the hub's state will be."""

    def online(self):
        """The names of the machines that offer themselves."""
        return {row["node"] for row in self.hub.admin("nodes", "--json").json() if row["online"]}

    def attempts_of(self, name):
        """(node, result) of the attempts at the derivations of that name, oldest first."""
        return [(a["node"], a["result"]) for a in self.hub.attempts() if farm.drv_name(a["drv"]) == name]

    def waits_for_the_store(self):
        """(name, node) of the derivations whose outputs could not be uploaded."""
        rows = self.ends_with(self.hub.admin("partial", "list", "--json"), OK).json()
        return [(farm.drv_name(row["drv"]), row["node"]) for row in rows if "again: " in row["doing"]]

    def begin(self):
        """The client of a build of GRAPH of which `held` has begun, the name of the member that holds it, and that of the
        other."""
        client = self.hub.build(self.stock.drv, "--json", start=True)
        running = wait_until("held is being built", lambda: [n for n, result in self.attempts_of("held") if result == "running"])
        wait_until("its builder runs", self.sleepers)
        return client, running[0], "oak" if running[0] == "elm" else "elm"

    def holder(self):
        """(pid, start time) of the builder that sleeps."""
        return self.sleepers()[0]

    def frozen(self, sleeper):
        return is_frozen(sleeper[0])

    def let_go(self, client, code=OK):
        """Whatever is held goes on, whenever it is held, until the client has ended."""
        wait_until("the build is over", lambda: self.end_sleepers(0) or not client.running())
        return self.ends_with(client.end(), code)

    def outputs_are_right(self, client, *answers, told=(), code=OK):
        """The build ends; nothing of it is left anywhere; all nodes end as they should; and the checker finds no fault.
        Gives what the checker has looked at."""
        done = self.let_go(client, code)
        self.nothing_is_left()
        self.recorder.stop()
        for name, node in self.nodes.items():
            if name != "hub" and node.alive():
                self.ends_with(node.stop(), 0)
        told = ["--processes", self.recorder.file, "--stock", self.stock.file, *told]
        return self.promises_kept(self.hub, done, *answers, told=told)

    def nothing_is_left(self):
        """No builder, lock, temporary file, kept output or log that was not stored, on any machine that serves."""
        def rest():
            here = [f"builder {c}" for c in farm.with_word(self.word).values() if "coppice-admin" not in c]
            here += [f"lock {row}" for row in self.ends_with(self.hub.admin("locks", "--json"), OK).json()]
            for name, node in self.nodes.items():
                if not node.alive():
                    continue
                here += [f"actor {p}" for p in node.actors() if "/work/workers/" in p or "/work/uploads/" in p]
                for folder in self.TEMPORARY:
                    found = os.path.join(node.state, folder)
                    with contextlib.suppress(FileNotFoundError):
                        here += [f"{name}: {folder}/{file}" for file in os.listdir(found)]
            return here

        try:
            wait_until("nothing is left", lambda: not rest(), 60)
        except AssertionError:
            self.fail("left behind:\n" + "\n".join(rest()))



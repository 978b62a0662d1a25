"""A node, its clients and a stock Nix for tests of the whole. Everything lives below one scratch directory, everything
started is ended by its pid, and when a test fails the end of each daemon's log is shown.

The programs are those in the directory $COPPICE_BIN (build/bin)."""

import atexit
import contextlib
import functools
import json
import os
import secrets
import shutil
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import urllib.request

from check_history import hash_bytes  # also for those who import it from here

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BIN = os.path.abspath(os.environ.get("COPPICE_BIN", os.path.join(ROOT, "build/bin")))
CHECKER = os.path.join(ROOT, "tests/support/check_history.py")
SANDBOX_PATHS = ["/usr", "/bin", "/lib", "/lib64"]
SYSTEM = "x86_64-linux"

PATIENCE_S = 300  # for whatever must happen at all; no test is about speed
BUILDERS_GONE_S = 5  # promised: after this no builder of a dead or cancelled build is left

OK, FAILED, USAGE, UNREACHABLE, CANCELLED = 0, 1, 2, 3, 4  # exit codes of coppice
GAVE_UP, LOCKED = 70, 73  # and of coppiced

# Even a killed test leaves nothing running. A program of its own: a preexec_fn may hang in a process with threads.
END_WITH_PARENT = [shutil.which("setpriv") or "setpriv", "--pdeathsig", "KILL", "--"]


def wait_until(what, condition, seconds=PATIENCE_S, every=0.05):
    """The condition's first true value."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(every)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def read(path):
    with open(path, encoding="utf-8", errors="replace") as f:
        return f.read()


def write(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)
    return path


def base_name(path):
    return path.rsplit("/", 1)[-1]


def real_sources():
    """The sources of bench/workloads/real; fetched if $COPPICE_REAL_SOURCES does not name them."""
    given = os.environ.get("COPPICE_REAL_SOURCES")
    sources = given or os.path.join(ROOT, "build", "real-sources")
    if not given:
        script = os.path.join(ROOT, "bench/workloads/real/fetch-sources.sh")
        subprocess.run([script, sources], check=True, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    return sources


def prometheus_dir():
    """Where the programs prometheus and promtool are; fetched if $COPPICE_PROMETHEUS does not name it."""
    given = os.environ.get("COPPICE_PROMETHEUS")
    found = given or os.path.join(ROOT, "build", "prometheus")
    if not given:
        script = os.path.join(ROOT, "tests/support/fetch-prometheus.sh")
        subprocess.run([script, found], check=True, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    return found


# --- processes


def _words(pid, what):
    with open(f"/proc/{pid}/{what}", "rb") as f:
        return f.read().replace(b"\0", b" ").decode(errors="replace")


def processes():
    """{pid: (parent, start time, command line)} of all processes but zombies."""
    found = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as f:
                fields = f.read().rpartition(b")")[2].split()
            command = _words(name, "cmdline")
        except OSError:
            continue  # it has just ended
        if fields[0] not in (b"Z", b"X"):
            found[int(name)] = (int(fields[1]), int(fields[19]), command)
    return found


def descendants(pid):
    """{(pid, start time): command line} of all below that process."""
    everyone = processes()
    below, found = {pid}, {}
    while True:
        more = {p for p, (parent, _, _) in everyone.items() if parent in below} - below
        if not more:
            return found
        below |= more
        found.update({(p, everyone[p][1]): everyone[p][2] for p in more})


def with_word(word):
    """{(pid, start time): command line} of the processes that have this word in their command line or environment."""
    def has(pid, command):
        try:
            return word in command or word in _words(pid, "environ")
        except OSError:  # it has just ended
            return False

    return {(p, start): command for p, (_, start, command) in processes().items() if has(p, command)}


def resident_kib(pid):
    """Memory that a process has."""
    return next(int(line.split()[1]) for line in read(f"/proc/{pid}/status").splitlines() if line.startswith("VmRSS:"))


def new_word():
    """Unlike any other, and good as a name."""
    return "coppice" + secrets.token_hex(6)


def still_there(some):
    now = {(p, start) for p, (_, start, _) in processes().items()}
    return {who: command for who, command in some.items() if who in now}


# --- the farm


class Done:
    """How a program ended."""

    def __init__(self, argv, code, out, err):
        self.argv, self.code, self.out, self.err = argv, code, out, err

    def __str__(self):
        return f"$ {' '.join(self.argv)}\n{self.out}{self.err}(exit code {self.code})"

    def json(self):
        return [json.loads(line) for line in self.out.splitlines()]


class Running:
    """A program that was started and whose output goes to files."""

    def __init__(self, argv, env, cwd, out, err, inside):
        self.argv, self.out_file, self.err_file = argv, out, err
        with open(out, "wb") as o, open(err, "ab") as e:
            self.process = subprocess.Popen([*END_WITH_PARENT, *inside, *argv], env=env, cwd=cwd, stdin=subprocess.DEVNULL,
                                            stdout=o, stderr=e)
        self.pid = self.process.pid

    def out(self):
        return read(self.out_file)

    def err(self):
        return read(self.err_file)

    def running(self):
        return self.process.poll() is None

    def send(self, number):
        self.process.send_signal(number)

    def end(self, seconds=PATIENCE_S):
        """Waits for its end."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"has not ended after {seconds} s: {Done(self.argv, None, self.out(), self.err())}") from None
        return Done(self.argv, self.process.returncode, self.out(), self.err())

    def kill(self):
        if self.running():
            self.process.kill()
        self.process.wait()


class Scratch:
    """A directory that others may enter (builders of root run as another user), and programs started in it."""

    def __init__(self):
        self.path = os.path.realpath(tempfile.mkdtemp(prefix="coppice-test-"))
        os.chmod(self.path, 0o755)
        self.started, self.count, self.lock = [], 0, threading.Lock()
        atexit.register(self.close)  # unittest has no cleanup for a test that is interrupted
        self.env = {k: v for k, v in os.environ.items()
                    if not k.lower().endswith("_proxy") and not k.startswith(("NIX_", "COPPICE_", "XDG_"))}
        for name in ("home", "cache", "data", "work", "out"):
            os.mkdir(self.file(name))
        self.env.update(HOME=self.file("home"), XDG_CACHE_HOME=self.file("cache"), XDG_DATA_HOME=self.file("data"), LC_ALL="C.UTF-8")

    def file(self, *parts):
        return os.path.join(self.path, *parts)

    def start(self, argv, env=None, inside=()):
        """`inside`: what enters the machine of a network that it shall run on."""
        with self.lock:
            self.count += 1
            name = f"{self.count}-{os.path.basename(argv[0])}"
        program = Running(list(argv), {**self.env, **(env or {})}, self.file("work"), self.file("out", name + ".out"),
                          self.file("out", name + ".err"), inside)
        self.started.append(program)
        return program

    def run(self, argv, env=None, seconds=PATIENCE_S, inside=()):
        return self.start(argv, env, inside).end(seconds)

    def close(self):
        atexit.unregister(self.close)
        for program in reversed(self.started):
            program.kill()
        for folder, dirs, _ in os.walk(self.path):  # store objects are read-only
            for name in dirs:
                sub = os.path.join(folder, name)
                if not os.path.islink(sub):
                    os.chmod(sub, stat.S_IRWXU)
        shutil.rmtree(self.path, ignore_errors=True)


class Farm:
    """A state directory, the coppiced that serves from it, and clients of it, all on this machine or on `machine` of a
    network (net.py)."""

    def __init__(self, scratch, state=None, settings="", listen="tcp://127.0.0.1:0", http="127.0.0.1:0", jobs=2, machine=None):
        self.scratch, self.machine = scratch, machine
        self.inside = machine.inside if machine else ()
        self.state = state or scratch.file("state")
        self.argv = [os.path.join(BIN, "coppiced"), "--state-dir", self.state, "--listen", listen, "--http", http,
                     "--max-jobs", str(jobs), "--ready-json"]
        for path in SANDBOX_PATHS:
            self.argv += ["--sandbox-path", path]
        if settings:
            self.argv += ["--config", write(self.state + ".toml", settings)]
            os.chmod(self.state + ".toml", 0o600)
        self.daemon, self.ready, self.recorder = None, None, None

    def start(self):
        """Starts coppiced and waits until it serves."""
        self.daemon = self.scratch.start(self.argv, inside=self.inside)
        wait_until("coppiced says that it is ready", lambda: self.daemon.out().endswith("\n") or not self.daemon.running())
        if not self.daemon.running():
            raise AssertionError(f"coppiced ended: {self.daemon.end()}")
        self.ready = json.loads(self.daemon.out())
        return self

    def kill(self):
        """kill -9"""
        self.daemon.kill()

    def pause(self):
        """SIGSTOP: it neither hears nor says anything."""
        self.daemon.send(signal.SIGSTOP)

    def resume(self):
        self.daemon.send(signal.SIGCONT)

    def stop(self):
        """SIGTERM; how it ended."""
        self.daemon.send(signal.SIGTERM)
        return self.daemon.end()

    def alive(self):
        return self.daemon is not None and self.daemon.running()

    def http(self, path):
        def get():
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with opener.open(f"{self.ready['http']}/{path}", timeout=60) as reply:
                return reply.read()

        return self.machine.call(get) if self.machine else get()

    def narinfo(self, path):
        """The binary cache's narinfo of a store path, as a dict; references as a sorted list."""
        text = self.http(base_name(path)[:32] + ".narinfo").decode()
        info = dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)
        info["References"] = sorted(info.get("References", "").split())
        return info

    def client(self, tool, *words):
        return [os.path.join(BIN, tool), *words, "--state-dir", self.state]

    def start_coppice(self, *words, env=None):
        return self.scratch.start(self.client("coppice", *words), env, self.inside)

    def coppice(self, *words, env=None):
        return self.scratch.run(self.client("coppice", *words), env, inside=self.inside)

    def admin(self, *words):
        return self.scratch.run(self.client("coppice-admin", *words), inside=self.inside)

    def build(self, *words, start=False):
        """coppice build that leaves the outputs at the farm."""
        argv = ("build", *words, "--no-fetch", "--no-link")
        return self.start_coppice(*argv) if start else self.coppice(*argv)

    def submit(self, *words):
        """The id of a submitted request."""
        done = self.coppice("submit", *words)
        if done.code != OK:
            raise AssertionError(f"not accepted: {done}")
        return done.out.strip()

    def attempts(self):
        """All attempts so far, oldest first."""
        done = self.admin("attempts", "--json", "-n", "100000")
        if done.code != OK:
            raise AssertionError(str(done))
        return done.json()[::-1]

    def attempts_at(self, name):
        """Results of the attempts at the derivations of that name."""
        return [a["result"] for a in self.attempts() if drv_name(a["drv"]) == name]

    def record(self):
        """Has all events written down from the first on, also when the daemon is killed and started again."""
        follow = self.client("coppice-admin", "events", "-f", "--json", "--since", "0", "--patience", str(PATIENCE_S))
        self.recorder = self.scratch.start(follow, inside=self.inside)
        return self

    def recorded(self, kind):
        """Events of that kind that were written down so far."""
        lines = self.recorder.out().splitlines(keepends=True) if self.recorder else []
        return [event for event in (json.loads(line) for line in lines if line.endswith("\n")) if event["event"] == kind]

    def history(self, *answers):
        """The command line of the offline checker for all that happened so far: `answers` are ends of clients that printed
        JSON, besides what the node itself tells now of attempts and requests."""
        argv = [CHECKER, self.state]
        if self.recorder:
            argv += ["--events", self.recorder.out_file]
        told = [("--attempts", self.admin("attempts", "--json", "-n", "100000")), ("--answers", self.admin("requests", "--json", "-n", "100000"))]
        for option, done in told + [("--answers", done) for done in answers]:
            argv += [option, write(self.scratch.file("out", f"told-{secrets.token_hex(4)}"), done.out)]
        return argv

    def status(self, request):
        done = self.coppice("status", request, "--json")
        if done.code != OK:
            raise AssertionError(str(done))
        return done.json()[0]

    def actors(self):
        """{path: status} of all actors."""
        done = self.admin("tree", "--json")
        if done.code != OK:
            raise AssertionError(str(done))
        found = {}

        def walk(branch):
            found[branch["path"]] = branch
            for child in branch["children"]:
                walk(child)

        walk(done.json()[0])
        return found

    def ledger(self, query):
        """Rows of the ledger; only while the daemon does not run."""
        with sqlite3.connect(f"file:{self.state}/ledger.sqlite", uri=True) as db:
            return db.execute(query).fetchall()


class OnMachine(Farm):
    """A node on a machine of a network: where it serves stays the same over its lives."""

    def __init__(self, scratch, machine, name, settings, jobs):
        super().__init__(scratch, state=scratch.file(name), settings=settings, jobs=jobs, machine=machine,
                         listen=f"tcp://{machine.address}:5000", http=f"{machine.address}:8080")


class Hub(OnMachine):
    """The node that keeps the ledger."""

    def __init__(self, scratch, machine, name="hub", settings="", jobs=2):
        super().__init__(scratch, machine, name, f'node = "{name}"\n{settings}', jobs)

    def invite(self, name):
        """The settings of a new member."""
        done = self.admin("invite", name)
        if done.code != OK:
            raise AssertionError(str(done))
        return done.out

    def member(self, machine, name, settings="", jobs=2):
        """A node of this farm that is let in, and not yet started."""
        return OnMachine(self.scratch, machine, name, self.invite(name) + settings, jobs)


def drv_name(drv):
    """'/nix/store/<hash>-hello.drv' -> 'hello'"""
    return base_name(drv)[33:].removesuffix(".drv")


class Nix:
    """Stock Nix with a store of its own; objects lie in `store`, named as in /nix/store."""

    def __init__(self, scratch, name="nix", settings=()):
        self.scratch = scratch
        self.root = scratch.file(name, "root")
        self.store = os.path.join(self.root, "nix/store")
        conf = {
            "build-users-group": "", "substituters": "", "sandbox": "true", "sandbox-fallback": "false",
            "sandbox-paths": " ".join(SANDBOX_PATHS), "max-jobs": "2", "cores": "1", "require-sigs": "true",
            "trusted-public-keys": "", "experimental-features": "nix-command ca-derivations",
            "system-features": "big-parallel kvm nixos-test benchmark", **dict(settings),
        }
        write(scratch.file(name, "conf/nix.conf"), "".join(f"{k} = {v}\n" for k, v in conf.items()))
        os.makedirs(self.root)
        self.env = {"NIX_CONF_DIR": scratch.file(name, "conf"), "NIX_USER_CONF_FILES": "", "NIX_REMOTE": f"local?root={self.root}"}

    def run(self, *argv, check=True, seconds=PATIENCE_S):
        done = self.scratch.run(list(argv), self.env, seconds)
        if check and done.code != 0:
            raise AssertionError(str(done))
        return done

    def lines(self, *argv):
        return self.run(*argv).out.split()

    def real(self, path):
        return os.path.join(self.store, base_name(path))

    def instantiate(self, *argv):
        """The .drv files, where they really lie."""
        return [self.real(line.split("!")[0]) for line in self.lines("nix-instantiate", *argv)]


class TestCase(unittest.TestCase):
    """A scratch directory per test, and logs when it fails."""

    maxDiff = None

    def run(self, result=None):
        self.logs = []
        result = result if result is not None else self.defaultTestResult()
        bad = len(result.failures) + len(result.errors)
        super().run(result)
        if len(result.failures) + len(result.errors) > bad:
            for name, text in self.logs:
                print(f"--- end of the log of {name} in {self.id()}\n{text}", file=sys.stderr)
        return result

    def setUp(self):
        self.scratch = Scratch()
        self.word = new_word()
        self.addCleanup(self.scratch.close)
        self.addCleanup(self._keep_logs)

    @functools.cached_property
    def nix(self):
        return Nix(self.scratch, "eval")

    def keep_log(self, daemon):
        """Shows the end of this log alone if the test fails, not those of all daemons."""
        self.logs.append((f"coppiced {daemon.pid}", "\n".join(daemon.err().splitlines()[-60:])))

    def _keep_logs(self):
        if not self.logs:
            for program in self.scratch.started:
                if base_name(program.argv[0]) == "coppiced":
                    self.keep_log(program)

    def new_farm(self, **options):
        return Farm(self.scratch, **options).start()

    def expression(self, text, name="graph", word=None):
        """A file with that Nix expression, in which `step NAME SCRIPT` is a derivation and `word` (the test's own, if
        none is given) is unlike any other: the processes of its builders are found by it."""
        head = f'''let
  word = "{word or self.word}";
  make = more: name: script: derivation ({{
    inherit name; system = "{SYSTEM}"; builder = "/bin/sh"; args = [ "-ec" script ]; PATH = "/usr/bin:/bin"; inherit word;
  }} // more);
  step = make {{ }};
in
'''
        return write(self.scratch.file("work", name + ".nix"), head + text)

    def instantiate(self, text, *argv, name="graph", word=None):
        """The .drv files of an expression, in a store of their own."""
        return self.nix.instantiate(self.expression(text, name, word), *argv)

    def ends_with(self, done, code):
        self.assertEqual(done.code, code, str(done))
        return done

    def still_serves(self, farm):
        """After something went wrong: the same daemon builds."""
        self.assertTrue(farm.alive(), "coppiced has ended")
        name = "still-" + secrets.token_hex(4)
        self.ends_with(farm.build(*self.instantiate(f'step "{name}" "echo yes > $out"', name=name)), OK)

    def promises_kept(self, farm, *answers, told=()):
        """Stops the daemon, in which the offline checker finds no fault; what it has looked at. `told`: its options for
        what was done on purpose."""
        checker = farm.history(*answers)
        self.ends_with(farm.stop(), 0)
        return self.ends_with(self.scratch.run([sys.executable, *checker, *told]), OK).out

    def builders_gone(self, some, seconds=BUILDERS_GONE_S):
        """None of these processes, and no builder of this test, is left, within the promised time."""
        wait_until(f"builders end: {list(some.values())}",
                   lambda: not still_there(some) and not with_word(self.word), seconds)

    def key_of(self, farm, role):
        """Options that make a command one of a new key with that role."""
        name = role + secrets.token_hex(4)
        key = self.scratch.file(name + ".toml")
        table = self.ends_with(farm.admin("keygen", name, "--role", role, "--out", key), OK).out
        with open(os.path.join(farm.state, "authorized.toml"), "a", encoding="utf-8") as f:
            f.write("\n" + table)
        return "--node", farm.ready["listen"], "--key", key

    def sleepers(self, word=None):
        """(pid, start time) of each `sleep 100000` of a step."""
        return [who for who, command in with_word(word or self.word).items() if command.startswith("sleep 100000")]

    def end_sleepers(self, count=1, word=None):
        """Steps that are at `sleep 100000 || true` go on, as soon as that many are."""
        wait_until(f"{count} steps sleep", lambda: len(self.sleepers(word)) >= count)
        for pid, _ in self.sleepers(word):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def builders(self, farm, count=1, word=None):
        """Waits until that many builders run; all processes below the daemon."""
        wait_until(f"{count} builders run", lambda: len(with_word(word or self.word)) >= count)
        found = descendants(farm.daemon.pid)
        self.assertTrue(set(found) & set(with_word(word or self.word)), "builders are not below coppiced")
        return found


def main():
    for name in ("coppiced", "coppice", "coppice-admin", "coppice-exec", "coppice-fetch", "coppice-jail"):
        if not os.access(os.path.join(BIN, name), os.X_OK):
            sys.exit(f"there is no {name} in {BIN}; name the directory of the programs in COPPICE_BIN")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    unittest.main(verbosity=2)

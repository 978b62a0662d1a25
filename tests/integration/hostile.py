"""Builders that mean harm end in the class of what they did, harm nobody else, and leave nothing behind."""

import os
import subprocess
import sys
import threading
import unittest
import urllib.request

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import farm
from farm import FAILED, OK, wait_until

MIB = 1 << 20

# Hogs that are bounded also where nobody stops them.
FORK_BOMB = '''
import os, time
for _ in range(100000):
    try:
        os.fork()
    except OSError:
        time.sleep(0.01)
'''
MEMORY_HOG = '''
import time
hoard = []
for _ in range(1500):
    hoard.append(b"x" * (1 << 20))
    time.sleep(0.01)
'''
DISK_HOG = '''
import time
with open("big", "wb") as f:
    for _ in range(700):
        f.write(b"x" * (1 << 20))
        f.flush()
        time.sleep(0.005)
time.sleep(1000)
'''
FILE_HOG = '''
import os, time
for i in range(1000000):
    if i % 1000 == 0:
        os.mkdir(f"../../build/{i}")
        os.chdir(f"/build/{i}")
    open(str(i), "w").close()
time.sleep(1000)
'''
STUBBORN = '''
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.setsid()
    time.sleep(1000)
time.sleep(1000)
'''


def settings(cgroups=True, **limits):
    return "[limits]\n" + f"cgroups = {str(cgroups).lower()}\n" + "".join(f"{k} = {v}\n" for k, v in limits.items())


def memory_bytes(pid):
    with open(f"/proc/{pid}/status", encoding="utf-8") as f:
        return next(int(line.split()[1]) * 1024 for line in f if line.startswith("VmRSS:"))


class Peak(threading.Thread):
    """The most memory that a process has while this runs."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.pid, self.over, self.bytes = pid, threading.Event(), 0

    def run(self):
        while not self.over.wait(0.02):
            self.bytes = max(self.bytes, memory_bytes(self.pid))

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.join()


class Hostile(farm.TestCase):
    def python(self, name, script):
        """A builder that runs a Python script in /build."""
        return self.instantiate(f"""make {{ script = ''{script}''; }} "{name}" ''exec python3 -c "$script"''""", name=name)[0]

    def ends_as(self, node, drv, kind, *figures):
        """It fails in that class, with these figures in its message, while another build succeeds and the node
        answers; then nothing of it is left."""
        hostile = node.build(drv, "--json", start=True)
        wait_until("the builder runs", lambda: farm.with_word(self.word) or not hostile.running())
        self.still_serves(node)
        self.assertEqual(node.admin("tree").code, OK)
        done = self.ends_with(hostile.end(), FAILED)
        root, = done.json()
        self.assertEqual(root["result"], kind, str(done))
        for figure in figures:
            self.assertIn(str(figure), done.err)
        self.assertEqual(set(node.attempts_at(farm.drv_name(drv))), {kind})
        self.nothing_is_left(node)
        self.still_serves(node)
        return done

    def nothing_is_left(self, node):
        self.builders_gone({})
        wait_until("no process below the daemon", lambda: not farm.descendants(node.daemon.pid))
        wait_until("no scratch", lambda: not os.listdir(os.path.join(node.state, "local", "staging")))


class Limits(Hostile):
    def limited(self, **limits):
        return self.new_farm(settings=settings(**limits))

    def test_a_fork_bomb(self):
        node = self.limited(processes_max=60)
        self.ends_as(node, self.python("bomb", FORK_BOMB), "pids", 60, "processes_max")

    def test_a_fork_bomb_where_there_are_no_control_groups(self):
        node = self.limited(cgroups=False, processes_max=60)
        self.ends_as(node, self.python("bomb", FORK_BOMB), "pids", 60, "processes_max")

    def test_a_memory_hog(self):
        node = self.limited(memory_bytes_max=96 * MIB)
        self.ends_as(node, self.python("hog", MEMORY_HOG), "oom", 96 * MIB, "memory_bytes_max")

    def test_a_memory_hog_where_there_are_no_control_groups(self):
        node = self.limited(cgroups=False, memory_bytes_max=96 * MIB)
        self.ends_as(node, self.python("hog", MEMORY_HOG), "oom", 96 * MIB, "memory_bytes_max")

    def test_a_builder_that_fills_the_disk(self):
        node = self.limited(disk_bytes_max=64 * MIB)
        self.ends_as(node, self.python("filler", DISK_HOG), "disk_limit", 64 * MIB, "disk_bytes_max")

    def test_a_builder_that_fills_the_disk_by_its_output(self):
        drv, = self.instantiate('step "filler" "mkdir $out; head -c 300M /dev/zero > $out/big; sleep 1000"')
        node = self.limited(disk_bytes_max=64 * MIB)
        self.ends_as(node, drv, "disk_limit", 64 * MIB, "disk_bytes_max")

    def test_a_million_files(self):
        node = self.limited(files_max=50000)
        self.ends_as(node, self.python("files", FILE_HOG), "disk_limit", 50000, "files_max")

    def test_an_output_that_is_too_large(self):
        drv, = self.instantiate('step "large" "head -c 30M /dev/zero > $out"')
        node = self.limited(nar_bytes_max=20 * MIB)
        self.ends_as(node, drv, "output_limit", 20 * MIB)

    def test_a_builder_that_double_forks_and_ignores_sigterm(self):
        node = self.limited(timeout='"6 s"', kill_grace='"500 ms"')
        self.ends_as(node, self.python("stubborn", STUBBORN), "timed_out", "6 seconds")

    def test_a_silent_builder_that_double_forks_and_ignores_sigterm(self):
        node = self.limited(max_silent='"6 s"', kill_grace='"500 ms"')
        self.ends_as(node, self.python("stubborn", STUBBORN), "silent", "6 seconds")


class Floods(Hostile):
    """Hundreds of megabytes of log, and the daemon's memory stays as it is."""
    LOG_BYTES_MAX = 200 * MIB
    GROWTH_MAX = 48 * MIB  # a build's window of output, its copies on the way, and what an allocator keeps

    def flood(self, script):
        drv, = self.instantiate(f'step "flood" "{script}"')
        node = self.new_farm(settings=settings(log_bytes_max=self.LOG_BYTES_MAX))
        self.still_serves(node)
        before = memory_bytes(node.daemon.pid)
        with Peak(node.daemon.pid) as peak:
            self.ends_as(node, drv, "log_limit", self.LOG_BYTES_MAX)
        self.assertLess(peak.bytes - before, self.GROWTH_MAX)
        url = f"{node.ready['http']}/log/{farm.base_name(drv)}"
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(urllib.request.Request(url, method="HEAD"), timeout=60) as reply:
            self.assertEqual(int(reply.headers["Content-Length"]), self.LOG_BYTES_MAX)

    def test_yes(self):
        self.flood("yes")

    def test_a_line_without_end(self):
        self.flood("cat /dev/zero | tr '\\\\0' x")

    def test_binary(self):
        self.flood("python3 -c 'import os; b = os.urandom(1 << 20)\nwhile True: os.write(1, b)'")


class Machine(Hostile):
    """What the machine keeps for itself. Its disk is a small one of its own."""

    def small_disk(self, size_mib):
        state = self.scratch.file("small")
        os.mkdir(state, 0o755)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_mib}m,mode=755", "tmpfs", state], check=True)
        self.addCleanup(subprocess.run, ["umount", "-l", state], check=True)
        return state

    def reserving(self, state=None, **reserve):
        text = "[limits]\ndisk_bytes_max = 0\nfiles_max = 0\n[limits.reserve]\n"
        return self.new_farm(state=state, settings=text + "".join(f"{k} = {v}\n" for k, v in reserve.items()))

    def pool_is_doing(self, node):
        return next(a["doing"] for path, a in node.actors().items() if path.endswith("/work/worker-pool"))

    def waits_for(self, node, drv, setting):
        """The build waits; the pool, its log and the client say for want of what. Gives the client."""
        client = node.build(drv, start=True)
        wait_until("the client is told", lambda: setting in client.err())
        self.assertIn(setting, self.pool_is_doing(node))
        self.assertEqual(node.daemon.err().count("builds wait: this machine"), 1)
        self.assertEqual(node.attempts(), [])
        return client

    @unittest.skipUnless(os.geteuid() == 0, "mounting needs root")
    def test_a_build_waits_for_disk_and_goes_on_when_there_is_some(self):
        state = self.small_disk(200)
        drv, = self.instantiate('step "small" "echo > $out"')
        node = self.reserving(state, disk_bytes=50 * MIB, disk_free_min=100 * MIB)
        ballast = farm.write(os.path.join(state, "ballast"), "x" * (100 * MIB))
        wait_until("it was measured", lambda: "disk_free_min" in self.pool_is_doing(node))
        client = self.waits_for(node, drv, "disk_free_min")
        os.remove(ballast)
        self.ends_with(client.end(), OK)

    def test_a_build_that_needs_more_memory_than_there_is_waits_until_it_is_cancelled(self):
        drv, = self.instantiate('step "small" "echo > $out"')
        node = self.reserving(memory_bytes='"1000 TiB"')
        client = self.waits_for(node, drv, "memory_bytes")
        client.send(2)
        client.end()
        self.assertEqual(node.attempts(), [])

    @unittest.skipUnless(os.geteuid() == 0, "mounting needs root")
    def test_a_running_build_that_takes_the_last_disk_is_ended_and_tried_again(self):
        state = self.small_disk(300)
        node = self.reserving(state, disk_bytes=1, disk_free_min=100 * MIB)
        request = node.submit(self.python("filler", DISK_HOG))
        wait_until("an attempt to end", lambda: [a for a in node.attempts() if a["result"] != "running"])
        self.assertEqual(node.attempts()[0]["result"], "infra")
        self.assertIn("disk_free_min", node.attempts()[0]["reason"])
        node.coppice("cancel", request)
        self.nothing_is_left(node)
        self.still_serves(node)


class Usage(farm.TestCase):
    def test_what_a_build_used_is_measured_and_kept(self):
        script = "i=0; while [ $i -lt 400000 ]; do i=$((i+1)); done; head -c 50M /dev/zero | tail -c 50M > /dev/null; echo words; echo > $out"
        good, bad = self.instantiate(f'[ (step "good" "{script}") (step "bad" "{script}; exit 1") ]')
        node = self.new_farm()
        node.build(good)
        node.build(bad)
        self.assertEqual([a["result"] for a in node.attempts()], ["success", "build_failed"])
        for attempt in node.attempts():
            self.assertGreater(attempt["cpu_user"] + attempt["cpu_system"], 0.05)
            self.assertGreaterEqual(attempt["wall"], 0.05)
            self.assertGreaterEqual(attempt["memory_peak_bytes"], 50 * MIB)
            self.assertEqual(attempt["log_bytes"], len("words\n"))
        table = node.admin("attempts").out
        self.assertIn("CPU", table)
        self.assertRegex(table, r"5\d\.\d MB")


class IoBound(farm.TestCase):
    def test_fetches_run_beside_builds_and_never_in_their_slots(self):
        drvs = self.instantiate('''let
          local = make { preferLocalBuild = true; };
        in map (n: step "compute-${toString n}" "sleep 1000; echo > $out") [ 1 2 3 ] ++
           map (n: local "local-${toString n}" "sleep 1000; echo > $out") [ 1 2 3 4 ]''')
        node = self.new_farm(settings="[limits]\nio_jobs = 3\n", jobs=2)
        requests = {farm.drv_name(drv): node.submit(drv) for drv in drvs}

        def running():
            return sorted(farm.drv_name(a["drv"]) for a in node.attempts() if a["result"] == "running")

        def next_one_runs(attempts):
            wait_until("all slots are busy", lambda: len(node.attempts()) >= attempts and len(running()) == 5)
            self.assertEqual([name.split("-")[0] for name in running()], ["compute"] * 2 + ["local"] * 3)

        next_one_runs(5)
        for kind, attempts in (("local", 6), ("compute", 7)):
            self.ends_with(node.coppice("cancel", requests[next(n for n in running() if n.startswith(kind))]), OK)
            next_one_runs(attempts)


if __name__ == "__main__":
    farm.main()

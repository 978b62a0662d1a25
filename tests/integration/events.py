"""What happens is told as it happens: to `coppice-admin events`, and by coppice-exporter to a real Prometheus."""

import json
import os
import subprocess
import sys
import urllib.parse
import urllib.request

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import farm
from farm import FAILED, OK

GRAPH = '''let
  leaves = map (i: step "leaf-${toString i}" "echo ${toString i} > $out") [ 0 1 ]; in
  step "top" "cat ${toString leaves} > $out"'''
DERIVATIONS = 3


def get(url):
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=30) as reply:
        return reply.read().decode()


class Stream(farm.TestCase):
    def events(self, node, *words):
        done = self.ends_with(node.admin("events", "--json", *words), OK)
        return done.json()

    def test_each_change_is_told_once_and_in_order(self):
        node = self.new_farm()
        request = node.submit(*self.instantiate(GRAPH))
        self.ends_with(node.coppice("wait", request), OK)
        farm.wait_until("all is published", lambda: self.kinds(self.events(node)).count("published") == DERIVATIONS)
        events = self.events(node)
        self.assertEqual([e["seq"] for e in events], list(range(1, len(events) + 1)))
        self.assertEqual(events[0]["event"], "node_started")
        mine = [e for e in events if not e["event"].startswith(("actor_", "node_"))]
        counts = {kind: self.kinds(mine).count(kind) for kind in self.kinds(mine)}
        each = ("step_waiting", "step_started", "step_ended", "attempt_started", "attempt_ended", "upload_begun", "upload_ended", "published")
        self.assertEqual(counts, {"request_accepted": 1, "request_ended": 1, **dict.fromkeys(each, DERIVATIONS)})
        self.assertEqual(mine[0]["event"], "request_accepted")
        for drv in {e["drv"] for e in mine if "drv" in e}:
            life = [e["event"] for e in mine if e.get("drv") == drv and e["event"].startswith("attempt_") or
                    e.get("drv") == drv and e["event"] == "published"]
            self.assertEqual(life, ["attempt_started", "attempt_ended", "published"], drv)
        self.assertEqual({e["result"] for e in mine if e["event"] == "attempt_ended"}, {"success"})
        # from any number on
        last = events[-4]["seq"]
        self.assertEqual(self.events(node, "--since", str(last)), events[-3:])
        # another numbering is not this one: all of it is told, and that it is new
        self.assertEqual(self.events(node, "--since", str(last), "--epoch", "1"),
                         [{"event": "new_epoch", "epoch": events[0]["epoch"]}, *events])

    def kinds(self, events):
        return [e["event"] for e in events]

    def test_a_follower_goes_on_over_a_kill_of_the_observatory_and_a_restart_of_the_daemon(self):
        node = self.new_farm()
        follower = node.scratch.start(node.client("coppice-admin", "events", "-f", "--json", "--since", "0"))
        heard = lambda: [json.loads(line) for line in follower.out().splitlines(keepends=True) if line.endswith("\n")]
        ended = lambda: [farm.drv_name(e["drv"]) for e in heard() if e["event"] == "attempt_ended"]
        self.ends_with(node.build(*self.instantiate('step "first" "echo 1 > $out"', name="first")), OK)
        farm.wait_until("the first build is told", lambda: ended() == ["first"])
        observatory = next(path for path in node.actors() if path.endswith("/observatory"))
        self.ends_with(node.admin("kill", observatory, "--crash"), OK)
        farm.wait_until("its death and its return are told", lambda: {"actor_died", "actor_restarted"} <= {
            e["event"] for e in heard() if e.get("actor") == observatory})
        self.assertNotIn("new_epoch", self.kinds(heard()))
        node.kill()
        node.start()
        self.ends_with(node.build(*self.instantiate('step "second" "echo 2 > $out"', name="second")), OK)
        farm.wait_until("the second build is told", lambda: ended() == ["first", "second"])
        all_heard = heard()
        breaks = [i for i, e in enumerate(all_heard) if e["event"] == "new_epoch"]
        self.assertEqual(len(breaks), 1)
        before, after = all_heard[:breaks[0]], all_heard[breaks[0] + 1:]
        for numbering in (before, after):
            self.assertEqual([e["seq"] for e in numbering], list(range(1, len(numbering) + 1)))
        self.assertEqual({e["epoch"] for e in after}, {all_heard[breaks[0]]["epoch"]})
        self.assertNotEqual(before[0]["epoch"], after[0]["epoch"])
        lines = self.ends_with(node.admin("events"), OK).out.splitlines()
        self.assertTrue(any("attempt_ended" in line and "second" in line and "success" in line for line in lines), lines)


class Metrics(farm.TestCase):
    def start_exporter(self, node):
        """Its URL."""
        exporter = self.scratch.start([*node.client("coppice-exporter", "--listen", "127.0.0.1:0", "--json")])
        farm.wait_until("the exporter serves", lambda: exporter.out().endswith("\n") or not exporter.running())
        self.assertTrue(exporter.running(), exporter.err())
        return json.loads(exporter.out())["url"]

    def start_prometheus(self, url):
        """How to ask it: a function from a query to {labels: value}."""
        port = farm.free_port()
        target = urllib.parse.urlsplit(url).netloc
        config = farm.write(self.scratch.file("prometheus.yml"), "global: {scrape_interval: 1s, scrape_timeout: 1s}\n"
                            f"scrape_configs: [{{job_name: coppice, static_configs: [{{targets: ['{target}']}}]}}]\n")
        server = self.scratch.start([os.path.join(farm.prometheus_dir(), "prometheus"), f"--config.file={config}",
                                     f"--storage.tsdb.path={self.scratch.file('tsdb')}", f"--web.listen-address=127.0.0.1:{port}"])

        def ask(query):
            try:
                answer = json.loads(get(f"http://127.0.0.1:{port}/api/v1/query?" + urllib.parse.urlencode({"query": query})))
            except OSError:
                self.assertTrue(server.running(), server.err())
                return {}
            rows = answer["data"]["result"]
            own = ("__name__", "instance", "job")
            return {tuple(sorted(v for k, v in row["metric"].items() if k not in own)): float(row["value"][1]) for row in rows}

        return ask

    def test_a_real_prometheus_sees_builds_a_kill_and_a_restart(self):
        node = self.new_farm()
        url = self.start_exporter(node)
        ask = self.start_prometheus(url)

        def becomes(query, value):
            try:
                farm.wait_until(f"{query} is {value}", lambda: ask(query) == value)
            except AssertionError as e:
                raise AssertionError(f"{e}, but {ask(query)}; the exporter says\n{get(url)}") from None

        becomes("coppice_up", {(): 1})
        becomes("coppice_slots_free", {("cpu",): 2, ("io",): 4})
        drvs = self.instantiate(GRAPH)
        self.ends_with(node.build(*drvs), OK)
        self.ends_with(node.build(*drvs), OK)
        self.ends_with(node.build(*self.instantiate('step "wrong" "exit 1"', name="wrong")), FAILED)
        becomes("coppice_builds_total", {("success",): DERIVATIONS, ("build_failed",): 1})
        becomes("coppice_build_duration_seconds_count", {(): DERIVATIONS + 1})
        becomes("coppice_requests_ended_total", {("succeeded",): 2, ("failed",): 1})
        becomes("coppice_cache_hits_total", {("farm",): 1, ("upstream",): 0})
        becomes("coppice_uploads_total", {(): DERIVATIONS})
        self.assertGreater(ask("coppice_uploaded_bytes_total")[()], 0)
        self.assertEqual(ask("coppice_events_lost_total"), {(): 0})

        self.assertEqual(ask("coppice_actor_restarts_total"), {})
        gateway = next(path for path in node.actors() if path.endswith("/coord/gateway"))
        self.ends_with(node.admin("kill", gateway, "--crash"), OK)
        becomes("coppice_actor_restarts_total", {("/coord/gateway",): 1})
        becomes("coppice_actor_deaths_total", {("/coord/gateway",): 1})

        text = get(url)
        self.assertNotIn("leaf", text)  # no names of derivations
        checked = subprocess.run([os.path.join(farm.prometheus_dir(), "promtool"), "check", "metrics"], input=text,
                                 capture_output=True, text=True)
        self.assertEqual((checked.returncode, checked.stdout, checked.stderr), (0, "", ""))

        node.kill()
        becomes("coppice_up", {(): 0})  # and the scrape itself goes on
        self.assertEqual(ask("up"), {(): 1})
        node.start()
        becomes("coppice_up", {(): 1})
        becomes("coppice_node_starts_total", {(): 1})
        self.ends_with(node.build(*self.instantiate('step "later" "echo > $out"', name="later")), OK)
        becomes("coppice_builds_total", {("success",): DERIVATIONS + 1, ("build_failed",): 1})


if __name__ == "__main__":
    farm.main()

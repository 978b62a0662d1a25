"""The ledger in a real etcd: the conformance suite of all ledgers, and what an etcd does to one that is in it."""

import os
import random
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import etcd
import farm
from farm import FAILED, OK
from process_history import is_frozen

HELLO = os.path.join(farm.ROOT, "examples/hello.nix")
TESTS = os.path.join(farm.BIN, "test_unit_store")
SLOW = 'step "slow" "sleep 3; echo done > $out"'
HELD = 'step "held" "sleep 100000 || true; echo done > $out"'  # until end_sleepers()
SHORT_LEASE = '[lease]\nttl = "6 s"\nrenew = "500 ms"\nguard = "200 ms"\n[limits]\nkill_grace = "500 ms"\n'


class Ledger(farm.TestCase):
    """tests/unit/store, over etcd."""

    def conforms(self, cluster, tests, members=None, **env):
        """The test program, started for tests with these tags; it asks so many members, or all."""
        return self.scratch.start([TESTS, tests], env={"COPPICE_TEST_ETCD": ",".join(cluster.endpoints[:members]), **env})

    def test_every_rule_of_the_ledger_holds_in_etcd(self):
        cluster = etcd.Etcd(self.scratch).start()
        self.ends_with(self.conforms(cluster, '[ledger]~[sqlite]~[random],[etcd]').end(), OK)

    def test_compaction_in_the_middle_of_reading_and_writing_does_no_harm(self):
        cluster = etcd.Etcd(self.scratch).start()
        program = self.conforms(cluster, "[etcd-scanned]")
        compactions = 0
        while program.running():
            cluster.ctl("put", "/other", "x")
            compactions += cluster.ctl("compact", str(cluster.revision()), check=False).returncode == 0
            time.sleep(0.05)
        self.ends_with(program.end(), OK)
        self.assertGreater(compactions, 3)

    def test_kill_9_in_the_middle_of_commits_loses_nothing_and_repeats_nothing(self):
        cluster = etcd.Etcd(self.scratch).start()
        program = self.conforms(cluster, "[etcd-killed]", COPPICE_TEST_SECONDS="5")
        kills = 0
        while program.running():
            time.sleep(random.uniform(0.3, 1.0))
            cluster.kill()
            time.sleep(random.uniform(0, 0.5))
            cluster.start_member(0)
            cluster.ready()
            kills += 1
        self.ends_with(program.end(), OK)
        self.assertGreater(kills, 2)

    def test_kill_9_of_leaders_in_the_middle_of_commits_loses_nothing_and_repeats_nothing(self):
        cluster = etcd.Etcd(self.scratch, members=3).start()
        program = self.conforms(cluster, "[etcd-killed]", COPPICE_TEST_SECONDS="5")
        for kills in range(1000):
            if not program.running():
                break
            victim = random.randrange(3)
            cluster.kill(victim)
            time.sleep(random.uniform(0.5, 1.5))
            cluster.start_member(victim)
            cluster.ready()
        self.ends_with(program.end(), OK)
        self.assertGreater(kills, 1)

    def test_a_leader_that_stands_still_in_the_middle_of_commits_and_goes_on_loses_nothing_and_repeats_nothing(self):
        cluster = etcd.Etcd(self.scratch, members=3).start()
        # which asks only the one that stands still: there each time strikes what is being written
        program = self.conforms(cluster, "[etcd-killed]", members=1, COPPICE_TEST_SECONDS="8")
        revision = lambda: cluster.status()[0]["header"]["revision"]
        changes = 0
        while program.running():
            cluster.make_leader(0)
            before = revision()
            farm.wait_until("it commits", lambda: revision() > before or not program.running())
            cluster.pause(0)
            farm.wait_until("another leads", lambda: cluster.leader() is not None)
            time.sleep(random.uniform(0, 2))  # it goes on before its client has given it up, or later
            cluster.resume(0)
            changes += 1
        self.ends_with(program.end(), OK)
        self.assertGreater(changes, 1)


class Node(farm.TestCase):
    """A coppiced with its ledger in etcd."""

    def node_on(self, cluster, name="n1", more="", **options):
        endpoints = ", ".join(f'"{e}"' for e in cluster.endpoints)
        settings = f'node = "{name}"\n[ledger]\netcd = [{endpoints}]\n{more}'
        return farm.Farm(self.scratch, state=self.scratch.file(name), settings=settings, **options)

    def refused(self, node):
        """How a coppiced ends that cannot start."""
        return self.scratch.start(node.argv).end()

    def test_what_is_built_is_in_etcd_and_not_in_the_state_directory(self):
        cluster = etcd.Etcd(self.scratch).start()
        node = self.node_on(cluster).start()
        self.ends_with(node.coppice("build", HELLO), OK)
        self.assertFalse(os.path.exists(os.path.join(node.state, "ledger.sqlite")))
        node.kill()
        node.start()
        done = self.ends_with(node.coppice("build", HELLO), OK)
        self.assertIn("0 built, 1 reused", done.err)
        self.assertEqual([a["result"] for a in node.attempts()], ["success"] * 4)
        kinds = {key.split("/")[2] for key in cluster.ctl("get", "/coppice/", "--prefix", "--keys-only").stdout.split()}
        self.assertLessEqual({"meta", "writer", "lock", "attempt", "request", "blob", "session"}, kinds)

    def test_a_request_goes_on_after_kill_9_of_node_and_etcd_at_once(self):
        cluster = etcd.Etcd(self.scratch).start()
        node = self.node_on(cluster).start()
        request = node.submit(*self.instantiate(SLOW))
        farm.wait_until("it is being built", lambda: node.attempts_at("slow") == ["running"])
        cluster.kill()
        node.kill()
        cluster.start()
        node.start()
        self.ends_with(node.coppice("wait", request), OK)
        self.assertEqual(node.attempts_at("slow").count("success"), 1)

    def test_a_build_outlasts_a_restart_of_etcd(self):
        cluster = etcd.Etcd(self.scratch).start()
        node = self.node_on(cluster).start()
        build = node.build(*self.instantiate(SLOW), start=True)
        farm.wait_until("it is being built", lambda: node.attempts_at("slow") == ["running"])
        cluster.kill()
        time.sleep(1)
        cluster.start()
        self.ends_with(build.end(), OK)
        self.assertEqual(node.attempts_at("slow"), ["success"])

    def test_another_node_is_refused_the_ledger_and_told_who_has_it(self):
        cluster = etcd.Etcd(self.scratch).start()
        node = self.node_on(cluster).start()
        second = self.refused(self.node_on(cluster, name="n2"))
        self.assertEqual(second.code, FAILED)
        self.assertIn("is open at the node n1", second.err)
        node.stop()
        self.node_on(cluster, name="n2").start()

    def test_without_an_etcd_it_is_said_where_none_answers(self):
        nowhere = etcd.Etcd(self.scratch)
        done = self.refused(self.node_on(nowhere))
        self.assertEqual(done.code, FAILED)
        self.assertIn(nowhere.endpoints[0], done.err)

    def test_without_a_quorum_it_says_so_and_goes_on_when_there_is_one(self):
        cluster = etcd.Etcd(self.scratch, members=3).start()
        node = self.node_on(cluster).start()
        self.ends_with(node.coppice("build", HELLO), OK)
        build = node.build(*self.instantiate(SLOW), start=True)
        farm.wait_until("it is being built", lambda: node.attempts_at("slow") == ["running"])
        cluster.kill(0)
        cluster.kill(1)
        second = self.node_on(cluster, name="n2")
        refused = self.refused(second)
        self.assertEqual(refused.code, FAILED)
        self.assertIn("quorum", refused.err)
        cluster.start_member(0)
        cluster.ready()
        self.ends_with(build.end(), OK)

    def test_a_build_stands_still_without_a_quorum_for_longer_than_its_lease_and_goes_on_when_there_is_one(self):
        cluster = etcd.Etcd(self.scratch, members=3).start()
        node = self.node_on(cluster, more=SHORT_LEASE).start()
        build = node.build(*self.instantiate(HELD), start=True)
        builder = farm.wait_until("its builder runs", self.sleepers)[0]
        cluster.kill(0)
        cluster.kill(1)
        farm.wait_until("the build stands still", lambda: is_frozen(builder[0]))
        farm.wait_until("it is said why", lambda: "cannot write to the ledger: etcd at" in node.daemon.err())
        self.assertTrue(is_frozen(builder[0]))
        cluster.start_member(0)
        farm.wait_until("the build goes on", lambda: not is_frozen(builder[0]))
        self.assertEqual(self.sleepers(), [builder])
        self.end_sleepers()
        self.ends_with(build.end(), OK)
        self.assertEqual(node.attempts_at("held"), ["success"])

    def test_an_etcd_that_was_restored_from_a_backup_under_a_running_node_is_refused_to_it_and_to_others(self):
        cluster = etcd.Etcd(self.scratch).start()
        node = self.node_on(cluster).start()
        self.ends_with(node.coppice("build", HELLO), OK)
        rows = lambda: cluster.ctl("get", "/coppice/lock/", "--prefix", "-w", "json").stdout.partition('"kvs"')[2]
        backup, backed_up = cluster.back_up(), rows()
        node.build(*self.instantiate(HELD), start=True)
        farm.wait_until("its builder runs", self.sleepers)
        cluster.restore(backup)
        cluster.start()
        farm.wait_until("it is refused", lambda: "ledger: etcd went back from revision" in node.daemon.err(), 60)
        node.kill()  # it would give up by itself, after some more tries
        for another in (node, self.node_on(cluster, name="n2")):
            refused = self.ends_with(self.refused(another), FAILED)
            self.assertIn("etcd went back from revision", refused.err)
        self.assertEqual(rows(), backed_up)

    def test_an_etcd_without_space_is_told_to_clients_and_serves_again_when_it_has_some(self):
        cluster = etcd.Etcd(self.scratch, options=["--quota-backend-bytes", str(16 << 20)]).start()
        node = self.node_on(cluster).start()
        self.ends_with(node.coppice("build", HELLO), OK)
        filler = "x" * 100_000  # the longest argument that Linux passes on has 128 KiB
        for i in range(400):
            if cluster.ctl("put", f"/other/{i % 3}", filler, check=False).returncode != 0:
                break
        self.assertIn("NOSPACE", cluster.ctl("alarm", "list").stdout)
        drv = self.instantiate(SLOW)
        full = node.coppice("submit", *drv)
        self.assertNotEqual(full.code, OK)
        self.assertIn("database space exceeded", full.err)
        cluster.ctl("del", "/other/", "--prefix")
        cluster.ctl("compact", str(cluster.revision()))
        cluster.ctl("defrag")
        cluster.ctl("alarm", "disarm")
        self.ends_with(node.build(*drv), OK)

    def test_a_user_with_the_right_password_is_let_in_and_no_other(self):
        cluster = etcd.Etcd(self.scratch).start()
        for words in (["user", "add", "root:r"], ["user", "grant-role", "root", "root"], ["user", "add", "farm:secret"],
                      ["role", "add", "farm"], ["role", "grant-permission", "farm", "--prefix=true", "readwrite", "/coppice/"],
                      ["user", "grant-role", "farm", "farm"], ["auth", "enable"]):
            cluster.ctl(*words)
        password = farm.write(self.scratch.file("password"), "wrong\n")
        os.chmod(password, 0o600)
        more = f'etcd_user = "farm"\netcd_password_file = "{password}"\n'
        wrong = self.refused(self.node_on(cluster, more=more))
        self.assertEqual(wrong.code, FAILED)
        self.assertIn("log in as farm", wrong.err)
        nobody = self.refused(self.node_on(cluster))
        self.assertEqual(nobody.code, FAILED)
        self.assertRegex(nobody.err, "user name is empty|permission denied")
        farm.write(password, "secret\n")
        elsewhere = self.refused(self.node_on(cluster, more=more + 'etcd_prefix = "/other/"\n'))
        self.assertIn("permission denied", elsewhere.err)
        node = self.node_on(cluster, more=more).start()
        self.ends_with(node.coppice("build", HELLO), OK)
        os.chmod(password, 0o644)
        self.assertIn("password", self.refused(self.node_on(cluster, name="n3", more=more)).err)

    def test_tls_with_certificates_of_both_sides(self):
        tls = etcd.certificates(self.scratch)
        cluster = etcd.Etcd(self.scratch, tls=tls).start()
        plain = self.refused(self.node_on(cluster, more=f'etcd_ca = "{tls}/ca.pem"\n'))
        self.assertEqual(plain.code, FAILED)
        self.assertIn(cluster.endpoints[0], plain.err)
        own = f'etcd_ca = "{tls}/ca.pem"\netcd_cert = "{tls}/client.pem"\netcd_key = "{tls}/client.key"\n'
        node = self.node_on(cluster, more=own).start()
        self.ends_with(node.coppice("build", HELLO), OK)
        missing = self.refused(self.node_on(cluster, name="n2", more=own.replace("ca.pem", "none.pem")))
        self.assertIn("none.pem", missing.err)


farm.main()

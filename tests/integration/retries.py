"""What is tried again, what is remembered, what goes first, and what is built again because it was lost."""

import os
import shutil
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import farm
from farm import CANCELLED, FAILED, OK, UNREACHABLE, USAGE, wait_until


class FailureMemory(farm.TestCase):
    def test_what_failed_too_often_is_told_until_somebody_wants_it_forgotten(self):
        node = self.new_farm(settings="[failures]\nthreshold = 2\n")
        drv, = self.instantiate('step "bad" "echo what it said; exit 3"')
        for n in (1, 2):
            self.ends_with(node.build(drv), FAILED)
            self.assertEqual(node.attempts_at("bad"), ["build_failed"] * n)
        done = self.ends_with(node.build(drv, "--json"), FAILED)
        self.assertEqual(node.attempts_at("bad"), ["build_failed"] * 2)
        self.assertEqual(done.json()[0]["result"], "build_failed")
        self.assertIn("failed with exit code 3", done.err)
        self.assertIn("> what it said", done.err)
        self.assertRegex(done.err, r"failed 2 times, last at \d{4}-.* UTC; `coppice-admin forget-failure /nix/store/\S+-bad.drv`")
        row, = self.ends_with(node.admin("failures", "--json"), OK).json()
        self.assertEqual((row["class"], row["count"], row["remembered"]), ("build_failed", 2, True))
        node.kill()  # it is durable
        node.start()
        self.ends_with(node.build(drv), FAILED)
        self.assertEqual(node.attempts_at("bad"), ["build_failed"] * 2)
        self.ends_with(node.admin("forget-failure", row["drv"]), OK)
        self.assertIn("no failure of " + row["drv"], self.ends_with(node.admin("forget-failure", row["drv"]), USAGE).err)
        self.assertEqual(self.ends_with(node.admin("failures", "--json"), OK).json(), [])
        self.ends_with(node.build(drv), FAILED)
        self.assertEqual(node.attempts_at("bad"), ["build_failed"] * 3)

    def test_rebuild_tries_again_what_failed_too_often(self):
        node = self.new_farm(settings="[failures]\nthreshold = 1\n")
        drv, = self.instantiate('step "bad" "exit 3"')
        for tries, options in ((1, []), (1, []), (2, ["--rebuild"])):
            self.ends_with(node.build(drv, *options), FAILED)
            self.assertEqual(node.attempts_at("bad"), ["build_failed"] * tries)

    def test_a_dependency_that_failed_is_never_held_against_its_dependants(self):
        node = self.new_farm(settings="[failures]\nthreshold = 1\n")
        drv, = self.instantiate('let bad = step "bad" "exit 3"; in step "top" "echo ${bad} > $out"')
        done = self.ends_with(node.build(drv, "--json"), FAILED)
        self.assertEqual(done.json()[0]["result"], "dependency_failed")
        self.assertEqual([farm.drv_name(r["drv"]) for r in node.admin("failures", "--json").json()], ["bad"])
        self.assertEqual(node.attempts_at("top"), [])

    def test_an_observer_may_not_forget(self):
        node = self.new_farm()
        drv, = self.instantiate('step "bad" "exit 3"')
        self.ends_with(node.build(drv), FAILED)
        as_watcher = self.key_of(node, "observer")
        done = self.ends_with(node.admin("forget-failure", "all", *as_watcher), UNREACHABLE)
        self.assertIn("needs role admin, and key observer", done.err)
        row, = self.ends_with(node.admin("failures", "--json", *as_watcher), OK).json()
        self.assertEqual(farm.drv_name(row["drv"]), "bad")


class Order(farm.TestCase):
    def test_an_urgent_request_overtakes_a_long_queue_with_all_it_needs(self):
        node = self.new_farm(jobs=1)
        queue, = self.instantiate('let s = n: step "low-${toString n}" "sleep 0.3; echo > $out"; in '
                                  'step "all" "echo ${toString (map s [ 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 ])} > $out"')
        urgent, = self.instantiate('let below = step "below" "echo > $out"; in step "urgent" "echo ${below} > $out"', name="urgent")
        request = node.submit(queue, "--priority", "-5")
        wait_until("the queue is being built", lambda: len(node.attempts()) >= 2)
        self.ends_with(node.build(urgent, "--priority", "7"), OK)
        self.assertLess(len(node.attempts()), 15 + 2)
        self.assertEqual(node.status(request)["state"], "open")
        self.ends_with(node.coppice("wait", request), OK)

    def test_an_urgent_request_lends_its_priority_to_what_another_one_has_queued(self):
        node = self.new_farm(jobs=1)
        names = [f"low-{n}" for n in range(15)]
        drvs = self.instantiate('{ ' + " ".join(f'"{n}" = step "{n}" "sleep 0.3; echo > $out";' for n in names) + ' }')
        by_name = {farm.drv_name(d): d for d in drvs}
        request = node.submit(*drvs, "--priority", "-5")
        wait_until("the queue is being built", lambda: len(node.attempts()) >= 2)
        begun = {farm.drv_name(a["drv"]) for a in node.attempts()}
        shared = [n for n in names if n not in begun]
        # whichever would be the last: that all of them go first in turn is impossible by chance
        for name in (shared[-1], shared[len(shared) // 2]):
            self.ends_with(node.build(by_name[name], "--priority", "7"), OK)
        self.assertLess(len(node.attempts()), 15)
        self.ends_with(node.coppice("wait", request), OK)


class Ends(farm.TestCase):
    def test_after_a_failure_nothing_new_is_started_and_what_runs_is_finished_and_kept(self):
        node = self.new_farm(jobs=2)
        drv, = self.instantiate('''let
          slow = step "slow" "sleep 100000 || true; echo > $out";
          bad = make { word = "${word}-bad"; } "bad" "sleep 100000 || true; exit 1";
          later = make { inherit slow; } "later" "echo > $out"; in step "top" "echo ${later} ${bad} > $out"''')
        request = node.submit(drv)
        self.builders(node, 2)
        self.end_sleepers(word=self.word + "-bad")
        wait_until("the request has failed", lambda: node.status(request)["state"] == "failed")
        self.finish_slow(node)
        self.assertEqual(node.attempts_at("later"), [])
        self.assertEqual(node.attempts_at("top"), [])

    def finish_slow(self, node):
        """The step of that name ends; and if anything was to follow, it has."""
        self.end_sleepers()
        wait_until("what ran is finished", lambda: node.attempts_at("slow") == ["success"])
        self.still_serves(node)

    def two_steps(self, node):
        drv, = self.instantiate('let slow = step "slow" "sleep 100000 || true; echo > $out"; in step "top" "echo ${slow} > $out"')
        request = node.submit(drv)
        return drv, request, self.builders(node)

    def test_cancel_kills_what_runs(self):
        node = self.new_farm()
        _, request, builders = self.two_steps(node)
        self.ends_with(node.coppice("cancel", request), OK)
        self.builders_gone(builders)
        self.assertEqual(node.attempts_at("slow"), ["cancelled"])
        self.ends_with(node.coppice("wait", request), CANCELLED)

    def test_cancel_that_lets_finish_keeps_what_runs_and_starts_nothing(self):
        node = self.new_farm()
        drv, request, _ = self.two_steps(node)
        self.ends_with(node.coppice("cancel", "--let-finish", request), OK)
        self.assertEqual(node.status(request)["state"], "cancelled")
        self.finish_slow(node)
        self.assertEqual(node.attempts_at("top"), [])
        self.ends_with(node.build(drv), OK)
        self.assertEqual(node.attempts_at("slow"), ["success"])


class Rebuild(farm.TestCase):
    def test_what_comes_out_the_same_is_well_and_nothing_changes(self):
        node = self.new_farm()
        drv, = self.instantiate('let below = step "below" "echo > $out"; in step "same" "echo ${below} > $out"')
        out = self.ends_with(node.build(drv), OK).out
        before = node.narinfo(out.strip())
        for tries in (2, 3):
            self.assertEqual(self.ends_with(node.build(drv, "--rebuild"), OK).out, out)
            self.assertEqual(node.attempts_at("same"), ["success"] * tries)
        self.assertEqual(node.attempts_at("below"), ["success"])
        self.assertEqual(node.narinfo(out.strip()), before)

    def test_what_comes_out_different_is_told_and_what_is_registered_stays(self):
        node = self.new_farm()
        drv, = self.instantiate('make { outputs = [ "out" "dev" ]; } "clock" "date +%s%N > $out; echo > $dev"')
        out = self.ends_with(node.build(drv), OK).out.strip().splitlines()[0]
        before = node.narinfo(out)
        done = self.ends_with(node.build(drv, "--rebuild", "--json"), FAILED)
        self.assertEqual(done.json()[0]["result"], "not_deterministic")
        self.assertRegex(done.err, r"-clock is registered with NAR hash sha256:\w+, and was built again with sha256:\w+")
        self.assertNotIn("-clock-dev", done.err)
        self.assertEqual(node.narinfo(out), before)
        self.assertIn("0 built", self.ends_with(node.build(drv), OK).err)

    def test_what_is_not_there_yet_is_just_built(self):
        node = self.new_farm()
        drv, = self.instantiate('step "new" "echo > $out"')
        self.ends_with(node.build(drv, "--rebuild"), OK)
        self.assertEqual(node.attempts_at("new"), ["success"])

    def test_a_rebuild_goes_on_after_kill_9(self):
        node = self.new_farm()
        drv, = self.instantiate('step "same" "sleep 100000 || true; echo > $out"')
        first = node.build(drv, start=True)
        self.end_sleepers()
        self.ends_with(first.end(), OK)
        request = node.submit(drv, "--rebuild")
        builders = self.builders(node)
        self.assertEqual(node.status(request)["state"], "open")
        node.kill()
        self.builders_gone(builders)
        node.start()
        self.end_sleepers()
        self.ends_with(node.coppice("wait", request), OK)
        self.assertEqual(node.attempts_at("same").count("success"), 2)


class Vanished(farm.TestCase):
    """Somebody deletes or damages what the node has."""

    GRAPH = '''let libc = step "libc" "echo libc > $out"; lib = step "lib" "echo ${libc} > $out"; in {
      lib = lib; app = step "app" "cat $(cat ${lib}) > $out"; }'''

    def setUp(self):
        super().setUp()
        self.node = self.new_farm()
        self.lib, = self.instantiate(self.GRAPH, "-A", "lib")
        self.app, = self.instantiate(self.GRAPH, "-A", "app")
        self.ends_with(self.node.build(self.lib), OK)

    def nar(self, name):
        """The file of a store object's NAR."""
        valid = os.path.join(self.node.state, "local", "store")
        object_name, = [p for p in os.listdir(valid) if p[33:] == name]
        return object_name, os.path.join(self.node.state, "cache", self.node.narinfo(object_name)["URL"])

    def forget_local(self):
        """As if another machine had built it: nothing lies in the local store."""
        self.node.stop()
        local = os.path.join(self.node.state, "local")
        for folder, dirs, _ in os.walk(local):
            for sub in dirs:
                if not os.path.islink(os.path.join(folder, sub)):
                    os.chmod(os.path.join(folder, sub), 0o755)
        shutil.rmtree(local)
        self.node.start()

    def test_an_input_that_was_lost_is_built_again_once(self):
        _, nar = self.nar("lib")
        self.forget_local()
        os.remove(nar)
        self.ends_with(self.node.build(self.app), OK)
        self.assertEqual(self.node.attempts_at("lib"), ["success"] * 2)
        self.assertEqual(self.node.attempts_at("libc"), ["success"])
        self.assertEqual(self.node.attempts_at("app"), ["inputs_missing", "success"])

    def test_inputs_that_were_lost_cost_one_try_however_many_they_are(self):
        names = [f"input-{n}" for n in range(7)]  # more than tries that may come to nothing
        text = ("let inputs = map (n: step n \"echo ${n} > $out\") [ " + " ".join(f'"{n}"' for n in names) + " ]; in {"
                ' inputs = step "inputs" "echo ${toString inputs} > $out";'
                ' user = step "user" "echo ${toString inputs} more > $out"; }')
        inputs, = self.instantiate(text, "-A", "inputs", name="many")
        user, = self.instantiate(text, "-A", "user", name="many")
        self.ends_with(self.node.build(inputs), OK)
        nars = [self.nar(name)[1] for name in names]
        self.forget_local()
        for nar in set(nars):
            os.remove(nar)
        self.ends_with(self.node.build(user), OK)
        self.assertEqual(self.node.attempts_at("user"), ["inputs_missing", "success"])
        for name in names:
            self.assertEqual(self.node.attempts_at(name), ["success"] * 2, name)

    def test_what_is_damaged_is_built_again_and_not_served(self):
        name, nar = self.nar("lib")
        self.forget_local()
        with open(nar, "r+b") as f:
            f.seek(os.path.getsize(nar) // 2)
            f.write(b"\0\0\0\0")
        self.ends_with(self.node.build(self.app), OK)
        self.assertEqual(self.node.attempts_at("lib"), ["success"] * 2)
        self.assertNotEqual(self.node.narinfo(name)["URL"], os.path.relpath(nar, os.path.join(self.node.state, "cache")))
        stock = farm.Nix(self.scratch, settings={"substituters": self.node.ready["http"], "max-jobs": "0",
                                                 "trusted-public-keys": self.node.ready["public_key"]})
        stock.run("nix-store", "--realise", "/nix/store/" + name)

    def test_what_was_lost_below_an_input_is_built_again_too(self):
        _, nar = self.nar("libc")
        self.forget_local()
        os.remove(nar)
        self.ends_with(self.node.build(self.app), OK)
        self.assertEqual(self.node.attempts_at("libc"), ["success"] * 2)
        self.assertEqual(self.node.attempts_at("lib"), ["success"])


if __name__ == "__main__":
    farm.main()

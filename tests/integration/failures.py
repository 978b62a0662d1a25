"""What goes wrong is said clearly, has its exit code, and harms nobody else."""

import os
import signal
import socket
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import farm
from farm import FAILED, LOCKED, OK, UNREACHABLE, USAGE

BROKEN = os.path.join(farm.ROOT, "examples/broken.nix")
HASH = "0123456789abcdfghijklmnpqrsvwxyz"


def aterm(name, inputs=(), sources=()):
    """A derivation's text, right in form."""
    pairs = ",".join(f'("{drv}",["out"])' for drv in inputs)
    quoted = ",".join(f'"{path}"' for path in sources)
    out = f"/nix/store/{HASH}-{name}"
    return (f'Derive([("out","{out}","","")],[{pairs}],[{quoted}],"{farm.SYSTEM}","/bin/sh",["-c","echo > $out"],'
            f'[("builder","/bin/sh"),("name","{name}"),("out","{out}"),("system","{farm.SYSTEM}")])')


class FailingBuilds(farm.TestCase):
    def setUp(self):
        super().setUp()
        self.node = self.new_farm()

    def test_a_failing_derivation_shows_its_reason_and_log_and_stops_the_request(self):
        drv, = self.instantiate('''let
          bad = step "bad" "echo first words; sleep 1; echo last words >&2; exit 7";
          after = make { inherit bad; } "after" "echo > $out";
          never = make { inherit bad; } "never" "echo > $out"; in step "top" "echo ${after} ${never} > $out"''')
        done = self.ends_with(self.node.build(drv, "--json"), FAILED)
        self.assertIn("failed with exit code 7", done.err)
        self.assertIn("> first words\n> last words\n", done.err)
        self.assertIn("3 derivations were not attempted", done.err)
        root, = done.json()
        self.assertEqual((root["result"], root["outputs"]), ("dependency_failed", {}))
        self.assertEqual([(farm.drv_name(a["drv"]), a["result"]) for a in self.node.attempts()], [("bad", "build_failed")])
        self.still_serves(self.node)

    def test_keep_going_builds_all_that_does_not_depend_on_the_failure(self):
        drv, = self.instantiate('''let
          bad = step "bad" "exit 1";
          good = n: below: step "good-${toString n}" "sleep 0.3; echo ${toString below} > $out";
          chain = good 3 (good 2 (good 1 [ ])); in step "top" "echo ${bad} ${chain} > $out"''')
        done = self.ends_with(self.node.build(drv, "--keep-going"), FAILED)
        self.assertIn("1 derivation was not attempted", done.err)
        self.assertEqual(sorted((farm.drv_name(a["drv"]), a["result"]) for a in self.node.attempts()),
                         [("bad", "build_failed")] + [(f"good-{n}", "success") for n in (1, 2, 3)])

    def test_a_failed_request_can_be_asked_again(self):
        drv, = self.instantiate('step "bad" "exit 1"')
        for _ in range(2):
            self.ends_with(self.node.build(drv), FAILED)
        self.assertEqual(self.node.attempts_at("bad"), ["build_failed"] * 2)

    def test_a_builder_without_output_fails_with_nix_words(self):
        done = self.ends_with(self.node.build(BROKEN, "-A", "silent"), FAILED)
        self.assertIn("failed to produce output path for output 'out'", done.err)

    def test_a_hash_mismatch_shows_both_hashes_as_nix_does(self):
        done = self.ends_with(self.node.build(BROKEN, "-A", "mismatch"), FAILED)
        self.assertRegex(done.err, r"hash mismatch in fixed-output derivation '/nix/store/\S+-mismatch.drv':\n"
                                   r" +specified: sha256-\S{43}=\n +got:    sha256-\S{43}=\n")
        self.assertEqual([a["result"] for a in self.node.attempts()], ["hash_mismatch"])

    def test_what_a_builder_leaves_running_ends_with_it(self):
        drv, = self.instantiate('step "forks" "(setsid sleep 1000 > /dev/null 2>&1 &); sleep 1; echo > $out"')
        client = self.node.build(drv, start=True)
        self.builders(self.node)
        self.ends_with(client.end(), OK)
        self.builders_gone({})


class Unplaceable(farm.TestCase):
    """On a farm whose settings say that nothing waits for a machine that nobody has."""

    def setUp(self):
        super().setUp()
        self.node = self.new_farm(settings="[failures]\nfail_unplaceable = true\n")

    def test_an_unknown_system_is_refused_by_name(self):
        done = self.ends_with(self.node.build(BROKEN, "-A", "unknown"), FAILED)
        self.assertRegex(done.err, "no machine .*pdp11-unix")
        self.assertEqual(self.node.attempts(), [])
        self.still_serves(self.node)

    def test_an_unknown_feature_is_refused_by_name(self):
        drv, = self.instantiate('make { requiredSystemFeatures = [ "warp-drive" ]; } "fast" "echo > $out"')
        self.assertRegex(self.ends_with(self.node.build(drv), FAILED).err, "no machine .*warp-drive")


class BadInput(farm.TestCase):
    """Found by the client; the daemon never hears of it."""

    def setUp(self):
        super().setUp()
        self.node = self.new_farm()
        self.dir = self.scratch.file("drvs")

    def put(self, name, text, hash_part=HASH):
        return farm.write(os.path.join(self.dir, f"{hash_part}-{name}"), text)

    def refused(self, drv, *words):
        done = self.ends_with(self.node.build(drv), USAGE)
        for word in words:
            self.assertIn(word, done.err)
        self.assertEqual(self.node.attempts(), [])
        self.still_serves(self.node)

    def test_a_cycle_is_named(self):
        a, b = f"/nix/store/{HASH}-a.drv", f"/nix/store/{HASH}-b.drv"
        self.put("b.drv", aterm("b", [a]))
        self.refused(self.put("a.drv", aterm("a", [b])), "cycle", f"{a} -> {b} -> {a}")

    def test_a_malformed_derivation_is_named_with_the_place(self):
        drv = self.put("bent.drv", aterm("bent").replace('"/bin/sh",[', '"/bin/sh",{'))
        self.refused(drv, drv, "byte")

    def test_an_empty_derivation_is_named(self):
        drv = self.put("empty.drv", "")
        self.refused(drv, drv)

    def test_a_missing_derivation_is_named(self):
        self.refused(os.path.join(self.dir, HASH + "-nowhere.drv"), HASH + "-nowhere.drv", "missing")

    def test_a_missing_input_derivation_is_named_with_who_needs_it(self):
        needed = f"/nix/store/{HASH}-needed.drv"
        self.refused(self.put("needs.drv", aterm("needs", [needed])), needed, HASH + "-needs.drv", "missing")

    def test_a_missing_source_is_named_with_who_needs_it(self):
        farm.write(self.scratch.file("work", "source.txt"), "text")
        drv, = self.instantiate('make { src = ./source.txt; } "reads" "cat $src > $out"')
        source, = [p for p in os.listdir(self.nix.store) if p.endswith("-source.txt")]
        os.remove(os.path.join(self.nix.store, source))
        self.refused(drv, source, farm.base_name(drv), "missing")

    def test_a_derivation_under_a_wrong_name_is_refused(self):
        self.refused(self.put("liar.drv", aterm("liar")), HASH + "-liar.drv", "not what its name says")

    def test_an_output_that_does_not_exist_is_named(self):
        drv, = self.instantiate('step "plain" "echo > $out"')
        self.refused(drv + "!man", "no output 'man'")

    def test_an_expression_that_does_not_evaluate_shows_the_error(self):
        self.refused(self.expression('throw "out of words"', "throws"), "out of words", "throws.nix")


class NobodyThere(farm.TestCase):
    """The client cannot reach a node, or is not let in."""

    def test_without_a_daemon_the_client_says_where_it_looked(self):
        node = farm.Farm(self.scratch)
        done = self.ends_with(node.build(*self.instantiate('step "x" "echo > $out"')), UNREACHABLE)
        self.assertIn(node.state, done.err)

    def test_a_daemon_that_is_gone_is_waited_for_and_then_given_up(self):
        node = self.new_farm()
        drv, = self.instantiate('step "x" "echo > $out"')
        node.kill()
        done = self.ends_with(node.build(drv, "--patience", "2"), UNREACHABLE)
        self.assertIn(node.ready["listen"], done.err)

    def test_an_endpoint_that_is_no_coppiced_is_given_up(self):
        node = self.new_farm()
        drv, = self.instantiate('step "x" "echo > $out"')
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            s.listen()
            endpoint = f"tcp://127.0.0.1:{s.getsockname()[1]}"
            done = self.ends_with(node.build(drv, "--node", endpoint, "--patience", "3"), UNREACHABLE)
        self.assertIn(endpoint, done.err)

    def test_a_wrong_key_is_refused_with_the_key_and_the_endpoint(self):
        node = self.new_farm()
        drv, = self.instantiate('step "x" "echo > $out"')
        key = self.scratch.file("stranger.toml")
        self.ends_with(node.admin("keygen", "stranger", "--out", key), OK)
        done = self.ends_with(node.build(drv, "--node", node.ready["listen"], "--key", key), UNREACHABLE)
        self.assertIn(key, done.err)
        self.assertIn(node.ready["listen"], done.err)
        self.still_serves(node)

    def test_an_observer_may_look_and_not_submit(self):
        node = self.new_farm()
        drv, = self.instantiate('step "x" "echo > $out"')
        as_watcher = self.key_of(node, "observer")
        self.ends_with(node.coppice("status", *as_watcher), OK)
        self.assertIn("needs role submitter, and key observer", self.ends_with(node.build(drv, *as_watcher), UNREACHABLE).err)
        self.assertEqual(node.attempts(), [])


class Daemon(farm.TestCase):
    def fails(self, node, code, *words):
        done = self.ends_with(self.scratch.run(node.argv), code)
        self.assertEqual(done.out, "")
        for word in words:
            self.assertIn(word, done.err.splitlines()[-1])

    def test_a_state_directory_below_a_file_is_refused(self):
        file = farm.write(self.scratch.file("file"), "")
        node = farm.Farm(self.scratch, state=os.path.join(file, "state"))
        self.fails(node, FAILED, file + " is not a directory")

    def test_a_state_directory_that_is_a_file_is_refused(self):
        node = farm.Farm(self.scratch, state=farm.write(self.scratch.file("file"), ""))
        self.fails(node, FAILED, node.state)

    def test_a_state_directory_on_a_read_only_file_system_is_refused(self):
        node = farm.Farm(self.scratch, state="/proc/coppice")
        self.fails(node, FAILED, node.state)

    def test_a_second_daemon_on_the_same_state_directory_leaves_the_first_alone(self):
        node = self.new_farm()
        self.fails(node, LOCKED, node.state)
        self.still_serves(node)

    def test_a_port_that_is_taken_is_named(self):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            s.listen()
            address = f"127.0.0.1:{s.getsockname()[1]}"
            self.fails(farm.Farm(self.scratch, listen="tcp://" + address), FAILED, address)
            self.fails(farm.Farm(self.scratch, http=address), FAILED, address)

    def test_an_unknown_setting_is_named(self):
        self.fails(farm.Farm(self.scratch, settings='max_jops = 2\n'), USAGE, "max_jops", "max_jobs")

    def test_sigterm_ends_it_in_order_with_its_builders(self):
        node = self.new_farm()
        request = node.submit(*self.instantiate('step "long" "sleep 1000"'))
        builders = self.builders(node)
        node.daemon.send(signal.SIGTERM)
        self.ends_with(node.daemon.end(10), OK)
        self.builders_gone(builders)
        self.assertEqual(node.ledger("SELECT id, state FROM requests"), [(request, "open")])

    def test_sigint_ends_it_in_order(self):
        node = self.new_farm()
        node.daemon.send(signal.SIGINT)
        self.ends_with(node.daemon.end(10), OK)


if __name__ == "__main__":
    farm.main()

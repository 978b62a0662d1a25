"""Three machines build together: what they make is what stock Nix makes, and all of them take part. One of the members is
killed, or stands still for longer than its lease, while it builds; or whatever machine builds a certain step is killed."""

import os
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import chaos
import farm
from chaos import wait_until
from farm import FAILED, OK


def example_sources():
    """The sources of examples/default.nix; fetched if $COPPICE_EXAMPLE_SOURCES does not name them."""
    given = os.environ.get("COPPICE_EXAMPLE_SOURCES")
    sources = given or os.path.join(farm.ROOT, "build", "example-sources")
    if not given:
        subprocess.run([os.path.join(farm.ROOT, "examples/fetch-sources.sh"), sources], check=True, stdout=subprocess.DEVNULL,
                       stdin=subprocess.DEVNULL)
    return sources


class Example(chaos.Chaos):
    """The 93 derivations of examples/default.nix: zlib, libpng, Lua and FIGlet, by compile unit."""

    JOBS = 1

    @classmethod
    def built_by_stock_nix(cls, scratch, nix):
        expression = os.path.join(farm.ROOT, "examples/default.nix")
        drv, = nix.instantiate(expression, "--arg", "sources", example_sources(), "-A", "all")
        return chaos.Stock(nix, "/nix/store/" + farm.base_name(drv))

    def seconds(self, hub):
        begun = time.monotonic()
        self.ends_with(hub.build(self.stock.drv), OK)
        return time.monotonic() - begun

    def test_three_machines_make_of_the_example_what_stock_nix_makes_and_each_takes_part(self):
        client = self.hub.build(self.stock.drv, "--json", start=True)
        begun = time.monotonic()
        self.ends_with(client.end(), OK)
        three = time.monotonic() - begun
        spread = {name: 0 for name in self.nodes}
        for attempt in self.hub.attempts():
            self.assertEqual(attempt["result"], "success")
            spread[attempt["node"]] += 1
        self.assertEqual(sum(spread.values()), len(self.stock.graph))
        for name, count in spread.items():
            self.assertGreater(count, len(self.stock.graph) // 10, f"{name} took hardly any part: {spread}")
        self.outputs_are_right(client)
        alone = self.seconds(self.new_farm(jobs=self.JOBS))
        print(f"{len(self.stock.graph)} derivations: {three:.1f} s on three machines ({spread}), {alone:.1f} s on one, "
              f"{self.stock.seconds:.1f} s by stock Nix with 8 jobs, all on {os.cpu_count()} processors", file=sys.stderr)


class Members(chaos.Chaos):
    def test_what_a_member_was_building_when_it_was_killed_is_built_elsewhere(self):
        client, victim, other = self.begin()
        builders = self.builders(self.nodes[victim])
        self.nodes[victim].kill()
        wait_until("its builders have ended", lambda: not farm.still_there(builders), farm.BUILDERS_GONE_S)
        wait_until("it is built elsewhere", lambda: self.attempts_of("held") == [(victim, "infra"), (other, "running")])
        self.outputs_are_right(client)

    def test_a_member_that_is_killed_and_started_again_at_once_takes_part_again(self):
        client, victim, _ = self.begin()
        self.nodes[victim].kill()
        self.nodes[victim].start()
        wait_until("held is built again", lambda: len(self.attempts_of("held")) == 2)
        self.assertEqual(self.attempts_of("held")[0], (victim, "infra"))
        self.outputs_are_right(client)
        self.assertEqual(len(self.attempts_of_stopped("held")), 2)

    def attempts_of_stopped(self, name):
        return self.hub.ledger(f"SELECT node FROM attempt WHERE drv LIKE '%-{name}.drv'")

    def test_a_build_of_a_member_that_stands_still_is_frozen_and_what_it_would_have_made_late_is_void(self):
        client, victim, other = self.begin()
        late = self.holder()
        self.nodes[victim].pause()
        wait_until("it is built elsewhere", lambda: self.attempts_of("held") == [(victim, "infra"), (other, "running")])
        self.assertTrue(self.frozen(late))
        wait_until("the other builder runs", lambda: len(self.sleepers()) == 2)
        self.nodes[victim].resume()
        wait_until("the late one is killed", lambda: late not in self.sleepers())
        self.outputs_are_right(client)
        self.assertEqual(self.hub.ledger("SELECT count(*) FROM attempt WHERE drv LIKE '%-held.drv' AND result = 0"), [(1,)])

    def test_a_build_that_nobody_took_over_goes_on_when_its_member_does(self):
        self.ends_with(self.nodes["oak"].stop(), 0)
        client, victim, _ = self.begin()
        self.assertEqual(victim, "elm")
        builder = self.holder()
        self.elm.pause()
        wait_until("its lease is over", lambda: self.attempts_of("held") == [("elm", "infra")])
        self.assertTrue(self.frozen(builder))
        self.elm.resume()
        wait_until("it goes on", lambda: self.attempts_of("held") == [("elm", "infra"), ("elm", "running")])
        wait_until("it runs", lambda: not self.frozen(builder))
        self.assertEqual(self.sleepers(), [builder])
        self.outputs_are_right(client)


class Poison(chaos.Chaos):
    """INV-17, of whole machines."""

    FAILURES = chaos.FAILURES.replace("poison_max = 1000", "poison_max = 3")
    GRAPH = '''let
  poison = step "poison" "sleep 100000 || true; echo > $out";
  others = map (i: step "other-${toString i}" "sleep 1; echo ${toString i} > $out") (builtins.genList (i: i) 17);
in step "top" "echo ${poison} ${toString others} > $out"'''

    @classmethod
    def built_by_stock_nix(cls, scratch, nix):
        stock = super().built_by_stock_nix(scratch, nix)
        stock.expect_all_but("poison", "top")
        return stock

    def who_tries(self):
        """The machine that runs poison, once nothing runs beside it that has died before, or that might die with three
        machines and be poisoned, too; but something does, until anything else has died."""
        attempts = self.hub.attempts()
        died = {a["drv"] for a in attempts if a["result"] == "infra"}
        for name in self.nodes:
            running = {a["drv"] for a in attempts if a["node"] == name and a["result"] == "running"}
            poison = {drv for drv in running if farm.drv_name(drv) == "poison"}
            beside = running - poison
            others = {drv for drv in died if farm.drv_name(drv) != "poison"}
            if poison and (beside or others) and not beside & died:
                return name
        return None

    def test_a_derivation_that_takes_three_machines_down_is_poisoned_and_all_others_are_built(self):
        client, down = self.hub.build(self.stock.drv, "--keep-going", "--json", start=True), []
        while len(down) < 3:
            name = wait_until("another machine tries it", lambda: (lambda n: n not in down and n)(self.who_tries()))
            self.nodes[name].kill()
            # it is back and takes no work, or a hub, which is there before its members, would be the one to try it each time
            farm.write(os.path.join(self.nodes[name].state, "drained"), "it was down\n")
            self.nodes[name].start()
            down.append(name)
        for name in down:
            wait_until("it takes work again", lambda: self.hub.admin("undrain", name).code == OK)
        done = self.ends_with(client.end(), FAILED)
        self.assertIn("attempts ended with their worker or machine, on elm hub oak", done.err)
        failures = self.ends_with(self.hub.admin("failures", "--json"), OK).json()
        self.assertEqual([(farm.drv_name(f["drv"]), f["class"]) for f in failures], [("poison", "poisoned")])
        self.assertEqual(self.attempts_of("poison"), [(name, "infra") for name in down])
        ends = {drv: [] for drv in self.stock.graph if farm.drv_name(drv) not in ("poison", "top")}
        for a in self.hub.attempts():
            if farm.drv_name(a["drv"]) != "poison":
                ends[a["drv"]].append(a["result"])
        for drv, results in ends.items():
            self.assertEqual(results, ["infra"] * (len(results) - 1) + ["success"], drv)
        self.assertGreater(max(map(len, ends.values())), 1, "nothing died with it")
        self.outputs_are_right(client, code=FAILED)


if __name__ == "__main__":
    farm.main()

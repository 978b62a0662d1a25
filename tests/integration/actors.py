"""Whatever actor is cut down grows again: each one, each supervisor with all below it, the root with the next process."""

import concurrent.futures
import fnmatch
import functools
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import farm
from farm import GAVE_UP, OK

HANG_S = 120  # by then a build of a moment hangs: a wait for a lease or a session that died is far shorter


class KilledActor(farm.TestCase):
    """Each actor is killed while a builder runs; what is built is what stock Nix builds all the same."""

    PAUSE = "sleep 100000 || true"
    GRAPH = f'''let first = step "first" "{PAUSE}; mkdir $out; seq 10000 > $out/numbers; ln -s numbers $out/link";
      in step "second" "cp -r ${{first}} $out; chmod +w $out; echo second > $out/word"'''
    AT_ONCE = 6  # nodes; most of the time they wait

    @functools.cached_property
    def stock(self):
        """The NAR hash of what stock Nix makes of GRAPH, whose contents name no path."""
        drv, = self.instantiate(self.GRAPH.replace(self.PAUSE, ":"), name="stock")
        out, = self.nix.lines("nix-store", "--realise", "/nix/store/" + farm.base_name(drv))
        return farm.hash_bytes(self.nix.lines("nix-store", "--query", "--hash", out)[0])

    def during_build(self, act):
        """Has a fresh node build GRAPH, calls act(node, the root's path) while the first builder runs; the build
        succeeds. Several may run at once."""
        word = farm.new_word()
        place = farm.new_word()
        drv, = self.instantiate(self.GRAPH, name=place, word=word)
        node = farm.Farm(self.scratch, state=self.scratch.file(place)).start()
        try:
            client = node.build(drv, start=True)
            self.builders(node, word=word)
            act(node, next(iter(node.actors())))
            farm.wait_until("the build is over", lambda: self.end_sleepers(0, word) or not client.running(), HANG_S)
            out = self.ends_with(client.end(), OK).out.strip()
            self.assertEqual(farm.hash_bytes(node.narinfo(out)["NarHash"]), self.stock)
        except AssertionError:
            self.keep_log(node.daemon)
            raise
        finally:
            node.kill()
            farm.wait_until("builders end", lambda: not farm.with_word(word))

    def paths(self):
        """Of all actors below the root, as they are while a builder runs; those of requests as '…/graphs/*'."""
        found = []

        def look(node, root):
            for path in node.actors():
                path = path.removeprefix(root)
                found.append("/coord/graphs/*" if path.startswith("/coord/graphs/") else path)

        self.during_build(look)
        return [path for path in found if path]

    def every_actor_killed_once(self, *how):
        self.assertTrue(self.stock)  # once, before there are threads
        paths = self.paths()
        for expected in ("/lock/ledger", "/coord/graphs/*", "/work/workers/first.1.exec", "/deliver/publisher", "/bridge"):
            self.assertIn(expected, paths)

        def outlives(path):
            def kill(node, root):
                now = node.actors()
                real = next((p for p in now if fnmatch.fnmatchcase(p, root + path)), None)
                self.assertTrue(real, f"no {path} in {list(now)}")
                self.ends_with(node.admin("kill", real, *how), OK)

            self.during_build(kill)

        with concurrent.futures.ThreadPoolExecutor(self.AT_ONCE) as threads:
            for path, outcome in [(path, threads.submit(outlives, path)) for path in paths]:
                with self.subTest(path=path):
                    outcome.result()

    def test_every_actor_may_be_killed_once(self):
        self.every_actor_killed_once()

    def test_every_actor_may_crash_once(self):
        self.every_actor_killed_once("--crash")

    def test_the_end_of_the_root_ends_the_process_with_70_and_the_next_goes_on(self):
        node = self.new_farm()
        request = node.submit(*self.instantiate(self.GRAPH))
        builders = self.builders(node)
        node.admin("kill", next(iter(node.actors())))
        self.ends_with(node.daemon.end(60), GAVE_UP)
        self.builders_gone(builders)
        node.start()
        self.end_sleepers()
        self.ends_with(node.coppice("wait", request), OK)


if __name__ == "__main__":
    farm.main()

"""Upstream caches: what others have is not built; and whatever they do, nothing wrong becomes valid."""

import glob
import http.server
import os
import socket
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import farm
from farm import OK

GRAPH = '''let
  seed = step "seed" "echo of the seed > $out";
  lib = step "lib" "mkdir $out; seq 1 60000 > $out/numbers; echo ${seed} > $out/seed";
in step "app" "mkdir $out; ln -s ${lib}/numbers $out/numbers; cat ${seed} > $out/words"'''

# What depends on the above; `lib` and `seed` are the same derivations.
MORE = GRAPH.replace('in step "app"', 'in step "more"')

OTHER_KEY = "other-1:" + "A" * 43 + "="


class Server(http.server.ThreadingHTTPServer):
    """A directory over HTTP, with ranges. Tests change what it does:
    alter(path, body) -> body or None; narinfo_delay; chunk, pause: how fast NARs come; cut: bytes after which NARs end."""

    daemon_threads = True

    def __init__(self, directory, key):
        super().__init__(("127.0.0.1", 0), Handler)
        self.directory, self.key = directory, key
        self.alter = lambda path, body: body
        self.status = lambda path: 200
        self.narinfo_delay, self.chunk, self.pause, self.cut = 0, 1 << 20, 0, None
        self.requests, self.ranges = [], 0
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, *_):
        pass  # a client that had enough

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"

    def nars(self):
        return [path for path in self.requests if path.startswith("/nar/")]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        server = self.server
        server.requests.append(self.path)
        try:
            with open(server.directory + self.path, "rb") as f:
                body = server.alter(self.path, f.read())
        except OSError:
            body = None
        status = 404 if body is None else server.status(self.path)
        if status != 200:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        is_nar = self.path.startswith("/nar/")
        if self.path.endswith(".narinfo"):
            time.sleep(server.narinfo_delay)
        start = 0
        if "Range" in self.headers:
            server.ranges += 1
            start = int(self.headers["Range"].removeprefix("bytes=").split("-")[0])
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        end = len(body)
        if is_nar and server.cut is not None:
            end = min(end, start + server.cut)
        try:
            for at in range(start, end, server.chunk):
                self.wfile.write(body[at:min(end, at + server.chunk)])
                time.sleep(server.pause if is_nar else 0)
        except OSError:
            self.close_connection = True
        if end < len(body):
            self.close_connection = True


def caches(urls, keys, timeout="20 s"):
    def words(some):
        return "[" + ", ".join(f'"{x}"' for x in some) + "]"

    return f'[upstream]\nsubstituters = {words(urls)}\ntrusted_public_keys = {words(keys)}\ntimeout = "{timeout}"\n'


def edited(text, field, value):
    return "".join(f"{field}: {value}\n" if line.startswith(field + ": ") else line + "\n" for line in text.splitlines())


class Upstream(farm.TestCase):
    def stock_cache(self, compression="xz", text=GRAPH):
        """A server of what stock Nix built and copied, and the .drv."""
        drv, = self.instantiate(text)
        self.out, = self.nix.lines("nix-store", "--realise", "/nix/store/" + farm.base_name(drv))
        secret, public = self.scratch.file("secret"), self.scratch.file("public")
        if not os.path.exists(secret):
            self.nix.run("nix-store", "--generate-binary-cache-key", "upstream-1", secret, public)
        self.directory = self.scratch.file("upstream")
        self.nix.run("nix", "copy", "--to", f"file://{self.directory}?secret-key={secret}&compression={compression}", self.out)
        server = Server(self.directory, farm.read(public).strip())
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        return server, drv

    def node(self, *servers, timeout="20 s", **options):
        keys = sorted({s.key for s in servers})
        return self.new_farm(settings=caches([s.url for s in servers], keys, timeout), **options)

    def builds(self, node, drv):
        """Builds, and the result is what stock Nix made; the names of what was built."""
        done = self.ends_with(node.coppice("build", drv), OK)
        self.same_as_stock(node, self.out)
        self.nothing_wrong_is_valid(node)
        self.said = done.err
        self.assertEqual({a["result"] for a in node.attempts()} - {"success", "inputs_missing", "cancelled"}, set())
        return sorted(farm.drv_name(a["drv"]) for a in node.attempts() if a["result"] == "success")

    def same_as_stock(self, node, out):
        for path in self.nix.lines("nix-store", "--query", "--requisites", out):
            ours, theirs = node.narinfo(path), self.nix.lines("nix-store", "--query", "--hash", path)
            self.assertEqual(ours["NarHash"], theirs[0], path)
            references = sorted(farm.base_name(p) for p in self.nix.lines("nix-store", "--query", "--references", path))
            self.assertEqual(ours["References"], references, path)

    def nothing_wrong_is_valid(self, node):
        for record in glob.glob(os.path.join(node.state, "local/valid/*")):
            stated = dict(line.split(": ", 1) for line in farm.read(record).splitlines())["NarHash"]
            tree = os.path.join(node.state, "local/store", os.path.basename(record))
            found = self.nix.lines("nix-hash", "--type", "sha256", "--base32", tree)
            self.assertEqual(stated, "sha256:" + found[0], record)

    def stock_nix_gets_the_closure(self, node, out):
        """From this node alone."""
        nix = farm.Nix(self.scratch, "fresh" + farm.base_name(node.state), settings={"substituters": node.ready["http"], "max-jobs": "0",
                                                        "trusted-public-keys": node.ready["public_key"]})
        nix.run("nix-store", "--realise", out)
        nix.run("nix", "store", "verify", "--recursive", out)
        self.assertEqual(sorted(nix.lines("nix-store", "--query", "--requisites", out)),
                         sorted(self.nix.lines("nix-store", "--query", "--requisites", out)))

    # --- that it works

    def test_what_another_node_has_is_substituted_and_then_served_without_it(self):
        drv, = self.instantiate(GRAPH)
        self.out, = self.nix.lines("nix-store", "--realise", "/nix/store/" + farm.base_name(drv))
        first = self.new_farm(state=self.scratch.file("first"))
        self.ends_with(first.build(drv), OK)
        node = self.new_farm(settings=caches([first.ready["http"]], [first.ready["public_key"]]))
        self.assertEqual(self.builds(node, drv), [])
        self.assertIn("0 built, 1 reused", self.said)
        first.stop()
        self.stock_nix_gets_the_closure(node, self.out)
        self.assertEqual(self.builds(node, drv), [])

    def test_what_stock_nix_copied_is_substituted_whatever_its_compression(self):
        for compression in ("none", "xz", "zstd"):
            with self.subTest(compression):
                self.scratch.run(["rm", "-rf", self.scratch.file("upstream")])
                server, drv = self.stock_cache(compression)
                node = self.node(server, state=self.scratch.file("state-" + compression))
                self.assertEqual(self.builds(node, drv), [])
                self.assertEqual(len(server.nars()), 3)  # each once
                self.stock_nix_gets_the_closure(node, self.out)

    def test_a_directory_is_a_cache_too(self):
        server, drv = self.stock_cache()
        node = self.new_farm(settings=caches(["file://" + self.directory], [server.key]))
        self.assertEqual(self.builds(node, drv), [])
        self.assertEqual(server.requests, [])

    def test_only_what_no_cache_has_is_built_and_what_it_refers_to_comes_with_it(self):
        server, _ = self.stock_cache()
        drv, = self.instantiate(MORE, name="more")
        self.out, = self.nix.lines("nix-store", "--realise", "/nix/store/" + farm.base_name(drv))
        node = self.node(server)
        self.assertEqual(self.builds(node, drv), ["more"])
        server.shutdown()
        self.stock_nix_gets_the_closure(node, self.out)

    def test_what_was_taken_from_a_cache_is_there_without_it(self):
        server, _ = self.stock_cache()
        node = self.node(server)
        # only `more` is realised: what it refers to came with it
        self.ends_with(node.build(*self.instantiate(MORE, name="more")), OK)
        node.stop()
        node = self.new_farm(state=node.state)
        lib, = self.instantiate(GRAPH.split("in step")[0] + "in lib", name="lib")
        third, = self.instantiate(GRAPH.split("in step")[0] + 'in step "third" "cat ${lib}/seed > $out"', name="third")
        for drv, built in ((third, ["more", "third"]), (lib, ["more", "third"])):
            self.out, = self.nix.lines("nix-store", "--realise", "/nix/store/" + farm.base_name(drv))
            self.assertEqual(self.builds(node, drv), built)
        self.stock_nix_gets_the_closure(node, self.out)

    def test_a_derivation_that_allows_no_substitutes_is_built(self):
        server, drv = self.stock_cache(text='make { allowSubstitutes = false; } "own" "echo own > $out"')
        node = self.node(server)
        self.assertEqual(self.builds(node, drv), ["own"])

    def test_a_cache_is_asked_once_for_each_path(self):
        server, drv = self.stock_cache()
        node = self.node(server)
        roots = self.instantiate('''let leaf = step "leaf" "sleep 100000 || true; echo absent > $out"; in [
          (step "one" "cat ${leaf} > $out; echo one >> $out") (step "two" "cat ${leaf} > $out; echo two >> $out") ]''', name="absent")
        self.ends_with(node.build(drv), OK)
        requests = []
        for root in roots:  # the second is planned while `leaf`, which no cache has, is not there yet
            requests.append(node.submit(root))
            farm.wait_until("it waits for the leaf", lambda: (lambda s: s["building"] == 1 and s["planned"] == 1)(
                node.status(requests[-1])["steps"]))
        self.end_sleepers()
        for request in requests:
            self.ends_with(node.coppice("wait", request), OK)
        asked = [path for path in server.requests if path.endswith(".narinfo")]
        self.assertEqual(len(asked), 6)  # app, lib and seed; leaf, one and two
        self.assertEqual(len(asked), len(set(asked)), asked)

    def test_what_is_to_be_built_again_is_built_although_a_cache_has_it(self):
        server, drv = self.stock_cache()
        node = self.node(server)
        self.assertEqual(self.builds(node, drv), [])
        self.ends_with(node.build(drv, "--rebuild"), OK)
        self.assertEqual(node.attempts_at("app"), ["success"])

    # --- what caches do

    def test_a_slow_cache_is_waited_for(self):
        server, drv = self.stock_cache("none")
        server.narinfo_delay, server.chunk, server.pause = 1, 16_384, 0.1
        node = self.node(server, timeout="5 s")
        self.assertEqual(self.builds(node, drv), [])

    def test_a_download_that_is_cut_again_and_again_is_resumed(self):
        server, drv = self.stock_cache("none")
        server.cut = 100_000
        node = self.node(server)
        self.assertEqual(self.builds(node, drv), [])
        self.assertGreaterEqual(server.ranges, 2)

    def lies(self, alter):
        """With a cache that lies, all is built; with a good one beside it, nothing."""
        server, drv = self.stock_cache("none")
        server.alter = alter
        node = self.node(server, state=self.scratch.file("alone"))
        self.assertIn("app", self.builds(node, drv))
        good = Server(self.directory, server.key)
        self.addCleanup(good.server_close)
        self.addCleanup(good.shutdown)
        beside = self.node(server, good, state=self.scratch.file("beside"))
        self.assertEqual(self.builds(beside, drv), [])
        return node

    def test_a_nar_that_is_not_what_was_signed_is_not_used(self):
        def alter(path, body):
            at = 96
            return body[:at] + bytes([body[at] ^ 1]) + body[at + 1:] if path.startswith("/nar/") else body

        self.lies(alter)

    def test_a_nar_that_is_garbage_is_not_used(self):
        self.lies(lambda path, body: os.urandom(len(body)) if path.startswith("/nar/") else body)

    def test_a_nar_that_is_of_another_path_is_not_used(self):
        files = []

        def alter(path, body):
            if not path.startswith("/nar/"):
                return body
            files.append(path)
            others = [f for f in sorted(os.listdir(self.directory + "/nar")) if not path.endswith(f)]
            with open(os.path.join(self.directory, "nar", others[0]), "rb") as f:
                return f.read()

        self.lies(alter)
        self.assertTrue(files)

    def test_a_narinfo_with_another_hash_than_was_signed_is_not_used(self):
        def alter(path, body):
            return edited(body.decode(), "NarHash", "sha256:" + "0" * 52).encode() if path.endswith(".narinfo") else body

        self.lies(alter)

    def test_a_narinfo_with_a_wrong_signature_is_not_used(self):
        def alter(path, body):
            return edited(body.decode(), "Sig", "upstream-1:" + "A" * 86 + "==").encode() if path.endswith(".narinfo") else body

        self.lies(alter)

    def test_a_narinfo_without_references_that_were_signed_is_not_used(self):
        def alter(path, body):
            return edited(body.decode(), "References", "").encode() if path.endswith(".narinfo") else body

        server, drv = self.stock_cache("none")
        server.alter = alter
        self.assertIn("app", self.builds(self.node(server), drv))

    def test_a_narinfo_that_is_garbage_is_not_used(self):
        self.lies(lambda path, body: os.urandom(1000) if path.endswith(".narinfo") else body)

    def test_a_narinfo_that_does_not_end_is_not_used(self):
        self.lies(lambda path, body: body + b"Sig: x\n" * 1_000_000 if path.endswith(".narinfo") else body)

    def test_a_cache_whose_key_is_not_trusted_is_not_used(self):
        server, drv = self.stock_cache()
        node = self.new_farm(settings=caches([server.url], [OTHER_KEY]))
        self.assertEqual(self.builds(node, drv), ["app", "lib", "seed"])
        self.assertEqual(server.nars(), [])

    def test_a_cache_for_another_store_directory_is_not_used(self):
        server, drv = self.stock_cache()
        server.alter = lambda path, body: b"StoreDir: /gnu/store\n" if path == "/nix-cache-info" else body
        node = self.node(server)
        self.assertEqual(self.builds(node, drv), ["app", "lib", "seed"])
        self.assertEqual(server.requests, ["/nix-cache-info"])
        self.assertIn("/gnu/store", node.daemon.err())

    def test_what_a_cache_names_and_does_not_have_is_built(self):
        server, drv = self.stock_cache()
        server.alter = lambda path, body: None if path.startswith("/nar/") else body
        node = self.node(server)
        self.assertEqual(self.builds(node, drv), ["app", "lib", "seed"])

    def test_an_input_that_vanishes_between_the_plan_and_its_download_is_built(self):
        server, _ = self.stock_cache()
        drv, = self.instantiate(MORE, name="more")
        self.out, = self.nix.lines("nix-store", "--realise", "/nix/store/" + farm.base_name(drv))
        server.alter = lambda path, body: None if path.startswith("/nar/") else body
        node = self.node(server)
        self.assertEqual(self.builds(node, drv), ["lib", "more", "seed"])

    def test_answers_that_are_errors_are_asked_for_again(self):
        server, drv = self.stock_cache()
        failed = set()

        def status(path):
            fresh = path not in failed
            failed.add(path)
            return 503 if fresh else 200

        server.status = status
        node = self.node(server)
        self.assertEqual(self.builds(node, drv), [])
        self.assertGreater(len(failed), 3)

    # --- that are not there

    def is_away(self, url):
        """Everything is built, and the client is told why; and a cache that is there is used all the same."""
        server, drv = self.stock_cache()
        node = self.new_farm(state=self.scratch.file("alone"), settings=caches([url], [server.key], "2 s"))
        self.assertEqual(self.builds(node, drv), ["app", "lib", "seed"])
        self.assertIn(f"{url} does not answer", self.said)
        beside = self.new_farm(state=self.scratch.file("beside"), settings=caches([url, server.url], [server.key], "2 s"))
        self.assertEqual(self.builds(beside, drv), [])

    def test_a_cache_that_refuses_connections_costs_no_build(self):
        self.is_away(f"http://127.0.0.1:{farm.free_port()}")

    def test_a_cache_that_accepts_connections_and_says_nothing_costs_no_build(self):
        hole = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(hole.close)
        self.is_away(f"http://127.0.0.1:{hole.getsockname()[1]}")

    def test_a_directory_that_is_not_mounted_costs_no_build(self):
        self.is_away("file://" + self.scratch.file("not-mounted"))

    def test_an_address_that_is_no_cache_is_refused_at_the_start(self):
        node = farm.Farm(self.scratch, settings=caches(["s3://bucket"], []))
        done = self.scratch.run(node.argv)
        self.assertEqual(done.code, farm.USAGE, str(done))
        self.assertIn("upstream.substituters", done.err)


if __name__ == "__main__":
    farm.main()

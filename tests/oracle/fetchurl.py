"""What Nix has built in as `builtin:fetchurl`, from servers good and bad; stock Nix fetches the same beside."""

import base64
import hashlib
import http.server
import lzma
import os
import ssl
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import farm
from beside import BesideNix
from farm import FAILED, OK


def nar(path):
    return subprocess.run(["nix-store", "--dump", path], stdout=subprocess.PIPE, check=True).stdout


class Server(http.server.ThreadingHTTPServer):
    """Serves `files`, and misbehaves for those named in `faults`: a list of what to do, one per request, before it
    behaves. `asked` has the requests. Without `ranges`, it sends all of a file whatever part is asked for."""

    def __init__(self, certificate=None):
        self.files, self.faults, self.asked, self.ranges = {}, {}, [], True
        self.scheme = "https" if certificate else "http"
        super().__init__(("127.0.0.1", 0), Handler)
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self.socket = context.wrap_socket(self.socket, server_side=True)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def url(self, path):
        return f"{self.scheme}://127.0.0.1:{self.server_port}{path}"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        start = int(self.headers.get("Range", "bytes=0-")[6:-1])
        self.server.asked.append((self.path, start))
        if not self.server.ranges:
            start = 0
        faults = self.server.faults.get(self.path, [])
        fault = faults.pop(0) if faults else None
        body = self.server.files.get(self.path)
        if isinstance(fault, int) or body is None:
            self.send_response(fault or 404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        if fault == "cut":
            self.wfile.write(body[start:start + (len(body) - start) // 2])
            self.close_connection = True
        elif fault == "hang":
            self.wfile.flush()
            time.sleep(farm.PATIENCE_S)
        else:
            self.wfile.write(body[start:])


class Fetchurl(BesideNix):
    """`builtin:fetchurl`, which nixpkgs begins with."""

    def setUp(self):
        super().setUp()
        self.server = Server()
        self.addCleanup(self.server.server_close)
        self.addCleanup(self.server.shutdown)

    def fetch(self, path, digest, more=""):
        url = self.server.url(path)
        return f'''import <nix/fetchurl.nix> {{ url = "{url}"; sha256 = "{digest}"; {more} }}'''

    def flat(self, path, more=""):
        return self.fetch(path, hashlib.sha256(self.server.files[path]).hexdigest(), more)

    def test_files_and_archives_are_what_nix_makes_of_them(self):
        tree = farm.write(self.scratch.file("work/tree/sub/file"), "contents\n")
        os.symlink("file", os.path.dirname(tree) + "/link")
        program = farm.write(self.scratch.file("work/program"), "some bytes\n")
        os.chmod(program, 0o755)
        archive, made = nar(self.scratch.file("work/tree")), nar(program)
        large = os.urandom(3_000_000)
        self.server.files = {"/plain": b"some bytes\n", "/empty": b"", "/large": large, "/a.nar": archive, "/a.nar.xz": lzma.compress(archive),
                             "/two.xz": lzma.compress(archive[:100]) + lzma.compress(archive[100:]), "/file.xz": lzma.compress(b"not unpacked")}
        unpacked = hashlib.sha256(archive).hexdigest()
        self.same_as_nix(f'''
          plain = {self.flat("/plain")}; empty = {self.flat("/empty")}; large = {self.flat("/large")}; kept = {self.flat("/file.xz")};
          nar = {self.fetch("/a.nar", unpacked, "unpack = true;")}; xz = {self.fetch("/a.nar.xz", unpacked, 'unpack = true; name = "xz";')};
          two = {self.fetch("/two.xz", unpacked, 'unpack = true; name = "two";')};
          program = {self.fetch("/plain", hashlib.sha256(made).hexdigest(), 'executable = true; name = "program";')};
          used = step "used" "cat ${{{self.flat("/plain", 'name = "input";')}}} > $out";
        ''')

    def build(self, expression, code):
        drv, = self.nix.instantiate(self.expression(expression))
        return self.ends_with(self.node.build(drv, "--json"), code), "/nix/store/" + farm.base_name(drv)

    def test_a_server_in_trouble_is_asked_again_and_a_cut_download_is_continued(self):
        self.server.files = {"/file": os.urandom(1_000_000)}
        self.server.faults = {"/file": [503, 429, "cut"]}
        done, drv = self.build(self.flat("/file"), OK)
        self.assertEqual([start > 0 for _, start in self.server.asked], [False, False, False, True])
        log = self.node.coppice("log", drv).out
        self.assertIn("HTTP error 503", log)
        self.assertIn("retrying", log)

    def test_a_cut_download_from_a_server_without_ranges_begins_again(self):
        self.server.files = {"/file": os.urandom(1_000_000)}
        self.server.faults = {"/file": ["cut"]}
        self.server.ranges = False
        self.build(self.flat("/file"), OK)
        self.assertEqual([start > 0 for _, start in self.server.asked], [False, True, False])

    def test_what_is_not_there_fails_at_once_and_what_stays_broken_after_a_few_tries(self):
        self.server.files = {"/file": b"x"}
        self.server.faults = {"/file": [500] * 100}
        zero = "0" * 64
        for path, status, tries in (("/nowhere", 404, 1), ("/file", 500, 5)):
            with self.subTest(path):
                self.server.asked.clear()
                done, drv = self.build(self.fetch(path, zero), FAILED)
                self.assertEqual(done.json()[0]["result"], "build_failed")
                self.assertIn(f"error: unable to download '{self.server.url(path)}': HTTP error {status}", self.node.coppice("log", drv).out)
                self.assertEqual(len(self.server.asked), tries)

    def test_archives_that_are_none_fail(self):
        archive = nar(farm.write(self.scratch.file("work/file"), "contents"))
        self.server.files = {"/a.nar": b"no archive" * 10, "/a.nar.xz": b"no archive" * 10, "/short.xz": lzma.compress(archive)[:-20]}
        for path, words in (("/a.nar", "malformed NAR"), ("/a.nar.xz", "malformed NAR"), ("/short.xz", "the xz stream is cut off")):
            with self.subTest(path):
                _, drv = self.build(self.fetch(path, "0" * 64, "unpack = true;"), FAILED)
                self.assertIn(words, self.node.coppice("log", drv).out)

    def test_another_file_than_specified_is_a_mismatch(self):
        self.server.files = {"/file": b"x"}
        done, _ = self.build(self.fetch("/file", "0" * 64), FAILED)
        self.assertEqual(done.json()[0]["result"], "hash_mismatch")
        self.assertIn("got:    sha256-" + base64.b64encode(hashlib.sha256(b"x").digest()).decode(), done.err)

    def test_a_wrong_output_is_kept_for_whoever_corrects_the_hash(self):
        self.server.files = {"/file": b"x", "/other": b"y"}
        right = {path: hashlib.sha256(body).hexdigest() for path, body in self.server.files.items()}
        self.build(self.fetch("/file", "0" * 64), FAILED)
        self.assertEqual(len(self.server.asked), 1)
        done, _ = self.build(self.fetch("/file", right["/file"]), OK)
        self.assertEqual(len(self.server.asked), 1)
        out = done.json()[0]["outputs"]["out"]
        self.assertEqual(self.node.narinfo(out)["CA"], "fixed:sha256:" + self.nix.run("nix", "hash", "to-base32", "--type", "sha256", right["/file"]).out.strip())
        # damaged meanwhile, it is made again
        self.build(self.fetch("/other", "0" * 64), FAILED)
        drv, = self.nix.instantiate(self.expression(self.fetch("/other", right["/other"])))
        kept = self.nix.lines("nix-store", "--query", "--outputs", "/nix/store/" + farm.base_name(drv))[0]
        real = os.path.join(self.node.state, "local/store", farm.base_name(kept))
        os.chmod(real, 0o644)
        farm.write(real, "z")
        self.ends_with(self.node.build(drv), OK)
        self.assertEqual(farm.read(real), "y")
        self.assertEqual(len(self.server.asked), 3)

    def test_a_fetch_that_hangs_can_be_cancelled(self):
        self.server.files, self.server.faults = {"/file": b"x"}, {"/file": ["hang"]}
        drv, = self.nix.instantiate(self.expression(self.flat("/file")))
        request = self.node.submit(drv)
        farm.wait_until("the server is asked", lambda: self.server.asked)
        fetchers = farm.descendants(self.node.daemon.pid)
        self.ends_with(self.node.coppice("cancel", request), OK)
        self.builders_gone(fetchers)

    def test_servers_are_trusted_by_the_authorities_of_the_machine(self):
        certificate = self.scratch.file("work", "certificate.pem")
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=test", "-addext",
                        "subjectAltName=IP:127.0.0.1", "-keyout", certificate, "-out", certificate + ".crt"],
                       check=True, stderr=subprocess.DEVNULL)
        with open(certificate, "a", encoding="utf-8") as f:
            f.write(farm.read(certificate + ".crt"))
        server = Server(certificate)
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        self.server.files = server.files = {"/file": b"x"}
        digest = hashlib.sha256(b"x").hexdigest()
        expression = f'''import <nix/fetchurl.nix> {{ url = "{server.url("/file")}"; sha256 = "{digest}"; }}'''
        _, drv = self.build(expression, FAILED)
        self.assertIn("certificate", self.node.coppice("log", drv).out)
        self.assertEqual(server.asked, [])
        self.node.stop()
        self.scratch.env["SSL_CERT_FILE"] = certificate + ".crt"
        self.node = self.new_farm()
        self.build(expression, OK)

    def test_without_a_declared_hash_there_is_no_network(self):
        self.server.files = {"/file": b"x"}
        url = self.server.url("/file")
        self.build(f'''derivation {{ name = "open"; system = "builtin"; builder = "builtin:fetchurl"; url = "{url}"; }}''', FAILED)
        self.assertEqual(self.server.asked, [])


if __name__ == "__main__":
    farm.main()

"""Derivations that the fixtures have not end as with stock Nix, which builds the same beside: the outputs' paths, NAR
hashes, sizes and references, or the failure in its words."""

import base64
import hashlib
import http.server
import lzma
import os
import re
import ssl
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import farm
from farm import FAILED, OK

# Inside: `structured NAME SCRIPT` is a derivation with structured attributes; `closure` has 25 paths that refer to each
# other, `top` is the last of them.
PRELUDE = r'''
  structured = attrs: name: script: derivation ({
    inherit name; system = "x86_64-linux"; builder = "/bin/bash"; __structuredAttrs = true;
    args = [ "-ec" "source ./.attrs.sh; PATH=/usr/bin:/bin; ${script}" ]; } // attrs);
  none = "0000000000000000000000000000000000000000000000000000";
  leaf = step "leaf" "echo leaf > $out";
  link = n: below: step "link-${toString n}"
    "mkdir $out; head -c ${toString (n * 100)} /dev/zero > $out/f; echo ${toString below} $out > $out/refs";
  closure = builtins.foldl' (have: n: [ (link n (if n < 5 then [ leaf ] else [ (builtins.head have) (builtins.elemAt have 2) ])) ] ++ have)
    [ ] (builtins.genList (i: i) 25);
  top = builtins.head closure;
'''


def normalised(line):
    return " ".join(line.split()).removeprefix("error: ")


class BesideNix(farm.TestCase):
    def setUp(self):
        super().setUp()
        self.node = self.new_farm(settings='features = ["big-parallel", "kvm"]\n')

    def cases(self, attributes):
        """{name: .drv} of the attributes of that set."""
        file = self.expression("let " + PRELUDE + " in { " + attributes + " }")
        names = farm.json.loads(self.nix.run("nix-instantiate", "--eval", "--strict", "--json", "-E",
                                             f"builtins.attrNames (import {file})").out)
        drvs = self.nix.instantiate(file, *[w for n in names for w in ("-A", n)])
        return dict(zip(names, drvs))

    def same_as_nix(self, attributes):
        for name, drv in self.cases(attributes).items():
            with self.subTest(name):
                self.ends_with(self.node.build(drv), OK)
                theirs, ours = {}, {}
                for path in self.nix.lines("nix-store", "--realise", "/nix/store/" + farm.base_name(drv)):
                    info, = farm.json.loads(self.nix.run("nix", "path-info", "--json", path).out)
                    theirs[path] = (farm.hash_bytes(info["narHash"]), info["narSize"], sorted(map(farm.base_name, info["references"])))
                    said = self.node.narinfo(path)
                    ours[path] = (farm.hash_bytes(said["NarHash"]), int(said["NarSize"]), said["References"])
                self.assertEqual(ours, theirs)

    def fails_as_with_nix(self, attributes, result):
        for name, drv in self.cases(attributes).items():
            with self.subTest(name):
                theirs = self.nix.run("nix-store", "--realise", "/nix/store/" + farm.base_name(drv), check=False)
                self.assertNotEqual(theirs.code, 0)
                ours = self.ends_with(self.node.build(drv, "--json"), FAILED)
                root, = ours.json()
                self.assertEqual(root["result"], result)
                said = [normalised(line) for line in ours.err.splitlines()]
                start = theirs.err.index("error: ")
                # Nix says where outputs lie on the host, and adds the output's name in one text
                plain = re.sub(r"/[^' ]*/nix/store/[^/]*\.drv\.chroot", "", theirs.err[start:]).replace(" for output 'out';", ";")
                for line in plain.splitlines():
                    self.assertTrue(any(normalised(line) in s for s in said), (line, said))


class Semantics(BesideNix):
    def test_structured_attributes_are_told_to_bash_and_as_json(self):
        self.same_as_nix(r'''
          types = structured {
            big = 5000000000; more = 9223372036854775807; less = 0 - 9223372036854775807; whole = 3.0; exp = 1.0e10; huge = 1.0e300;
            tiny = 1.0e-300; near = 16777216.5; float = 0.1; t = true; f = false; nul = null; q = "it's \"$x\" `y` \\ \n\t";
            empty = [ ]; emptySet = { }; mixed = [ 1 "a b" true false null 2.0 ]; bad = [ 1 2.5 ]; nest = [ [ 1 ] ];
            set = { "a b" = 1; "it's" = "x"; n = null; }; badSet = { a = [ ]; }; "not-a-name" = 1; "1x" = 2; _x = 3; unicode = "ü 世 \u0001";
          } "types" "cat .attrs.sh .attrs.json > \${outputs[out]}";
          environment = structured { outputs = [ "out" "dev" ]; passAsFile = [ "x" ]; x = "y"; requiredSystemFeatures = [ "kvm" ]; }
            "environment" "env | grep -v NIX_ATTRS | sort > \${outputs[out]}; ls -A > \${outputs[dev]}";
          placeholders = structured { flags = [ "--prefix=${builtins.placeholder "out"}" ]; }
            "placeholders" "echo \${flags[@]} > \${outputs[out]}; cat .attrs.json >> \${outputs[out]}";
          here = structured { } "here" "[ $NIX_ATTRS_SH_FILE -ef .attrs.sh ] || [ ! -e $NIX_ATTRS_SH_FILE ]; echo > \${outputs[out]}";
        ''')

    def test_the_references_graph_of_a_closure_is_told(self):
        self.same_as_nix(r'''
          plain = make { exportReferencesGraph = [ "all" top "one" leaf "below" "${top}/f" ]; } "plain" "cat all one below > $out";
          json = structured { exportReferencesGraph = { all = [ top ]; some = [ leaf (builtins.elemAt closure 20) ]; single = leaf; }; }
            "json" "cat .attrs.sh .attrs.json > \${outputs[out]}";
          sources = structured { exportReferencesGraph.all = [ (builtins.toFile "text" "see ${builtins.toFile "inner" "x"}") ]; }
            "sources" "cat .attrs.json > \${outputs[out]}";
          derivations = make { exportReferencesGraph = [ "all" top.drvPath ]; } "derivations" "cat all > $out";
        ''')

    def test_a_references_graph_of_what_is_no_input_is_refused(self):
        self.fails_as_with_nix(r'''
          odd = make { exportReferencesGraph = [ "a" ]; } "odd" "echo > $out";
          other = make { exportReferencesGraph = [ "a" "/nix/store/0000000000000000000000000000000c-x" ]; } "other" "echo > $out";
          outside = make { exportReferencesGraph = [ "a" "/etc/passwd" ]; } "outside" "echo > $out";
          name = make { exportReferencesGraph = [ "a/b" leaf ]; } "name" "echo > $out";
        ''', "unsupported")

    def test_outputs_that_keep_their_rules_are_taken(self):
        self.same_as_nix(r'''
          requisites = make { allowedRequisites = [ leaf ]; } "requisites" "echo ${leaf} $out > $out";
          all = make { allowedRequisites = [ top leaf "out" ] ++ closure; } "all" "echo ${top} > $out";
          dis = make { disallowedRequisites = [ "out" top ]; disallowedReferences = [ top ]; } "dis" "echo $out ${leaf} > $out";
          outputs = make { outputs = [ "out" "dev" ]; allowedReferences = [ "dev" ]; } "outputs" "echo $dev > $out; echo > $dev";
          sizes = structured { outputChecks.out = { maxSize = 1000; maxClosureSize = 100000; allowedRequisites = [ leaf "out" ]; }; }
            "sizes" "echo ${leaf} > \${outputs[out]}";
          unchecked = structured { outputs = [ "out" "dev" ]; outputChecks.dev.allowedReferences = [ ]; allowedReferences = [ ]; }
            "unchecked" "echo ${leaf} > \${outputs[out]}; echo > \${outputs[dev]}";
        ''')

    def test_outputs_that_break_their_rules_are_rejected(self):
        self.fails_as_with_nix(r'''
          self = make { allowedReferences = [ ]; } "self" "echo $out > $out";
          references = make { allowedReferences = [ leaf ]; } "references" "echo ${top} ${leaf} > $out";
          requisites = make { allowedRequisites = [ top ]; } "requisites" "echo ${top} > $out";
          disallowed = make { disallowedReferences = [ leaf ]; } "disallowed" "echo ${leaf} > $out";
          deep = make { disallowedRequisites = [ leaf ]; } "deep" "echo ${top} > $out";
          output = make { outputs = [ "out" "dev" ]; disallowedReferences = [ "dev" ]; } "output" "echo $dev > $out; echo > $dev";
          through = make { outputs = [ "out" "dev" ]; disallowedRequisites = [ leaf ]; } "through" "echo $dev > $out; echo ${leaf} > $dev";
          specifier = make { allowedReferences = [ "nope" ]; } "specifier" "echo > $out";
          structuredSelf = structured { outputChecks.out.allowedRequisites = [ ]; } "structuredSelf" "echo \${outputs[out]} > \${outputs[out]}";
          structuredDev = structured { outputs = [ "out" "dev" ]; outputChecks.dev.disallowedReferences = [ "out" ]; }
            "structuredDev" "echo > \${outputs[out]}; echo \${outputs[out]} > \${outputs[dev]}";
          world = step "world" "echo > $out; chmod 666 $out";
          group = step "group" "mkdir $out; chmod 775 $out";
          pipe = step "pipe" "mkdir $out; mkfifo $out/x";
          directory = make { outputHashAlgo = "sha256"; outputHash = "${none}"; } "directory" "mkdir $out";
          executable = make { outputHashAlgo = "sha256"; outputHash = "${none}"; } "executable" "echo > $out; chmod +x $out";
          link = make { outputHashAlgo = "sha256"; outputHash = "${none}"; } "link" "ln -s ${leaf} $out";
          cycle = make { outputs = [ "out" "dev" ]; } "cycle" "echo $dev > $out; echo $out > $dev";
          longCycle = make { outputs = [ "a" "b" "c" "d" ]; } "longCycle" "echo $b > $a; echo $c > $b; echo $d $c > $c; echo $b > $d";
        ''', "output_rejected")

    def test_outputs_that_are_too_large_are_rejected_with_both_sizes(self):
        self.fails_as_with_nix(r'''
          size = structured { outputChecks.out.maxSize = 100; } "size" "head -c 1000 /dev/zero > \${outputs[out]}";
          closureSize = structured { outputChecks.out.maxClosureSize = 2000; } "closureSize" "echo ${top} > \${outputs[out]}";
          withOutput = structured { outputs = [ "out" "dev" ]; outputChecks.out.maxClosureSize = 500; }
            "withOutput" "echo \${outputs[dev]} > \${outputs[out]}; head -c 1000 /dev/zero > \${outputs[dev]}";
        ''', "output_limit")

    def test_outputs_of_every_kind_are_taken(self):
        # chmod(2) as 32-bit programs call it, from a page below 4 GiB
        farm.write(self.scratch.file("work/modes32.py"), """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
page = libc.mmap(0, 4096, 7, 0x62, -1, 0)
code = bytes.fromhex("53b80f000000bb") + (page + 64).to_bytes(4, "little") + bytes.fromhex("b9ed090000cd805bc3")
ctypes.memmove(page, code, len(code))
ctypes.memmove(page + 64, os.environ["out"].encode(), len(os.environ["out"]))
print(ctypes.CFUNCTYPE(ctypes.c_int)(page)())
""")
        self.same_as_nix(r'''
          symlink = step "symlink" "ln -s ${leaf} $out";
          dangling = step "dangling" "ln -s /nowhere $out";
          usesSymlink = step "uses" "cat ${step "link" "ln -s ${leaf} $out"} > $out";
          chain = make { outputs = [ "a" "b" "c" ]; } "chain" "echo $b > $a; echo $c $b > $b; echo > $c";
          modes = step "modes" "mkdir $out; cd $out; touch a b c; chmod 4755 a || echo no > d; chmod 600 b; chmod 711 c; mkdir e; chmod 2755 e || echo no > f; umask > g";
          modes32 = make { PATH = "/usr/bin:/bin"; } "modes32" "touch $out; python3 ${./modes32.py}; stat -c %a $out > mode; cat mode > $out";
          hardLinks = step "hardLinks" "mkdir $out; echo x > $out/a; ln $out/a $out/b";
          i686 = derivation { name = "i686"; system = "i686-linux"; builder = "/bin/sh"; PATH = "/usr/bin:/bin"; args = [ "-c" "uname -m > $out" ]; };
          attributes = make { PATH = "/usr/bin:/bin"; } "attributes" "python3 -c 'import os,sys\nf=os.environ[\"out\"]\nopen(f,\"w\").close()\ntry: os.setxattr(f, \"user.x\", b\"y\")\nexcept OSError as e: open(f,\"w\").write(str(e.errno))'";
        ''')

    def test_fixed_outputs_that_refer_to_something_are_rejected(self):
        # Nix 2.8.0 registers some under paths that nobody asked for; later ones say what we say
        for script in ("echo $out > $out", "echo ${leaf} > $out"):
            with self.subTest(script):
                drv = self.cases(f'''refers = make {{ outputHashMode = "recursive"; outputHashAlgo = "sha256";
                  outputHash = "{"0" * 64}"; }} "refers" "{script}";''')["refers"]
                done = self.ends_with(self.node.build(drv, "--json"), FAILED)
                self.assertEqual(done.json()[0]["result"], "output_rejected")
                self.assertIn("fixed-output derivations must not reference store paths: '/nix/store/" + farm.base_name(drv), done.err)

    def test_impure_variables_come_from_the_daemon(self):
        # the hash of the home directory is what both find in the environment they were started with
        text = self.scratch.env["HOME"] + "--\n"
        digest = hashlib.sha256(text.encode()).hexdigest()
        self.same_as_nix(f'''impure = make {{ impureEnvVars = [ "HOME" "NO_SUCH" ]; outputHashAlgo = "sha256"; outputHash = "{digest}"; }}
          "impure" "echo $HOME-$NO_SUCH- > $out";''')


def nar(path):
    return subprocess.run(["nix-store", "--dump", path], stdout=subprocess.PIPE, check=True).stdout


class Server(http.server.ThreadingHTTPServer):
    """Serves `files`, and misbehaves for those named in `faults`: a list of what to do, one per request, before it
    behaves. `asked` has the requests."""

    def __init__(self, certificate=None):
        self.files, self.faults, self.asked = {}, {}, []
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
        for path, words in (("/a.nar", "malformed NAR"), ("/a.nar.xz", "no xz file"), ("/short.xz", "ends too early")):
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

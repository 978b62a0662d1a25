"""Derivations that the fixtures have not end as with stock Nix, which builds the same beside: the outputs' paths, NAR
hashes, sizes and references, or the failure in its words."""

import hashlib
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import farm
from beside import BesideNix
from farm import FAILED

# chmod(2) as 32-bit programs call it, from a page below 4 GiB
MODES32 = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
page = libc.mmap(0, 4096, 7, 0x62, -1, 0)
code = bytes.fromhex("53b80f000000bb") + (page + 64).to_bytes(4, "little") + bytes.fromhex("b9ed090000cd805bc3")
ctypes.memmove(page, code, len(code))
ctypes.memmove(page + 64, os.environ["out"].encode(), len(os.environ["out"]))
print(ctypes.CFUNCTYPE(ctypes.c_int)(page)())
"""


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
        self.same_as_nix(r'''
          symlink = step "symlink" "ln -s ${leaf} $out";
          dangling = step "dangling" "ln -s /nowhere $out";
          usesSymlink = step "uses" "cat ${step "link" "ln -s ${leaf} $out"} > $out";
          chain = make { outputs = [ "a" "b" "c" ]; } "chain" "echo $b > $a; echo $c $b > $b; echo > $c";
          modes = step "modes" "mkdir $out; cd $out; touch a b c; chmod 4755 a || echo no > d; chmod 600 b; chmod 711 c; mkdir e; chmod 2755 e || echo no > f; umask > g";
          hardLinks = step "hardLinks" "mkdir $out; echo x > $out/a; ln $out/a $out/b";
          attributes = make { PATH = "/usr/bin:/bin"; } "attributes" "python3 -c 'import os,sys\nf=os.environ[\"out\"]\nopen(f,\"w\").close()\ntry: os.setxattr(f, \"user.x\", b\"y\")\nexcept OSError as e: open(f,\"w\").write(str(e.errno))'";
        ''')

    def test_32_bit_programs_are_built_with_and_bound_alike(self):
        program = farm.write(self.scratch.file("work/modes32.py"), MODES32)
        with open(self.scratch.file("probe"), "w", encoding="utf-8") as probe:
            if subprocess.run([sys.executable, program], env={"out": probe.name}, check=False).returncode != 0:
                self.skipTest("this machine's kernel runs no 32-bit programs")
        self.same_as_nix(r'''
          modes32 = make { PATH = "/usr/bin:/bin"; } "modes32" "touch $out; python3 ${./modes32.py}; stat -c %a $out > mode; cat mode > $out";
          i686 = derivation { name = "i686"; system = "i686-linux"; builder = "/bin/sh"; PATH = "/usr/bin:/bin"; args = [ "-c" "uname -m > $out" ]; };
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


if __name__ == "__main__":
    farm.main()

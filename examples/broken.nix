# Builds that fail, each in its own way, to see what is said about it.
#   coppice build broken.nix -A failing --keep-going
{ system ? builtins.currentSystem }:

let
  step = name: script: derivation {
    inherit name system;
    builder = "/bin/sh";
    args = [ "-ec" script ];
  };
  good = step "good" "echo fine > $out";
  bad = step "bad" "echo line one; echo line two; echo this goes wrong >&2; exit 3";
in
{
  # `bad` fails, so `dependant` and `top` are not attempted; `good` is.
  failing =
    let dependant = step "dependant" "read line < ${bad}; echo $line > $out";
    in step "top" "read a < ${good}; read b < ${dependant}; echo $a, $b > $out";

  # Ends well, but makes no output.
  silent = step "silent" "echo nothing to see";

  # The text is not what the hash promises.
  mismatch = derivation {
    name = "mismatch";
    inherit system;
    builder = "/bin/sh";
    args = [ "-ec" "echo surprise > $out" ];
    outputHashMode = "flat";
    outputHashAlgo = "sha256";
    outputHash = builtins.hashString "sha256" "expected\n";
  };

  # No machine of the farm can build for this system.
  unknown = derivation { name = "unknown"; system = "pdp11-unix"; builder = "/bin/sh"; args = [ "-c" "echo > $out" ]; };
}

# Four derivations without any sources: two words, joined, and a greeting.
#   coppice build hello.nix
{ system ? builtins.currentSystem, greeting ? "hello" }:

let
  step = name: script: derivation {
    inherit name system;
    builder = "/bin/sh";
    args = [ "-ec" script ];
  };
  first = step "first" "echo ${greeting} > $out";
  second = step "second" "echo coppice > $out";
  both = step "both" "read a < ${first}; read b < ${second}; echo $a, $b > $out";
in
step "hello" "echo building a greeting; while read line; do echo $line '(from ${both})' > $out; done < ${both}"

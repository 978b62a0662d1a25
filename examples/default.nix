# A tree, drawn by programs that are compiled first: zlib, libpng, Lua and
# FIGlet from Debian's sources, one derivation per compile unit.
#
#   ./fetch-sources.sh DIR
#   coppice build default.nix --arg sources DIR -A all
#
#   units ─ libz ────┬─ libpng ── join ─┐
#                    └─ minigzip ── ... │
#   units ─ liblua ─ lua ─┬─ left ──────┤
#                         └─ right ─────┴─ picture ── all
#
# Needs a C compiler and coreutils in /usr of the machine that builds, nothing
# from the network. Every output is the same bit for bit each time.

{ sources
, system ? builtins.currentSystem
, cflags ? "-O2"
, salt ? "" # any text: other store paths, same graph
}:

let
  inherit (builtins) attrNames attrValues elem filter match path readDir;

  # One derivation that runs a shell script with the host's tools.
  run = name: attrs: script: derivation ({
    inherit name system salt;
    builder = "/bin/sh";
    args = [ "-euc" script ];
    PATH = "/usr/bin:/bin";
    LC_ALL = "C";
    SOURCE_DATE_EPOCH = "1";
  } // attrs);

  endsWith = suffix: s: match ".*\\.(${suffix})" s != null;

  # A source package, by small pieces: a change in one file rebuilds what needs it and nothing else.
  package = dir: rec {
    file = f: path { name = baseNameOf f; path = sources + "/${dir}/${f}"; };
    headers = path {
      name = "headers";
      path = sources + "/${dir}";
      # only the top: the directories below belong to other platforms
      filter = p: type: type == "regular" && endsWith "h" p;
    };
    units = filter (endsWith "c") (attrNames (readDir (sources + "/${dir}")));
  };

  # The unit gets its own name back before it is compiled: an object file names
  # its source, and a store path in there would become a reference.
  object = prefix: pkg: flags: attrs: unit:
    run "${prefix}-${unit}.o" ({ source = pkg.file unit; inherit (pkg) headers; } // attrs) ''
      cp $source ${unit}
      gcc ${cflags} -I $headers ${flags} -c ${unit} -o $out
    '';
  # Likewise for the members of an archive.
  archive = name: objects: run name { inherit objects; } ''
    for o in $objects; do b=''${o##*/}; cp $o ''${b#*-}; done
    ar rcD $out *.o
  '';
  link = name: inputs: libs: run name { inherit inputs; } ''
    mkdir -p $out/bin
    gcc $inputs ${libs} -o $out/bin/${name}
  '';

  zlib = package "zlib";
  libz = archive "libz.a" (map (object "zlib" zlib "-DHAVE_UNISTD_H" { }) zlib.units);
  minigzip = link "minigzip" [ (object "zlib" zlib "" { source = zlib.file "test/minigzip.c"; } "minigzip.c") libz ] "";

  png = package "libpng1.6";
  pngConfig = run "pnglibconf" { source = png.file "scripts/pnglibconf.h.prebuilt"; } ''
    mkdir $out
    cp $source $out/pnglibconf.h
  '';
  pngFlags = "-I ${zlib.headers} -I ${pngConfig} -DPNG_INTEL_SSE_OPT=0 -DPNG_ARM_NEON_OPT=0";
  libpng = archive "libpng.a" (map (object "libpng" png pngFlags { })
    (filter (u: ! elem u [ "example.c" "pngtest.c" ]) png.units));
  pngtest = link "pngtest" [ (object "libpng" png pngFlags { } "pngtest.c") libpng libz ] "-lm";
  join = link "join" [ (object "join" png pngFlags { source = ./src/join.c; } "join.c") libpng libz ] "-lm";

  luaPackage = package "lua5.4/src";
  # Debian's luaconf.h includes a header that its packaging generates.
  luaMultiarch = run "lua-multiarch" { } ''
    mkdir $out
    echo "#define DEB_HOST_MULTIARCH \"$(gcc -print-multiarch)\"" > $out/lua5.4-deb-multiarch.h
  '';
  luaObject = object "lua" luaPackage "-DLUA_USE_LINUX -I ${luaMultiarch}" { };
  liblua = archive "liblua.a" (map luaObject (filter (u: ! elem u [ "lua.c" "luac.c" ]) luaPackage.units));
  lua = link "lua" [ (luaObject "lua.c") liblua ] "-Wl,-E -lm -ldl";
  luac = link "luac" [ (luaObject "luac.c") liblua ] "-Wl,-E -lm -ldl";

  figletPackage = package "figlet";
  # Data that the program refers to at run time.
  fonts = run "figlet-fonts" { fonts = map (f: figletPackage.file "fonts/${f}.flf") [ "standard" "small" "slant" ]; } ''
    mkdir -p $out/share/figlet
    for f in $fonts; do b=''${f##*/}; cp $f $out/share/figlet/''${b#*-}; done
  '';
  figletObject = object "figlet" figletPackage
    "-DTLF_FONTS -DDEFAULTFONTDIR='\"${fonts}/share/figlet\"' -DDEFAULTFONTFILE='\"standard\"'" { };
  figlet = run "figlet" {
    outputs = [ "out" "man" ];
    objects = map figletObject [ "figlet.c" "zipio.c" "crc.c" "inflate.c" "utf8.c" ];
    page = figletPackage.file "figlet.6";
  } ''
    mkdir -p $out/bin $man/share/man/man6
    gcc $objects -o $out/bin/figlet
    cp $page $man/share/man/man6/figlet.6
  '';

  # The same program draws two halves, which are joined again.
  half = side: run "${side}.ppm" { program = ./src/tree.lua; } "${lua}/bin/lua $program ${side} 2400 1800 > $out";
  picture = run "tree.png" { left = half "left"; right = half "right"; } "${join}/bin/join $left $right > $out";

  tests = {
    zlib = run "test-zlib" { text = zlib.file "ChangeLog"; } ''
      ${minigzip}/bin/minigzip < $text > text.gz
      gzip -dc text.gz | cmp - $text
      gzip -c $text | ${minigzip}/bin/minigzip -d | cmp - $text
      sha256sum < text.gz > $out
    '';
    libpng = run "test-libpng" { sample = png.file "pngtest.png"; } ''
      cp $sample pngtest.png
      ${pngtest}/bin/pngtest pngtest.png pngout.png > log || { cat log; exit 1; }
      sha256sum < pngout.png > $out
    '';
    lua = run "test-lua" {
      program = builtins.toFile "primes.lua" ''
        local sieve, count = {}, 0
        for n = 2, 100000 do
          if not sieve[n] then
            count = count + 1
            for m = n * n, 100000, n do sieve[m] = true end
          end
        end
        assert(count == 9592, count)
        print(count .. " primes below 100000")
      '';
    } ''
      ${luac}/bin/luac -o primes.luac $program
      ${lua}/bin/lua primes.luac > $out
    '';
    figlet = run "test-figlet" { } ''
      ${figlet}/bin/figlet coppice > $out
      test $(wc -l < $out) -eq 6
    '';
    picture = run "test-picture" { inherit picture; } ''
      cp $picture picture.png
      ${pngtest}/bin/pngtest picture.png again.png > log || { cat log; exit 1; }
      sha256sum < picture.png > $out
    '';
  };

  # Programs are copied, so that they run outside of the store too.
  all = run "all" {
    programs = [ minigzip lua luac figlet ];
    checks = attrValues tests;
    inherit picture fonts;
    program = ./src/tree.lua;
  } ''
    mkdir -p $out/bin $out/share/tests
    for p in $programs; do cp $p/bin/* $out/bin/; done
    for t in $checks; do b=''${t##*/}; cp $t $out/share/tests/''${b#*-}; done
    cp -r $fonts/share/figlet $out/share/figlet
    cp $program $out/share/tree.lua
    cp $picture $out/share/tree.png
    ln -s $picture $out/share/tree.link
  '';
in
{ inherit all libz minigzip libpng join lua luac figlet fonts picture tests; }

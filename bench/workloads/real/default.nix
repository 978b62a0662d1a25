# A real workload: C libraries and programs (zlib, bzip2, zstd, Lua, jq, xz)
# compiled from Debian's sources with the host's gcc, one derivation per
# compile unit.  Offline: needs only /usr of the machine that builds.
#
#   ./fetch-sources.sh /some/dir             (once; Debian's source packages)
#   nix-build default.nix --arg sources /some/dir -A all
#
# With a sandbox the host's tools have to be bound in:
#   --option sandbox true --option sandbox-paths '/usr /bin /lib /lib64'
#
# Attributes: all (everything below and its tests), zlib, bzip2, zstd, lua, jq,
# xz (configure and make in one derivation), tests.<name>, units.<name> (lists).
# `salt` changes every store path and nothing else; `cflags` e.g. "-O0".
# `withXz = false` leaves the one long derivation out.

{ sources
, system ? "x86_64-linux"
, salt ? ""
, cflags ? "-O2"
, path ? "/usr/bin:/bin"
, withXz ? true
}:

let
  inherit (builtins) attrNames baseNameOf concatStringsSep filter listToAttrs map match readDir replaceStrings stringLength substring;

  top = sources;
  has = re: s: match re s != null;

  sh = name: script: attrs: derivation ({
    inherit name system salt;
    builder = "/bin/sh";
    args = [ "-e" "-c" ("export PATH=${path}\n" + script) ];
    LC_ALL = "C"; TZ = "UTC"; SOURCE_DATE_EPOCH = "1";
  } // attrs);

  safe = s: replaceStrings [ "/" ] [ "-" ] s;

  # Only the headers below `dir`, so that a change in one .c file rebuilds one unit.
  headers = name: dir: builtins.path {
    inherit name;
    path = dir;
    filter = p: type: type == "directory" || has ".*\\.(h|inc|def)" (baseNameOf p);
  };
  file = dir: f: builtins.path { name = safe (baseNameOf f); path = dir + "/${f}"; };

  cFiles = dir: sub: map (f: if sub == "" then f else "${sub}/${f}")
    (filter (has ".*\\.c") (attrNames (readDir (if sub == "" then dir else dir + "/${sub}"))));

  # One object file.  The unit is compiled at its own place among the headers
  # (so that #include "../x.h" works) and without any build path in the output.
  unit = { pkg, dir, hdrs, f, flags, extra ? "" }: sh "${pkg}-${safe f}.o" ''
    mkdir -p src; cp -r $headers/. src/; chmod -R u+w src
    cp $source src/${f}
    cd src
    ${extra}
    gcc ${cflags} ${flags} -c ${f} -o unit.o
    cp unit.o $out
  '' { headers = hdrs; source = file dir f; };

  archive = name: objs: sh name "ar rcD lib.a $objs; cp lib.a $out" { inherit objs; };

  zlibDir = top + "/zlib";
  zlibHdrs = headers "zlib-headers" zlibDir;
  zlibUnits = map (f: unit { pkg = "zlib"; dir = zlibDir; hdrs = zlibHdrs; inherit f; flags = "-DHAVE_UNISTD_H -D_LARGEFILE64_SOURCE=1"; })
    (cFiles zlibDir "");
  zlib = archive "libz.a" zlibUnits;
  minigzip = sh "minigzip" ''
    mkdir i; cp ${file zlibDir "zlib.h"} i/zlib.h; cp ${file zlibDir "zconf.h"} i/zconf.h
    gcc ${cflags} -DHAVE_UNISTD_H -I i -x c ${file zlibDir "test/minigzip.c"} -x none ${zlib} -o m
    mkdir -p $out/bin; cp m $out/bin/minigzip
  '' { };

  bzDir = top + "/bzip2";
  bzHdrs = headers "bzip2-headers" bzDir;
  bzUnit = f: unit { pkg = "bzip2"; dir = bzDir; hdrs = bzHdrs; inherit f; flags = "-D_FILE_OFFSET_BITS=64"; };
  bzLibUnits = map bzUnit [ "blocksort.c" "huffman.c" "crctable.c" "randtable.c" "compress.c" "decompress.c" "bzlib.c" ];
  bzMain = bzUnit "bzip2.c";
  libbz2 = archive "libbz2.a" bzLibUnits;
  bzip2 = sh "bzip2" "gcc ${bzMain} ${libbz2} -o b; mkdir -p $out/bin; cp b $out/bin/bzip2" { };

  zstdDir = top + "/zstd/lib";
  zstdHdrs = headers "zstd-headers" zstdDir;
  zstdFlags = "-DXXH_NAMESPACE=ZSTD_ -DZSTD_DISABLE_ASM -DZSTD_LEGACY_SUPPORT=0 -DZSTD_MULTITHREAD -I . -I common";
  zstdUnits = map (f: unit { pkg = "zstd"; dir = zstdDir; hdrs = zstdHdrs; inherit f; flags = zstdFlags; })
    (cFiles zstdDir "common" ++ cFiles zstdDir "compress" ++ cFiles zstdDir "decompress" ++ cFiles zstdDir "dictBuilder");
  libzstd = archive "libzstd.a" zstdUnits;
  zstdProg = top + "/zstd/programs";
  zstdProgHdrs = headers "zstd-program-headers" zstdProg;
  zstdProgUnits = map
    (f: unit {
      pkg = "zstd-cli"; dir = zstdProg; hdrs = zstdProgHdrs; inherit f;
      extra = "mkdir lib; cp -r ${zstdHdrs}/. lib/; chmod -R u+w lib; mkdir -p ../lib; cp -r lib/. ../lib/";
      flags = zstdFlags + " -I lib -I lib/common -I lib/compress -I lib/dictBuilder -DZSTD_NOBENCH -DZSTD_NODICT -DZSTD_NOTRACE";
    }) [ "zstdcli.c" "util.c" "timefn.c" "fileio.c" "fileio_asyncio.c" ];
  zstd = sh "zstd" "gcc $objs ${libzstd} -lpthread -o z; mkdir -p $out/bin; cp z $out/bin/zstd" { objs = zstdProgUnits; };

  luaDir = top + "/lua5.4/src";
  luaHdrs = headers "lua-headers" luaDir;
  # Debian's patch wants a header that its packaging generates.
  luaMultiarch = sh "lua5.4-deb-multiarch.h" ''echo '#define DEB_HOST_MULTIARCH "x86_64-linux-gnu"' > $out'' { };
  luaUnit = f: unit { pkg = "lua"; dir = luaDir; hdrs = luaHdrs; inherit f; extra = "cp ${luaMultiarch} lua5.4-deb-multiarch.h"; flags = "-std=gnu99 -DLUA_COMPAT_5_3 -DLUA_USE_LINUX"; };
  luaLibUnits = map luaUnit (filter (f: f != "lua.c" && f != "luac.c") (cFiles luaDir ""));
  liblua = archive "liblua.a" luaLibUnits;
  luaProg = n: sh n "gcc ${luaUnit "${n}.c"} ${liblua} -Wl,-E -lm -ldl -o p; mkdir -p $out/bin; cp p $out/bin/${n}" { };
  lua = luaProg "lua";
  luac = luaProg "luac";

  jqDir = top + "/jq/src";
  jqHdrs = headers "jq-headers" jqDir;
  # generated header: jq's own definitions as a C string
  jqBuiltin = sh "builtin.inc" ''sed -e 's/\\/\\\\/g' -e 's/"/\\"/g' -e 's/^/"/' -e 's/$/\\n"/' ${file jqDir "builtin.jq"} > b; cp b $out'' { };
  jqVersion = sh "version.h" ''echo '#define JQ_VERSION "1.6"' > $out'' { };
  jqUnits = map
    (f: unit {
      pkg = "jq"; dir = jqDir; hdrs = jqHdrs; inherit f;
      extra = "mkdir -p src; cp ${jqVersion} src/version.h; cp ${jqBuiltin} src/builtin.inc";
      flags = "-std=gnu99 -D_GNU_SOURCE -DIEEE_8087 -DHAVE_TIMEGM -DHAVE_GMTIME_R -DHAVE_GMTIME -DHAVE_LOCALTIME_R -DHAVE_LOCALTIME -DHAVE_STRPTIME -DHAVE_STRFTIME -DHAVE_MKTIME -DHAVE_TM_TM_GMT_OFF -DHAVE_SETLOCALE -DHAVE_ISATTY -DHAVE_MEMMEM -DHAVE_PTHREAD_KEY_CREATE -DUSE_DECNUM=0 -I .";
    })
    (filter (f: f != "inject_errors.c") (cFiles jqDir ""));
  jq = sh "jq" "gcc $objs -lm -lpthread -o j; mkdir -p $out/bin; cp j $out/bin/jq" { objs = jqUnits; };

  # The classic kind of derivation: configure, make, make install.
  xz = sh "xz" ''
    cp -r ${top + "/xz-utils"} x; chmod -R u+w x; cd x
    find . -exec touch -d @1 {} +
    ./configure --prefix=$out --disable-nls --disable-doc --disable-shared --enable-static --disable-dependency-tracking --disable-lzmadec --disable-lzmainfo --disable-scripts CFLAGS="${cflags}" > /dev/null
    make -j''${NIX_BUILD_CORES:-1} > /dev/null
    make install > /dev/null
    rm -rf $out/share $out/lib/*.la
  '' { };

  # Programs built above work on each other's files.
  tests = {
    gzip = sh "test-gzip" ''
      cat $src > a; ${minigzip}/bin/minigzip < a > a.gz; ${minigzip}/bin/minigzip -d < a.gz > b; cmp a b
      gzip -dc < a.gz | cmp - a; sha256sum < a > $out
    '' { src = file zlibDir "ChangeLog"; };
    bzip2 = sh "test-bzip2" ''
      ${bzip2}/bin/bzip2 -9c $src > a.bz2; ${bzip2}/bin/bzip2 -dc a.bz2 | cmp - $src
      ${bzip2}/bin/bzip2 -dc $sample | cmp - $ref; sha256sum < a.bz2 > $out
    '' { src = file bzDir "manual.html"; sample = file bzDir "sample1.bz2"; ref = file bzDir "sample1.ref"; };
    zstd = sh "test-zstd" ''
      ${zstd}/bin/zstd -q -19 -c < $src > a.zst; ${zstd}/bin/zstd -q -dc < a.zst | cmp - $src; sha256sum < a.zst > $out
    '' { src = file zstdDir "zstd.h"; };
    lua = sh "test-lua" ''
      ${luac}/bin/luac -o t.luac $src; ${lua}/bin/lua t.luac > $out; test "$(head -1 $out)" = 832040
    '' { src = builtins.toFile "t.lua" ''
        local function fib(n) if n < 2 then return n end return fib(n - 1) + fib(n - 2) end
        print(fib(30))
        local t = {} for i = 1, 200000 do t[i] = (i * 7919) % 10007 end
        table.sort(t) print(t[1], t[#t], select(2, string.gsub(string.rep("abc", 1000), "b", "x")))
      ''; };
    jq = sh "test-jq" ''${jq}/bin/jq -c '[.[] | {n: .a, sq: (.a * .a)}] | group_by(.n % 3) | map(length)' $src > $out; test "$(cat $out)" = "[3,4,3]"''
      { src = builtins.toFile "t.json" (builtins.toJSON (map (a: { inherit a; }) (builtins.genList (i: i + 1) 10))); };
  } // (if withXz then {
    xz = sh "test-xz" ''
      ${xz}/bin/xz -c $src > a.xz; ${xz}/bin/xz -dc a.xz | cmp - $src; sha256sum < a.xz > $out
    '' { src = file zstdDir "zstd.h"; };
  } else { });

  programs = [ minigzip bzip2 zstd lua luac jq ] ++ (if withXz then [ xz ] else [ ]);

  all = sh "all" ''
    mkdir -p $out/bin $out/tests
    for p in $programs; do ln -s $p/bin/* $out/bin/ 2>/dev/null || true; done
    for t in $tests; do cp $t $out/tests/''${t#*-}; done
  '' { inherit programs; tests = map (n: tests.${n}) (attrNames tests); };
in
{
  inherit all zlib minigzip bzip2 libbz2 zstd libzstd lua luac liblua jq xz tests;
  units = { zlib = zlibUnits; bzip2 = bzLibUnits ++ [ bzMain ]; zstd = zstdUnits ++ zstdProgUnits; lua = luaLibUnits; jq = jqUnits; };
}

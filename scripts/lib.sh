# shellcheck shell=bash
# What the scripts here share; sourced, never run.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# All that is needed to build, test and demonstrate Coppice on Debian 12.
packages=(
  g++ cmake ninja-build ccache pkg-config
  libcaf-dev libzmq3-dev cppzmq-dev libmsgpack-cxx-dev
  libsqlite3-dev libsqlitecpp-dev
  libsodium-dev libssl-dev libzstd-dev liblzma-dev
  libcurl4-openssl-dev libcpp-httplib-dev libpugixml-dev
  libtomlplusplus-dev libcli11-dev nlohmann-json3-dev libspdlog-dev libfmt-dev libexpected-dev
  libgrpc++-dev libprotobuf-dev protobuf-compiler protobuf-compiler-grpc # the ledger in etcd
  prometheus-cpp-dev # prometheus itself is fetched without being installed: tests/support/fetch-prometheus.sh
  catch2 python3 python3-zmq python3-msgpack clang-14 libclang-rt-14-dev
  iproute2 nftables util-linux # machines of tests: tests/support/net.py
  zstd # tests/support/check_history.py
  bubblewrap nix-bin dpkg-dev curl ca-certificates openssl git
)

# Real servers beside the farm: S3 and etcd, for tests/cluster and the benchmarks of both.
cluster_packages=(ceph-mon ceph-osd radosgw ceph-common etcd-server etcd-client)

die() { echo "$(basename "$0"): $*" >&2; exit 1; }

# One line about what happens now; on stderr, so that results can be piped.
say() { echo "== $*" >&2; }

# need_packages [PACKAGE...]: installs what is missing of `packages` and these, as root or by sudo.
need_packages() {
  local p missing=() as_root=()
  for p in "${packages[@]}" "$@"; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$p" 2> /dev/null)" = installed ] || missing+=("$p")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  command -v apt-get > /dev/null || die "these Debian packages are needed, and apt-get is not here: ${missing[*]}"
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo > /dev/null || die "run this as root once: apt-get install --no-install-recommends ${missing[*]}"
    as_root=(sudo)
  fi
  say "installing ${#missing[@]} Debian packages: ${missing[*]}"
  local log
  log=$(mktemp)
  # The lists are often there and current; they are read again only if this fails.
  if ! install_packages > "$log" 2>&1; then
    if ! { "${as_root[@]}" apt-get -qq -o Acquire::Retries=3 update && install_packages; } > "$log" 2>&1 < /dev/null; then
      tail -n 20 "$log" >&2
      rm -f "$log"
      die "apt-get could not install ${missing[*]}"
    fi
  fi
  rm -f "$log"
}

# For need_packages: `as_root` and `missing` are its own.
install_packages() {
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 \
    install --no-install-recommends "${missing[@]}" < /dev/null
}

# configure PRESET: prepares that preset's build directory; its output is shown only if it fails.
configure() {
  local log
  log=$(mktemp)
  (cd "$root" && cmake --preset "$1") > "$log" 2>&1 || { cat "$log" >&2; rm -f "$log"; die "cmake cannot configure preset $1"; }
  rm -f "$log"
}

# compile DIR [TARGET...]: builds there; the compiler's words appear only when there is something to say.
compile() {
  local dir=$1
  shift
  say "building ${*:-everything} in ${dir#"$root"/}"
  ninja -C "$dir" --quiet "$@" >&2
}

# cache_dir NAME: a directory for what is expensive to fetch again.
cache_dir() {
  local base=${XDG_CACHE_HOME:-}
  [ -n "$base" ] || base=${HOME:+$HOME/.cache}
  local dir=${base:-$root/build/cache}/coppice/$1
  mkdir -p "$dir"
  echo "$dir"
}

# json_field NAME: the string value of that field in the one line of JSON on stdin.
json_field() { sed -n 's/.*"'"$1"'" *: *"\([^"]*\)".*/\1/p'; }

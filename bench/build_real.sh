#!/usr/bin/env bash
# build_real.sh [--json] [--rounds N] -- wall and CPU time of workloads/real (all, without xz) from nothing: through a
# solo node with 2 slots, and through stock Nix (sandbox on, -j2, --cores 1), N times each (2) in alternating order.
#
# CPU time is user and system time of all processes that take part: client, daemon and builders here, nix-store and
# builders there. Evaluation is in neither. Coppice compresses, signs and publishes what it builds, and its client
# uploads the sources first; stock Nix does neither, as both are in its store already.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../scripts/lib.sh"

json=false rounds=2
while [ $# -gt 0 ]; do
  case $1 in
    --json) json=true ;;
    --rounds) rounds=${2:?}; shift ;;
    *) echo "usage: build_real.sh [--json] [--rounds N]" >&2; exit 2 ;;
  esac
  shift
done

bin=$root/build/bin
sources=$(cache_dir real)
"$root/bench/workloads/real/fetch-sources.sh" "$sources" >&2
work=$(mktemp -d)
daemon=

clean_up() {
  [ -z "$daemon" ] || stop_daemon
  chmod -R u+w "$work" 2> /dev/null || true
  rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

stop_daemon() {
  kill -TERM "$daemon" 2> /dev/null || true
  for _ in $(seq 100); do kill -0 "$daemon" 2> /dev/null || break; sleep 0.1; done
  kill -KILL "$daemon" 2> /dev/null || true
  wait "$daemon" 2> /dev/null || true
  daemon=
}

ticks_per_second=$(getconf CLK_TCK)
cpus=$(getconf _NPROCESSORS_ONLN)

# CPU ticks of a process and of all its descendants that have ended.
ticks_of() { sed 's/.*) //' "/proc/$1/stat" | awk '{ print $12 + $13 + $14 + $15 }'; }
# CPU ticks of the whole machine that were not idle.
ticks_busy() { awk '/^cpu / { print $2 + $3 + $4 + $7 + $8 }' /proc/stat; }

# measure NAME ROUND COMMAND...: appends "NAME wall cpu foreign" to the results; foreign is the share of the machine
# that others used meanwhile. Counts the daemon's ticks if there is one. The command's own children are counted as the
# difference of this shell's, which has waited for them.
measure() {
  local name=$1 round=$2 start busy own
  shift 2
  start=$EPOCHREALTIME busy=$(ticks_busy) own=$(own_ticks)
  "$@" > "$work/log" 2>&1 || { tail -n 30 "$work/log" >&2; die "$name failed in round $round"; }
  awk -v name="$name" -v a="$start" -v b="$EPOCHREALTIME" -v busy="$busy" -v busy2="$(ticks_busy)" -v own="$own" \
    -v own2="$(own_ticks)" -v hz="$ticks_per_second" -v cpus="$cpus" 'BEGIN {
      wall = b - a; cpu = (own2 - own) / hz; foreign = ((busy2 - busy) / hz - cpu) / (wall * cpus)
      printf "%s %.2f %.2f %.3f\n", name, wall, cpu, foreign < 0 ? 0 : foreign }' | tee -a "$work/results" |
    awk -v r="$round" '{ printf "   round %d  %-8s wall %6.1f s  cpu %6.1f s  others used %4.1f %% of the machine\n", r, $1, $2, $3, 100 * $4 }' >&2
}
own_ticks() {
  local sum
  sum=$(ticks_of $$)
  [ -z "$daemon" ] || sum=$((sum + $(ticks_of "$daemon")))
  echo "$sum"
}

# A private Nix store that holds the derivations and their sources, and nothing else. Prints the derivation's path.
nix_in() {
  local store=$1
  shift
  env -u NIX_PATH -u NIX_REMOTE NIX_CONF_DIR="$work/conf" NIX_USER_CONF_FILES= HOME="$work/home" \
    "$@" --store "local?root=$store"
}
instantiate() {
  nix_in "$1" nix-instantiate "$root/bench/workloads/real/default.nix" --arg sources "$sources" \
    --arg withXz false -A all 2> /dev/null
}

run_nix() {
  local store=$work/nix-$1 drv
  drv=$(instantiate "$store")
  measure nix "$1" nix_in "$store" nix-store --realise "$drv" -j2 --cores 1
  discard "$store"
}

run_coppice() {
  local store=$work/eval-$1 state=$work/state-$1 drv
  drv=$(instantiate "$store")
  mkdir "$state"
  "$bin/coppiced" --config "$work/node.toml" --state-dir "$state" --listen tcp://127.0.0.1:0 --http 127.0.0.1:0 \
    --ready-json > "$work/ready" 2> "$work/coppiced.log" < /dev/null &
  daemon=$!
  for _ in $(seq 300); do
    [ ! -s "$work/ready" ] || break
    kill -0 "$daemon" 2> /dev/null || { cat "$work/coppiced.log" >&2; die "coppiced ended while it started"; }
    sleep 0.1
  done
  measure coppice "$1" "$bin/coppice" build "$store$drv" --no-link --state-dir "$state"
  stop_daemon
  discard "$store" "$state"
  : > "$work/ready"
}

discard() { chmod -R u+w "$@" && rm -rf "$@"; }

mkdir "$work/conf" "$work/home"
cat > "$work/conf/nix.conf" << 'CONF'
build-users-group =
sandbox = true
sandbox-paths = /usr /bin /lib /lib64
substituters =
CONF
cat > "$work/node.toml" << 'CONF'
max_jobs = 2
cores = 1
sandbox_paths = ["/usr", "/bin", "/lib", "/lib64"]
CONF
export XDG_DATA_HOME=$work/data

for ((round = 1; round <= rounds; round++)); do
  order=(run_coppice run_nix)
  ((round % 2)) || order=(run_nix run_coppice)
  for run in "${order[@]}"; do "$run" "$round"; done
done

# Means over the rounds; the rival is stock Nix in the same run.
awk -v json="$json" '
  { n[$1]++; wall[$1] += $2; cpu[$1] += $3; foreign[$1] += $4 }
  function row(name, unit, value, rival) {
    if (json == "true") printf "{\"name\":\"%s\",\"value\":%.2f,\"unit\":\"%s\",\"rival\":%.2f,\"ratio\":%.3f}\n", name, value, unit, rival, value / rival
    else printf "%-24s %10.2f  %-6s %10.2f  %6.2f\n", name, value, unit, rival, value / rival
  }
  function share(name, value) {
    if (json == "true") printf "{\"name\":\"%s\",\"value\":%.3f,\"unit\":\"share\",\"rival\":null,\"ratio\":null}\n", name, value
    else printf "%-24s %10.3f  %-6s\n", name, value, "share"
  }
  END {
    if (json != "true") printf "%-24s %10s  %-6s %10s  %6s\n", "name", "value", "unit", "rival", "ratio"
    row("build_real_wall", "s", wall["coppice"] / n["coppice"], wall["nix"] / n["nix"])
    row("build_real_cpu", "s", cpu["coppice"] / n["coppice"], cpu["nix"] / n["nix"])
    share("build_real_foreign", foreign["coppice"] / n["coppice"])
    share("build_real_nix_foreign", foreign["nix"] / n["nix"])
  }' "$work/results"

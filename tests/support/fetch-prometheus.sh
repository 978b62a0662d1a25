#!/usr/bin/env bash
# fetch-prometheus.sh DIR -- puts the programs prometheus and promtool of Debian's package into DIR, unless they are
# there. The package itself is not installed: it would start a server on this machine, now and at every boot.
set -euo pipefail

dir=${1:?usage: fetch-prometheus.sh DIR}
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
if [ -x "$dir/prometheus" ] && [ -x "$dir/promtool" ]; then
  exit 0
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
# apt-get says on stderr that it does not change its user here: so it is
if ! apt-get -qq -o Acquire::Retries=3 download prometheus > log 2>&1; then
  cat log >&2
  echo "fetch-prometheus.sh: apt-get could not download the package prometheus; 'apt-get update' may help" >&2
  exit 1
fi
dpkg-deb -x prometheus_*.deb package
mv package/usr/bin/prometheus package/usr/bin/promtool "$dir/"

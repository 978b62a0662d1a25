#!/usr/bin/env bash
# fetch-sources.sh DIR -- unpacks the Debian source packages that the default.nix beside it compiles into DIR.
set -euo pipefail
[ $# -eq 1 ] || { echo "usage: fetch-sources.sh DIR" >&2; exit 2; }
exec "$(dirname "${BASH_SOURCE[0]}")/../../../examples/fetch-sources.sh" "$1" zlib bzip2 lua5.4 xz-utils zstd jq

#!/usr/bin/env bash
# fetch-sources.sh [--upstream] DIR [PACKAGE...] -- unpacks Debian source packages into DIR; without names, those that
# the default.nix beside it compiles. With --upstream only what upstream released, without Debian's changes, which
# some mirrors do not have.
#
# Takes them from the mirror that this machine's apt is configured for, and needs dpkg-dev.
# Writes below DIR only; packages that are there already are left alone.
set -euo pipefail

die() { echo "fetch-sources.sh: $*" >&2; exit 1; }

tar_only=()
[ "${1:-}" != --upstream ] || { tar_only=(--tar-only); shift; }
[ $# -ge 1 ] || { echo "usage: fetch-sources.sh [--upstream] DIR [PACKAGE...]" >&2; exit 2; }
mkdir -p "$1"
dir=$(cd "$1" && pwd)
shift
[ $# -gt 0 ] || set -- zlib libpng1.6 lua5.4 figlet

missing=()
for p in "$@"; do [ -d "$dir/$p" ] || missing+=("$p"); done
[ ${#missing[@]} -gt 0 ] || exit 0

command -v apt-get > /dev/null || die "apt-get is not here: the sources come from a Debian mirror"
command -v dpkg-source > /dev/null || die "dpkg-source is not here: install the package dpkg-dev"

work=$dir/.work
trap 'rm -rf "$work"' EXIT
rm -rf "$work"
mkdir -p "$work/lists/partial" "$work/cache/archives/partial"
# apt with directories of its own: no root, and nothing of the machine's changes
own=(-qq -o "Dir::State::Lists=$work/lists" -o "Dir::Cache=$work/cache" -o "APT::Sandbox::User=$(id -un)"
  -o Acquire::Retries=3)

codename=$(. /etc/os-release && echo "${VERSION_CODENAME:?}")
mirror() { apt-get "$@" indextargets --format '$(SITE)' 'Created-By: Packages' "Codename: $codename" | sed -n 1p; }
site=$(mirror)
if [ -z "$site" ]; then # the machine's lists were never read, or were deleted
  apt-get "${own[@]}" update || die "cannot read this machine's package lists"
  site=$(mirror "${own[@]}")
fi
[ -n "$site" ] || die "apt knows no mirror for $codename"

apt=(apt-get "${own[@]}" -o "Dir::Etc::SourceList=$work/sources.list" -o Dir::Etc::SourceParts=/nonexistent)
echo "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $site $codename main" > "$work/sources.list"
"${apt[@]}" update || die "cannot read the package lists of $site"
for p in "${missing[@]}"; do
  mkdir "$work/$p"
  (
    cd "$work/$p"
    "${apt[@]}" source --download-only "${tar_only[@]}" "$p" > /dev/null ||
      die "cannot download the source package $p from $site"
    # apt has checked the files against the signed package list, so the maintainer's key is not needed
    if [ ${#tar_only[@]} -gt 0 ]; then
      mkdir unpacked && tar -xf ./*.orig.tar.* --strip-components=1 -C unpacked || die "cannot unpack $p"
      exit
    fi
    dpkg-source --no-copy --no-check -x ./*.dsc unpacked > log 2>&1 || { cat log >&2; die "cannot unpack $p"; }
    rm -rf unpacked/.pc
  )
  mv "$work/$p/unpacked" "$dir/$p"
done
[ ${#tar_only[@]} -eq 0 ] || exit 0
for p in "${missing[@]}"; do
  printf '%s %s\n' "$p" "$(dpkg-parsechangelog -l "$dir/$p/debian/changelog" -S Version)"
done

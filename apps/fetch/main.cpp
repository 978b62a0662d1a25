/// coppice-fetch: what Nix has built in as `builtin:fetchurl`, as a program that runs like any other builder. It finds
/// the derivation in its environment: `url` is downloaded to `out`; with `unpack` the file is a NAR, compressed if the
/// URL ends in ".xz", and `out` is its contents; with `executable` it can be run. The only argument is the file of
/// authorities for HTTPS.
#include "apps/fetch/download.hpp"
#include "store/compression.hpp"
#include "store/files.hpp"
#include "store/nar_files.hpp"

#include <sys/stat.h>

#include <cerrno>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <vector>

namespace {

using namespace coppice;

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

/// Streams a file's contents, decompressed if it is to be.
expected<void> read_archive(const std::filesystem::path& file, bool compressed, const store::byte_sink& out) {
  std::ifstream in(file, std::ios::binary);
  store::decompressor inflate{out};
  std::vector<char> block(256 << 10);
  while (in.read(block.data(), static_cast<std::streamsize>(block.size())), in.gcount() > 0) {
    const std::string_view bytes{block.data(), static_cast<std::size_t>(in.gcount())};
    if (auto done = compressed ? inflate.write(bytes) : out(bytes); !done) return done;
  }
  if (!in.eof()) return fail(ec::io, "cannot read " + file.string());
  return compressed ? inflate.finish() : expected<void>{};
}

expected<void> fetch(const std::string& ca_bundle) {
  const auto url = variable("url"), out = variable("out");
  if (url.empty()) return fail(ec::invalid, "attribute 'url' missing");
  if (out.empty()) return fail(ec::invalid, "attribute 'out' missing");
  const bool unpack = variable("unpack") == "1";
  const std::filesystem::path file = unpack ? "archive" : out;
  app::download_options options;
  options.ca_bundle = ca_bundle;
  const auto say = [](std::string_view line) { std::cerr << line << '\n'; };
  if (auto done = app::download(url, file, options, say); !done) return done;
  if (unpack) {
    const bool xz = url.ends_with(".xz");
    const auto read = [&](const store::byte_sink& sink) { return read_archive(file, xz, sink); };
    if (auto done = store::restore_path(out, read); !done) return done;
  }
  if (variable("executable") == "1" && ::chmod(out.c_str(), 0755) < 0)
    return tl::unexpected(store::system_error(errno, "cannot make " + out + " executable"));
  return {};
}

} // namespace

int main(int argc, char** argv) {
  const auto done = fetch(argc > 1 ? argv[1] : "");
  if (done) return 0;
  std::cerr << "error: " << done.error().what << '\n';
  return 1;
}

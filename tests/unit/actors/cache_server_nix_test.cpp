#include "tests/unit/actors/cache_server_fixture.hpp"

#include <cstdlib>
#include <sstream>

using namespace coppice;
using namespace coppice::test;

namespace {

/// A private store of stock Nix, whose paths the server serves too.
struct stock_nix {
  temporary_directory dir;
  fs::path store = dir.path / "store";

  /// Standard output of a shell command; fails the test if it fails.
  std::string run(const std::string& command) {
    auto out = dir.path / "out", errors = dir.path / "errors";
    auto root = dir.path.string();
    auto env = "env -i PATH=/usr/bin:/bin HOME=" + root + " NIX_STORE_DIR=" + store.string() +
               " NIX_STATE_DIR=" + root + "/var NIX_LOG_DIR=" + root + "/log NIX_LOCALSTATE_DIR=" + root +
               "/var NIX_CONF_DIR=" + root + " NIX_USER_CONF_FILES= NIX_REMOTE=local ";
    write_file(dir.path / "nix.conf", "build-users-group =\nsandbox = false\nsubstituters =\n"
                                      "experimental-features = nix-command\n");
    fs::create_directories(dir.path / "var");
    int status = std::system((env + command + " > " + out.string() + " 2> " + errors.string()).c_str());
    INFO(command);
    INFO(read(errors));
    REQUIRE(status == 0);
    auto text = read(out);
    if (text.ends_with('\n') && text.find('\n') == text.size() - 1) text.pop_back();
    return text;
  }
  static std::string read(const fs::path& file) {
    std::ifstream in{file, std::ios::binary};
    return {std::istreambuf_iterator<char>{in}, {}};
  }
};

bool has_nix() {
  return std::system("nix-store --version > /dev/null 2>&1") == 0;
}

} // namespace

TEST_CASE("what stock Nix exports can be uploaded, and stock Nix reads it back from the cache", "[nix]") {
  if (!has_nix()) {
    WARN("no Nix on this machine");
    return;
  }
  stock_nix theirs, ours;
  cache_site site{[&](auto& c) { c.store_dir = theirs.store.string(); }};
  write_file(theirs.dir.path / "plain.txt", "hello\n");
  fs::create_directories(theirs.dir.path / "tree" / "deep");
  write_file(theirs.dir.path / "tree" / "deep" / "file", noise(200'000));
  auto root = theirs.dir.path.string();
  auto text = "builtins.toFile \"note\" \"see ${" + root + "/plain.txt}\\n\"";
  auto plain = theirs.run("nix-store --add " + root + "/plain.txt");
  std::vector<std::string> paths{plain, theirs.run("nix-store --add " + root + "/tree"),
                                 theirs.run("nix-store --add-fixed sha256 " + root + "/plain.txt"),
                                 theirs.run("nix-store --add-fixed --recursive sha1 " + root + "/tree")};
  write_file(theirs.dir.path / "note.nix", text);
  paths.push_back(theirs.run("nix eval --raw -f " + root + "/note.nix"));
  for (auto& path : paths) {
    auto exported = theirs.run("nix-store --export " + path);
    auto r = site.put("source/" + fs::path{path}.filename().string(), exported);
    REQUIRE(r);
    INFO(path << ": " << r->body);
    CHECK(r->status == 200);
  }
  for (auto& path : paths) {
    auto info = theirs.run("nix path-info --store " + site.url + " " + path);
    CHECK(info == path);
  }
  auto all = std::string{};
  for (auto& path : paths)
    all += " " + path;
  // content-addressed: no key is needed
  ours.store = theirs.store;
  ours.run("nix copy --from " + site.url + " --to 'local?root=" + ours.dir.path.string() + "/root'" + all);
  for (auto& path : paths) {
    auto copied = ours.dir.path / "root/nix/store" / fs::path{path}.filename();
    CHECK(fs::exists(copied));
  }
  CHECK(stock_nix::read(ours.dir.path / "root/nix/store" / fs::path{plain}.filename()) == "hello\n");
}

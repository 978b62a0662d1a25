#include "apps/common/closure.hpp"
#include "nix/hash_modulo.hpp"

#include <catch2/catch.hpp>
#include <stdlib.h>

#include <filesystem>
#include <fstream>

using namespace coppice;
using coppice::app::read_closure;
namespace fs = std::filesystem;

namespace {

/// A directory that holds store objects, removed at the end.
class object_dir {
public:
  object_dir() {
    std::string name = (fs::temp_directory_path() / "coppice-closure-XXXXXX").string();
    REQUIRE(mkdtemp(name.data()));
    path_ = name;
  }
  ~object_dir() { fs::remove_all(path_); }
  const fs::path& path() const { return path_; }

  void write(const nix::store_path& name, std::string_view contents) const {
    std::ofstream(path_ / name.base_name(), std::ios::binary) << contents;
  }
  nix::store_path add_text(const std::string& name, const std::string& contents,
                           const std::set<nix::store_path>& references = {}) const {
    auto path = nix::text_path(name, contents, references).value();
    write(path, contents);
    return path;
  }
  /// A derivation with right output paths.
  nix::store_path add_drv(nix::derivation drv) {
    drv.system = "x86_64-linux";
    drv.builder = "/bin/sh";
    drv.outputs["out"] = {};
    drv.env["out"] = "";
    nix::modulo_cache cache([&](const nix::store_path& path) {
      const auto found = known_.find(path);
      return found == known_.end() ? nullptr : &found->second;
    });
    const auto outputs = cache.output_paths(drv).value();
    drv.outputs["out"].path = outputs.at("out");
    drv.env["out"] = outputs.at("out").to_string();
    const auto path = nix::derivation_path(drv);
    write(path, nix::print_derivation(drv));
    known_.emplace(path, drv);
    return path;
  }
  nix::store_path add_drv(const std::string& name, const std::vector<nix::store_path>& inputs,
                          const std::set<nix::store_path>& sources = {}) {
    nix::derivation drv;
    drv.name = name;
    for (const auto& input : inputs)
      drv.input_drvs[input] = {"out"};
    drv.input_srcs = sources;
    return add_drv(std::move(drv));
  }

private:
  fs::path path_;
  std::map<nix::store_path, nix::derivation> known_;
};

nix::store_path named(char digit, const std::string& name) {
  return nix::store_path::from_base_name(std::string(32, digit) + "-" + name).value();
}

} // namespace

TEST_CASE("a closure holds every derivation below its roots once, and their sources") {
  object_dir dir;
  const auto text = dir.add_text("notes", "hello");
  const auto low = dir.add_drv("low", {}, {text});
  const auto left = dir.add_drv("left", {low});
  const auto right = dir.add_drv("right", {low});
  const auto top = dir.add_drv("top", {left, right});
  dir.add_drv("unrelated", {});
  const auto closure = read_closure({top, left}, dir.path());
  REQUIRE(closure);
  CHECK(closure->derivations.size() == 4);
  CHECK(closure->sources == std::map<nix::store_path, std::set<nix::store_path>>{{text, {}}});
}

TEST_CASE("what a text refers to belongs to the closure") {
  object_dir dir;
  const auto far = dir.add_text("far", "end");
  const auto near = dir.add_text("near", "see " + far.to_string() + ".", {far});
  const auto closure = read_closure({dir.add_drv("x", {}, {near})}, dir.path());
  REQUIRE(closure);
  CHECK(closure->sources.at(near) == std::set{far});
  CHECK(closure->sources.contains(far));
}

TEST_CASE("a source that only mentions a path does not refer to it") {
  object_dir dir;
  const auto far = dir.add_text("far", "end");
  const auto near = dir.add_text("near", "see " + far.to_string()); // its name says: no references
  const auto closure = read_closure({dir.add_drv("x", {}, {near})}, dir.path());
  REQUIRE(closure);
  CHECK(closure->sources.at(near).empty());
}

TEST_CASE("a missing input derivation is an error that names who needs it") {
  object_dir dir;
  const auto low = dir.add_drv("low", {});
  const auto top = dir.add_drv("top", {low});
  fs::remove(dir.path() / low.base_name());
  const auto closure = read_closure({top}, dir.path());
  REQUIRE_FALSE(closure);
  CHECK(closure.error().code == ec::missing);
  CHECK(closure.error().what == "derivation " + low.to_string() + ", an input of " + top.to_string() +
                                    ", is missing: there is no " + (dir.path() / low.base_name()).string());
}

TEST_CASE("a missing source is an error that names who needs it") {
  object_dir dir;
  const auto text = dir.add_text("notes", "hello");
  const auto top = dir.add_drv("top", {}, {text});
  fs::remove(dir.path() / text.base_name());
  const auto closure = read_closure({top}, dir.path());
  REQUIRE_FALSE(closure);
  CHECK(closure.error().what.find(text.to_string() + ", needed by " + top.to_string()) != std::string::npos);
}

TEST_CASE("a cycle is an error that names it") {
  object_dir dir;
  const auto a = named('0', "a.drv"), b = named('1', "b.drv"), top = named('2', "top.drv");
  const auto write = [&](const nix::store_path& path, const nix::store_path& input) {
    nix::derivation drv;
    drv.system = "x";
    drv.builder = "/bin/sh";
    drv.input_drvs[input] = {"out"};
    drv.outputs["out"].hash_algo = "sha256"; // its path is not known before
    dir.write(path, nix::print_derivation(drv));
  };
  write(top, a);
  write(a, b);
  write(b, a);
  const auto closure = read_closure({top}, dir.path());
  REQUIRE_FALSE(closure);
  CHECK(closure.error().what ==
        "derivations need each other in a cycle: " + a.to_string() + " -> " + b.to_string() + " -> " + a.to_string());
}

TEST_CASE("a malformed derivation is an error that names the file and the reason") {
  object_dir dir;
  const auto bad = named('0', "bad.drv");
  dir.write(bad, "Derive([(\"out\",");
  const auto closure = read_closure({bad}, dir.path());
  REQUIRE_FALSE(closure);
  CHECK(closure.error().code == ec::invalid);
  CHECK(closure.error().what.find((dir.path() / bad.base_name()).string()) == 0);
  CHECK(closure.error().what.find("byte") != std::string::npos);
}

TEST_CASE("a derivation under a wrong name is refused") {
  object_dir dir;
  const auto right = dir.add_drv("x", {});
  const auto wrong = named('0', "x.drv");
  fs::copy_file(dir.path() / right.base_name(), dir.path() / wrong.base_name());
  const auto closure = read_closure({wrong}, dir.path());
  REQUIRE_FALSE(closure);
  CHECK(closure.error().what.find("belong to " + right.to_string()) != std::string::npos);
}

TEST_CASE("a wrong output path is refused") {
  object_dir dir;
  nix::derivation drv;
  drv.name = "x";
  drv.system = "x86_64-linux";
  drv.builder = "/bin/sh";
  drv.outputs["out"].path = named('0', "x");
  drv.env["out"] = named('0', "x").to_string();
  const auto path = nix::derivation_path(drv);
  dir.write(path, nix::print_derivation(drv));
  const auto closure = read_closure({path}, dir.path());
  REQUIRE_FALSE(closure);
  CHECK(closure.error().what.find(path.to_string()) == 0);
}

TEST_CASE("a closure larger than allowed is refused") {
  object_dir dir;
  const auto top = dir.add_drv("top", {dir.add_drv("low", {})});
  app::closure_limits limits;
  limits.derivations_max = 1;
  const auto closure = read_closure({top}, dir.path(), limits);
  REQUIRE_FALSE(closure);
  CHECK(closure.error().code == ec::limit_exceeded);
}

#pragma once

#include "nix/derivation.hpp"
#include "nix/hash_modulo.hpp"
#include "nix/nar.hpp"

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace coppice::nix::test {

using nlohmann::json;

inline std::filesystem::path data(const std::string& name) {
  return std::filesystem::path{COPPICE_TEST_DATA} / "nix" / name;
}

inline std::string read(const std::filesystem::path& file) {
  std::ifstream in{file, std::ios::binary};
  INFO(file);
  REQUIRE(in.good());
  return {std::istreambuf_iterator<char>{in}, {}};
}

inline json read_json(const std::filesystem::path& file) {
  return json::parse(read(file));
}

/// The files right in `folder` whose names end in `suffix`, by name.
inline std::vector<std::filesystem::path> files(const std::string& folder, std::string_view suffix) {
  std::vector<std::filesystem::path> found;
  for (const auto& entry : std::filesystem::directory_iterator{data(folder)})
    if (entry.is_regular_file() && entry.path().string().ends_with(suffix)) found.push_back(entry.path());
  std::sort(found.begin(), found.end());
  return found;
}

/// The value, or a failure of the test that says why there is none.
template <class T>
T good(expected<T> value) {
  INFO((value ? std::string{} : value.error().what));
  REQUIRE(value.has_value());
  return std::move(*value);
}

inline void good(const expected<void>& value) {
  INFO((value ? std::string{} : value.error().what));
  REQUIRE(value.has_value());
}

/// The reason of a failure, which must be there.
template <class T>
std::string reason(const expected<T>& value) {
  REQUIRE_FALSE(value.has_value());
  CHECK_FALSE(value.error().what.empty());
  return value.error().what;
}

inline store_path path(std::string_view text) {
  return good(store_path::parse(text));
}

inline std::set<store_path> paths(const json& list) {
  std::set<store_path> all;
  for (const std::string text : list)
    all.insert(path(text));
  return all;
}

/// Derivations by path, as a modulo_cache wants them.
class drv_store {
public:
  void add(const store_path& at, derivation drv) { all_.insert_or_assign(at, std::move(drv)); }

  /// Reads every .drv of a folder of the test data.
  explicit drv_store(const std::string& folder = {}) {
    if (folder.empty()) return;
    for (const auto& file : files(folder, ".drv")) {
      const auto at = good(store_path::from_base_name(file.filename().string()));
      add(at, good(parse_derivation(read(file), at)));
    }
  }

  modulo_cache::lookup lookup() const {
    return [this](const store_path& at) {
      const auto found = all_.find(at);
      return found == all_.end() ? nullptr : &found->second;
    };
  }

  const derivation& at(const store_path& where) const { return all_.at(where); }
  const std::map<store_path, derivation>& all() const { return all_; }

private:
  std::map<store_path, derivation> all_;
};

/// Fails the test unless `drv` is what `nix show-derivation` (2.8) says.
inline void check_like(const derivation& drv, const json& shown) {
  CHECK(drv.system == shown.at("system"));
  CHECK(drv.builder == shown.at("builder"));
  CHECK(json(drv.args) == shown.at("args"));
  CHECK(json(drv.env) == shown.at("env"));
  CHECK(drv.input_srcs == paths(shown.at("inputSrcs")));
  json inputs = json::object();
  for (const auto& [input, wanted] : drv.input_drvs)
    inputs[input.to_string()] = wanted;
  CHECK(inputs == shown.at("inputDrvs"));
  json outputs = json::object();
  for (const auto& [name, output] : drv.outputs) {
    outputs[name] = json::object();
    if (output.path) outputs[name]["path"] = output.path->to_string();
    if (!output.hash_algo.empty()) outputs[name]["hashAlgo"] = output.hash_algo;
    if (!output.hash.empty()) outputs[name]["hash"] = output.hash;
  }
  CHECK(outputs == shown.at("outputs"));
}

/// The derivation that `nix derivation show` (format 4) shows.
inline derivation from_json_4(const json& shown) {
  derivation drv;
  drv.name = shown.at("name");
  drv.system = shown.at("system");
  drv.builder = shown.at("builder");
  drv.args = shown.at("args").get<std::vector<std::string>>();
  drv.env = shown.at("env").get<std::map<std::string, std::string>>();
  if (shown.contains("structuredAttrs")) drv.env["__json"] = shown.at("structuredAttrs").dump();
  for (const std::string source : shown.at("inputs").at("srcs"))
    drv.input_srcs.insert(good(store_path::from_base_name(source)));
  for (const auto& [input, wanted] : shown.at("inputs").at("drvs").items())
    drv.input_drvs[good(store_path::from_base_name(input))] = wanted.at("outputs").get<std::set<std::string>>();
  for (const auto& [name, from] : shown.at("outputs").items()) {
    auto& output = drv.outputs[name];
    const std::string method = from.value("method", "") == "nar" ? "r:" : "";
    if (from.contains("path")) output.path = good(store_path::from_base_name(from.at("path").get<std::string>()));
    if (from.contains("hashAlgo")) output.hash_algo = method + from.at("hashAlgo").get<std::string>();
    if (from.contains("hash")) {
      const auto content = good(hash::parse(from.at("hash").get<std::string>()));
      output.hash_algo = method + std::string{to_string(content.algo())};
      output.hash = content.base16();
      output.path = good(fixed_output_path(output_path_name(drv.name, name), output.method(), content));
    }
  }
  return drv;
}

/// Writes the NAR of a tree that is given as JSON, with contents in hexadecimal.
inline void write_tree(nar_writer& to, const json& tree) {
  if (tree.at("type") == "directory") {
    to.begin_directory();
    for (const auto& [name, node] : tree.at("entries").items()) {
      to.entry(name);
      write_tree(to, node);
    }
    to.end_directory();
  } else if (tree.at("type") == "symlink") {
    to.symlink(tree.at("target").get<std::string>());
  } else {
    const auto bytes = good(base16_decode(tree.at("contents_hex").get<std::string>()));
    to.regular(tree.at("executable"), bytes.size());
    to.contents({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  }
}

/// The NAR that `write` writes.
template <class Write>
std::string nar_of(Write write) {
  std::string out;
  nar_writer to{[&](std::string_view bytes) { out += bytes; }};
  write(to);
  to.finish();
  CHECK(to.size() == out.size());
  return out;
}

/// The NAR of one file.
inline std::string nar_of_file(std::string_view contents, bool executable = false) {
  return nar_of([&](nar_writer& to) {
    to.regular(executable, contents.size());
    to.contents(contents);
  });
}

/// A visitor that writes what it is told as a NAR again, and logs it.
class copying_visitor final : public nar_visitor {
public:
  expected<void> begin_directory() override {
    return told("directory", [&] { to_.begin_directory(); });
  }
  expected<void> entry(std::string_view name) override {
    return told("entry " + std::string{name}, [&] { to_.entry(name); });
  }
  expected<void> end_directory() override {
    return told("end_directory", [&] { to_.end_directory(); });
  }
  expected<void> regular(bool executable, std::uint64_t size) override {
    return told((executable ? "executable " : "regular ") + std::to_string(size),
                [&] { to_.regular(executable, size); });
  }
  expected<void> contents(std::string_view chunk) override {
    CHECK_FALSE(chunk.empty());
    to_.contents(chunk); // not logged: how contents are cut depends on the chunks fed
    return {};
  }
  expected<void> end_regular() override {
    return told("end_regular", [] {});
  }
  expected<void> symlink(std::string_view target) override {
    return told("symlink " + std::string{target}, [&] { to_.symlink(target); });
  }
  expected<void> end() override {
    return told("end", [&] { to_.finish(); });
  }

  std::string copy;
  std::vector<std::string> log;

private:
  template <class Write>
  expected<void> told(std::string event, Write write) {
    log.push_back(std::move(event));
    write();
    return {};
  }
  nar_writer to_{[this](std::string_view bytes) { copy += bytes; }};
};

} // namespace coppice::nix::test

#include "actors/build/fixed_output.hpp"
#include "actors/build/sandbox.hpp"
#include "nix/placeholder.hpp"

#include <catch2/catch.hpp>

#include <filesystem>
#include <fstream>

using namespace coppice;
using namespace coppice::actors;

namespace {

struct fixture {
  nix::store_path path;
  nix::derivation drv;
};

/// The generated fixture of that derivation name.
fixture load(const std::string& name) {
  for (const auto& entry : std::filesystem::directory_iterator{COPPICE_TEST_DATA "/nix/generated/drv"}) {
    auto path = nix::store_path::from_base_name(entry.path().filename().string());
    if (!path || nix::derivation_name(*path) != name) continue;
    std::ifstream in{entry.path()};
    std::string text{std::istreambuf_iterator<char>{in}, {}};
    auto drv = nix::parse_derivation(text, *path);
    REQUIRE(drv);
    return {*path, *drv};
  }
  FAIL("no fixture " << name);
  return {};
}

sandbox_plan plan(const fixture& f, const sandbox_settings& settings = {}) {
  auto p = plan_sandbox(f.path, f.drv, {}, settings);
  INFO((p ? "" : p.error().what));
  REQUIRE(p);
  return *p;
}

std::vector<std::string> split(const std::string& text) {
  std::vector<std::string> result;
  for (std::size_t at = 0, end; (end = text.find('\0', at)) != text.npos; at = end + 1)
    result.push_back(text.substr(at, end - at));
  return result;
}

bool has_sequence(const std::vector<std::string>& all, const std::vector<std::string>& part) {
  return std::search(all.begin(), all.end(), part.begin(), part.end()) != all.end();
}

const sandbox_place place{"/h/build", "/h/store", "/h/etc", "/h/inputs", {}};

} // namespace

TEST_CASE("the fixed variables are there and nothing of ours") {
  auto env = plan(load("minimal"), {.cores = 3}).env;
  const std::map<std::string, std::string> expected{
      {"PATH", "/path-not-set"},   {"HOME", "/homeless-shelter"},
      {"NIX_STORE", "/nix/store"}, {"NIX_BUILD_CORES", "3"},
      {"NIX_BUILD_TOP", "/build"}, {"TMPDIR", "/build"},
      {"TEMPDIR", "/build"},       {"TMP", "/build"},
      {"TEMP", "/build"},          {"PWD", "/build"},
      {"NIX_LOG_FD", "2"},         {"TERM", "xterm-256color"},
      {"builder", "/bin/sh"},      {"name", "minimal"},
      {"system", "x86_64-linux"},  {"out", "/nix/store/pwf438sikcmp3h7hgl8nhpibslpv7dch-minimal"}};
  CHECK(env == expected);
}

TEST_CASE("the derivation's variables override the defaults but not the build directory") {
  auto env = plan(load("env-shadows")).env;
  CHECK(env["HOME"] == "/my-home");
  CHECK(env["PATH"] == "/my-path");
  CHECK(env["NIX_STORE"] == "/fake");
  CHECK(env["TMPDIR"] == "/build");
}

TEST_CASE("a derivation cannot change TERM and NIX_LOG_FD") {
  auto f = load("minimal");
  f.drv.env["TERM"] = "dumb";
  f.drv.env["NIX_LOG_FD"] = "7";
  auto env = plan(f).env;
  CHECK(env["TERM"] == "xterm-256color");
  CHECK(env["NIX_LOG_FD"] == "2");
}

TEST_CASE("attributes passed as files are files and not variables") {
  auto p = plan(load("pass-as-file"));
  // nix-hash --type sha256 --base32 --flat of a file with "small"
  const std::string small = ".attr-0c41b8ldiqfvr7ibjdm2gmaay20cdsvr5am6sim6r766pfxqxnw1";
  CHECK_FALSE(p.env.contains("small"));
  CHECK_FALSE(p.env.contains("other"));
  CHECK(p.env["passAsFile"] == "small other");
  CHECK(p.files.size() == 2);
  CHECK(p.env["smallPath"] == "/build/" + small);
  CHECK(p.files[small] == "passed in a file");
}

TEST_CASE("placeholders of own outputs become their paths everywhere") {
  auto f = load("multi-out");
  auto output = f.drv.outputs.begin()->first;
  auto path = f.drv.outputs.begin()->second.path->to_string();
  auto mark = nix::own_placeholder(output);
  f.drv.args = {"x" + mark + mark + "y"};
  f.drv.env["flags"] = "--prefix=" + mark;
  f.drv.env["text"] = mark + "/bin";
  f.drv.env["passAsFile"] = "text";
  auto p = plan(f);
  CHECK(p.argv[1] == "x" + path + path + "y");
  CHECK(p.env["flags"] == "--prefix=" + path);
  CHECK(p.files.begin()->second == path + "/bin");
}

TEST_CASE("a builder's first argument is its base name") {
  auto f = load("minimal");
  f.drv.builder = "/nix/store/0000000000000000000000000000000-x/bin/bash";
  auto p = plan(f);
  CHECK(p.argv[0] == "bash");
  CHECK(p.argv.size() == 3);
  CHECK(split(exec_order(p, place))[4] == f.drv.builder);
}

TEST_CASE("the order of coppice-exec lists personality, processes, store, inputs, builder, arguments, environment") {
  sandbox_plan p;
  p.personality = 5;
  p.processes_max = 70;
  p.builder = "/b";
  p.argv = {"b", "", "x\ny"};
  p.env = {{"A", ""}, {"B", "1"}};
  p.store_dir = "/s";
  auto here = place;
  here.inputs = {*nix::store_path::from_base_name("00000000000000000000000000000000-in")};
  CHECK(split(exec_order(p, here)) == std::vector<std::string>{"5", "70", "/s", "1", "00000000000000000000000000000000-in",
                                                               "/b", "3", "b", "", "x\ny", "A=", "B=1"});
}

TEST_CASE("only fixed outputs get the network, its files, and impure variables") {
  auto ordinary = plan(load("minimal"));
  auto arguments = split(bwrap_arguments(ordinary, place));
  CHECK(has_sequence(arguments, {"--unshare-net"}));
  CHECK(ordinary.etc_files.at("hosts") == "127.0.0.1 localhost\n::1 localhost\n");
  CHECK_FALSE(has_sequence(arguments, {"/etc/resolv.conf"}));

  auto f = load("fod-flat-sha256");
  f.drv.env["impureEnvVars"] = "http_proxy  no_such";
  f.drv.env["http_proxy"] = "of the derivation";
  auto fixed = plan(f, {.impure_env = {{"http_proxy", "http://p"}, {"SECRET", "x"}}});
  arguments = split(bwrap_arguments(fixed, place));
  CHECK_FALSE(has_sequence(arguments, {"--unshare-net"}));
  CHECK(has_sequence(arguments, {"--ro-bind-try", "/etc/resolv.conf", "/etc/resolv.conf"}));
  CHECK(has_sequence(arguments, {"--ro-bind", "/h/etc/nsswitch.conf", "/etc/nsswitch.conf"}));
  CHECK_FALSE(fixed.etc_files.contains("hosts"));
  CHECK(fixed.env.at("NIX_OUTPUT_CHECKED") == "1");
  CHECK(fixed.env.at("http_proxy") == "http://p");
  CHECK(fixed.env.at("no_such").empty());
  CHECK_FALSE(fixed.env.contains("SECRET"));
}

TEST_CASE("bwrap mounts the build directory, the empty store, the configured paths, and all inputs there are") {
  auto p = plan(load("minimal"), {.paths = {{"/h/sh", "/bin/sh", false}, {"/lib64", "/lib64", true}}});
  auto arguments = split(bwrap_arguments(p, place));
  CHECK(has_sequence(arguments, {"--bind", "/h/build", "/build", "--bind", "/h/store", "/nix/store", "--ro-bind",
                                 "/h/sh", "/bin/sh", "--ro-bind-try", "/lib64", "/lib64"}));
  CHECK(has_sequence(arguments, {"--ro-bind", "/h/inputs", "/dev/shm"}));
}

TEST_CASE("sandbox paths are read as Nix reads them") {
  CHECK(*parse_sandbox_path("/usr") == sandbox_path{"/usr", "/usr", false});
  CHECK(*parse_sandbox_path("/lib64?") == sandbox_path{"/lib64", "/lib64", true});
  CHECK(*parse_sandbox_path("/bin/sh=/h/busybox") == sandbox_path{"/h/busybox", "/bin/sh", false});
  CHECK(*parse_sandbox_path("/bin/sh=/h/busybox?") == sandbox_path{"/h/busybox", "/bin/sh", true});
  for (const char* wrong : {"", "?", "usr", "/", "/a=", "=/a", "/a=b"})
    CHECK_FALSE(parse_sandbox_path(wrong));
}

TEST_CASE("derivations we cannot build are refused with the reason") {
  const std::map<std::string, std::string> refused{
      {"no-chroot", "has '__noChroot' set, but that's not allowed when 'sandbox' is 'true'"},
      {"ca", "content-addressed"},
      {"deferred", "content-addressed"}};
  for (const auto& [name, why] : refused) {
    INFO(name);
    auto f = load(name);
    auto plan = plan_sandbox(f.path, f.drv, {}, {});
    REQUIRE_FALSE(plan);
    CHECK(plan.error().code == ec::unsupported);
    CHECK(plan.error().what.find(why) != std::string::npos);
    CHECK(plan.error().what.find(f.path.to_string()) != std::string::npos);
  }
}

TEST_CASE("more inputs than are mounted are refused") {
  auto f = load("minimal");
  build_inputs inputs{std::vector<path_info>(sandbox_inputs_max + 1)};
  CHECK(plan_sandbox(f.path, f.drv, inputs, {}).error().code == ec::unsupported);
}

TEST_CASE("the machine's KVM is only for those who require it") {
  auto with = [](const fixture& f) {
    return has_sequence(split(bwrap_arguments(plan(f), place)), {"--dev-bind-try", "/dev/kvm", "/dev/kvm"});
  };
  CHECK(with(load("features")));
  CHECK_FALSE(with(load("minimal")));
  auto structured = load("structured");
  CHECK_FALSE(with(structured));
  structured.drv.env["__json"] = R"({"requiredSystemFeatures":["x","kvm"]})";
  CHECK(with(structured));
}

TEST_CASE("with structured attributes nothing of the derivation is in the environment") {
  auto p = plan(load("structured"));
  const std::map<std::string, std::string> expected{{"PATH", "/path-not-set"},
                                                    {"HOME", "/homeless-shelter"},
                                                    {"NIX_STORE", "/nix/store"},
                                                    {"NIX_BUILD_CORES", "1"},
                                                    {"NIX_BUILD_TOP", "/build"},
                                                    {"TMPDIR", "/build"},
                                                    {"TEMPDIR", "/build"},
                                                    {"TMP", "/build"},
                                                    {"TEMP", "/build"},
                                                    {"PWD", "/build"},
                                                    {"NIX_LOG_FD", "2"},
                                                    {"TERM", "xterm-256color"},
                                                    {"NIX_ATTRS_JSON_FILE", "/build/.attrs.json"},
                                                    {"NIX_ATTRS_SH_FILE", "/build/.attrs.sh"}};
  CHECK(p.env == expected);
  CHECK(p.files.size() == 2);
}

TEST_CASE("builtin:fetchurl is a program of ours among libraries of the machine") {
  auto f = load("builtin-fetchurl");
  auto p = plan(f, {.fetch_program = "/h/fetch", .ca_bundle = "/h/ca"});
  const auto order = split(exec_order(p, place));
  CHECK(order[6] == "builtin:fetchurl");
  const auto arguments = split(bwrap_arguments(p, place));
  CHECK(has_sequence(arguments, {"--ro-bind", "/h/fetch", order[4]}));
  CHECK(has_sequence(arguments, {"--ro-bind-try", "/h/ca", order[7]}));
  CHECK(has_sequence(arguments, {"--ro-bind-try", "/usr", "/usr"}));
  CHECK(p.env.at("url") == "file:///dev/null");
  f.drv.builder = "builtin:buildenv";
  CHECK(plan_sandbox(f.path, f.drv, {}, {}).error().code == ec::unsupported);
  f.drv.builder = "/bin/sh";
  CHECK(plan_sandbox(f.path, f.drv, {}, {}).error().code == ec::unsupported);
}

TEST_CASE("attributes that mean nothing are refused and end nothing else") {
  const std::pair<const char*, const char*> wrong[] = {
      {"__json", "[]"},
      {"__json", "{\"a\": "},
      {"__json", R"({"__noChroot": "1"})"},
      {"__json", R"({"requiredSystemFeatures": "kvm"})"},
      {"__json", R"({"exportReferencesGraph": {"a": [1]}})"},
      {"__json", R"({"exportReferencesGraph": {"a": ["/etc/passwd"]}})"},
      {"exportReferencesGraph", "a"},
      {"exportReferencesGraph", "../a /nix/store/00000000000000000000000000000000-x"},
      {"exportReferencesGraph", "a /nix/store/00000000000000000000000000000000-x"},
      {"exportReferencesGraph", "a /nix/stor"}};
  for (const auto& [name, value] : wrong) {
    INFO(name << "=" << value);
    auto f = load("minimal");
    f.drv.env[name] = value;
    auto plan = plan_sandbox(f.path, f.drv, {}, {});
    REQUIRE_FALSE(plan);
    CHECK(plan.error().code == ec::invalid);
  }
  auto f = load("minimal");
  f.drv.env["__json"] = "{\"a\":" + std::string(1'000'000, '[') + std::string(1'000'000, ']') + "}";
  CHECK(plan_sandbox(f.path, f.drv, {}, {}).error().what.find("nested") != std::string::npos);
}

TEST_CASE("a fixed output with another hash is told in Nix's words") {
  auto f = load("fod-wrong-hash");
  fixed_output_facts facts{true, nix::hash_of(nix::hash_algo::sha256, "hello\n"), {}};
  auto fault = fixed_output_fault(f.path, f.drv, facts);
  REQUIRE(fault);
  CHECK(*fault == "hash mismatch in fixed-output derivation '" + f.path.to_string() +
                      "':\n  specified: " + f.drv.outputs.at("out").content_hash()->sri() +
                      "\n     got:    sha256-WJG1tSLV3whtD/CxEPvZ0hu0/HFjrzTQgoai6Eb2vgM=");
}

TEST_CASE("a right fixed output is accepted unless it is executable or refers to something") {
  auto f = load("fod-flat-sha256");
  fixed_output_facts facts{true, *f.drv.outputs.at("out").content_hash(), {}};
  CHECK(fixed_output_fault(f.path, f.drv, facts) == std::nullopt);
  facts.plain_file = false;
  CHECK(fixed_output_fault(f.path, f.drv, facts)->find("non-executable regular file") != std::string::npos);
  facts.plain_file = true;
  facts.references = {f.path};
  CHECK(fixed_output_fault(f.path, f.drv, facts)->find("must not reference store paths") != std::string::npos);
}

TEST_CASE("a recursive fixed output may be anything with the right hash") {
  auto f = load("fod-recursive-sha256");
  CHECK(fixed_output_fault(f.path, f.drv, {false, *f.drv.outputs.at("out").content_hash(), {}}) == std::nullopt);
}

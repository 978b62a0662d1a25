#include "store/closure.hpp"
#include "store/compression.hpp"
#include "tests/unit/store/tree_support.hpp"

#include <msgpack.hpp>

using namespace coppice;
using namespace coppice::store;
using namespace coppice::store::test;

namespace {

using texts = std::vector<std::pair<nix::store_path, std::string>>;

/// Adds a derivation with these inputs to `into`; returns its path.
nix::store_path add(texts& into, const std::string& name, const std::vector<nix::store_path>& inputs = {}) {
  nix::derivation drv;
  drv.name = name;
  drv.outputs["out"].path = path_named(name);
  for (const auto& input : inputs)
    drv.input_drvs[input] = {"out"};
  drv.system = "x86_64-linux";
  drv.builder = "/bin/sh";
  drv.env = {{"name", name}, {"out", path_named(name).to_string()}};
  into.emplace_back(nix::derivation_path(drv), nix::print_derivation(drv));
  return into.back().first;
}

/// Packed as pack_closure does, without its checks, and not compressed.
std::string packed_raw(const std::vector<std::pair<std::string, std::string>>& pairs) {
  msgpack::sbuffer buffer;
  msgpack::packer packer{buffer};
  packer.pack_array(static_cast<std::uint32_t>(pairs.size()));
  for (const auto& [name, aterm] : pairs) {
    packer.pack_array(2);
    packer.pack(name);
    packer.pack_bin(static_cast<std::uint32_t>(aterm.size()));
    packer.pack_bin_body(aterm.data(), static_cast<std::uint32_t>(aterm.size()));
  }
  return {buffer.data(), buffer.size()};
}

std::string raw_of(const texts& all) {
  std::vector<std::pair<std::string, std::string>> pairs;
  for (const auto& [path, aterm] : all)
    pairs.emplace_back(path.base_name(), aterm);
  return packed_raw(pairs);
}

/// Unpacking must fail as invalid and say this.
void check_refused(const std::string& bytes, const std::string& what) {
  const auto unpacked = unpack_closure(bytes);
  REQUIRE(code_of(unpacked) == ec::invalid);
  INFO(unpacked.error().what);
  CHECK(unpacked.error().what.find(what) != std::string::npos);
}

} // namespace

TEST_CASE("a closure comes back with every derivation and its text, compressed or not") {
  texts all;
  const auto a = add(all, "a");
  const auto b = add(all, "b", {a});
  add(all, "c", {a, b});
  for (const auto& bytes : {good(pack_closure(all)), raw_of(all), good(compress(raw_of(all)))}) {
    const auto closure = good(unpack_closure(bytes));
    REQUIRE(closure.items().size() == 3);
    for (std::size_t i = 0; i < all.size(); ++i) {
      CHECK(closure.items()[i].path == all[i].first);
      CHECK(closure.items()[i].drv.text() == all[i].second);
    }
  }
  CHECK(good(unpack_closure(raw_of({}))).items().empty());
}

TEST_CASE("the derivations of a closure come after their inputs, in whatever order they were packed") {
  texts all;
  const auto a = add(all, "a"), b = add(all, "b", {a}), c = add(all, "c", {b, a});
  std::sort(all.begin(), all.end());
  do {
    const auto closure = good(unpack_closure(raw_of(all)));
    REQUIRE(closure.items().size() == 3);
    CHECK(closure.items()[0].path == a);
    CHECK(closure.items()[1].path == b);
    CHECK(closure.items()[2].path == c);
    CHECK(closure.items()[0].inputs.empty());
    CHECK(closure.items()[1].inputs == std::vector<std::uint32_t>{0});
    const auto& last = closure.items()[2];
    for (std::size_t i = 0; i < 2; ++i)
      CHECK(closure.items()[last.inputs[i]].path.base_name() == last.drv.inputs()[i].base_name);
  } while (std::next_permutation(all.begin(), all.end()));
}

TEST_CASE("the derivations that stock Nix wrote make closures of themselves") {
  texts all;
  std::set<nix::store_path> there;
  for (const auto& file : fs::recursive_directory_iterator{fs::path{COPPICE_TEST_DATA} / "nix/generated/drv"}) {
    const auto path = nix::store_path::from_base_name(file.path().filename().string());
    if (!path || !path->is_derivation() || !there.insert(*path).second) continue;
    all.emplace_back(*path, read(file.path()));
  }
  REQUIRE(all.size() > 40);
  const auto closure = unpack_closure(good(pack_closure(all)));
  if (closure)
    CHECK(closure->items().size() == all.size());
  else // the data may lack an input, but every text must be what its path says
    CHECK(closure.error().what.find("which is not in the closure") != std::string::npos);
}

TEST_CASE("a closure without one of its inputs names both") {
  texts all;
  const auto a = add(all, "a"), b = add(all, "b", {a});
  all.erase(all.begin());
  check_refused(raw_of(all), b.to_string() + " needs " + a.to_string());
}

TEST_CASE("a derivation under the path of another is refused by name") {
  texts all;
  const auto a = add(all, "a");
  auto text = all.front().second;
  text.replace(text.find("/bin/sh"), 7, "/bin/no");
  check_refused(raw_of({{a, text}}), a.to_string());
}

TEST_CASE("a derivation that is not written canonically is refused") {
  texts all;
  add(all, "a");
  auto text = all.front().second;
  const std::string name = "(\"name\",\"a\")";
  text.replace(text.find("[" + name + ","), name.size() + 2, "[");
  text.insert(text.size() - 2, "," + name); // behind "out", which sorts after it
  const auto path = *nix::text_path("a.drv", text, {});
  check_refused(raw_of({{path, text}}), "not written as Nix writes it");
}

TEST_CASE("a derivation that occurs twice is refused") {
  texts all;
  const auto a = add(all, "a");
  all.push_back(all.front());
  check_refused(raw_of(all), a.to_string() + " is in the closure twice");
}

TEST_CASE("what is no derivation or has no name of one is refused") {
  texts all;
  add(all, "a");
  check_refused(packed_raw({{"../../etc/passwd", "x"}}), "etc/passwd");
  check_refused(packed_raw({{path_named("x").base_name(), "x"}}), "no derivation");
  check_refused(packed_raw({{all.front().first.base_name(), "Derive("}}), all.front().first.to_string());
}

TEST_CASE("a cycle is found") {
  // Paths follow from contents, so no bytes can hold a cycle unless sha256 is broken.
  CHECK(inputs_first({{1}, {2}, {}}) == std::vector<std::uint32_t>{2, 1, 0});
  const auto order = inputs_first({{}, {2}, {3, 0}, {1}});
  REQUIRE_FALSE(order);
  CHECK(order.error() != 0);
  CHECK_FALSE(inputs_first({{0}}));
}

TEST_CASE("a chain of any length is put in order") {
  std::vector<std::vector<std::uint32_t>> chain(1'000'000);
  for (std::uint32_t i = 0; i + 1 < chain.size(); ++i)
    chain[i] = {i + 1};
  CHECK(inputs_first(chain).value().front() == chain.size() - 1);
}

TEST_CASE("bytes of another shape are a bad message") {
  texts all;
  add(all, "a");
  const auto whole = raw_of(all);
  for (std::size_t size = 0; size < whole.size(); ++size)
    CHECK(code_of(unpack_closure(whole.substr(0, size))) == ec::bad_message);
  const std::vector<std::string> others{whole + "x",
                                        "\xc0",
                                        "\x91\xc0",
                                        "\x91\x92\xa1x\xa1x",
                                        "\x91\x92\xc4\x01x\xc4\x01x",
                                        "\x91\x93\xa1x\xc4\x01x\xc0",
                                        "\x91\x91\xa1x",
                                        "\x91\x90",
                                        "\x81\xa1x\xa1x",
                                        "\x91\x92\xa1x\x91\x90",
                                        "\x01"};
  for (const auto& bytes : others)
    CHECK(code_of(unpack_closure(bytes)) == ec::bad_message);
}

TEST_CASE("claims of more than there is cost nothing") {
  CHECK(code_of(unpack_closure(std::string("\xdd\x00\x10\x00\x00", 5))) == ec::bad_message);
  CHECK(code_of(unpack_closure(std::string("\xdd\xff\xff\xff\xff", 5))) == ec::limit_exceeded);
  CHECK(code_of(unpack_closure(std::string("\x91\x92\xdb\xff\xff\xff\xff", 7))) == ec::bad_message);
}

TEST_CASE("a closure beyond its limits is refused") {
  texts all;
  add(all, "a");
  add(all, "b");
  closure_limits limits;
  limits.derivations_max = 1;
  CHECK(code_of(unpack_closure(raw_of(all), limits)) == ec::limit_exceeded);
  limits.derivations_max = 2;
  CHECK(unpack_closure(raw_of(all), limits));
  limits.bytes_max = raw_of(all).size() - 1;
  CHECK(code_of(unpack_closure(good(pack_closure(all)), limits)) == ec::limit_exceeded);
}

TEST_CASE("a closure's id is the sha256 of its bytes") {
  CHECK(closure_id("abc").to_string() == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

#include "nix/narinfo.hpp"
#include "store/compression.hpp"
#include "store/upstream/memory.hpp"

#include <catch2/catch.hpp>
#include <lzma.h>

using namespace coppice;
using namespace coppice::store;
using namespace std::chrono_literals;

namespace {

using kind = upstream_memory::verdict::kind;

nix::store_path path_of(const std::string& name) {
  return *nix::store_path::from_base_name("00000000000000000000000000000000-" + name);
}

upstream_path offer(const nix::store_path& path) {
  upstream_path p;
  p.info.path = path;
  p.url = "nar/x.nar";
  return p;
}

struct caches {
  rt::manual_clock clock;
  upstream_memory memory;
  explicit caches(std::size_t n, upstream_memory::limits l = {}) : memory(names(n), l) {
    for (std::size_t i = 0; i < n; ++i)
      memory.on_info(i, {}, "/nix/store");
  }
  static std::vector<std::string> names(std::size_t n) {
    std::vector<std::string> urls;
    for (std::size_t i = 0; i < n; ++i)
      urls.push_back("http://cache" + std::to_string(i));
    return urls;
  }
  upstream_memory::verdict look(const nix::store_path& path, std::set<std::size_t> silent = {}) {
    return memory.look(path, silent, clock.now());
  }
};

const nix::secret_key& key() {
  static const auto made = nix::secret_key::generate("test-1").value();
  return made;
}

nix::narinfo signed_narinfo(const std::function<void(nix::narinfo&)>& change = {}) {
  nix::narinfo n;
  n.path = path_of("thing");
  n.url = "nar/thing.nar.xz";
  n.compression = "xz";
  n.nar_hash = nix::hash_of(nix::hash_algo::sha256, "thing");
  n.nar_size = 1000;
  n.references = {path_of("other")};
  if (change) change(n);
  n.sigs.push_back(key().sign(n.fingerprint()));
  return n;
}

expected<upstream_path> read(const nix::narinfo& n, const nix::store_path& path = path_of("thing")) {
  return read_upstream_narinfo(nix::print_narinfo(n), path, {{key().public_key()}, "/nix/store", 1 << 20});
}

ec code_of(const expected<upstream_path>& read) {
  return read ? ec::none : read.error().code;
}

std::string xz(std::string_view bytes) {
  std::string out(lzma_stream_buffer_bound(bytes.size()), '\0');
  std::size_t size = 0;
  REQUIRE(lzma_easy_buffer_encode(6, LZMA_CHECK_CRC64, nullptr, reinterpret_cast<const std::uint8_t*>(bytes.data()),
                                  bytes.size(), reinterpret_cast<std::uint8_t*>(out.data()), &size,
                                  out.size()) == LZMA_OK);
  out.resize(size);
  return out;
}

} // namespace

TEST_CASE("caches are asked in order of their priority, and the first that has a path wins") {
  caches c(3);
  c.memory.on_info(2, {"/nix/store", 10}, "/nix/store");
  auto p = path_of("a");
  CHECK(c.look(p).cache == 2);
  c.memory.on_absent(2, p, c.clock.now());
  REQUIRE(c.look(p).is == kind::ask);
  CHECK(c.look(p).cache == 0);
  c.memory.on_found(0, offer(p), c.clock.now());
  REQUIRE(c.look(p).is == kind::found);
  CHECK(c.look(p).cache == 0);
}

TEST_CASE("a path is absent only if every cache said so; silence is no answer") {
  caches c(2);
  auto p = path_of("a");
  c.memory.on_absent(0, p, c.clock.now());
  CHECK(c.look(p, {1}).is == kind::unknown);
  CHECK(c.look(p).is == kind::ask); // another question asks it again
  c.memory.on_absent(1, p, c.clock.now());
  CHECK(c.look(p).is == kind::absent);
}

TEST_CASE("an absence is forgotten soon, a find later") {
  caches c(1);
  auto a = path_of("a"), b = path_of("b");
  c.memory.on_absent(0, a, c.clock.now());
  c.memory.on_found(0, offer(b), c.clock.now());
  c.clock.advance(2min);
  CHECK(c.look(a).is == kind::ask);
  CHECK(c.look(b).is == kind::found);
  c.clock.advance(2h);
  CHECK(c.look(b).is == kind::ask);
}

TEST_CASE("a cache that was wrong about a path is not asked for it, others are, and for other paths it is") {
  caches c(2);
  auto p = path_of("a");
  c.memory.on_found(0, offer(p), c.clock.now());
  c.memory.on_unusable(0, p, c.clock.now());
  CHECK(c.look(p).cache == 1);
  CHECK(c.look(path_of("b")).cache == 0);
  c.memory.on_absent(1, p, c.clock.now());
  CHECK(c.look(p).is == kind::absent);
}

TEST_CASE("a cache that does not answer again and again is away for a while, and longer the next time") {
  caches c(1);
  auto p = path_of("a");
  auto silent_until_away = [&] {
    while (!c.memory.is_away(0, c.clock.now()))
      c.memory.on_silence(0, "connection refused", c.clock.now());
  };
  silent_until_away();
  CHECK(c.look(p).is == kind::unknown);
  CHECK(c.memory.troubles() == std::vector<std::string>{"http://cache0 does not answer: connection refused"});
  c.clock.advance(31s);
  CHECK(c.look(p).is == kind::ask);
  c.memory.on_silence(0, "timeout", c.clock.now());
  c.clock.advance(31s);
  CHECK(c.look(p).is == kind::unknown);
  c.clock.advance(31s);
  c.memory.on_answer(0);
  CHECK(c.memory.troubles().empty());
  c.memory.on_silence(0, "timeout", c.clock.now());
  CHECK(c.look(p).is == kind::ask);
}

TEST_CASE("a cache for another store directory is never used, and one that never said what it is, not yet") {
  upstream_memory memory({"http://other", "http://stranger"}, {});
  rt::manual_clock clock;
  memory.on_info(0, {"/gnu/store", 1}, "/nix/store");
  CHECK(memory.refusal(0).find("/gnu/store") != std::string::npos);
  CHECK(memory.strangers(clock.now()) == std::vector<std::size_t>{1});
  CHECK(memory.look(path_of("a"), {}, clock.now()).is == kind::unknown);
}

TEST_CASE("what caches said is remembered within bounds, the newest") {
  upstream_memory::limits l;
  l.words_max = 100;
  caches c(1, l);
  for (int i = 0; i < 1000; ++i)
    c.memory.on_absent(0, path_of("p" + std::to_string(i)), c.clock.now());
  CHECK(c.look(path_of("p899")).is == kind::ask);
  CHECK(c.look(path_of("p900")).is == kind::absent);
  CHECK(c.look(path_of("p999")).is == kind::absent);
}

TEST_CASE("a narinfo counts if a trusted key signed it") {
  auto good = read(signed_narinfo());
  REQUIRE(good);
  CHECK(good->url == "nar/thing.nar.xz");
  CHECK(good->info.nar_size == 1000);
  CHECK(good->info.references == std::vector{path_of("other")});
  CHECK(good->info.blob.empty());
  auto other = nix::secret_key::generate("test-1").value();
  auto forged = signed_narinfo();
  forged.sigs = {other.sign(forged.fingerprint())};
  CHECK(code_of(read(forged)) == ec::forbidden);
  auto changed = signed_narinfo();
  changed.references.insert(path_of("third"));
  CHECK(code_of(read(changed)) == ec::forbidden);
  CHECK(code_of(read(signed_narinfo(), path_of("another"))) == ec::corrupt);
}

TEST_CASE("a narinfo without a signature counts if the path follows from the very NAR it states") {
  auto nar = nix::hash_of(nix::hash_algo::sha256, "a NAR");
  nix::narinfo n;
  n.path = nix::fixed_output_path("source", nix::content_method::recursive, nar, {}, false).value();
  n.url = "nar/source.nar";
  n.nar_hash = nar;
  n.nar_size = 5;
  n.ca = "fixed:r:" + nar.to_string();
  CHECK(read(n, n.path));
  auto lie = n;
  lie.nar_hash = nix::hash_of(nix::hash_algo::sha256, "another NAR");
  CHECK(code_of(read(lie, n.path)) == ec::forbidden);
}

TEST_CASE("a narinfo that leads elsewhere, is too large or compressed in a way unknown is refused") {
  for (auto url : {"http://10.0.0.1/x", "/etc/passwd", "../../x", "a/../../b", "file:///etc/passwd", "nar/%2e%2e/x",
                   "nar/x y", "nar\\x", "//host/x", "nar/x#y"})
    CHECK(code_of(read(signed_narinfo([&](auto& n) { n.url = url; }))) == ec::corrupt);
  CHECK(code_of(read(signed_narinfo([](auto& n) { n.url = "nar/x.nar?hash=abc"; }))) == ec::none);
  CHECK(code_of(read(signed_narinfo([](auto& n) { n.nar_size = 1 << 21; }))) == ec::limit_exceeded);
  for (auto compression : {"bzip2", "br", "lzip"})
    CHECK(code_of(read(signed_narinfo([&](auto& n) { n.compression = compression; }))) == ec::unsupported);
  CHECK(code_of(read_upstream_narinfo("<html>404</html>\n", path_of("thing"), {})) == ec::corrupt);
}

TEST_CASE("a nix-cache-info is read as Nix reads it, and what is none is refused") {
  auto info = parse_cache_info("StoreDir: /nix/store\nWantMassQuery: 1\nPriority: 40\n");
  REQUIRE(info);
  CHECK(info->priority == 40);
  CHECK(parse_cache_info("")->store_dir == "/nix/store");
  CHECK(parse_cache_info("# ours\n\nStoreDir:/gnu/store \r\nPriority: high")->store_dir == "/gnu/store");
  CHECK(parse_cache_info("StoreDir:\nPriority: high\n")->priority == cache_info{}.priority);
  CHECK_FALSE(parse_cache_info("<html>\n"));
  CHECK_FALSE(parse_cache_info("<a href=\"http://portal/\">log in</a>"));
}

TEST_CASE("URLs of caches are http, https or file") {
  CHECK(parse_cache_url("https://cache.nixos.org/").value() == "https://cache.nixos.org");
  CHECK(parse_cache_url("file:///var/cache"));
  for (auto url : {"", "cache.nixos.org", "s3://bucket", "file://relative", "http://a b", "https://c?priority=1"})
    CHECK_FALSE(parse_cache_url(url));
}

TEST_CASE("xz is decompressed, in any pieces and one stream behind the other") {
  std::string text;
  for (int i = 0; i < 100'000; ++i)
    text += std::to_string(i);
  auto packed = xz(text) + xz("tail");
  CHECK(decompress(packed, {}).value() == text + "tail");
  std::string found;
  decompressor slow{[&](std::string_view bytes) -> expected<void> {
    found += bytes;
    return {};
  }};
  for (char c : packed)
    REQUIRE(slow.write({&c, 1}));
  REQUIRE(slow.finish());
  CHECK(found == text + "tail");
}

TEST_CASE("xz that is cut off, damaged or too large is an error") {
  auto packed = xz(std::string(1'000'000, 'x') + "end");
  for (std::size_t cut : {std::size_t{7}, packed.size() / 2, packed.size() - 1})
    CHECK_FALSE(decompress(packed.substr(0, cut), {}));
  auto damaged = packed;
  damaged[packed.size() / 2] = static_cast<char>(damaged[packed.size() / 2] ^ 1);
  CHECK_FALSE(decompress(damaged, {}));
  auto large = decompress(packed, {.bytes_max = 1000});
  REQUIRE_FALSE(large);
  CHECK(large.error().code == ec::limit_exceeded);
}

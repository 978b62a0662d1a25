#include "cache_server_fixture.hpp"
#include "store/held_fetch.hpp"
#include "tests/unit/store/tree_support.hpp"

#include <thread>

using namespace coppice;
using namespace coppice::test;
using store::test::good;

namespace {

std::unique_ptr<store::local_store> open_local(const fs::path& root) {
  store::local_store_options options;
  options.root = root;
  options.belongs_to = store::test::me();
  return good(store::local_store::open(options));
}

/// A machine that holds one path.
struct machine {
  store::test::scratch_dir dir;
  std::unique_ptr<store::local_store> local = open_local(dir / "local");
  const std::string nar;
  path_info info;
  cache_site site{[this](auto& c) { c.local = local.get(); }};

  explicit machine(std::size_t bytes = 1'000'000) : nar(nar_of(noise(bytes))) {
    info.path = store::test::path_named("held");
    info.nar_hash.bytes = nix::sha256(nar);
    info.nar_size = nar.size();
    good(local->add_from_nar(info, store::test::source_of(nar)));
  }
  httplib::Result get(const std::string& target, const httplib::Headers& headers = {}) {
    return site.client().Get(target, headers);
  }
};

} // namespace

TEST_CASE("a held path is given as its NAR, whole or from a byte on") {
  machine m;
  const auto target = store::held_target(m.info);
  auto whole = m.get(target);
  REQUIRE(whole);
  CHECK(whole->status == 200);
  CHECK((whole->body == m.nar));
  CHECK(whole->get_header_value("ETag") == '"' + m.info.nar_hash.to_string() + '"');
  for (std::size_t at : {std::size_t{1}, std::size_t{300'000}, m.nar.size() - 1}) {
    auto rest = m.get(target, {{"Range", "bytes=" + std::to_string(at) + "-"}});
    REQUIRE(rest);
    CHECK(rest->status == 206);
    CHECK((rest->body == m.nar.substr(at)));
  }
  auto part = m.get(target, {{"Range", "bytes=10-19"}});
  REQUIRE(part);
  CHECK((part->body == m.nar.substr(10, 10)));
  CHECK(m.get(target, {{"Range", "bytes=" + std::to_string(m.nar.size()) + "-"}})->status == 416);
  auto head = m.site.client().Head(target);
  REQUIRE(head);
  CHECK(head->status == 200);
  CHECK(head->get_header_value("Content-Length") == std::to_string(m.nar.size()));
}

TEST_CASE("nothing is given under another hash or name, or that is not held (any more)") {
  machine m;
  auto other = m.info;
  other.nar_hash.bytes[0] ^= 1;
  CHECK(m.get(store::held_target(other))->status == 404);
  other = m.info;
  other.path = store::test::path_named("other");
  CHECK(m.get(store::held_target(other))->status == 404);
  for (auto target : {"/held/", "/held/x", "/held/x/y", "/held/../local/valid"})
    CHECK(m.get(target)->status == 404);
  good(m.local->remove(m.info.path));
  CHECK(m.get(store::held_target(m.info))->status == 404);
  cache_site nothing;
  CHECK(nothing.client().Get(store::held_target(m.info))->status == 404);
}

TEST_CASE("a path is kept while it is sent, and its reader may go at any time") {
  machine m{32'000'000}; // more than the sockets hold
  m.site.client().Get(store::held_target(m.info), [&](const char*, std::size_t) {
    CHECK(store::test::code_of(m.local->remove(m.info.path)) == ec::conflict);
    return false;
  });
  for (int i = 0; i < 500 && !m.local->pins().empty(); ++i)
    std::this_thread::sleep_for(10ms);
  CHECK(m.local->remove(m.info.path));
}

TEST_CASE("a machine sends to so many at once") {
  machine m;
  m.site.stop();
  m.site.config.limits.held_sends_max = 0;
  m.site.start();
  auto busy = m.get(store::held_target(m.info));
  REQUIRE(busy);
  CHECK(busy->status == 503);
}

TEST_CASE("a tree that is not what it was is cut off: its length was promised") {
  machine m;
  const auto file = m.local->real_path(m.info.path);
  fs::permissions(file, fs::perms::owner_write, fs::perm_options::add);
  fs::resize_file(file, 500'000);
  CHECK_FALSE(static_cast<bool>(m.get(store::held_target(m.info))));
}

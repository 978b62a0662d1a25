#include "actors/lock/watch_table.hpp"
#include "tests/support/seed.hpp"

#include <catch2/catch.hpp>

#include <random>

using namespace coppice;
using namespace coppice::actors;

namespace {

inhash key(std::uint8_t n) {
  inhash k;
  k.bytes[0] = n;
  return k;
}

} // namespace

TEST_CASE("a watcher that watches twice is told once") {
  watch_table<int> t;
  CHECK(t.add(key(1), 7));
  CHECK(t.add(key(1), 7));
  CHECK(t.of(key(1)) == std::vector{7});
}

TEST_CASE("only those who watch an inhash are told of it") {
  watch_table<int> t;
  t.add(key(1), 7);
  t.add(key(2), 8);
  t.add(key(1), 9);
  CHECK(t.of(key(1)) == std::vector{7, 9});
  CHECK(t.of(key(2)) == std::vector{8});
  CHECK(t.of(key(3)).empty());
}

TEST_CASE("a watcher that is gone watches nothing") {
  watch_table<int> t;
  t.add(key(1), 7);
  t.add(key(2), 7);
  t.add(key(2), 8);
  t.remove(7);
  CHECK(t.of(key(1)).empty());
  CHECK(t.of(key(2)) == std::vector{8});
  CHECK_FALSE(t.knows(7));
  CHECK(t.knows(8));
  CHECK(t.keys() == 1);
}

TEST_CASE("removing what is not watched changes nothing") {
  watch_table<int> t;
  t.add(key(1), 7);
  t.remove(key(2), 7);
  t.remove(key(1), 8);
  t.remove(9);
  CHECK(t.of(key(1)) == std::vector{7});
}

TEST_CASE("an inhash has at most watchers_per_key_max watchers") {
  watch_table<int> t;
  for (std::size_t i = 0; i < t.watchers_per_key_max; ++i)
    REQUIRE(t.add(key(1), static_cast<int>(i)));
  CHECK_FALSE(t.add(key(1), -1));
  CHECK_FALSE(t.knows(-1));
  CHECK(t.add(key(1), 0)); // is there already
  CHECK(t.add(key(2), -1));
}

TEST_CASE("a watch table agrees with a plain set of pairs, and keeps nothing of what is removed") {
  auto seed = test::seed_or(11);
  CAPTURE(seed);
  std::mt19937_64 random{seed};
  watch_table<int> t;
  std::set<std::pair<inhash, int>> model;
  for (int i = 0; i < 5'000; ++i) {
    auto k = key(static_cast<std::uint8_t>(random() % 8));
    auto w = static_cast<int>(random() % 8);
    switch (random() % 4) {
    case 0:
    case 1: t.add(k, w), model.emplace(k, w); break;
    case 2: t.remove(k, w), model.erase({k, w}); break;
    case 3: t.remove(w), std::erase_if(model, [&](auto& p) { return p.second == w; }); break;
    }
    std::set<inhash> keys;
    for (auto& p : model)
      keys.insert(p.first);
    REQUIRE(t.keys() == keys.size());
    std::vector<int> of_k;
    for (auto& p : model)
      if (p.first == k) of_k.push_back(p.second);
    REQUIRE(t.of(k) == of_k);
    REQUIRE(t.knows(w) == std::any_of(model.begin(), model.end(), [&](auto& p) { return p.second == w; }));
  }
}

#include "messages/check.hpp"
#include "messages/check_farm.hpp"
#include "messages/text.hpp"

#include <catch2/catch.hpp>

using namespace coppice;

namespace {

nix::store_path path(std::string_view name) {
  return *nix::store_path::from_base_name("0123456789abcdfghijklmnpqrsvwxyz-" + std::string{name});
}

submit_request good() {
  submit_request m;
  m.id.bytes.fill(1);
  m.body.closure.bytes.fill(2);
  m.body.roots = {{path("a.drv"), {"out", "dev"}}};
  return m;
}

template <class T>
bool refused(const T& m) {
  auto ok = check(m);
  return !ok && ok.error().code == ec::bad_message && !ok.error().what.empty();
}

} // namespace

TEST_CASE("a good submit passes, also at its bounds") {
  CHECK(check(good()));
  auto m = good();
  m.body.priority = 1000;
  m.body.roots.assign(roots_max, m.body.roots[0]);
  CHECK(check(m));
  m.body.priority = -1000;
  CHECK(check(m));
}

TEST_CASE("a submit with a field out of bounds is refused") {
  auto with = [](auto change) {
    auto m = good();
    change(m);
    return m;
  };
  CHECK(refused(with([](auto& m) { m.id = {}; })));
  CHECK(refused(with([](auto& m) { m.body.closure = {}; })));
  CHECK(refused(with([](auto& m) { m.body.roots.clear(); })));
  CHECK(refused(with([](auto& m) { m.body.roots.assign(roots_max + 1, m.body.roots[0]); })));
  CHECK(refused(with([](auto& m) { m.body.roots[0].drv = path("no-derivation"); })));
  CHECK(refused(with([](auto& m) { m.body.roots[0].outputs = {"out", "out"}; })));
  CHECK(refused(with([](auto& m) { m.body.roots[0].outputs = {"../x"}; })));
  CHECK(refused(with([](auto& m) { m.body.roots[0].outputs = {""}; })));
  CHECK(refused(with([](auto& m) { m.body.roots[0].outputs.assign(101, "o"); })));
  CHECK(refused(with([](auto& m) { m.body.priority = 1001; })));
  CHECK(refused(with([](auto& m) { m.body.priority = std::numeric_limits<std::int32_t>::min(); })));
}

TEST_CASE("a query for more sources than allowed is refused") {
  find_missing m;
  m.closure.bytes.fill(1);
  m.sources.assign(sources_per_query_max, path("s"));
  CHECK(check(m));
  m.sources.push_back(path("s"));
  CHECK(refused(m));
}

TEST_CASE("a poll that would wait too long is refused") {
  poll_request m;
  m.id.bytes.fill(1);
  m.wait_ms = poll_wait_ms_max;
  CHECK(check(m));
  m.wait_ms += 1;
  CHECK(refused(m));
  CHECK(refused(poll_request{}));
}

TEST_CASE("queries for too many rows are refused") {
  CHECK(check(get_requests{}));
  CHECK(refused(get_requests{{}, rows_max + 1}));
  CHECK(check(get_requests{{}, rows_max, rows_max}));
  CHECK(refused(get_requests{{}, 0, rows_max + 1}));
  CHECK(check(ledger::held_locks{}));
  CHECK(refused(ledger::held_locks{{}, ledger::rows_unlimited}));
  CHECK(check(ledger::read_failures{}));
  CHECK(refused(ledger::read_failures{{}, rows_max + 1}));
  CHECK(check(get_partials{}));
  CHECK(refused(get_partials{{}, rows_max + 1}));
  CHECK(check(get_queue{}));
  CHECK(refused(get_queue{0, rows_max + 1}));
  CHECK(check(ledger::read_attempts{}));
  CHECK(refused(ledger::read_attempts{{}, {}, 0, rows_max + 1}));
  CHECK(refused(ledger::read_attempts{{}, {}, -1, 10}));
  CHECK(check(ledger::read_durations{std::vector<std::string>(ledger::names_per_query_max)}));
  CHECK(refused(ledger::read_durations{std::vector<std::string>(ledger::names_per_query_max + 1)}));
}

TEST_CASE("events are waited for and answered in bounds, from any number on") {
  CHECK(check(follow_events{}));
  CHECK(check(follow_events{7, events_from_now, poll_wait_ms_max, 1}));
  CHECK(refused(follow_events{0, 0, poll_wait_ms_max + 1, 1}));
  CHECK(refused(follow_events{0, 0, 0, 0}));
  CHECK(refused(follow_events{0, 0, 0, farm_events_per_page_max + 1}));
}

TEST_CASE("a machine's address is short") {
  ledger::open_session t;
  t.url = std::string(url_bytes_max, 'x');
  CHECK(check(ledger::transaction{t}));
  t.url += 'x';
  CHECK(refused(ledger::transaction{t}));
}

TEST_CASE("what a machine is to fetch ahead, or wants from upstream caches, is bounded") {
  CHECK(check(prefetch{}));
  CHECK(check(prefetch{{}, std::vector(prefetch_inputs_max, path("x"))}));
  CHECK(refused(prefetch{{}, std::vector(prefetch_inputs_max + 1, path("x"))}));
  CHECK(check(upstream_wanted{{path("x")}}));
  CHECK(refused(upstream_wanted{}));
  CHECK(refused(upstream_wanted{std::vector(upstream_wanted_max + 1, path("x"))}));
}

TEST_CASE("a search for a log must say which") {
  CHECK(refused(find_log{}));
  CHECK(refused(find_log{path("x"), {}, {}}));
  CHECK(check(find_log{path("x.drv"), {}, {}}));
}

TEST_CASE("an actor's path is short printable text from the root") {
  CHECK(check(kill_actor{"/lock/ledger", false}));
  for (const auto& p :
       {std::string{}, std::string{"lock"}, std::string{"/a\nb"}, std::string{"/a\0b", 4}, "/" + std::string(255, 'x')})
    CHECK(refused(kill_actor{p, false}));
}

TEST_CASE("an operator's words are short printable text, and his pages bounded") {
  CHECK(check(drain_node{{"oak"}, true, "new disks"}));
  CHECK(refused(drain_node{{"oak"}, true, std::string(drain_why_bytes_max + 1, 'x')}));
  CHECK(refused(drain_node{{"oak"}, true, "two\nlines"}));
  CHECK(refused(drain_node{{"\x1b[2J"}, true, {}}));
  CHECK(check(get_queue{1'000'000, rows_max}));
  CHECK(refused(get_queue{0, rows_max + 1}));
  CHECK(refused(retry_partial{}));
  CHECK(refused(drop_partial{}));
}

TEST_CASE("a message as text shows its fields and cuts what is long") {
  poll_request m;
  m.after = 3;
  CHECK(to_text(m) == "poll_request{id: 00000000000000000000000000000000, after: 3, wait_ms: 0}");
  request_root root{path("a.drv"), {"o\"\n\xff", std::string(300, 'x')}};
  CHECK(to_text(root) == "request_root{drv: 0123456789abcdfghijklmnpqrsvwxyz-a.drv, outputs: [\"o\\\"\\n\\xff\", \"" +
                             std::string(200, 'x') + "…\"]}");
  CHECK(to_text(find_log{}).find("drv: none") != std::string::npos);
  request_result result{request_state::failed, {}, {}, 0, 0, ""};
  CHECK(to_text(result).find("state: failed") != std::string::npos);
  root.outputs.assign(30, "o");
  CHECK(to_text(root).find("… 10 more]") != std::string::npos);
}

TEST_CASE("a transaction as text shows what it is") {
  CHECK(to_text(ledger::transaction{ledger::retire{}}).starts_with("transaction{body: retire{key: 00"));
}

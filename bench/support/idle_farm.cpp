#include "bench/support/idle_farm.hpp"

#include "bench/support/idle_node.hpp"
#include "messages/wire.hpp"
#include "runtime/random.hpp"
#include "store/closure.hpp"

#include <caf/scoped_actor.hpp>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <ctime>
#include <iostream>
#include <thread>

namespace coppice::bench {
namespace {

using namespace std::chrono_literals;
namespace fs = std::filesystem;

template <class T>
T need(expected<T> x) {
  if (!x) throw std::runtime_error(to_string(x.error()));
  return std::move(*x);
}

/// How long an answer about events may wait for some.
constexpr std::uint32_t follow_wait_ms = 200;
constexpr auto members_wait = 30s;

/// A process of its own that is a member, once it is told where the hub is; killed by the destructor, or with us.
class member_process {
public:
  member_process(const idle_farm::options& o, std::string name, rt::key_pair keys, std::string hub_key) {
    int ends[2];
    if (::pipe(ends) < 0) throw std::runtime_error("cannot make a pipe");
    pid_ = ::fork();
    if (pid_ < 0) throw std::runtime_error("cannot fork");
    if (pid_ > 0) {
      ::close(ends[0]);
      tell_ = ends[1];
      return;
    }
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    ::close(ends[1]);
    try {
      std::string where(200, 0);
      const auto n = ::read(ends[0], where.data(), where.size());
      if (n <= 0) ::_exit(1);
      where.resize(static_cast<std::size_t>(n));
      fs::create_directories(o.dir / name);
      idle_link link{keys, {}, rt::node_address{{"bench"}, {where}, std::move(hub_key), keys}};
      idle_node node{{o.dir / name, name, o.slots, o.events, std::move(link)}};
      for (;;)
        ::pause();
    } catch (const std::exception& e) {
      std::cerr << name << ": " << e.what() << std::endl;
    }
    ::_exit(1);
  }
  member_process(member_process&& other) noexcept
      : pid_(std::exchange(other.pid_, -1)), tell_(std::exchange(other.tell_, -1)) {}
  member_process& operator=(member_process&&) = delete;
  ~member_process() {
    if (tell_ >= 0) ::close(tell_);
    if (pid_ > 0) {
      ::kill(pid_, SIGKILL);
      ::waitpid(pid_, nullptr, 0);
    }
  }
  void start(const std::string& hub) {
    if (::write(tell_, hub.data(), hub.size()) != static_cast<ssize_t>(hub.size()))
      throw std::runtime_error("cannot tell a member where its hub is");
  }
  double cpu_s() const {
    clockid_t clock{};
    timespec t{};
    if (::clock_getcpuclockid(pid_, &clock) != 0 || ::clock_gettime(clock, &t) != 0)
      throw std::runtime_error("a member has ended");
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
  }

private:
  pid_t pid_ = -1;
  int tell_ = -1;
};

} // namespace

struct idle_farm::impl {
  explicit impl(const options& o) : dir(o.dir), events(o.events) {
    auto own = rt::make_keys();
    rt::authorized_keys allowed;
    for (std::uint32_t i = 1; i <= o.members; ++i) { // before this process has threads
      auto name = "member" + std::to_string(i);
      auto keys = rt::make_keys();
      allowed.key.push_back({name, role::node, keys.public_key});
      members.emplace_back(o, name, keys, own.public_key);
    }
    std::optional<idle_link> link;
    if (o.members > 0) link = idle_link{own, allowed, {}};
    node.emplace(
        idle_node::options{dir, "bench", o.members > 0 ? 0 : o.slots, o.events, std::move(link), o.open_ledger});
    ledger = node->directory().find_as<ledger_actor>("/bench/lock/ledger");
    transact(ledger::register_blob{idle_node::output_blob, {1}, 100});
    for (auto& m : members)
      m.start(node->endpoint());
    wait_for_members(o);
  }

  void wait_for_members(const options& o) {
    if (o.members == 0) return;
    const auto end = std::chrono::steady_clock::now() + members_wait;
    for (std::uint32_t slots = 0; slots < o.members * o.slots; std::this_thread::sleep_for(20ms)) {
      if (std::chrono::steady_clock::now() > end) throw std::runtime_error("the members do not offer their slots");
      slots = 0;
      for (auto& row :
           ask<node_statuses>(*node->tree().inspector, atom::nodes_v, caller{"bench", role::observer}, get_nodes{})
               .rows)
        if (row.what.node.value != "bench") slots += row.what.slots_free;
    }
  }

  template <class Answer, class Handle, class... Ts>
  Answer ask(const Handle& to, Ts... xs) {
    caf::scoped_actor self{node->system()};
    expected<Answer> result = fail(ec::deadline, "no answer");
    self->request(to, 120s, std::move(xs)...)
        .receive([&](Answer& x) { result = std::move(x); },
                 [&](caf::error& e) { result = tl::unexpected(from_caf(e)); });
    return need(std::move(result));
  }
  void transact(ledger::any_transaction t) {
    (void)ask<ledger::answer>(ledger, atom::transact_v, ledger::transaction{std::move(t)});
  }
  double members_cpu_s() const {
    double all = 0;
    for (auto& m : members)
      all += m.cpu_s();
    return all;
  }

  fs::path dir;
  std::vector<member_process> members;
  std::optional<idle_node> node;
  ledger_actor ledger;
  bool events = true;
  std::atomic<std::uint64_t> followed_bytes{0};
  std::jthread follow();
};

/// Asks for all events until it is told to stop, and makes of them the bytes that BRIDGE would send.
std::jthread idle_farm::impl::follow() {
  return std::jthread([this](const std::stop_token& stop) {
    follow_events q;
    q.after = events_from_now;
    for (caller who{"bench", role::observer}; !stop.stop_requested(); q.wait_ms = follow_wait_ms) {
      auto page = ask<event_page>(node->tree().observatory, atom::events_v, who, q);
      followed_bytes += wire::encode(page).size();
      q.stream = page.stream;
      q.after = page.next;
    }
  });
}

idle_farm::idle_farm(const options& o) : impl_(std::make_unique<impl>(o)) {}
idle_farm::~idle_farm() = default;

idle_farm::result idle_farm::run(const request& r) {
  auto& me = *impl_;
  submit_request s;
  s.id = rt::random_id<request_id>();
  for (auto& root : r.roots)
    s.body.roots.push_back({root, {}});
  {
    auto bytes = need(store::pack_closure(r.derivations));
    s.body.closure = store::closure_id(bytes);
    if (auto put = me.node->blobs().put(store::closure_key(s.body.closure, {1}), bytes); !put)
      throw std::runtime_error(to_string(put.error()));
    me.transact(ledger::register_blob{s.body.closure, {1}, bytes.size()});
  }
  auto follower = me.events ? me.follow() : std::jthread{};
  auto threads = threads_now();
  auto memory = resident_bytes();
  auto cpu = own_cpu_s();
  auto members = me.members_cpu_s();
  stopwatch watch;
  caller who{"bench", role::submitter};
  (void)me.ask<accepted>(*me.node->tree().gateway, atom::submit_v, who, s);
  result c;
  for (poll_request p{s.id, 0, poll_wait_ms_max};;) {
    auto news = me.ask<request_progress>(*me.node->tree().gateway, atom::poll_v, who, p);
    c.memory_bytes = std::max(c.memory_bytes, resident_bytes() - memory);
    p.after = news.next;
    if (!news.result) continue;
    if (news.result->state != request_state::succeeded)
      throw std::runtime_error("the request did not succeed: " + news.result->reason +
                               (news.result->failures.empty() ? "" : news.result->failures[0].reason));
    c.built = news.result->built;
    break;
  }
  members = me.members_cpu_s() - members;
  c.cost = watch.since(own_cpu_s() - cpu + members);
  c.busiest = busiest_since(threads);
  follower = {};
  c.followed_bytes = me.followed_bytes;
  for (auto& f : fs::directory_iterator(me.dir))
    if (f.path().filename().string().starts_with("ledger.sqlite")) c.ledger_bytes += f.file_size();
  return c;
}

} // namespace coppice::bench

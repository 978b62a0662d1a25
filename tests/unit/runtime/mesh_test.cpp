#include "messages/interfaces.hpp"
#include "tests/support/meshed.hpp"

#include <caf/actor_system.hpp>
#include <caf/actor_system_config.hpp>
#include <caf/scoped_actor.hpp>

using namespace coppice;
using namespace coppice::test;
using namespace std::chrono_literals;

namespace {

namespace fs = std::filesystem;

job some_job(std::uint64_t token) {
  job j;
  j.key.bytes.fill(7);
  j.token = {token};
  j.drv = *nix::store_path::from_base_name("0123456789abcdfghijklmnpqrsvwxyz-a.drv");
  j.aterm = std::string(1000, 'x');
  return j;
}

/// Takes even tokens; token 99 is never answered, 98 kills it.
class picky_pool {
public:
  using interface = assignee_actor;
  static constexpr const char* name = "pool";
  picky_pool(rt::self<assignee_actor>* self, std::shared_ptr<std::atomic<int>> taken)
      : self_(self), taken_(std::move(taken)) {}
  interface::behavior_type make_behavior() {
    return {[this](atom::assign_atom, const job& j) -> caf::result<bool> {
      ++*taken_;
      if (j.token.value == 98) throw std::runtime_error("as told");
      if (j.token.value == 99) {
        kept_.emplace_back(self_);
        return kept_.back();
      }
      if (j.aterm->size() != 1000) return make_error(ec::invalid, "cut");
      return j.token.value % 2 == 0;
    },
            [](atom::prefetch_atom, const prefetch&) {}};
  }

private:
  rt::self<assignee_actor>* self_;
  std::shared_ptr<std::atomic<int>> taken_;
  std::vector<rt::reply<bool>> kept_;
};

/// Assigns a job to whoever offers, and counts who takes it.
class eager_allocator {
public:
  using interface = offers_actor;
  static constexpr const char* name = "allocator";
  struct seen {
    std::atomic<int> offers{0}, taken{0}, refused{0};
  };
  eager_allocator(rt::self<offers_actor>* self, std::shared_ptr<seen> s) : self_(self), seen_(std::move(s)) {}
  interface::behavior_type make_behavior() {
    return {[this](atom::offer_atom, const offer&, const assignee_actor& pool) {
      ++seen_->offers;
      self_->call(pool, atom::assign_v, some_job(2))
          .then([s = seen_](bool yes) { ++(yes ? s->taken : s->refused); },
                [s = seen_](caf::error&) { ++s->refused; });
    }};
  }

private:
  rt::self<offers_actor>* self_;
  std::shared_ptr<seen> seen_;
};

offer some_offer(std::string node = "birch") {
  offer o;
  o.node = {std::move(node)};
  o.slots = o.slots_free = 2;
  return o;
}

struct world {
  fs::path dir;
  caf::actor_system_config config;
  std::unique_ptr<caf::actor_system> system;
  std::optional<meshed_node> alder, birch; // the hub, a member
  meshed_wires wires;
  std::vector<caf::strong_actor_ptr> roots;

  explicit world(rt::mesh_options o = {}, std::uint32_t birch_speaks = rt::protocol_version_max) {
    std::string pattern = (fs::temp_directory_path() / "coppice-mesh-XXXXXX").string();
    REQUIRE(mkdtemp(pattern.data()) != nullptr);
    dir = pattern;
    config.set("scheduler.policy", caf::atom("sharing"));
    system = std::make_unique<caf::actor_system>(config);
    alder.emplace(*system, "alder", dir, 1, o);
    birch.emplace(*system, "birch", dir, 1, o, birch_speaks);
  }
  ~world() {
    for (auto& r : roots)
      CHECK(rt::shut_down_and_wait(*system, r, 10s));
    roots.clear();
    alder->sessions.reset();
    birch->sessions.reset();
    alder.reset();
    birch.reset();
    system.reset();
    fs::remove_all(dir);
  }
  void connect() {
    wires.dial(*birch, *alder, alder->admit("birch"));
    REQUIRE(run([&] { return alder->mesh->reaches({"birch"}) && birch->mesh->reaches({"alder"}); }));
  }
  /// The handle that alder has of a pool on birch, connected; and how many jobs that pool was told of.
  std::pair<assignee_actor, std::shared_ptr<std::atomic<int>>> pool_of_birch() {
    auto taken = std::make_shared<std::atomic<int>>(0);
    start<picky_pool>(*birch, "pool", taken);
    birch->mesh->expose<assignee_actor>("/birch/pool");
    connect();
    return {alder->mesh->remote<assignee_actor>({"birch"}, "/birch/pool"), taken};
  }
  bool run(const std::function<bool()>& done) { return wires.run_until({&*alder, &*birch}, done); }
  /// Starts an actor at /NODE/LABEL.
  template <class State, class... Ts>
  typename State::interface start(meshed_node& at, const std::string& label, Ts... xs) {
    auto tree = rt::tree{at.names, "/" + at.name_, {}};
    auto handle = tree.child<State>(label, xs...);
    roots.push_back(tree.run());
    return handle;
  }
  /// Asks on behalf of a scoped actor; the answer, or the error's code.
  struct outcome {
    std::optional<bool> answer;
    std::optional<error> failed;
    bool over() const { return answer || failed; }
  };
  outcome ask(const assignee_actor& to, job j, const std::function<void()>& meanwhile = {}) {
    caf::scoped_actor self{*system};
    outcome o;
    auto handle = self->request(to, caf::infinite, atom::assign_v, std::move(j));
    bool begun = false;
    REQUIRE(run([&] {
      if (meanwhile && !std::exchange(begun, true)) meanwhile();
      return !self->mailbox().empty();
    }));
    handle.receive([&](bool x) { o.answer = x; }, [&](caf::error& e) { o.failed = from_caf(e); });
    return o;
  }
};

} // namespace

TEST_CASE("an actor of another node answers like one's own") {
  world w;
  auto [pool, taken] = w.pool_of_birch();
  CHECK(w.ask(pool, some_job(2)).answer == true);
  CHECK(w.ask(pool, some_job(3)).answer == false);
  CHECK(*taken == 2);
  CHECK(w.alder->mesh->open() == 0);
}

TEST_CASE("errors of an actor of another node arrive as they are") {
  world w;
  auto [pool, taken] = w.pool_of_birch();
  auto j = some_job(2);
  j.aterm = std::string("short");
  auto refused = w.ask(pool, j);
  REQUIRE(refused.failed);
  CHECK(refused.failed->code == ec::invalid);
  CHECK(refused.failed->what == "cut");
  auto died = w.ask(pool, some_job(98));
  REQUIRE(died.failed);
  CHECK((died.failed->code == ec::crashed || died.failed->code == ec::restarted));
  CHECK(w.ask(pool, some_job(2)).answer == true); // its next incarnation, through the same handle
}

TEST_CASE("an actor given along can be called by whoever was given it") {
  world w;
  auto seen = std::make_shared<eager_allocator::seen>();
  w.start<eager_allocator>(*w.alder, "allocator", seen);
  w.alder->mesh->expose<offers_actor>("/alder/allocator");
  auto taken = std::make_shared<std::atomic<int>>(0);
  auto pool = w.start<picky_pool>(*w.birch, "pool", taken);
  w.connect();
  auto allocator = w.birch->mesh->remote<offers_actor>({"alder"}, "/alder/allocator");
  caf::anon_send(allocator, atom::offer_v, some_offer(), pool);
  CHECK(w.run([&] { return seen->taken == 1; }));
  CHECK(*taken == 1);
}

TEST_CASE("a call to a node that nobody is connected with fails at once") {
  world w;
  auto o = w.ask(w.alder->mesh->remote<assignee_actor>({"birch"}, "/birch/pool"), some_job(2));
  REQUIRE(o.failed);
  CHECK(o.failed->code == ec::peer_down);
  CHECK(o.failed->what == "there is no session with birch");
}

TEST_CASE("open calls fail when the other node is silent for too long, and monitors fire") {
  world w;
  auto [pool, taken] = w.pool_of_birch();
  caf::scoped_actor watcher{*w.system};
  watcher->monitor(pool);
  auto o = w.ask(pool, some_job(99), [&, seen = taken] {
    w.wires.run_until({&*w.alder, &*w.birch}, [&] { return *seen == 1; });
    w.wires.cut(*w.alder, *w.birch);
    w.wires.passed += 10s;
  });
  REQUIRE(o.failed);
  CHECK(o.failed->code == ec::peer_down);
  CHECK_FALSE(w.alder->mesh->reaches({"birch"}));
  bool told = false;
  watcher->receive([&](const caf::down_msg& d) { told = is(d.reason, ec::peer_down); });
  CHECK(told);
  // and through the same handle, once it is there again
  w.connect();
  CHECK(w.ask(pool, some_job(2)).answer == true);
}

TEST_CASE("a call that is never answered ends in time") {
  world w{rt::mesh_options{.call_timeout = 50ms}};
  auto [pool, taken] = w.pool_of_birch();
  auto o = w.ask(pool, some_job(99));
  REQUIRE(o.failed);
  CHECK(o.failed->code == ec::deadline);
  CHECK(w.alder->mesh->open() == 0);
}

TEST_CASE("a newer process of a node takes the place of an older one, and never the other way round") {
  world w;
  auto key = w.alder->admit("birch");
  w.wires.dial(*w.birch, *w.alder, key);
  REQUIRE(w.run([&] { return w.alder->mesh->reaches({"birch"}) && w.birch->mesh->reaches({"alder"}); }));
  auto taken = std::make_shared<std::atomic<int>>(0);
  meshed_node reborn{*w.system, "birch", w.dir, 2};
  w.start<picky_pool>(reborn, "pool", taken);
  reborn.mesh->expose<assignee_actor>("/birch/pool");
  w.wires.dial(reborn, *w.alder, key);
  REQUIRE(w.wires.run_until({&*w.alder, &*w.birch, &reborn}, [&] { return reborn.mesh->reaches({"alder"}); }));
  auto pool = w.alder->mesh->remote<assignee_actor>({"birch"}, "/birch/pool");
  caf::scoped_actor self{*w.system};
  auto asked = self->request(pool, caf::infinite, atom::assign_v, some_job(2));
  REQUIRE(w.wires.run_until({&*w.alder, &*w.birch, &reborn}, [&] { return !self->mailbox().empty(); }));
  bool yes = false;
  asked.receive([&](bool x) { yes = x; }, [](caf::error&) {});
  CHECK(yes);
  // the older process says hello once more
  w.wires.dial(*w.birch, *w.alder, key);
  REQUIRE(w.wires.run_until({&*w.alder, &*w.birch, &reborn}, [&] { return !w.birch->sessions->has("alder"); }));
  CHECK(reborn.mesh->reaches({"alder"}));
  auto again = self->request(pool, caf::infinite, atom::assign_v, some_job(2));
  REQUIRE(w.wires.run_until({&*w.alder, &*w.birch, &reborn}, [&] { return !self->mailbox().empty(); }));
  yes = false;
  again.receive([&](bool x) { yes = x; }, [](caf::error&) {});
  CHECK(yes);
  CHECK(*taken == 2);
  reborn.sessions.reset();
}

TEST_CASE("a key that is no node's reaches no actor by its path") {
  world w;
  auto taken = std::make_shared<std::atomic<int>>(0);
  w.start<picky_pool>(*w.alder, "pool", taken);
  w.alder->mesh->expose<assignee_actor>("/alder/pool");
  w.wires.dial(*w.birch, *w.alder, w.alder->admit("lena", role::admin));
  REQUIRE(w.run([&] { return w.birch->mesh->reaches({"alder"}); })); // it dialled whom it meant to
  auto o = w.ask(w.birch->mesh->remote<assignee_actor>({"alder"}, "/alder/pool"), some_job(2));
  REQUIRE(o.failed);
  CHECK(o.failed->code == ec::forbidden);
  CHECK(*taken == 0);
  CHECK_FALSE(w.alder->mesh->reaches({"lena"}));
  CHECK(w.alder->counters->forbidden == 1);
}

TEST_CASE("only what is exposed can be called, and only a node's own actors can be given") {
  world w;
  auto taken = std::make_shared<std::atomic<int>>(0);
  auto pool = w.start<picky_pool>(*w.birch, "pool", taken);
  auto seen = std::make_shared<eager_allocator::seen>();
  w.start<eager_allocator>(*w.alder, "allocator", seen);
  w.alder->mesh->expose<offers_actor>("/alder/allocator");
  w.connect();
  auto hidden = w.ask(w.alder->mesh->remote<assignee_actor>({"birch"}, "/birch/pool"), some_job(2));
  REQUIRE(hidden.failed);
  CHECK(hidden.failed->code == ec::no_such_target);
  auto wrong = w.ask(w.birch->mesh->remote<assignee_actor>({"alder"}, "/alder/allocator"), some_job(2));
  REQUIRE(wrong.failed);
  CHECK(wrong.failed->code == ec::unsupported);
  // a third node's actor
  auto others = w.birch->mesh->remote<assignee_actor>({"cedar"}, "/cedar/pool");
  auto allocator = w.birch->mesh->remote<offers_actor>({"alder"}, "/alder/allocator");
  const auto bad = w.alder->counters->bad_frames.load();
  caf::anon_send(allocator, atom::offer_v, some_offer(), others);
  CHECK(w.run([&] { return w.alder->counters->bad_frames > bad; }));
  // what does not pass check()
  caf::anon_send(allocator, atom::offer_v, some_offer("a/b"), pool);
  CHECK(w.run([&] { return w.alder->counters->bad_frames > bad + 1; }));
  CHECK(seen->offers == 0);
}

TEST_CASE("what a silent node does not read is refused as congested, and flows again when it reads") {
  world w;
  auto [pool, taken] = w.pool_of_birch();
  caf::scoped_actor self{*w.system};
  // nobody carries frames meanwhile
  for (std::size_t i = 0; i < rt::send_window::messages_max; ++i)
    self->send(pool, atom::assign_v, some_job(2));
  auto asked = self->request(pool, caf::infinite, atom::assign_v, some_job(2));
  ec code = ec::none;
  asked.receive([](bool) {}, [&](caf::error& e) { code = from_caf(e).code; });
  CHECK(code == ec::congested);
  REQUIRE(w.run([seen = taken] { return *seen == static_cast<int>(rt::send_window::messages_max); }));
  CHECK(w.ask(pool, some_job(2)).answer == true);
}

namespace {

/// Remembers what it was told, in order, and says yes.
class patient_pool {
public:
  using interface = assignee_actor;
  static constexpr const char* name = "pool";
  patient_pool(rt::self<assignee_actor>*, std::shared_ptr<std::vector<std::uint64_t>> told) : told_(std::move(told)) {}
  interface::behavior_type make_behavior() {
    return {
      [this](atom::assign_atom, const job& j) -> caf::result<bool> {
        told_->push_back(j.token.value);
        return true;
      },
      [](atom::prefetch_atom, const prefetch&) {},
    };
  }

private:
  std::shared_ptr<std::vector<std::uint64_t>> told_;
};

/// 200 things said to birch at once, each third of them and the last a question: in how many messages they and their
/// answers went.
struct crowd {
  int bundles = 0, alone = 0, answers = 0;
  std::vector<std::uint64_t> told;

  explicit crowd(world& w) {
    auto all = std::make_shared<std::vector<std::uint64_t>>();
    w.start<patient_pool>(*w.birch, "pool", all);
    w.birch->mesh->expose<assignee_actor>("/birch/pool");
    w.connect();
    for (auto* node : {&*w.alder, &*w.birch})
      for (auto& [route, wire] : node->wires)
        wire = [this, former = wire](const meshed_node::words& words) {
          auto head = rt::decode_head(words.head);
          REQUIRE(head);
          if (head->kind == rt::frame_kind::bundle)
            ++bundles;
          else if (head->kind != rt::frame_kind::ping && head->kind != rt::frame_kind::pong)
            ++alone;
          return former(words);
        };
    auto pool = w.alder->mesh->remote<assignee_actor>({"birch"}, "/birch/pool");
    caf::scoped_actor self{*w.system};
    std::vector<decltype(self->request(pool, caf::infinite, atom::assign_v, some_job(0)))> open;
    for (std::uint64_t i = 0; i < 200; ++i) {
      if (i % 3 == 0 || i == 199)
        open.push_back(self->request(pool, caf::infinite, atom::assign_v, some_job(i)));
      else
        self->send(pool, atom::assign_v, some_job(i));
    }
    REQUIRE(w.run([&] { return self->mailbox().count() == open.size(); }));
    for (auto& o : open)
      o.receive([&](bool yes) { answers += yes; }, [](caf::error& e) { FAIL(to_string(from_caf(e))); });
    REQUIRE(w.alder->mesh->open() == 0);
    told = *all; // birch has answered the last of them
  }
};

} // namespace

TEST_CASE("what waits for another node goes there together, and in order") {
  world w;
  crowd c{w};
  CHECK(c.answers == 68);
  CHECK(c.told.size() == 200);
  CHECK(std::is_sorted(c.told.begin(), c.told.end()));
  CHECK(c.bundles >= 4);
  CHECK(c.bundles + c.alone <= 80); // 268 frames, and birch answers while it is asked
  CHECK(w.birch->counters->bad_frames == 0);
}

TEST_CASE("a node that does not speak of bundles is sent none") {
  world w{{}, 1};
  crowd c{w};
  CHECK(c.answers == 68);
  CHECK(c.told.size() == 200);
  CHECK(std::is_sorted(c.told.begin(), c.told.end()));
  CHECK(c.bundles == 0);
  CHECK(c.alone == 268);
}

TEST_CASE("each frame of a bundle is checked as if it came alone") {
  world w;
  auto [pool, taken] = w.pool_of_birch();
  auto& to_birch = w.alder->wires.begin()->second;
  const auto bad = [&] { return w.birch->counters->bad_frames.load(); };
  auto bundle = [](const std::vector<std::pair<std::string, std::string>>& frames, std::uint32_t version = 2) {
    wire::writer words;
    words.array(2 * frames.size());
    for (auto& [head, body] : frames)
      words.str(head), words.str(body);
    rt::envelope e;
    e.kind = rt::frame_kind::bundle;
    e.version = version;
    return meshed_node::words{rt::encode_head(e), words.take()};
  };
  auto frame = [](rt::frame_kind kind, std::string body, const std::string& target = "/birch/pool") {
    rt::envelope e;
    e.kind = kind;
    e.version = 2;
    e.target = target;
    e.method = "assign job";
    return std::pair{rt::encode_head(e), std::move(body)};
  };
  const auto well = frame(rt::frame_kind::cast, wire::encode(some_job(2)));
  const auto hello = frame(rt::frame_kind::hello, wire::encode(rt::hello{"coppice", 1, 2, "birch", "", 9}));
  const auto nested = bundle({well});
  struct {
    meshed_node::words said;
    int bad, taken;
  } cases[] = {
      {bundle({well, well, well}), 0, 3},
      {bundle({}), 0, 0},
      {bundle({{"rubbish", ""}, well}), 1, 1},
      {bundle({frame(rt::frame_kind::cast, "rubbish"), well}), 1, 1},
      {bundle({frame(rt::frame_kind::cast, well.second, "/birch/none"), well}), 1, 1},
      {bundle({{nested.head, nested.body}, well}), 1, 1},
      {bundle({hello, well}), 1, 1},
      {bundle({frame(rt::frame_kind::reply, ""), well}), 0, 1}, // of a call that nobody waits for
      {bundle(std::vector(rt::bundle_frames_max + 1, well)), 1, 0},
      {{nested.head, "rubbish"}, 1, 0},
      {{nested.head, ""}, 1, 0},
  };
  for (auto& c : cases) {
    const auto bad_before = bad();
    const auto taken_before = taken->load();
    CAPTURE(&c - cases);
    REQUIRE(to_birch(c.said));
    REQUIRE(w.run([&, seen = taken] { return bad() >= bad_before + c.bad && *seen >= taken_before + c.taken; }));
    CHECK(w.ask(pool, some_job(2)).answer == true); // and the session goes on
    CHECK(bad() == bad_before + c.bad);
    CHECK(*taken == taken_before + c.taken + 1);
  }
}

TEST_CASE("a bundle is taken from a node alone, and from one that agreed on them") {
  for (auto [role, speaks] : {std::pair{role::admin, 2u}, std::pair{role::node, 1u}}) {
    world w{{}, speaks};
    auto taken = std::make_shared<std::atomic<int>>(0);
    w.start<picky_pool>(*w.alder, "pool", taken);
    w.alder->mesh->expose<assignee_actor>("/alder/pool");
    w.wires.dial(*w.birch, *w.alder, w.alder->admit("birch", role));
    REQUIRE(w.run([&] { return w.birch->mesh->reaches({"alder"}); }));
    rt::frame f;
    f.head.kind = rt::frame_kind::cast;
    f.head.version = speaks;
    f.head.target = "/alder/pool";
    f.head.method = "assign job";
    f.body = wire::encode(some_job(2));
    const std::vector<const rt::frame*> frames{&f, &f};
    const auto all = rt::bundle_of(frames);
    REQUIRE(w.birch->wires.at("alder")({rt::encode_head(all.head), all.body}));
    REQUIRE(w.run([&] { return w.alder->counters->bad_frames == 1; }));
    CHECK(*taken == 0);
  }
}

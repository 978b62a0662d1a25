#include "puppet.hpp"

#include <catch2/catch.hpp>

/// CAF's traps (docs/decisions/0012-traps-of-caf.md) that the base class closes, each by its number there.
using namespace coppice;
using namespace coppice::test;
using namespace std::chrono_literals;

namespace {

/// Counts its copies.
struct parcel {
  parcel() = default;
  parcel(const parcel& o) : copies(o.copies + 1) {}
  parcel(parcel&&) = default;
  parcel& operator=(const parcel&) = delete;
  parcel& operator=(parcel&&) = default;
  int copies = 0;
};

using clerk_actor = caf::typed_actor<caf::reacts_to<note_atom>, // calls the puppet, which throws
                                     caf::reacts_to<ping_atom>, // calls the puppet
                                     caf::reacts_to<keep_atom>, // sends itself a later ping
                                     caf::replies_to<forget_atom>::with<std::uint64_t>, // answered calls
                                     caf::replies_to<parcel>::with<int>>;               // its copies on the way

/// Does what careless code does.
class clerk {
public:
  using interface = clerk_actor;
  static constexpr const char* name = "clerk";
  clerk(rt::self<interface>* self, puppet_actor to) : self_(self), to_(std::move(to)) {}
  interface::behavior_type make_behavior() {
    return {
        [this](note_atom) { self_->call(to_, crash_atom::value).then([](std::uint64_t) {}); },
        [this](ping_atom) {
          self_->call(to_, ping_atom::value).then([this](std::uint64_t) { ++answers_; }, [](caf::error&) {});
        },
        [this](keep_atom) { self_->later(1s, ping_atom::value); },
        [this](forget_atom) -> caf::result<std::uint64_t> { return answers_; },
        [](parcel& p) -> caf::result<int> {
          const auto mine = std::move(p);
          return mine.copies;
        },
    };
  }

private:
  rt::self<interface>* self_;
  puppet_actor to_;
  std::uint64_t answers_ = 0;
};

struct office {
  diary d;
  world w;
  rt::tree tree{w.directory, "/t", calm_options()};
  puppet_actor a = tree.child<puppet>("a", std::string("a"), &d);
  clerk_actor c = tree.child<clerk>("c", a);

  office() {
    w.run(tree);
    w.settle();
  }
  std::size_t timers() {
    return dynamic_cast<caf::scheduler::test_coordinator&>(w.system.scheduler()).clock().schedule().size();
  }
};

} // namespace

CAF_ALLOW_UNSAFE_MESSAGE_TYPE(parcel)

TEST_CASE("T3: a call that fails and has no lambda for that does not kill its caller") {
  office o;
  o.w.tell(o.c, note_atom::value);
  o.w.settle();
  CHECK(o.w.status("/t/a").restarts + (o.w.status("/t/a").state != actor_state::up) > 0); // it did fail
  CHECK(o.w.ask(o.c, forget_atom::value) == 0u);
  CHECK(o.w.status("/t/c").restarts == 0);
}

TEST_CASE("T6: calls that are answered leave no timer behind") {
  office o;
  const auto before = o.timers();
  for (int i = 0; i < 100; ++i)
    o.w.tell(o.c, ping_atom::value);
  o.w.settle();
  CHECK(o.w.ask(o.c, forget_atom::value) == 100u);
  CHECK(o.timers() == before);
}

TEST_CASE("T9: what an incarnation sent itself for later does not reach its successor") {
  office o;
  o.w.tell(o.c, keep_atom::value);
  o.w.settle();
  REQUIRE(o.w.directory.kill("/t/c"));
  o.w.advance(5s);
  CHECK(o.w.ask(o.c, forget_atom::value) == 0u);
  o.w.tell(o.c, keep_atom::value); // and does reach itself
  o.w.advance(5s);
  CHECK(o.w.ask(o.c, forget_atom::value) == 1u);
}

TEST_CASE("T10: an actor to which nobody holds a handle serves on") {
  office o;
  o.c = nullptr;
  o.w.advance(5s);
  CHECK(o.w.status("/t/c").state == actor_state::up);
  CHECK(o.w.status("/t/c").restarts == 0);
}

TEST_CASE("T13: a message that no handler takes is dropped, and its sender and receiver live") {
  office o;
  caf::anon_send(caf::actor_cast<caf::actor>(o.c), std::string{"what is this?"});
  o.w.settle();
  CHECK(o.w.ask(o.c, forget_atom::value) == 0u);
  CHECK(o.w.status("/t/c").restarts == 0);
}

TEST_CASE("T14: a message that its handler takes by T& is not copied on the way through a reference") {
  office o;
  CHECK(o.w.ask(o.c, parcel{}) == 0);
}

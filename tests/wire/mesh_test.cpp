#include "farm.hpp"

using namespace coppice;
using namespace coppice::test;

namespace {

/// Says yes to even tokens.
class even_pool {
public:
  using interface = assignee_actor;
  static constexpr const char* name = "pool";
  explicit even_pool(rt::self<assignee_actor>*) {}
  interface::behavior_type make_behavior() {
    return {[](atom::assign_atom, const job& j) -> caf::result<bool> { return j.token.value % 2 == 0; },
            [](atom::prefetch_atom, const prefetch&) {}};
  }
};

job some_job(std::uint64_t token, std::size_t bytes = 10) {
  job j;
  j.key.bytes.fill(7);
  j.token = {token};
  j.drv = *nix::store_path::from_base_name("0123456789abcdfghijklmnpqrsvwxyz-a.drv");
  j.aterm = std::string(bytes, 'x');
  return j;
}

/// A hub and a member that dials it, in one process, over loopback.
struct pair {
  farm hub, member;
  std::shared_ptr<rt::mesh> at_hub, at_member;
  rt::key_pair keys = rt::make_keys();
  std::vector<std::string> elsewhere; ///< endpoints at which the hub is not

  explicit pair(role r = role::node) {
    member.options.authorized = member.dir / "authorized.toml";
    member.options.sessions.peers.node.value = "birch";
    hub.allowed.key.push_back({"birch", r, keys.public_key});
    REQUIRE(rt::write_authorized(hub.options.authorized, hub.allowed));
  }
  void start_hub() {
    hub.prepare();
    hub.options.mesh = at_hub = std::make_shared<rt::mesh>(*hub.names, node_id{"alder"});
    hub.tree->child<even_pool>("pool");
    at_hub->expose<assignee_actor>("/alder/pool");
    hub.run();
  }
  void start_member(std::uint64_t born = 1) {
    member.prepare("/birch");
    member.options.mesh = at_member = std::make_shared<rt::mesh>(*member.names, node_id{"birch"});
    member.options.sessions.peers.born = {born};
    auto endpoints = elsewhere;
    endpoints.push_back(hub.endpoint);
    member.options.dials = {{{"alder"}, endpoints, hub.server.public_key, keys}};
    member.options.redial_first = 20ms;
    member.tree->child<even_pool>("pool");
    at_member->expose<assignee_actor>("/birch/pool");
    member.run();
  }
  bool connected() const { return at_hub->reaches({"birch"}) && at_member->reaches({"alder"}); }

  static std::pair<std::optional<bool>, error> ask(farm& from, const assignee_actor& to, job j) {
    caf::scoped_actor self{*from.system};
    std::pair<std::optional<bool>, error> out;
    self->request(to, caf::infinite, atom::assign_v, std::move(j))
        .receive([&](bool yes) { out.first = yes; }, [&](caf::error& e) { out.second = from_caf(e); });
    return out;
  }
  auto ask_member(std::uint64_t token, std::size_t bytes = 10) {
    return ask(hub, at_hub->remote<assignee_actor>({"birch"}, "/birch/pool"), some_job(token, bytes));
  }
  auto ask_hub(std::uint64_t token, std::size_t bytes = 10) {
    return ask(member, at_member->remote<assignee_actor>({"alder"}, "/alder/pool"), some_job(token, bytes));
  }
};

} // namespace

TEST_CASE("a member and its hub call each other's actors over one connection") {
  pair p;
  p.start_hub();
  p.start_member();
  REQUIRE(eventually([&] { return p.connected(); }));
  CHECK(p.ask_member(2).first == true);
  CHECK(p.ask_member(3).first == false);
  CHECK(p.ask_hub(2).first == true);
  CHECK(p.ask_hub(3).first == false);
}

TEST_CASE("what is too large for a member to say is refused before it breaks the connection") {
  pair p;
  p.start_hub();
  p.start_member();
  REQUIRE(eventually([&] { return p.connected(); }));
  CHECK(p.ask_hub(2, 2 << 20).second.code == ec::limit_exceeded);
  CHECK(p.ask_member(2, 2 << 20).first == true); // the hub may say more, as in an answer
  CHECK(p.ask_hub(2).first == true);
}

TEST_CASE("a member finds its hub again after the hub's sockets died") {
  pair p;
  p.start_hub();
  p.start_member();
  REQUIRE(eventually([&] { return p.connected(); }));
  REQUIRE(p.hub.names->kill("/alder/bridge", rt::kill_mode::crash));
  REQUIRE(eventually([&] { return !p.at_hub->reaches({"birch"}); }));
  REQUIRE(eventually([&] { return p.connected() && p.ask_member(2).first == true; }, 20s));
  CHECK(p.ask_hub(2).first == true);
}

TEST_CASE("a member finds its hub at any of its endpoints, and passes by whoever else listens there") {
  pair p;
  p.start_hub();
  farm stranger; // its key is another
  stranger.prepare("/ash");
  stranger.run();
  p.elsewhere = {"tcp://127.0.0.1:1", stranger.endpoint};
  p.start_member();
  REQUIRE(eventually([&] { return p.connected(); }, 20s));
  CHECK(p.ask_hub(2).first == true);
}

TEST_CASE("a member asks its hub on behalf of its clients, with their names and no more than their roles") {
  pair p;
  p.start_hub();
  p.member.options.sessions.relay_to = {"alder"};
  p.member.options.sessions.relayed = {"oracle"};
  p.member.exposes = false;
  p.start_member();
  REQUIRE(eventually([&] { return p.connected(); }));
  auto lena = p.member.client(role::submitter);
  auto c = rt::connection::connect(lena);
  REQUIRE(c);
  auto who = c->call<node_info>("oracle", "info", get_info{}, 5s);
  REQUIRE(who);
  CHECK(who->version == "lena@birch/submitter");
  CHECK(c->call<accepted>("oracle", "submit", farm::submit(), 5s));
  CHECK(*p.hub.submits == 1);
  auto otto = rt::connection::connect(p.member.client(role::observer, "otto"));
  REQUIRE(otto);
  auto refused = otto->call<accepted>("oracle", "submit", farm::submit(), 5s);
  REQUIRE_FALSE(refused);
  CHECK(refused.error().code == ec::forbidden);
  CHECK(*p.hub.submits == 1);
  CHECK(c->call<node_info>("gardener", "info", get_info{}, 5s).error().code == ec::no_such_target);
}

TEST_CASE("an actor of any node is asked through any other, with its client's name and no more than its role") {
  pair p;
  p.start_hub();
  p.member.options.sessions.relay_to = {"alder"};
  p.start_member();
  REQUIRE(eventually([&] { return p.connected(); }));
  auto lena = rt::connection::connect(p.hub.client(role::submitter));
  REQUIRE(lena);
  const auto who = [](auto& c, const char* target) { return c->template call<node_info>(target, "info", get_info{}, 5s); };
  CHECK(who(lena, "birch/oracle")->version == "lena@alder/submitter");
  CHECK(who(lena, "alder/oracle")->version == "lena/submitter");
  CHECK(who(lena, "elm/oracle").error().code == ec::unavailable);
  CHECK(who(lena, "birch/gardener").error().code == ec::no_such_target);
  CHECK(lena->call<accepted>("birch/oracle", "submit", farm::submit(), 5s));
  CHECK((*p.member.submits == 1 && *p.hub.submits == 0));
  auto otto = rt::connection::connect(p.hub.client(role::observer, "otto"));
  REQUIRE(otto);
  CHECK(otto->call<accepted>("birch/oracle", "submit", farm::submit(), 5s).error().code == ec::forbidden);
  auto mona = rt::connection::connect(p.member.client(role::submitter, "mona"));
  REQUIRE(mona);
  CHECK(who(mona, "alder/oracle")->version == "mona@birch/submitter");
  CHECK(who(mona, "birch/oracle")->version == "mona/submitter");
  CHECK(who(mona, "elm/oracle").error().code == ec::unavailable); // the hub knows no elm, and sends nothing back
  CHECK(*p.member.submits == 1);
}

TEST_CASE("a member whose key is not a node's is no member") {
  pair p{role::admin};
  p.start_hub();
  p.start_member();
  REQUIRE(eventually([&] { return p.at_member->reaches({"alder"}); }));
  CHECK(p.ask_hub(2).second.code == ec::forbidden);
  CHECK_FALSE(p.at_hub->reaches({"birch"}));
}

TEST_CASE("a member whose key is revoked loses its session at once") {
  pair p;
  p.start_hub();
  p.start_member();
  REQUIRE(eventually([&] { return p.connected(); }));
  p.hub.allowed.key.clear();
  REQUIRE(rt::write_authorized(p.hub.options.authorized, p.hub.allowed));
  CHECK(eventually([&] { return !p.at_hub->reaches({"birch"}) && !p.at_member->reaches({"alder"}); }));
  CHECK(p.ask_hub(2).second.code == ec::peer_down);
  CHECK(p.ask_member(2).second.code == ec::peer_down);
}

TEST_CASE("a node that is not the one it was taken for is hung up on") {
  pair p;
  p.hub.options.sessions.peers.node.value = "aspen";
  p.start_hub();
  p.start_member();
  CHECK_FALSE(eventually([&] { return p.at_member->reaches({"alder"}); }, 500ms));
}

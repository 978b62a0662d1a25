#pragma once

#include "runtime/curve.hpp"
#include "runtime/mesh.hpp"
#include "runtime/reply_port.hpp"

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

/// All sessions of a node with its clients and with other nodes: who they are, what they may, what they are sent. Knows
/// no sockets.
namespace coppice::rt {

/// What BRIDGE has seen; outlives its incarnations. Any thread may read.
struct bridge_counters {
  std::atomic<std::uint64_t> sessions{0};    ///< open now
  std::atomic<std::uint64_t> requests{0};    ///< delivered to actors
  std::atomic<std::uint64_t> bad_frames{0};  ///< dropped: they do not decode or make no sense (INV-14)
  std::atomic<std::uint64_t> forbidden{0};   ///< refused: the role may not, or the key is not let in any more (INV-15)
  std::atomic<std::uint64_t> limited{0};     ///< refused or dropped: over the rate
  std::atomic<std::uint64_t> unread{0};      ///< answers nobody could be given
  std::atomic<std::uint64_t> denied_keys{0}; ///< handshakes refused by the ZAP handler
  std::atomic<std::uint64_t> self_tests{0};  ///< passed: a random key was refused
};

struct session_options {
  peer_options peers;
  rate_limit::options rate;
  rate_limit::options node_rate{.per_second = 200'000, .burst = 400'000}; ///< of a key of role node
  std::chrono::milliseconds call_deadline{30'000};
  std::size_t sessions_max = 4096;
  std::size_t sessions_per_key_max = 256;
  node_id relay_to = {};                   ///< what is not exposed here, but listed in `relayed`, is asked of that node
  std::set<std::string, std::less<>> relayed = {};
};

class sessions {
public:
  /// Hands a frame to the socket; false if that peer cannot be reached any more.
  using sender = std::function<bool(const std::string& route, const frame& f)>;
  /// `users` must outlive this, and be refreshed by the caller, who then calls revoke().
  sessions(const session_options& o, const allow_list& users, std::shared_ptr<const registry> exposed,
           caf::strong_actor_ptr port, std::shared_ptr<bridge_counters> counters, sender send,
           std::shared_ptr<rt::mesh> mesh = {}, std::shared_ptr<outbox> out = {});
  ~sessions();

  enum class verdict {
    taken,
    intruder ///< no proof who sent it: the door is open, nothing may be believed
  };
  /// A message came from the connection `route`; `key` is what the ZAP handler set as its User-Id.
  verdict heard(const std::string& route, const std::optional<std::string>& key,
                const std::vector<std::string_view>& parts, instant now);
  /// Greets the node of that name over a socket of ours; false if it takes nothing yet.
  bool dial(const std::string& route, const node_id& node, instant now);
  /// A message came from a node that was dialled.
  void heard_dialled(const std::string& route, const std::vector<std::string_view>& parts, instant now);
  bool has(const std::string& route) const { return sessions_.contains(route); }
  /// True if the node that was dialled said welcome.
  bool welcomed(const std::string& route) const;
  /// Sends what came through the outbox: to each peer in this order, to another node several at once.
  void deliver(std::vector<answer> all);
  /// Ends sessions whose peers are silent, and answers overdue calls. A few times a second.
  void tick(instant now);
  /// Ends the sessions of keys that are not let in any more.
  void revoke();
  /// Whether this key, which is let in, may open a connection now: that counts against its rate like a message.
  bool may_connect(const std::string& key, instant now);

private:
  struct session {
    std::string key; ///< empty: it was dialled, and has the key that was expected
    std::shared_ptr<rt::line> line;
    rt::peer peer;
    node_id node = {};     ///< whom it was opened with, once that is known; empty: a client
    node_id expected = {}; ///< who was dialled
  };
  using table = std::map<std::string, session, std::less<>>;

  bool within_rate(const std::string& key, const std::string& route, const envelope* head, instant now);
  rate_limit& rate_of(const std::string& key);
  table::iterator enter(const std::string& route, const std::string& key);
  table::iterator leave(table::iterator i);
  void refuse(const std::string& route, ec code, std::string why);
  /// Takes what one message says.
  void take(table::iterator i, const envelope& head, const caller& who, std::string_view body, instant now);
  void unbundle(table::iterator i, const caller& who, std::string_view body, instant now);
  /// All of one line and stream.
  void deliver(std::span<answer> some);
  bool perform(table::iterator i, const peer::effects& effects, const caller& who, std::string_view body, instant now);
  void dispatch(session& s, const envelope& head, const caller& who, std::string_view body, instant now);
  /// Of a client of the node `from`, which vouches for it: what is not a node's to say stays forbidden.
  static caller on_behalf(const envelope& head, const node_id& from);
  /// "elm/observatory" is that of elm, "observatory" this node's own.
  std::pair<node_id, std::string> addressed(const std::string& target) const;
  /// On its way to that node, if need be through the one that is relayed to.
  expected<registry::found> relay(const node_id& node, const std::string& target, const envelope& head, const caller& who,
                                  std::string_view body, caf::message& message);
  void on_words(session& s, const envelope& head, const node_id& from, std::string_view body, instant now);
  bool on_opened(table::iterator i, const peer::opened& said, const caller& who);
  void count_bad(const std::string& key, std::string_view why, instant now);

  session_options options_;
  const allow_list& users_;
  std::shared_ptr<const registry> exposed_;
  caf::strong_actor_ptr port_;
  std::shared_ptr<bridge_counters> counters_;
  sender send_;
  std::shared_ptr<rt::mesh> mesh_; ///< null: no nodes
  std::shared_ptr<outbox> out_;
  table sessions_; ///< by route
  std::map<std::string, std::size_t> per_key_;
  std::map<std::string, rate_limit, std::less<>> rates_; ///< by key; only of keys that are let in
  instant next_bad_line_{};
};

} // namespace coppice::rt

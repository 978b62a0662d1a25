#pragma once

#include "runtime/restart_policy.hpp"

#include <optional>
#include <set>
#include <vector>

/// What the end of one child means for all children of its supervisor, and for the supervisor: pure, no clock.
namespace coppice::rt {

/// Which children follow when one is restarted.
enum class strategy : std::uint8_t {
  one_for_one,  ///< none
  one_for_all,  ///< all
  rest_for_one, ///< those declared after it
  dynamic       ///< none; children also come and go at run time
};

/// Decides for one supervisor which children start and stop, in which order, and when it gives up. It is told all that
/// happens to children; after each such news, and when it asked to be woken, `next` says what is to be done, once.
class child_group {
public:
  using time = restart_policy::time; ///< never goes backwards
  using child_id = restart_policy::child_id;

  /// `seed` spreads the delays of supervisors that fail together.
  child_group(strategy how, restart_options restarts, std::uint64_t seed);

  // -- news -------------------------------------------------------------------

  /// A further child, the last in order, that wants to be started. If `runs`, it still does for a predecessor of the
  /// supervisor: it is stopped first, and until all such have ended none is started. If `own_restarts_max` is not 0,
  /// its deaths are counted for it alone: more than so many, as the supervisor counts, and it has ended for good.
  child_id add(restart_kind kind, bool runs, time now, std::size_t own_restarts_max = 0);
  /// It is to end for good; true if it was waiting to be started, and so has ended now.
  bool dismiss(child_id child);
  /// Forgets a child that has ended for good.
  void remove(child_id child, time now);
  /// It is ready; false if that is late news.
  bool up(child_id child);

  /// What a child's end is.
  enum class fate : std::uint8_t {
    restarts,    ///< a death: it is started again once it is `due`
    rejoins,     ///< a stop as ordered: the same
    stopped,     ///< a stop as ordered, for good
    stays_ended, ///< by itself, for good
    spent,       ///< a death too many of its own, for good
    gives_up     ///< a death too many: all others are stopped, too
  };
  struct verdict {
    fate what;
    time due{0};
  };
  verdict ended(child_id child, bool abnormal, time now);

  /// What follows when the time to start or to stop that a child was given is over.
  enum class patience : std::uint8_t {
    left,     ///< nothing: it did in time
    kill,     ///< it did not stop: order it to in a way that cannot be refused, and give it time again
    no_start, ///< it is cut off as it is, and has `ended`
    no_stop   ///< the same; it would not even be killed
  };
  patience late(child_id child);
  /// All are to stop for good, and none starts again.
  void finish();

  // -- what is to be done -----------------------------------------------------

  struct stop_order {
    child_id child;
    bool again; ///< it is started again later
    friend bool operator==(stop_order, stop_order) = default;
  };
  struct orders {
    std::vector<stop_order> stop;
    std::vector<child_id> start;
    std::optional<time> wake; ///< when a child is due that nothing else holds up
    bool over = false;        ///< `finish` was called or a child given up, and nothing runs any more
    friend bool operator==(const orders&, const orders&) = default;
  };
  orders next(time now);

  bool finishing() const { return finishing_; }
  /// Deaths that count now against the supervisor.
  std::size_t recent_deaths(time now) { return policy_.recent_deaths(now); }

private:
  enum class phase : std::uint8_t { ended, due, starting, up, stopping };
  struct child {
    restart_kind kind;
    std::size_t own_restarts_max;
    phase at = phase::due;
    time due{0};         // when `at` is due
    bool doomed = false; // runs, and is stopped when its turn comes
    bool again = false;  // once stopped, it is due
    bool killed = false;
  };

  /// Nothing is to be done about it, until something happens.
  static bool settled(const child& c) { return !c.doomed && (c.at == phase::up || c.at == phase::ended); }
  bool dynamic() const { return how_ == strategy::dynamic; }
  /// The children live and die together, in order.
  bool grouped() const { return how_ == strategy::one_for_all || how_ == strategy::rest_for_one; }
  void doom(child_id id, child& c, bool again);
  void doom_followers(child_id of);
  void stop_doomed(orders& out);
  void start_due(orders& out, time now);
  bool quiet() const;

  strategy how_;
  restart_policy policy_;
  std::map<child_id, child> children_; // in order
  std::set<child_id> unsettled_;       // all that next() must look at
  child_id last_id_ = 0;
  bool cleaning_ = false; // children of a predecessor are still being stopped
  bool finishing_ = false;
};

} // namespace coppice::rt

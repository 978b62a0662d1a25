#pragma once

#include "nix/store_path.hpp"

#include <array>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <set>

namespace coppice::actors {

/// Ways by which paths come to a machine. None holds up another, but what is fetched ahead waits until nothing else
/// does.
enum class fetch_lane : std::uint8_t {
  farm,     ///< wanted by a build, from machines of the farm
  upstream, ///< likewise, from the caches of others, which may trickle
  ahead,    ///< not wanted yet, from machines of the farm
  last_ = ahead
};

/// Which path is fetched next. Decides. Each is fetched once at a time, whoever wants it.
class fetch_queue {
public:
  struct limits {
    std::array<std::size_t, 3> running_max{8, 8, 2}; ///< at once, by lane; further ones wait
  };
  fetch_queue() : fetch_queue(limits{}) {}
  explicit fetch_queue(limits l) : limits_(l) {}

  /// It is wanted. False if it is under way already; what only waits to be fetched ahead then goes on as wanted.
  bool add(const nix::store_path& path, fetch_lane lane);
  /// What is to be fetched now, as it is told; none if nothing may begin.
  std::optional<nix::store_path> next();
  /// It is here, or it is not and will not come.
  void on_ended(const nix::store_path& path);
  /// Forgets what waits to be fetched ahead: others may be wanted sooner by now. Told are the paths.
  std::set<nix::store_path> drop_ahead();

  bool contains(const nix::store_path& path) const { return lanes_.contains(path); }
  std::size_t running(fetch_lane lane) const { return running_[index(lane)]; }
  std::size_t waiting(fetch_lane lane) const { return waiting_[index(lane)].size(); }

private:
  static std::size_t index(fetch_lane lane) { return static_cast<std::size_t>(lane); }
  struct place {
    fetch_lane lane;
    bool running = false;
  };
  limits limits_;
  std::map<nix::store_path, place> lanes_;
  std::array<std::deque<nix::store_path>, 3> waiting_;
  std::array<std::size_t, 3> running_{};
};

} // namespace coppice::actors

#pragma once

#include "actors/capacity.hpp"
#include "actors/settings.hpp"
#include "messages/pipeline.hpp"

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace coppice::actors {

/// Whether the machine is so busy that a further build would only hold up those that run. Shut from one of the settings
/// on, and open again when all are below open_percent of theirs, so that it does not swing.
class pressure_door {
public:
  static constexpr std::uint32_t open_percent = 75;

  explicit pressure_door(const pressure_settings& limits) : limits_(limits) {}
  void on_measured(const machine_pressure& now);
  /// Empty if it is open, else why not, in words that follow the machine's name.
  const std::string& shut() const { return shut_; }

private:
  pressure_settings limits_;
  std::string shut_;
};

/// What of this machine builds may still reserve, beside what it keeps for itself. A running build counts with its
/// whole reserve until it is over, besides what it is seen to use: too careful rather than too late.
class room {
public:
  struct fit {
    std::uint32_t builds = 0; ///< more than run now
    std::string short_of;     ///< what there is too little of for any more, in words that follow the machine's name
  };

  room(machine_share share, const reserve_settings& floors, const pressure_settings& pressure = {})
      : share_(std::move(share)), floors_(floors), door_(pressure) {}

  void on_measured(const machine_room& now) {
    now_ = now;
    door_.on_measured(now.pressure);
  }
  /// As last measured; all zero before.
  machine_room now() const { return now_.value_or(machine_room{}); }
  /// How many builds that take so much fit besides those that have reserved so much; none before the first measurement.
  fit fits(const capacity& reserved, const capacity& each) const;
  /// What is left besides that; with the machine's floors kept.
  machine_share share(const capacity& reserved) const;

private:
  machine_share share_; ///< as if nothing were reserved, or measured
  reserve_settings floors_;
  pressure_door door_;
  std::optional<machine_room> now_;
};

/// How busy the machine is, by /proc/pressure, or by the load average where there is none. Blocks as any file.
machine_pressure measure_pressure(const std::filesystem::path& proc = "/proc");

/// What this machine has, the least that is free on the file systems of `disks`, and what `drain_mark` says. Blocks: for
/// pool threads.
expected<machine_room> measure_room(const std::vector<std::filesystem::path>& disks,
                                    const std::filesystem::path& drain_mark);

/// The file whose being there says that the machine is drained, and whose text says why. Durable on return. Blocks.
expected<void> set_drain_mark(const std::filesystem::path& drain_mark, bool drained, const std::string& why);

} // namespace coppice::actors

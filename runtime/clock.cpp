#include "runtime/clock.hpp"

#include <ctime>

namespace coppice::rt {

boot_clock::time_point boot_clock::now() noexcept {
  timespec t{};
  clock_gettime(CLOCK_BOOTTIME, &t); // cannot fail with this clock and a valid pointer
  return time_point{std::chrono::seconds{t.tv_sec} + std::chrono::nanoseconds{t.tv_nsec}};
}

std::chrono::system_clock::time_point manual_clock::wall_now() const {
  using namespace std::chrono;
  return system_clock::time_point{sys_days{year{2020} / January / 1}} +
         duration_cast<system_clock::duration>(now().time_since_epoch());
}

} // namespace coppice::rt

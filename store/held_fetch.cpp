#include "store/held_fetch.hpp"

#include <array>
#include <vector>

namespace coppice::store {

namespace {

constexpr std::size_t block_bytes = 256 * 1024;

ec code_of(long status) {
  switch (status) {
  case 404: return ec::missing;
  case 503: return ec::overloaded;
  default: return ec::bad_message;
  }
}

} // namespace

std::string held_target(const path_info& info) {
  return std::string{held_prefix} + info.nar_hash.to_string() + "/" + std::string{info.path.base_name()};
}

expected<void> held_fetch::fetch(const std::string& base_url, const path_info& info, std::uint64_t& at,
                                 const byte_sink& out) {
  for (unsigned cuts = 0, barren = 0;;) {
    const auto before = at;
    bool ours = false;
    auto done = once(base_url, info, at, out, ours);
    if (done || ours || done.error().code != ec::unavailable) return done;
    barren = at > before ? 0 : barren + 1;
    if (++cuts > options_.cuts_max || barren > options_.barren_max) return done;
    pause_unless(stop_, options_.retry_delay * (barren + 1));
  }
}

/// `ours` is set if it was the sink that refused.
expected<void> held_fetch::once(const std::string& base_url, const path_info& info, std::uint64_t& at,
                                const byte_sink& out, bool& ours) {
  http_request request{"GET", base_url + held_target(info), {}, {}};
  if (at > 0) request.headers.push_back("Range: bytes=" + std::to_string(at) + "-");
  http_exchange x{connections_, std::move(request), options_.patience, options_.ahead_bytes_max, stop_};
  const auto status = x.status();
  if (!status) return tl::unexpected(status.error());
  if (*status != (at > 0 ? 206 : 200))
    return fail(code_of(*status),
                base_url + held_target(info) + ": answered " + std::to_string(*status) + ": " + x.words());
  const auto size = std::to_string(info.nar_size);
  const auto told = at > 0 ? x.header("Content-Range") : x.header("Content-Length");
  const auto due = at > 0 ? "bytes " + std::to_string(at) + "-" + std::to_string(info.nar_size - 1) + "/" + size : size;
  if (told != due)
    return fail(ec::bad_message, base_url + held_target(info) + ": offers '" + told + "' where '" + due + "' is due");
  std::vector<char> block(block_bytes);
  while (at < info.nar_size) {
    const auto got = x.read(block);
    if (!got) return tl::unexpected(got.error());
    if (*got == 0) return fail(ec::unavailable, base_url + held_target(info) + ": ends too early");
    if (auto taken = out({block.data(), *got}); !taken) return ours = true, taken;
    at += *got;
  }
  x.words(); // nothing comes, but the connection can be used again
  return {};
}

} // namespace coppice::store

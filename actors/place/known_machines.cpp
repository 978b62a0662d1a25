#include "actors/place/known_machines.hpp"

#include "messages/check_farm.hpp"
#include "messages/wire.hpp"
#include "store/files.hpp"

namespace coppice::actors {
namespace {

constexpr std::uint64_t file_bytes_max = 64 << 20;

} // namespace

expected<known_machines> read_known_machines(const std::filesystem::path& file) {
  auto bytes = store::read_file(file, file_bytes_max);
  if (!bytes && bytes.error().code == ec::missing) return known_machines{};
  if (!bytes) return tl::unexpected(bytes.error());
  auto all = wire::decode<known_machines>(*bytes);
  if (!all) return fail(ec::corrupt, file.string() + ": " + all.error().what);
  for (const auto& m : all->rows)
    if (auto ok = check(m.what); !ok) return fail(ec::corrupt, file.string() + ": " + ok.error().what);
  return all;
}

expected<void> write_known_machines(const std::filesystem::path& file, const known_machines& all) {
  return store::replace_file(file, wire::encode(all));
}

} // namespace coppice::actors
